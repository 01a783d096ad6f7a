"""The main job on real Envoys: a namespace goes STRICT and comes back, and nothing is left.

Each test has a lab of its own; with MESHTLS_TEST_KUBECONFIG they run against that cluster instead, and what only a lab can do
is skipped with its reason. Commands are run as a user runs them: as processes, judged by exit code and report.
"""

import json
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from scene import until

from meshtls.cluster.client import Client
from meshtls.lab import Lab, state

CLUSTER = os.environ.get("MESHTLS_TEST_KUBECONFIG", "")
SHOP = pathlib.Path(__file__).parents[2] / "examples" / "shop"
pytestmark = pytest.mark.cluster if CLUSTER else pytest.mark.lab
only_in_a_lab = pytest.mark.skipif(bool(CLUSTER), reason="is about the lab's own process")


class Cluster:
    """A cluster with the shop in it, in place of a lab."""

    kubeconfig = CLUSTER

    def client(self) -> Client:
        return Client.connect(kubeconfig=CLUSTER)

    def __enter__(self) -> "Cluster":
        self.kubectl("apply", "-f", str(SHOP))
        for namespace in ("shop", "payments", "data", "platform", "legacy", "monitoring"):
            self.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pods", "--all", "--timeout=180s")
        return self

    def __exit__(self, *_: object) -> None:
        self.kubectl("delete", "--wait", "--ignore-not-found", "-f", str(SHOP))

    def kubectl(self, *args: str) -> None:
        beside = pathlib.Path(sys.executable).with_name("kubectl")
        command = [str(beside) if beside.exists() else "kubectl", "--kubeconfig", CLUSTER, *args]
        subprocess.run(command, check=True, capture_output=True, timeout=300)


@pytest.fixture
def lab() -> Iterator[Lab | Cluster]:
    with Cluster() if CLUSTER else Lab(manifests=[SHOP]) as target:
        yield target


def run(lab: Lab | Cluster, *args: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "KUBECONFIG": lab.kubeconfig}
    command = [sys.executable, "-m", "meshtls.cli.main", *args]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def created(lab: Lab | Cluster) -> list[str]:
    """What commands made and ought to have removed."""
    with lab.client() as client:
        kinds = ("Pod", "ConfigMap", "Service")
        found = [o for kind in kinds for o in client.list(kind, labels="app.kubernetes.io/managed-by=meshtls")]
    return [o["metadata"]["name"] for o in found if not o["metadata"]["name"].startswith("meshtls-journal")]


def policies(lab: Lab | Cluster, namespace: str) -> dict[str, Any]:
    with lab.client() as client:
        return {o["metadata"]["name"]: o["spec"] for o in client.list("PeerAuthentication", namespace)}


def seen_billing(lab: Lab | Cluster) -> bool:
    return run(lab, "observe", "-n", "payments", "-o", "json").stdout.count("billing") > 0


def test_the_audit_names_the_troubles_of_the_shop(lab: Lab | Cluster) -> None:
    done = run(lab, "audit", "-A", "-o", "json", "--show", "info")

    assert done.returncode == 1, done.stderr
    text = done.stdout
    for trouble in ("inventory-debugging", "gateway-for-billing", "policy.shop.example", "nightly-export", "scraper", "billing"):
        assert trouble in text, trouble


def test_every_probe_cell_is_as_predicted_and_nothing_is_left(lab: Lab | Cluster) -> None:
    done = run(lab, "probe", "-n", "shop,legacy", "-o", "json")

    assert done.returncode == 0, done.stderr[-500:]
    cells = [cell for matrix in json.loads(done.stdout)["matrices"] for cell in matrix["cells"]]
    assert len(cells) > 40
    assert all(cell["ok"] is True for cell in cells)
    assert created(lab) == []


def test_a_probe_that_is_interrupted_leaves_nothing(lab: Lab | Cluster) -> None:
    environment = {**os.environ, "KUBECONFIG": lab.kubeconfig}
    command = [sys.executable, "-m", "meshtls.cli.main", "probe", "-n", "shop"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as probe:
        until(lambda: created(lab))
        probe.send_signal(signal.SIGINT)
        assert probe.wait(60) == 130
    assert created(lab) == []


def test_a_namespace_without_plaintext_goes_strict_and_back(lab: Lab | Cluster) -> None:
    before = policies(lab, "shop")
    done = run(lab, "migrate", "apply", "-n", "shop", "--yes", "--soak", "2s")

    assert done.returncode == 0, done.stdout + done.stderr
    assert policies(lab, "shop")["default"]["mtls"] == {"mode": "STRICT"}
    back = run(lab, "migrate", "rollback", "-n", "shop", "--yes")
    assert back.returncode == 0, back.stdout + back.stderr
    assert policies(lab, "shop") == before


def test_a_plaintext_client_holds_its_namespace_and_is_named(lab: Lab | Cluster) -> None:
    until(lambda: seen_billing(lab))
    before = policies(lab, "payments")
    done = run(lab, "migrate", "apply", "-n", "payments", "--yes", "--soak", "2s")

    assert done.returncode == 4, done.stdout + done.stderr
    assert "Deployment/legacy/billing" in done.stdout
    assert policies(lab, "payments") == before


def test_a_refused_client_takes_the_step_back_by_itself(lab: Lab | Cluster) -> None:
    until(lambda: seen_billing(lab))
    before = policies(lab, "payments")
    done = run(lab, "migrate", "apply", "-n", "payments", "--yes", "--soak", "20s", "--force")

    assert done.returncode == 4, done.stdout + done.stderr
    assert "REFUSED Deployment/legacy/billing" in done.stderr
    assert "rolled back" in done.stderr
    assert policies(lab, "payments") == before


@only_in_a_lab
def test_a_lab_that_was_killed_leaves_nothing_after_down() -> None:
    name = f"killed-{os.getpid()}"
    command = [sys.executable, "-m", "meshtls.cli.main", "lab"]
    subprocess.run([*command, "up", "--name", name, "-f", str(SHOP), "--wait"], check=True, capture_output=True, timeout=90)
    found = state.load(name)
    assert found is not None
    os.kill(found.pid, signal.SIGKILL)
    subprocess.run([*command, "down", "--name", name], check=True, capture_output=True, timeout=30)

    assert not state.directory(name).exists()
    assert not found.mark or not list(state.marked(found.mark))


@only_in_a_lab
def test_the_api_serves_tls_on_loopback_only(lab: Lab) -> None:
    found = state.load(lab.name)
    assert found is not None
    host, _, port = found.server.removeprefix("https://").partition(":")
    assert host == "127.0.0.1"
    context = ssl.create_default_context(cafile=str(state.directory(lab.name) / "ca.crt"))
    with socket.create_connection((host, int(port)), timeout=5) as raw, context.wrap_socket(raw, server_hostname=host) as tls:
        assert tls.version() == "TLSv1.3"
    assert os.stat(lab.kubeconfig).st_mode & 0o777 == 0o600
