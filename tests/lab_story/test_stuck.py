"""A proxy that does not hear of the change: no stage passes on the word of the others."""

from collections.abc import Iterator

import pytest
import scene
from click.testing import CliRunner
from scene import Json, container, lines, policy, service, until

from meshtls.cli import witness
from meshtls.cli.migrate import migrate
from meshtls.lab import Lab

pytestmark = pytest.mark.lab
# answers over HTTP, and asks the other server through its own sidecar all the time, so that there is mTLS to hear
PEER = scene.HTTP + """
import http.client, sys, threading, time
threading.Thread(target=server.serve_forever, daemon=True).start()
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


def server(name: str, other: str) -> list[Json]:
    labels = {"app": name}
    app = container(PEER, other, ports=[{"containerPort": 8080}])
    template = {"metadata": {"labels": labels}, "spec": {"containers": [app], "terminationGracePeriodSeconds": 1}}
    return [
        service(name, "mesh"),
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "mesh"},
         "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}},
    ]  # fmt: skip


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(manifests=[scene.MESHED, policy("PERMISSIVE"), *server("first", "stuck.mesh"), *server("stuck", "first.mesh")]) as lab:
        yield lab


def test_a_namespace_with_a_stuck_proxy_does_not_become_strict(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witness, "CONVERGE_S", 5.0)
    monkeypatch.setenv("KUBECONFIG", lab.kubeconfig)

    with lab.client() as client:
        for name in [pod["metadata"]["name"] for pod in client.list("Pod", "mesh")]:
            # a baseline without any arrival would hold the run
            until(lambda name=name: any(" outbound_.8080_" in line for line in lines(client, "mesh", name, "istio-proxy")))
            if name.startswith("stuck"):
                client.patch("Pod", name, "mesh", {"metadata": {"annotations": {"lab.meshtls.dev/frozen": "true"}}})

    done = CliRunner().invoke(migrate, ["apply", "-n", "mesh", "--yes", "--soak", "2s"])

    assert done.exit_code == 4, done.output
    assert "stuck" in done.output and "rolled back" in done.output, done.output
    with lab.client() as client:
        found = client.list("PeerAuthentication", "mesh")
        left = [pod["metadata"]["name"] for pod in client.list("Pod") if pod["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") == "meshtls"]
    assert [(one["metadata"]["name"], one["spec"]) for one in found] == [("default", {"mtls": {"mode": "PERMISSIVE"}})]
    assert left == []
