"""An HTTP server on the loopback address, and every way in which it can answer badly."""

from __future__ import annotations

import http.server
import random
import threading
import time
from typing import Any


class Server:
    """An HTTP server on the loopback address that answers as `answer` says."""

    def __init__(self, answer: Any) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                try:
                    answer(self)
                except OSError:  # the client has gone
                    pass
                finally:
                    self.close_connection = True

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                """Stay silent."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Server:
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def send(handler: Any, content: bytes, kind: str = "application/json", length: int = 0) -> None:
    """A whole answer, or one that says it is `length` bytes longer than it is."""
    handler.send_response(200)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(content) + length))
    handler.end_headers()
    handler.wfile.write(content)


def misbehave(rng: random.Random, handler: Any, content: bytes) -> None:
    """Answer as no server should."""
    how = rng.randrange(12)
    if how == 0:
        handler.send_error(rng.choice([400, 401, 404, 429, 500, 503]))
    elif how == 1:
        send(handler, content[: len(content) // 2], length=len(content))
    elif how == 2:
        time.sleep(1.2)
        send(handler, content)
    elif how == 3:
        send(handler, rng.randbytes(rng.choice([1, 1000, 100_000])))
    elif how == 4:
        send(handler, rng.choice([b"", b"null", b"[]", b"{}", b'{"data": [{}]}']))
    elif how == 5:
        send(
            handler, b'{"choices": [{"text": ' + rng.choice([b"5", b"null", b'"\\ud800"']) + b"}]}"
        )
    elif how == 6:
        send(handler, b"<html>Bad gateway</html>", "text/html")
    elif how == 7:
        handler.wfile.write(b"nonsense\r\n\r\n")
    elif how == 8:
        handler.connection.close()
    elif how == 9:
        handler.send_response(302)
        handler.send_header("Location", handler.path)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
    elif how == 10:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        for _ in range(40):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.1)
    else:
        send(handler, b"[" * 100_000)
