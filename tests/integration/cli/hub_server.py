"""A Hugging Face hub on loopback with one model, whose downloads can be cut off or corrupted."""

import hashlib
import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """Serves the files of one model; a context manager."""

    def __init__(self, name: str, files: Mapping[str, bytes]) -> None:
        self.name = name
        self.files = dict(files)
        # Bodies by file name that are sent instead of the true ones.
        self.corrupt: dict[str, bytes] = {}
        # The name of a file whose downloads end in the middle.
        self.cut_off = ""
        # The first byte of every download, by file.
        self.starts: list[tuple[str, int]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _tree(self) -> list[dict[str, object]]:
        return [
            {
                "type": "file",
                "path": path,
                "size": len(body),
                "oid": hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest(),
                **({"lfs": _lfs(body)} if path.endswith(".safetensors") else {}),
            }
            for path, body in self.files.items()
        ]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self._file(with_body=False)

            def do_GET(self) -> None:
                if "/tree/" in self.path:
                    self._json(hub._tree())
                elif self.path.startswith("/api/models/"):
                    siblings = [{"rfilename": path} for path in hub.files]
                    self._json({"id": hub.name, "sha": COMMIT, "siblings": siblings})
                else:
                    self._file(with_body=True)

            def _json(self, document: object) -> None:
                body = json.dumps(document).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _file(self, *, with_body: bool) -> None:
                name = self.path.split(f"/resolve/{COMMIT}/")[-1]
                true = hub.files.get(name)
                if true is None:
                    self.send_error(404)
                    return
                start = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0])
                body = hub.corrupt.get(name, true)[start:]
                self.send_response(206 if start else 200)
                self.send_header("ETag", f'"{_etag(name, true)}"')
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Content-Length", str(len(body)))
                if start:
                    end = len(true) - 1
                    self.send_header("Content-Range", f"bytes {start}-{end}/{len(true)}")
                self.end_headers()
                if with_body:
                    hub.starts.append((name, start))
                    cut = name == hub.cut_off
                    self.wfile.write(body[: len(body) // 2] if cut else body)
                    self.close_connection = True

        return Handler


def _lfs(body: bytes) -> dict[str, object]:
    digest = hashlib.sha256(body).hexdigest()
    return {"oid": digest, "size": len(body), "pointerSize": 130}


def _etag(name: str, body: bytes) -> str:
    if name.endswith(".safetensors"):
        return hashlib.sha256(body).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
