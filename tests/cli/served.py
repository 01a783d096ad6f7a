"""A cluster as a test wants it: an API server of a few lines over plain HTTP, and a kubeconfig that leads to it."""

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml


class Answering(http.server.BaseHTTPRequestHandler):
    """What every such server needs; `do_GET` is the test's."""

    @property
    def plain_path(self) -> str:
        return self.path.split("?")[0]

    def answer(self, body: dict[str, Any], code: int = 200) -> None:
        raw = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def kubeconfig(folder: Path, handler: type[Answering], contexts: tuple[str, ...] = ("here",)) -> Iterator[str]:
    """The path of a kubeconfig whose contexts all lead to this server; the first is the current one."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    path = folder / "config"
    path.write_text(yaml.safe_dump({
        "current-context": contexts[0], "contexts": [{"name": n, "context": {"cluster": "c", "user": "u"}} for n in contexts],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_address[1]}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}]}))  # fmt: skip
    yield str(path)
    server.shutdown()
    thread.join()
    server.server_close()
