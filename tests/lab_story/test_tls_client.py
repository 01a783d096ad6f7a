"""A client that speaks TLS of its own to a TCP port, as database drivers do: PERMISSIVE passes it through, STRICT refuses it."""

from collections.abc import Iterator

import pytest
import scene
import trustme
from click.testing import CliRunner, Result
from scene import Json, container, lines, namespace, policy, service, until

from meshtls.cli.migrate import migrate
from meshtls.lab import Lab

pytestmark = pytest.mark.lab
DATABASE = """
import os, signal, socket, ssl, tempfile
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
    file.write(os.environ["PAIR"])
    file.flush()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file.name)
with socket.create_server(("", 5432)) as listening:
    while True:
        connection, _ = listening.accept()
        try:
            with context.wrap_socket(connection, server_side=True) as secured:
                secured.sendall(secured.recv(100))
        except OSError:
            pass
"""
DRIVER = """
import socket, ssl, time
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
while True:
    try:
        with context.wrap_socket(socket.create_connection(("db.mesh", 5432), timeout=5), server_hostname="db.mesh") as secured:
            secured.sendall(b"select 1")
            print("answered" if secured.recv(100) else "closed", flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
    time.sleep(0.2)
"""


def deployed(name: str, where: str, app: Json) -> Json:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [app], "terminationGracePeriodSeconds": 1}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": where},
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}}  # fmt: skip


@pytest.fixture
def lab() -> Iterator[Lab]:
    pair = trustme.CA().issue_cert("db.mesh").private_key_and_cert_chain_pem.bytes().decode()
    database = container(DATABASE, env=[{"name": "PAIR", "value": pair}], ports=[{"containerPort": 5432}])
    bare = namespace("bare")
    with Lab(manifests=[scene.MESHED, bare, policy("PERMISSIVE"), service("db", "mesh", ports={"tcp-db": 5432}), deployed("db", "mesh", database),
                        deployed("driver", "bare", container(DRIVER))]) as lab:  # fmt: skip
        with lab.client() as client:
            (driver,) = [pod["metadata"]["name"] for pod in client.list("Pod", "bare")]
            (db,) = [pod["metadata"]["name"] for pod in client.list("Pod", "mesh")]
            until(lambda: "answered" in lines(client, "bare", driver))
            until(lambda: any(" inbound|5432|| " in line for line in lines(client, "mesh", db, "istio-proxy")))
        yield lab


def apply(lab: Lab, monkeypatch: pytest.MonkeyPatch, *more: str) -> Result:
    monkeypatch.setenv("KUBECONFIG", lab.kubeconfig)
    return CliRunner().invoke(migrate, ["apply", "-n", "mesh", "--yes", "--soak", "20s", *more])


def modes(lab: Lab) -> list[tuple[str, Json]]:
    with lab.client() as client:
        return [(one["metadata"]["name"], one["spec"]) for one in client.list("PeerAuthentication", "mesh")]


def test_a_client_with_tls_of_its_own_holds_its_namespace_and_is_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    done = apply(lab, monkeypatch)

    assert done.exit_code == 4, done.output
    assert "MT604" in done.output and "Deployment/bare/driver" in done.output
    assert modes(lab) == [("default", {"mtls": {"mode": "PERMISSIVE"}})]


def test_its_refusal_takes_the_step_back(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    done = apply(lab, monkeypatch, "--force")

    assert done.exit_code == 4, done.output
    assert "REFUSED Deployment/bare/driver" in done.output and "rolled back" in done.output, done.output
    assert modes(lab) == [("default", {"mtls": {"mode": "PERMISSIVE"}})]
