"""A web server on this machine, whose transfers can be spoilt."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pooch
import pytest


class Server:
    """Serves `files` by name, spoilt as `fault` says, and counts who asks."""

    def __init__(self):
        self.files, self.fault, self.asked = {}, None, 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked += 1
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    server.answer(self)

            def log_message(self, *_):
                pass

        self.handler, self.port = Handler, 0
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/"

    def start(self):
        self.http = ThreadingHTTPServer(("127.0.0.1", self.port), self.handler)
        self.port = self.http.server_port
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self):
        self.http.shutdown()
        self.http.server_close()

    def answer(self, request):
        content = self.files.get(request.path.lstrip("/"))
        if content is None or self.fault in (404, 500):
            request.send_error(self.fault or 404)
            return
        half = len(content) // 2
        if self.fault == "corrupted":
            content = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
        request.send_response(200)
        if self.fault != "cut, length unknown":
            request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        cut = self.fault in ("cut", "cut, length unknown")
        request.wfile.write(content[:half] if cut else content)


@pytest.fixture
def server():
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder that downloads are kept in, empty at first."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(pooch, "os_cache", lambda project: folder / project)
    return folder / "vitlib"
