"""Settings that meet each other on one call: whole-address load balancing, headless Services, port-level exceptions, subsets and stuck proxies.
What is sent is read off the packets."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.lab_mesh.rig import Json, Rig, Saw, rig

pytestmark = pytest.mark.lab
STRICT, DISABLE = {"mode": "STRICT"}, {"mode": "DISABLE"}


def istio(kind: str, name: str, **spec: Any) -> Json:
    group = "security" if kind == "PeerAuthentication" else "networking"
    return {"apiVersion": f"{group}.istio.io/v1", "kind": kind, "metadata": {"namespace": "my", "name": name}, "spec": spec}


def person(name: str, app: str = "", **labels: str) -> Json:
    ports = [{"name": "http", "containerPort": 8080}, {"name": "tcp", "containerPort": 9000}]
    metadata = {"namespace": "my", "name": name, "labels": {"app": app or name, **labels}}
    return {"metadata": metadata, "spec": {"serviceAccountName": "default", "containers": [{"name": "app", "ports": ports}]}}


def service(name: str, app: str, **spec: Any) -> Json:
    ports = [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "tcp", "port": 9000}]
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "my", "name": name}, "spec": {"selector": {"app": app}, "ports": ports, **spec}}


OBJECTS = [
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "my", "labels": {"istio-injection": "enabled"}}},
    istio("PeerAuthentication", "default", mtls=STRICT),
    istio("PeerAuthentication", "exception", selector={"matchLabels": {"app": "db"}}, mtls=STRICT, portLevelMtls={"9000": DISABLE}),
    service("db", "db"),
    service("members", "db", clusterIP="None"),
    service("same", "db"),
    istio("DestinationRule", "same", host="same", trafficPolicy={"loadBalancer": {"simple": "PASSTHROUGH"}}),
    service("web", "web"),
    istio(
        "DestinationRule",
        "web",
        host="web",
        subsets=[
            {"name": "old", "labels": {"version": "old"}, "trafficPolicy": {"tls": {"mode": "DISABLE"}}},
            {"name": "new", "labels": {"version": "new"}},
        ],
    ),
]
PODS = [
    person("db-0", "db"),
    person("web-old", "web", version="old"),
    person("web-new", "web", version="new"),
    person("client"),
    person("bare", **{"sidecar.istio.io/inject": "false"}),
]


@pytest.fixture(scope="module")
def wire() -> Iterator[Rig]:
    with rig(OBJECTS, PODS) as one:
        yield one


# who calls, which Service ("" the pod itself), which port, how -> who answers, and what was sent
CALLS = {
    "a port-level exception is sent plaintext by a meshed client": ("client", "db", 9000, "tcp", "my/db-0", "plaintext"),
    "and answers a stranger": ("bare", "db", 9000, "tcp", "my/db-0", "plaintext"),
    "the other port is not excepted": ("client", "db", 80, "http", "my/db-0", "mtls"),
    "a headless Service asks the namespace's policy, not the port's: mTLS meets a port without": ("client", "members", 9000, "tcp", "", "mtls"),
    "called at a port that is only its target, it is no Service: plaintext": ("client", "members", 8080, "http", "", "plaintext"),
    "so does a Service whose caller keeps the address": ("client", "same", 9000, "tcp", "", "mtls"),
    "where the port is not excepted it works": ("client", "same", 80, "http", "my/db-0", "mtls"),
}


@pytest.mark.parametrize("claim", CALLS)
def test_what_is_sent_and_who_answers(claim: str, wire: Rig) -> None:
    client, server, number, protocol, answered, sent = CALLS[claim]
    address = wire.services[f"my/{server}"]
    saw = wire.call(f"my/{client}", wire.addresses["my/db-0"] if address == "None" else address, number, protocol, f"{server}.my")
    assert (saw.answered, saw.flows[-1][2] if saw.flows else "none") == (answered, sent), saw


def led_to(subset: str) -> Json:
    return istio("VirtualService", "web", hosts=["web"], http=[{"route": [{"destination": {"host": "web", "subset": subset}}]}])


def test_a_stuck_client_keeps_the_old_subset_and_how_it_spoke_to_it(wire: Rig) -> None:
    def called() -> Saw:
        return wire.call("my/client", wire.services["my/web"], 80, "http", "web.my")

    def until(what: Callable[[Saw], bool]) -> None:
        """Envoy acknowledges a configuration a moment before all of its workers have it."""
        assert any(what(called()) for _ in range(100)), called()

    def to(server: str, sent: str, answered: bool = True) -> Callable[[Saw], bool]:
        return lambda saw: bool(saw.flows) and (saw.flows[-1][0], saw.flows[-1][2], saw.answered == server) == (server, sent, answered)

    def frozen(value: str | None) -> None:
        client.patch("Pod", "client", "my", {"metadata": {"annotations": {"lab.meshtls.dev/frozen": value}}})

    with wire.lab.client() as client:
        wire.lab.apply(led_to("old"))
        wire.lab.wait()
        until(to("my/web-old", "plaintext", answered=False))
        frozen("true")
        wire.lab.apply(led_to("new"))
        wire.lab.wait()
        assert all(to("my/web-old", "plaintext", answered=False)(called()) for _ in range(5))
        frozen(None)
        wire.lab.wait()
        until(to("my/web-new", "mtls"))
