"""A model hub on the loopback address that holds repositories in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote

COMMIT = "c" * 40


class HubStub:
    """Serves what the Hub's client asks for when it pushes and pulls a model or a data set.

    Attributes:
        repos: Repository id to file name to content; the id of a data set begins with `datasets/`.
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
            folder = "datasets" if name.get("type") == "dataset" else None
            owner = name.get("organization", "user")
            repo = "/".join(filter(None, [folder, owner, name["name"]]))
            self.hub.repos.setdefault(repo, {})
            self._json({"url": f"{self.hub.url}/{repo}"})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif path.endswith("/preupload/main"):
            told = {"uploadMode": "regular", "shouldIgnore": False}
            self._json({"files": [told | {"path": f["path"]} for f in json.loads(body)["files"]]})
        elif match := re.fullmatch(r"/api/(\w+)/(.+)/commit/main", path):
            repo = _key(match)
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.hub.repos[repo][line["value"]["path"]] = content
            url = f"{self.hub.url}/{repo}/commit/{COMMIT}"
            self._json({"commitUrl": url, "commitOid": COMMIT, "success": True})
        elif match := re.fullmatch(r"/api/(\w+)/(.+)/paths-info/.+", path):
            self._entries(_key(match), _asked(body))
        else:
            self._missing()

    def do_HEAD(self) -> None:
        self._file(with_body=False)

    def do_GET(self) -> None:
        path = self._note(record=False)
        if match := re.fullmatch(r"/api/(\w+)/([^/]+/[^/]+)(/revision/.+)?", path):
            self._note()
            self._repository(_key(match))
        elif match := re.fullmatch(r"/api/(\w+)/([^/]+/[^/]+)/tree/[^/]+(/.*)?", path):
            self._note()
            self._tree(_key(match), (match[3] or "").strip("/"))
        else:
            self._file(with_body=True)

    def _repository(self, repo: str) -> None:
        if repo not in self.hub.repos:
            self._missing()
            return
        siblings = [{"rfilename": name} for name in self.hub.repos[repo]]
        self._json({"id": repo, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False})

    def _tree(self, repo: str, folder: str) -> None:
        """Files and folders in a folder, as the Hub lists them; with ?recursive, all below."""
        files = self.hub.repos.get(repo, {})
        folders = {str(each) for name in files for each in PurePosixPath(name).parents} - {"."}
        self._entries(
            repo,
            [
                path
                for path in [*files, *sorted(folders)]
                if _within(path, folder, deep="recursive=true" in self.path.lower())
            ],
        )

    def _entries(self, repo: str, paths: list[str]) -> None:
        files = self.hub.repos.get(repo, {})
        found = []
        for path in paths:
            if path in files:
                known = {"size": len(files[path]), "oid": hashlib.sha1(files[path]).hexdigest()}
                found.append({"type": "file", "path": path} | known)
            elif any(name.startswith(f"{path}/") for name in files):
                found.append({"type": "directory", "path": path, "oid": COMMIT})
        self._json(found)

    def _file(self, *, with_body: bool) -> None:
        path = self._note()
        match = re.fullmatch(r"/(.+?/.+?)/resolve/[^/]+/(.+)", path)
        content = self.hub.repos.get(match[1], {}).get(match[2]) if match else None
        if match is None or content is None:
            known = match is not None and match[1] in self.hub.repos
            self._missing("EntryNotFound" if known else "RepoNotFound")
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
        path = unquote(self.path.partition("?")[0])
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

    def _missing(self, what: str = "RepoNotFound") -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", what)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _key(match: re.Match[str]) -> str:
    """The key in `repos` of a path that names a kind and a repository."""
    return match[2] if match[1] == "models" else f"{match[1]}/{match[2]}"


def _asked(body: bytes) -> list[str]:
    """The paths that a client asks about, in JSON or as a form."""
    return json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"]


def _within(path: str, folder: str, *, deep: bool) -> bool:
    """Whether a path is in a folder, or with `deep` anywhere below it."""
    above = [str(each) if str(each) != "." else "" for each in PurePosixPath(path).parents]
    return folder in (above if deep else above[:1])
