"""A web server on this machine that serves one file and breaks off, lies, stalls and changes its mind."""

import re
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

DATA = np.random.default_rng(0).bytes(600_000)


class Server(ThreadingHTTPServer):
    """Serves one file. Each request takes the next entry of ``script``; without one it is answered as it should be."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.etag, self.headers = DATA, '"one"', {}
        self.script: list[dict] = []
        self.asked: list[tuple[str, str | None]] = []
        self.sent = 0
        self.url = f"http://127.0.0.1:{self.server_port}/file.bin"

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is part of the game."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        server.asked.append((self.path, self.headers.get("Range")))
        act = server.script.pop(0) if server.script else {}
        if "change" in act:
            server.data, server.etag = act["change"], '"two"'
        if "status" in act:
            self.send_error(act["status"])
            return
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        fresh = self.headers.get("If-Range") in (None, server.etag) or act.get("careless")
        if asked and fresh and not act.get("ignore_range"):
            start = int(asked[1])
        if start >= len(server.data):
            self.send_error(416)
            return
        body = server.data[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.data) - 1}/{len(server.data)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        for name, value in server.headers.items():
            self.send_header(name, value)
        if act.get("chunked"):
            self.send_header("Transfer-Encoding", "chunked")
        elif not act.get("no_length"):
            self.send_header("Content-Length", str(act.get("length", len(body))))
        self.end_headers()
        part = body[: act.get("cut", len(body))]
        server.sent += len(part)
        if act.get("chunked"):
            part = b"%x\r\n" % len(part) + part + b"\r\n" + (b"" if "cut" in act else b"0\r\n\r\n")
        self.wfile.write(part)
        self.wfile.flush()
        if "stall" in act:
            time.sleep(act["stall"])
        self.close_connection = bool(act)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
