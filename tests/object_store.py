"""An S3 of our own on loopback, and a proxy before it that fails, cuts and delays."""

import http.client
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

HOP = {"connection", "keep-alive", "transfer-encoding", "host"}


class Killed(BaseException):
    """Takes the place of SIGKILL: nothing that catches exceptions catches it."""


class Proxy(socketserver.ThreadingTCPServer):
    """Forwards to a server at a port.

    Every ``fail``-th request gets a status of 500 in place of an answer, of every ``cut``-th GET half of the body
    comes, and every ``delay``-th request waits; 0 for none.
    """

    allow_reuse_address = daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream: int, fail: int = 0, cut: int = 0, delay: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.fail, self.cut, self.delay = upstream, fail, cut, delay
        self.seen: Counter[str] = Counter()
        self.stored: list[str] = []
        """The keys that were put, in order."""
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def count(self, *what: str) -> int:
        with self.lock:
            self.seen.update(what)
            return self.seen[what[0]]

    def handle_error(self, *_: object) -> None:
        pass  # clients are killed on purpose


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def _forward(self) -> None:
        proxy = self.server
        number = proxy.count("requests", self.command)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if proxy.delay and number % proxy.delay == 0:
            proxy.count("delayed")
            time.sleep(0.2)
        if proxy.fail and number % proxy.fail == 0:
            proxy.count("failed")
            self.send_response(500)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        upstream = http.client.HTTPConnection("127.0.0.1", proxy.upstream)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP - {"host"}}
        upstream.request(self.command, self.path, body, headers)
        answer = upstream.getresponse()
        data = answer.read()
        upstream.close()
        if self.command == "PUT" and answer.status == 200:
            proxy.stored.append(self.path.partition("?")[0])
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP | {"content-length", "date", "server"}:
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        if length is not None:
            self.send_header("Content-Length", length)
        self.end_headers()
        if proxy.cut and self.command == "GET" and len(data) > 1 and proxy.count("bodies") % proxy.cut == 0:
            proxy.count("cut")
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return
        self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _forward  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def bucket(**faults: int) -> Iterator[Proxy]:
    """An empty bucket behind a proxy, which this process and those it starts speak to; ``s3://bucket``."""
    import pytest

    from textdiff.cache.stores.remote import client

    with s3() as port, pytest.MonkeyPatch.context() as patch:
        proxy = Proxy(port, **faults)
        for name, value in settings(proxy.url).items():
            patch.setenv(name, value)
        client.cache_clear()
        try:
            yield proxy
        finally:
            client.cache_clear()
            proxy.shutdown()
            proxy.server_close()


def objects(url: str) -> dict[str, bytes]:
    """The bytes of everything below an address."""
    from textdiff.cache.stores import store_at
    from textdiff.places import located

    store = store_at(located(url))
    keys = [*store.everything()]
    return dict(zip(keys, store.map(store.get, keys), strict=True))


@contextmanager
def s3(bucket: str = "bucket") -> Iterator[int]:
    """A server with an empty bucket; gives its port."""
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        port = server.get_host_and_port()[1]
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("POST", "/moto-api/reset")
        connection.getresponse().read()
        connection.request("PUT", f"/{bucket}")
        connection.getresponse().read()
        yield port
    finally:
        server.stop()


def settings(url: str) -> dict[str, str]:
    """The environment in which obstore speaks to a server."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
