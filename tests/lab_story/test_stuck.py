"""A proxy that does not hear of the change: no stage passes on the word of the others."""

from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from meshtls.cli import witness
from meshtls.cli.migrate import migrate
from meshtls.lab import Lab

pytestmark = pytest.mark.lab
Json = dict[str, Any]
# answers over HTTP, and asks the other server through its own sidecar all the time, so that there is mTLS to hear
PEER = """
import http.client, http.server, os, signal, sys, threading, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *_):
        pass
threading.Thread(target=http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever, daemon=True).start()
while True:
    try:
        connection = http.client.HTTPConnection(sys.argv[1], 8080, timeout=5)
        connection.request("GET", "/")
        connection.getresponse().read()
        connection.close()
    except (OSError, http.client.HTTPException):
        pass
    time.sleep(0.1)
"""
PERMISSIVE = {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": "default", "namespace": "mesh"}, "spec": {"mtls": {"mode": "PERMISSIVE"}}}


def server(name: str, other: str, annotations: dict[str, str] | None = None) -> list[Json]:
    labels = {"app": name}
    container = {"name": "app", "image": "python:3", "command": ["python3", "-u", "-c", PEER, other], "ports": [{"containerPort": 8080}]}
    template = {"metadata": {"labels": labels, "annotations": annotations or {}}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 1}}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "mesh"}, "spec": {"selector": labels, "ports": [{"name": "http", "port": 8080}]}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "mesh"},
         "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}},
    ]  # fmt: skip


@pytest.fixture
def lab() -> Iterator[Lab]:
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "mesh", "labels": {"istio-injection": "enabled"}}}
    stuck = {"lab.meshtls.dev/frozen": "true"}
    with Lab(manifests=[space, PERMISSIVE, *server("first", "stuck.mesh"), *server("stuck", "first.mesh", stuck)]) as lab:
        yield lab


def test_a_namespace_with_a_stuck_proxy_does_not_become_strict(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witness, "CONVERGE_S", 5.0)
    monkeypatch.setenv("KUBECONFIG", lab.kubeconfig)

    done = CliRunner().invoke(migrate, ["apply", "-n", "mesh", "--yes", "--soak", "2s"])

    assert done.exit_code == 4, done.output
    assert "stuck" in done.output and "rolled back" in done.output
    with lab.client() as client:
        found = client.list("PeerAuthentication", "mesh")
        left = [pod["metadata"]["name"] for pod in client.list("Pod") if pod["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") == "meshtls"]
    assert [(one["metadata"]["name"], one["spec"]) for one in found] == [("default", PERMISSIVE["spec"])]
    assert left == []
