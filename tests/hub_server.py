"""A Hugging Face hub on this machine, and processes that ask it, as its client reads the environment once."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download needs, with one model, which may be gated."""

    repository: str
    folder: Path
    gated: bool
    sent: list[str]

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        files = {file.relative_to(self.folder).as_posix(): file for file in self.folder.rglob("*") if file.is_file()}
        model, parts = f"/api/models/{self.repository}", path.split("/resolve/", 1)[-1].split("/", 1)
        if path == model or path in (f"{model}/revision/main", f"{model}/revision/{COMMIT}"):
            about = {"id": self.repository, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
            self.answer(json.dumps(about).encode())
        elif path.startswith(f"{model}/tree/"):
            tree = [self.entry(name, file.read_bytes()) for name, file in files.items()]
            self.answer(json.dumps(tree).encode())
        elif path.startswith(model):
            self.refuse(404, "RevisionNotFound")
        elif path.startswith(f"/{self.repository}/resolve/") and parts[-1] in files:
            if self.gated:
                self.refuse(403, "GatedRepo")
                return
            name, data = parts[-1], files[parts[-1]].read_bytes()
            if self.command == "GET":
                self.sent.append(name)
            self.answer(data, self.etag(name, data))
        else:
            self.refuse(404, "RepoNotFound")

    def etag(self, name: str, data: bytes) -> str:
        large = name.endswith((".bin", ".safetensors"))
        return (hashlib.sha256 if large else hashlib.sha1)(data).hexdigest()

    def entry(self, name: str, data: bytes) -> dict:
        entry: dict = {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
        if name.endswith((".bin", ".safetensors")):
            entry["lfs"] = {"oid": self.etag(name, data), "size": len(data), "pointerSize": 130}
        return entry

    def answer(self, data: bytes, etag: str | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        if etag:
            self.send_header("ETag", f'"{etag}"')
            self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextlib.contextmanager
def serving(repository: str, folder: Path, gated: bool = False) -> Iterator[tuple[str, list[str]]]:
    """The address of a hub that has what is in ``folder`` as ``repository``, and the files it has sent."""
    handler = type("OneModel", (Hub,), {"repository": repository, "folder": folder, "gated": gated, "sent": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", handler.sent
        server.shutdown()


def in_a_process(tmp_path: Path, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs Python code with the hub's cache in ``tmp_path``, and with no other variables of the hub than these."""
    outside = ("HF_", "HUGGING", "TRANSFORMERS", "TEXTDIFF", "XDG", "http", "HTTP", "all_proxy", "ALL_PROXY")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(outside)}
    environment |= {"HF_HOME": str(tmp_path / "hub"), "OMP_NUM_THREADS": "1", **variables}
    imports = (
        "from textdiff.errors import UserError",
        "from textdiff.models import weights",
        "from textdiff.models.downloads import hub",
    )
    code = "\n".join([*imports, code])
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=100, check=False
    )
