"""Whose traffic meets its own proxy: the annotations, modes and users by which istio-init's rules let connections pass, seen from what STRICT says."""

from collections.abc import Iterator

import pytest
import scene
from scene import ASKING, SERVER, Json, container, pod, policy, service, told, until

from meshtls.lab import Lab

pytestmark = pytest.mark.lab
# one request to each host, in one line
ASK = ASKING + """
import json, signal, sys
print(json.dumps({host: answer(host, 10) for host in sys.argv[1:]}), flush=True)
signal.pause()
"""
THROUGH, PAST = 200, "ConnectionResetError"  # of the client's own proxy; a STRICT server resets who comes past it
TRAFFIC = "traffic.sidecar.istio.io/"
CLIENTS = {
    "plain": ({}, {}, THROUGH),
    "port-excluded": ({TRAFFIC + "excludeOutboundPorts": "8080"}, {}, PAST),
    "other-port-excluded": ({TRAFFIC + "excludeOutboundPorts": "9090"}, {}, THROUGH),
    "range-excluded": ({TRAFFIC + "excludeOutboundIPRanges": "10.96.0.0/16"}, {}, PAST),
    "other-range-included": ({TRAFFIC + "includeOutboundIPRanges": "10.99.0.0/16"}, {}, PAST),
    "port-included": ({TRAFFIC + "includeOutboundIPRanges": "", TRAFFIC + "includeOutboundPorts": "8080"}, {}, THROUGH),
    "not-intercepted": ({"sidecar.istio.io/interceptionMode": "NONE"}, {}, PAST),
    "user-1337": ({}, {"runAsUser": 1337}, PAST),
    "group-1337": ({}, {"runAsUser": 1000, "runAsGroup": 1337}, PAST),
}
SERVERS = {
    "captured": ({}, PAST),
    "in-excluded": ({TRAFFIC + "excludeInboundPorts": "8080"}, 200),
    "none-included": ({TRAFFIC + "includeInboundPorts": ""}, 200),
    "other-included": ({TRAFFIC + "includeInboundPorts": "9090"}, 200),
    "one-included": ({TRAFFIC + "includeInboundPorts": "8080"}, PAST),
}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    servers = [one for name, (annotations, _) in SERVERS.items() for one in (service(name, "mesh"), pod(name, "mesh", container(SERVER), annotations=annotations))]
    with Lab(manifests=[scene.MESHED, scene.BARE, policy("STRICT"), *servers]) as lab:
        lab.wait()
        clients = [pod(name, "mesh", container(ASK, "captured.mesh", securityContext=context), annotations=annotations)
                   for name, (annotations, context, _) in CLIENTS.items()]  # fmt: skip
        lab.apply(*clients, pod("outside", "bare", container(ASK, *(f"{name}.mesh" for name in SERVERS))))
        yield lab


def said(lab: Lab, where: str, name: str) -> Json:
    with lab.client() as client:
        found: list[Json] = until(lambda: told(client, where, name))
    return found[0]


@pytest.mark.parametrize("name", CLIENTS)
def test_a_call_meets_the_clients_own_proxy_or_goes_past_it(name: str, lab: Lab) -> None:
    assert said(lab, "mesh", name)["captured.mesh"] == CLIENTS[name][2]


@pytest.mark.parametrize("name", SERVERS)
def test_a_plaintext_call_meets_the_servers_proxy_or_the_application(name: str, lab: Lab) -> None:
    assert said(lab, "bare", "outside")[f"{name}.mesh"] == SERVERS[name][1]
