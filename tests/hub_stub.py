"""A model hub on the loopback address that holds repositories in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

COMMIT = "c" * 40


class HubStub:
    """Serves what the Hub's client asks for when it pushes and pulls a model.

    Attributes:
        repos: Repository id to file name to content.
        requests: Every request, "METHOD path".
        cut: File names whose content is sent only in part.
    """

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.requests: list[str] = []
        self.cut: set[str] = set()
        stub = self

        class Handler(_Handler):
            hub = stub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = Thread(target=self.server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> HubStub:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: HubStub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Stay silent."""

    def do_POST(self) -> None:
        path, body = self._note(), self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "/api/repos/create":
            name = json.loads(body)
            repo = "/".join(filter(None, [name.get("organization", "user"), name["name"]]))
            self.hub.repos.setdefault(repo, {})
            self._json({"url": f"{self.hub.url}/{repo}"})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif path.endswith("/preupload/main"):
            told = {"uploadMode": "regular", "shouldIgnore": False}
            self._json({"files": [told | {"path": f["path"]} for f in json.loads(body)["files"]]})
        elif match := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.hub.repos[match[1]][line["value"]["path"]] = content
            url = f"{self.hub.url}/{match[1]}/commit/{COMMIT}"
            self._json({"commitUrl": url, "commitOid": COMMIT, "success": True})
        else:
            self._missing()

    def do_HEAD(self) -> None:
        self._file(with_body=False)

    def do_GET(self) -> None:
        path = self._note(record=False)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/.+)?", path):
            self._note()
            self._repository(match[1])
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/.+", path):
            self._note()
            self._tree(match[1])
        else:
            self._file(with_body=True)

    def _repository(self, repo: str) -> None:
        if repo not in self.hub.repos:
            self._missing()
            return
        siblings = [{"rfilename": name} for name in self.hub.repos[repo]]
        self._json({"id": repo, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False})

    def _tree(self, repo: str) -> None:
        files = self.hub.repos.get(repo, {})
        kinds = {"type": "file"}
        self._json(
            [
                kinds | {"path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
                for name, body in files.items()
            ]
        )

    def _file(self, *, with_body: bool) -> None:
        path = self._note()
        match = re.fullmatch(r"/(.+?/.+?)/resolve/[^/]+/(.+)", path)
        content = self.hub.repos.get(match[1], {}).get(match[2]) if match else None
        if match is None or content is None:
            self._missing()
            return
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            if match[2] in self.hub.cut:
                self.wfile.write(content[: len(content) // 2])
                self.close_connection = True
                return
            self.wfile.write(content)

    def _note(self, *, record: bool = True) -> str:
        path = self.path.partition("?")[0]
        if record:
            self.hub.requests.append(f"{self.command} {path}")
        return path

    def _json(self, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _missing(self) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()
