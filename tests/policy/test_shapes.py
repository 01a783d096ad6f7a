"""Workloads of one shape, and clients of one family, share an answer: it is the same that each would get alone."""

import msgspec
import policy_meshes as meshes

from meshtls.policy.calls import Calls
from meshtls.policy.engine import Engine
from meshtls.policy.server import _of, modes


def test_shared_answers_are_what_each_workload_gets_alone():
    for number, recorded in enumerate(meshes.recorded("istiod.jsonl.gz")):
        if number % 10:
            continue
        objects = recorded["objects"]
        for copy in range(3):  # more of the same, so that there is something to share
            for o in [o for o in recorded["objects"] if o["kind"] in ("Deployment", "ReplicaSet", "Pod")]:
                objects = [*objects, _renamed(o, f"-copy{copy}")]
        found = meshes.mesh(objects)
        alone = [m for w in found.workloads for m in _of(Engine.of(found), w)]
        assert [msgspec.to_builtins(m) for m in modes(found)] == [msgspec.to_builtins(m) for m in alone]


def test_clients_of_one_family_are_answered_as_if_they_had_none():
    shared = 0
    for number, recorded in enumerate(meshes.recorded("istiod.jsonl.gz")):
        if number % 10 == 0:
            shared += _families(meshes.mesh(recorded["objects"]))
    assert shared > 20


def test_a_route_to_a_host_that_a_rule_of_the_clients_namespace_names_is_no_familys():
    rules = [meshes.rule(ns, host, trafficPolicy={"tls": {"mode": mode}}) for ns, host, mode in (
        ("one", "other.shop.svc.cluster.local", "DISABLE"), ("two", "*.shop.svc.cluster.local", "SIMPLE"), ("three", "nothing.else", "DISABLE"))]
    route = {"kind": "VirtualService", "metadata": {"name": "v", "namespace": "shop"}, "spec": {
        "hosts": ["web.shop.svc.cluster.local"], "http": [{"route": [{"destination": {"host": "other.shop.svc.cluster.local"}}]}]}}
    servers = [o for i, name in enumerate(("web", "other")) for o in (meshes.pod(name, ip=f"10.1.1.{i}"), meshes.service(name, ip=f"10.96.1.{i}"))]
    clients = [meshes.pod("client", ns, ip=f"10.1.2.{i}") for i, ns in enumerate(("one", "two", "three", "four"))]
    found = meshes.mesh([*rules, route, *servers, *clients])
    assert _families(found)
    sent = {c: sends for (c, server, _), (sends, _) in meshes.calls(found).items() if server == "Service/shop/web" and "client" in c}
    assert sent == {"Pod/one/client": "plaintext", "Pod/two/client": "tls", "Pod/three/client": "mtls", "Pod/four/client": "mtls"}


def _families(found) -> int:
    """Asserts that no answer depends on whether it is shared; how many classes share theirs."""
    engine = Engine.of(found)
    together, alone = Calls(engine), Calls(engine)
    kinds = {k.key: k for faces in engine.faces.values() for k in together.kinds(faces)}.values()
    for kind in kinds:
        by_itself = msgspec.structs.replace(kind, family=kind.key)
        for where in together.ports():
            assert together.to_service(kind, where) == alone.to_service(by_itself, where)
    return sum(k.family != k.key for k in kinds)


def _renamed(o, suffix):
    meta = {**o["metadata"], "name": o["metadata"]["name"] + suffix, "uid": o["metadata"]["uid"] + suffix}
    if "ownerReferences" in meta:
        meta["ownerReferences"] = [{**r, "name": r["name"] + suffix} for r in meta["ownerReferences"]]
    return {**o, "metadata": meta}
