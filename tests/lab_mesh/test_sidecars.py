"""Proxies that take nothing by themselves, and Sidecars that lead to a pod's own 127.0.0.1: what is sent, read off the packets, under STRICT."""

from collections.abc import Iterator

import pytest

from tests.lab_mesh.rig import Json, Rig, rig

pytestmark = pytest.mark.lab
NONE = {"sidecar.istio.io/interceptionMode": "NONE"}


def person(name: str, *places: str, annotations: Json | None = None, **labels: str) -> Json:
    """A pod of `my` whose application listens on these places."""
    ports = [{"name": f"p{number}", "containerPort": int(place.rpartition(":")[2])} for number, place in enumerate(places)]
    metadata = {"namespace": "my", "name": name, "labels": {"app": name, **labels}, "annotations": annotations or {}}
    return {"metadata": metadata, "spec": {"serviceAccountName": "default", "containers": [{"name": "app", "ports": ports, "args": list(places)}]}}


def service(name: str, **ports: list[int]) -> Json:
    listed = [{"name": title.replace("_", "-"), "port": port, "targetPort": target} for title, (port, target) in ports.items()]
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "my", "name": name}, "spec": {"selector": {"app": name}, "ports": listed}}


def sidecar(name: str, **spec: object) -> Json:
    metadata = {"namespace": "my", "name": name}
    return {"apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "metadata": metadata, "spec": {"workloadSelector": {"labels": {"app": name}}, **spec}}


def port(number: int, protocol: str) -> Json:
    return {"number": number, "protocol": protocol, "name": f"{protocol.lower()}-{number}"}


OBJECTS = [
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "my", "labels": {"istio-injection": "enabled"}}},
    {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"namespace": "my", "name": "default"}, "spec": {"mtls": {"mode": "STRICT"}}},
    service("captured", http=[8080, 8080], tcp=[9000, 9000]),
    service("bound", http=[8080, 8080], tcp=[9000, 9000], tcp_open=[9100, 9100]),
    service("open", http=[8080, 9200]),
    service("inward", http=[8080, 8080], tcp=[9000, 9000]),
    sidecar(
        "bound",
        ingress=[
            {"port": port(8080, "HTTP"), "defaultEndpoint": "127.0.0.1:9080"},
            {"port": port(9000, "TCP"), "bind": "0.0.0.0", "defaultEndpoint": "127.0.0.1:9080"},
        ],
        egress=[{"port": port(8080, "HTTP"), "bind": "127.0.0.1", "captureMode": "NONE", "hosts": ["./*"]}, {"hosts": ["istio-system/*"]}],
    ),
    sidecar(
        "inward",
        ingress=[{"port": port(8080, "HTTP"), "defaultEndpoint": "127.0.0.1:9080"}, {"port": port(9000, "TCP"), "defaultEndpoint": "0.0.0.0:9001"}],
        egress=[{"port": port(8080, "HTTP"), "bind": "127.0.0.1", "captureMode": "NONE", "hosts": ["./captured.my.svc.cluster.local"]}, {"hosts": ["istio-system/*"]}],
        outboundTrafficPolicy={"mode": "REGISTRY_ONLY"},
    ),
]
PODS = [
    person("captured", "8080", "9000"),
    person("bare", "8080", **{"sidecar.istio.io/inject": "false"}),
    person("bound", "9100", "127.0.0.1:9080", annotations=NONE),
    person("open", "9200", annotations=NONE),
    person("inward", "9001", "127.0.0.1:9080"),
]
MTLS, PLAINTEXT, REFUSED = "mtls", "plaintext", "refused"

# who calls, whom ("" the pod's own 127.0.0.1), which port, how, and under what name -> who answers ("" nobody), and what was sent
CALLS = {
    "an ingress of a proxy that takes nothing takes mTLS on the pod's address": ("captured", "bound", 8080, "http", "bound", "my/bound", MTLS),
    "so does one on all addresses, as TCP": ("captured", "bound", 9000, "tcp", "", "my/bound", MTLS),
    "and refuses plaintext over HTTP": ("bare", "bound", 8080, "http", "bound", "", PLAINTEXT),
    "and over TCP": ("bare", "bound", 9000, "tcp", "", "", PLAINTEXT),
    "a port beside it is the application's own: a stranger is answered": ("bare", "bound", 9100, "tcp", "", "my/bound", PLAINTEXT),
    "and a meshed client is not, for it sends mTLS to any pod with a sidecar": ("captured", "bound", 9100, "tcp", "", "", MTLS),
    "without a Sidecar a proxy that takes nothing protects nothing": ("bare", "open", 8080, "http", "open", "my/open", PLAINTEXT),
    "and nobody in the mesh reaches it": ("captured", "open", 8080, "http", "open", "", MTLS),
    "what its own application calls goes past the proxy": ("bound", "captured", 8080, "http", "captured.my", "", PLAINTEXT),
    "unless it calls the egress listener on 127.0.0.1": ("bound", "", 8080, "http", "captured.my", "my/captured", MTLS),
    "which without a Sidecar is there for every Service's port": ("open", "", 8080, "http", "captured.my", "my/captured", MTLS),
    "and for the first Service of a TCP port": ("open", "", 9000, "tcp", "", "my/bound", MTLS),
    "an ingress leads to the pod's 127.0.0.1": ("captured", "inward", 8080, "http", "inward", "my/inward", MTLS),
    "or to its address, at another port": ("captured", "inward", 9000, "tcp", "", "my/inward", MTLS),
    "and takes no plaintext": ("bare", "inward", 8080, "http", "inward", "", PLAINTEXT),
    "an egress listener on 127.0.0.1 leads to the Service that it names": ("inward", "", 8080, "http", "captured.my", "my/captured", MTLS),
    "and to no other": ("inward", "", 8080, "http", "bound.my", "", "none"),
    "called by its own address that Service is not known, for only the listener imports it": ("inward", "captured", 8080, "http", "captured.my", "", "none"),
}


@pytest.fixture(scope="module")
def wire() -> Iterator[Rig]:
    with rig(OBJECTS, PODS) as one:
        yield one


@pytest.mark.parametrize("claim", CALLS)
def test_what_is_sent_and_who_answers(claim: str, wire: Rig) -> None:
    client, server, number, protocol, host, answered, sent = CALLS[claim]
    saw = wire.call(f"my/{client}", wire.services[f"my/{server}"] if server else "127.0.0.1", number, protocol, host)
    assert (saw.answered, saw.flows[-1][2] if saw.flows else "none") == (answered, sent), saw
