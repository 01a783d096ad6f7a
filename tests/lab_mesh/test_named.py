"""Istio's fifteen reachability cases on real Envoys: every class of workload calls every other, and what was sent is read off the packets
between the pods."""

import itertools
import time
from collections.abc import Iterator

import pytest

from tests.lab_istio import named_cases as named
from tests.lab_mesh.rig import Json, Rig, account, rig

pytestmark = pytest.mark.lab
SPOKEN = ("http", "tcp")
CLIENTS = ("a", "b", "tproxy", "naked")


def declared(objects: list[Json]) -> Iterator[Json]:
    """The namespace, the accounts, and the case's Services, policies, rules and routes; addresses and endpoints are the lab's own."""
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "echo", "labels": {"istio-injection": "enabled"}}}
    for name in sorted({o["spec"]["serviceAccountName"] for o in objects if o["kind"] == "Pod"}):
        yield account("echo", name)
    groups = {"PeerAuthentication": "security.istio.io/v1", "DestinationRule": "networking.istio.io/v1", "VirtualService": "networking.istio.io/v1"}
    for o in objects:
        metadata = {k: v for k, v in o["metadata"].items() if k != "creationTimestamp"}
        if o["kind"] in groups:
            yield {"apiVersion": groups[o["kind"]], **o, "metadata": metadata}
        elif o["kind"] == "Service":
            spec = {**o["spec"], "ports": [p for p in o["spec"]["ports"] if p["name"] in SPOKEN]}
            if spec["clusterIP"] != "None":
                del spec["clusterIP"]
            yield {"apiVersion": "v1", **o, "metadata": metadata, "spec": spec}


def pods(objects: list[Json]) -> Iterator[Json]:
    """The case's pods; whether one has a sidecar is the injector's to say."""
    for o in (o for o in objects if o["kind"] == "Pod"):
        proxy = any(c["name"] == "istio-proxy" for c in o["spec"]["containers"])
        labels = {k: v for k, v in o["metadata"]["labels"].items() if k != "security.istio.io/tlsMode"}
        if not proxy:
            labels["sidecar.istio.io/inject"] = "false"
        ports = [{"name": name, "containerPort": named.PORTS[name][1]} for name in SPOKEN]
        spec = {"serviceAccountName": o["spec"]["serviceAccountName"], "containers": [{"name": "app", "ports": ports}]}
        yield {"metadata": {**o["metadata"], "labels": labels}, "spec": spec}


def outcome(wire: Rig, client: str, server: str, protocol: str, path: str) -> str:
    """mtls, plaintext or refused."""
    address, number = wire.services[f"echo/{server}"], named.PORTS[protocol][0]
    if address == "None":
        address, number = wire.addresses[f"echo/{server}"], named.PORTS[protocol][1]
    saw = wire.call(f"echo/{client}", address, number, protocol, f"{server}.echo", path)
    return saw.flows[-1][2] if saw.answered else "refused"


@pytest.mark.parametrize("case", named.CASES["reachability"], ids=lambda case: case["name"])
def test_workloads_reach_each_other_on_the_wire(case: Json) -> None:
    objects = list(named.reachability(case))
    migrates = "migration" in case
    targets = [("migration", v) for v in ("vistio", "vlegacy")] if migrates else [(c, c) for c in named.CLASSES]
    wrong, asked = [], 0
    with rig(declared(objects), pods(objects)) as wire:
        for client, (server, kind), protocol in itertools.product(CLIENTS, targets, ("http",) if migrates else SPOKEN):
            if client == server or kind in case.get("without", ()) or (migrates and client == "naked"):
                continue
            asked += 1
            want = "refused"
            if named.holds(case["ok"], client, kind):
                want = "mtls" if named.holds(case["mtls"], client, kind) else "plaintext"
            got = outcome(wire, client, server, protocol, f"/{kind}")
            if got != want:
                wrong.append((client, server, protocol, kind, want, got))
    assert not wrong
    assert asked >= 6


# --- a port takes what its mode allows

FAR = "far.example.com"


def standing(case: Json) -> tuple[list[Json], list[Json]]:
    """A case's Service, policy and Sidecar with namespaces and accounts around them; the server `my/foo`, and two clients of `other`."""
    objects = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "my", "labels": {"istio-injection": "enabled"}}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other", "labels": {"istio-injection": "enabled"}}},
        *(account(n, a) for n, a in (("my", "foo"), ("other", "car"), ("other", "bare"))),
    ]
    ports = [{"name": f"p{p}", "containerPort": p} for p in case["calls"]]
    people = []
    for namespace, name, listens in (("my", "foo", ports), ("other", "car", ports[:1]), ("other", "bare", ports[:1])):
        labels = {"app": name, **({"sidecar.istio.io/inject": "false"} if name == "bare" else {})}
        spec = {"serviceAccountName": name, "containers": [{"name": "app", "ports": listens}]}
        people.append({"metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": spec})
    for o in named.inbound(case):
        metadata = {k: v for k, v in o["metadata"].items() if k != "creationTimestamp"}
        if o["kind"] == "Service":
            spec = {k: v for k, v in o["spec"].items() if k != "clusterIP"}
            objects.append({"apiVersion": "v1", **o, "metadata": metadata, "spec": spec})
        elif o["kind"] in ("PeerAuthentication", "Sidecar"):
            group = "security" if o["kind"] == "PeerAuthentication" else "networking"
            objects.append({"apiVersion": f"{group}.istio.io/v1", **o, "metadata": metadata})
    return objects, people


def forced(wire: Rig, ports: list[int], http: bool) -> list[Json]:
    """What makes a meshed client of `other` send mTLS to each port of the server's address."""
    address = wire.addresses["my/foo"]
    spec: Json = {
        "hosts": [FAR],
        "addresses": [address],
        "location": "MESH_INTERNAL",
        "resolution": "STATIC",
        "exportTo": ["."],
        "ports": [{"number": p, "name": f"p{p}", "protocol": "HTTP" if http else "TCP"} for p in ports],
        "endpoints": [{"address": address}],
    }
    api, metadata = "networking.istio.io/v1", {"name": "far", "namespace": "other"}
    return [
        {"apiVersion": api, "kind": "ServiceEntry", "metadata": metadata, "spec": spec},
        {"apiVersion": api, "kind": "DestinationRule", "metadata": metadata, "spec": {"host": FAR, "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}}}},
    ]


@pytest.mark.parametrize("case", named.CASES["inbound"], ids=lambda case: case["name"])
def test_a_port_takes_what_its_mode_allows_on_the_wire(case: Json) -> None:
    objects, people = standing(case)
    protocol, ports = "tcp" if case.get("tcp") else "http", list(case["calls"])
    wrong = []
    with rig(objects, people) as wire:
        wire.lab.apply(*forced(wire, ports, protocol == "http"))
        where = wire.addresses["my/foo"]
        for _ in range(100):  # until the client's proxy has heard of it
            flows = wire.call("other/car", where, ports[0], protocol, FAR).flows
            if flows and flows[-1][2] == "mtls":
                break
        for port, (plain, mtls) in case["calls"].items():
            for client, want in (("bare", plain != "refused"), ("car", _reads(case, port) and mtls in ("through", "own"))):
                saw = wire.call(f"other/{client}", where, port, protocol, FAR)
                sent = {flow[2] for flow in saw.flows}
                if bool(saw.answered) is not want or sent != {"mtls" if client == "car" else "plaintext"}:
                    wrong.append((client, port, want, saw))
    assert not wrong


def _reads(case: Json, port: int) -> bool:
    """Whether the proxy ends the mesh's TLS; where it does not, an application would have to."""
    return bool(case.get("ports", {}).get(port, case["mode"]) != "DISABLE")


# --- several policies together

TAKES = {"PERMISSIVE": (True, True), "STRICT": (False, True), "DISABLE": (True, False)}
MERGED_PORTS = (80, 90, 100, 7070, 8000, 8080)


@pytest.fixture(scope="module")
def merging() -> Iterator[Rig]:
    """The merge cases' workload, {app: foo, stage: prod} in `my`, and the two clients that tell a mode."""
    objects, people = standing({"calls": dict.fromkeys(MERGED_PORTS), "mode": "PERMISSIVE", "service": {}})
    people[0]["metadata"]["labels"]["stage"] = "prod"
    with rig([o for o in objects if o["kind"] in ("Namespace", "ServiceAccount")], people) as wire:
        wire.lab.apply(*forced(wire, list(MERGED_PORTS), False))
        yield wire


@pytest.mark.parametrize("case", named.CASES["merge"], ids=lambda case: case["name"])
def test_policies_merge_to_what_the_port_then_takes(case: Json, merging: Rig) -> None:
    lab, where = merging.lab, merging.addresses["my/foo"]
    with lab.client() as client:
        for old in client.list("PeerAuthentication"):
            client.delete("PeerAuthentication", old["metadata"]["name"], old["metadata"]["namespace"])
        born = ""
        for policy in sorted(named.policies(case["policies"]), key=lambda one: (one["metadata"]["creationTimestamp"], one["metadata"]["name"])):
            if born and policy["metadata"]["creationTimestamp"] != born:
                _next_second()
            born = policy["metadata"].pop("creationTimestamp")
            client.create({"apiVersion": "security.istio.io/v1", **policy})
    lab.wait()

    modes = dict.fromkeys(MERGED_PORTS, case["mode"]) | case.get("ports", {})
    wanted = {port: TAKES[mode] for port, mode in modes.items()}
    seen: dict[int, tuple[bool, ...]] = {}
    for _ in range(20):  # Envoy acknowledges a listener a moment before all of its workers have it
        # by TCP: an HTTP request through a proxy may ride a connection from before a change
        seen = {port: tuple(bool(merging.call(f"other/{one}", where, port, "tcp", FAR).answered) for one in ("bare", "car")) for port in modes}
        if seen == wanted:
            break
    assert seen == wanted


def _next_second() -> None:
    """What is created after this is younger to the API, whose times are whole seconds."""
    now = int(time.time())
    while int(time.time()) == now:
        time.sleep(0.01)
