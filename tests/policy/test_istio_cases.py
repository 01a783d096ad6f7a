"""Istio's own named cases, and its decisions on the client's side, held by the policy engine.

The server's cases and the reachability table are the ones that the lab's Envoys are held to (tests/lab_istio/named_cases.yaml).
"""

import importlib.util
import itertools
from pathlib import Path

import policy_meshes as meshes
import pytest
import yaml

from meshtls.model.objects import PodSpec
from meshtls.policy.authn import Authn
from meshtls.policy.calls import Calls
from meshtls.policy.client import Client
from meshtls.policy.engine import Engine
from meshtls.policy.inject import Injector
from meshtls.policy.outbound import Cluster
from meshtls.policy.scope import Scope
from meshtls.policy.server import Servers, modes

CASES = yaml.safe_load((Path(__file__).parent / "istio_cases.yaml").read_text())
_spec = importlib.util.spec_from_file_location("shared_named_cases", Path(__file__).parents[1] / "lab_istio" / "named_cases.py")
named = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(named)


def cases(table, section):
    return pytest.mark.parametrize("case", table[section], ids=lambda c: c["name"])


# --- injection


@cases(named.CASES, "injection")
def test_the_injector_of_the_right_revision_decides(case):
    injector = Injector(meshes.mesh(list(named.injectors(case))))
    got = injector.decide("n", case.get("namespace", {}), case.get("pod", {}), case.get("annotations", {}), PodSpec())
    assert got.injected is case["injected"]
    assert not got.injected or got.revision == case["by"]


@cases(CASES, "capture")
def test_ztunnel_captures_what_the_cni_agent_selects(case):
    objects = [{"kind": "Namespace", "metadata": {"name": "shop", "labels": case.get("namespace", {})}}]
    pod = meshes.pod("p", proxy=False, labels=case.get("pod"), annotations=case.get("annotations"), **case.get("spec", {}))
    if not case.get("runs"):
        del pod["status"], pod["metadata"]["uid"]
    assert modes(meshes.mesh([*objects, pod]))[0].dataplane == ("ambient" if case["captured"] else "none")


@cases(CASES, "templates")
def test_the_template_decides_what_a_pod_to_be_is(case):
    objects = [{"kind": "Namespace", "metadata": {"name": "shop", "labels": {"istio-injection": "enabled"}}}]
    notes = {"inject.istio.io/templates": case["templates"]} if "templates" in case else {}
    template = {"metadata": {"annotations": notes}, "spec": {"containers": [{"name": "app"}]}}
    web = {"kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"}, "spec": {"template": template}}
    engine = Engine.of(meshes.mesh([*objects, web]))
    (face,) = engine.faces["Deployment/shop/web"]
    assert (face.plane.kind, face.pod.labels.get("security.istio.io/tlsMode")) == (case["dataplane"], case["label"])


@cases(CASES, "ambient revisions")
def test_ambient_pods_follow_the_policies_of_the_control_plane_that_is_there(case):
    policy = meshes.policy("istio-system", "STRICT")
    policy["metadata"]["labels"] = {"istio.io/rev": case["label"]}
    name = "istio" if case["installed"] == "default" else f"istio-{case['installed']}"
    config = {"kind": "ConfigMap", "metadata": {"name": name, "namespace": "istio-system"}, "data": {"mesh": "{}"}}
    pod = meshes.pod("p", proxy=False, annotations={"ambient.istio.io/redirection": "enabled"})
    assert modes(meshes.mesh([config, policy, pod]))[0].mode == case["mode"]


@pytest.mark.parametrize("age, says", [(0, "up to chance"), (1, "is older and wins")])
def test_two_policies_of_one_second_are_told_as_a_tie_in_ambient(age, says):
    pod = meshes.pod("p", proxy=False, annotations={"ambient.istio.io/redirection": "enabled"})
    pair = [meshes.policy("shop", "STRICT", name="a", age=age), meshes.policy("shop", "PERMISSIVE", name="b")]
    (found,) = modes(meshes.mesh([*pair, pod]))
    assert found.mode == "STRICT"
    assert [says in b.says for b in found.shadowed] == [True]


# --- the server's side


@cases(named.CASES, "merge")
def test_policies_merge(case):
    found = meshes.mesh(list(named.policies(case["policies"])))
    effective = Authn(found.peer_authentications, "istio-system").effective("my", {"app": "foo", "stage": "prod"})
    assert (effective.mode, effective.ports) == (case["mode"], case.get("ports", {}))


@cases(named.CASES, "inbound")
def test_a_port_takes_what_its_mode_allows(case):
    found = meshes.mesh(list(named.inbound(case)))
    server = Servers(Engine.of(found)).of(found.pods[0])
    for port, (plain, mtls) in case["calls"].items():
        assert (server.takes(port, "plaintext", True)[0] == "BREAKS") is (plain == "refused"), port
        if server.inbound(port).mode != "DISABLE":  # the cases send mTLS through DISABLE, to an application that would take it
            assert (server.takes(port, "mtls", True)[0] == "WORKS") is (mtls in ("through", "own")), port


@cases(named.CASES, "reachability")
def test_workloads_reach_each_other(case):
    found = meshes.mesh(list(named.reachability(case)))
    calls = Calls(Engine.of(found))
    wheres = {(w.host.name, w.port.name): w for w in calls.ports()}
    faces = {w.name: calls.engine.faces[w.ref][0] for w in found.workloads}
    clients = [c for c in ("a", "b", "tproxy", "naked") if "migration" not in case or c != "naked"]
    targets = [("migration", v) for v in ("vistio", "vlegacy")] if "migration" in case else [(c, c) for c in named.CLASSES]
    protocols = case.get("protocols", ["http"] if "migration" in case else ["http", "https", "tcp"])
    wrong = []
    for client, (server, kind), protocol in itertools.product(clients, targets, protocols):
        if client == server or kind in case.get("without", ()):
            continue
        want = "refused"
        if named.holds(case["ok"], client, kind):
            want = "mtls" if named.holds(case["mtls"], client, kind) else "plaintext"
        if "migration" in case:
            got = _to_subset(calls, faces[client], kind)
        else:
            outcome = calls.to_service(calls.kind(faces[client]), wheres[server, protocol])
            got = "refused" if outcome.verdict == "BREAKS" else outcome.sends
        if got != want:
            wrong.append((client, server, protocol, kind, want, got))
    assert wrong == []


def _to_subset(calls, face, subset):
    """The same by a route that a plain request does not take: straight to the subset's cluster."""
    control = calls.engine.control("")
    scope = Scope(control.registry, control.virtual, "echo", None, control.config.outbound_traffic_policy)
    client = Client(control.registry, control.rules, control.authn, scope, face.pod.namespace, face.pod.labels)
    sent = client.send(Cluster("migration.echo.svc.cluster.local", subset, 80))
    got = {o.sends if calls.servers.of(o.endpoint.pod).takes(o.endpoint.port, o.sends, True)[0] == "WORKS" else "refused" for o in sent.offers}
    assert len(got) == 1
    return got.pop()


# --- the client's side


def config(text):
    return {"kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"}, "data": {"mesh": text}}


def policies(entries):
    return [
        meshes.policy(e["in"], e.get("mode", ""), name=f"p{i}", app=e.get("app", ""), ports=e.get("ports"))
        for i, e in enumerate(entries)
    ]


def server_and_client(case, endpoints):
    pods = [
        meshes.pod(f"server-{i}", ip=f"10.1.0.{i + 1}", proxy=word != "bare",
                   labels={"app": "server", **({"security.istio.io/tlsMode": "disabled"} if word == "off" else {})})
        for i, word in enumerate(endpoints)
    ]  # fmt: skip
    service = meshes.service("server", ip="None" if case.get("headless") else "10.96.0.1")
    return [*pods, service, meshes.pod("client", "front", ip="10.1.0.99"), config(case.get("mesh", ""))]


def check(case, objects):
    sends, verdict = meshes.calls(meshes.mesh(objects))["Pod/front/client", "Service/shop/server", 8080]
    assert (sends, verdict) == (case["sends"], case.get("verdict", "WORKS"))


@cases(CASES, "automatic")
def test_automatic_mtls(case):
    rule = [meshes.rule("front", "server.shop.svc.cluster.local", trafficPolicy=case["tls"])] if "tls" in case else []
    check(case, [*server_and_client(case, case["endpoints"]), *policies(case.get("policies", [])), *rule])


@cases(CASES, "rules")
def test_a_destination_rule_decides(case):
    rule = meshes.rule("front", "server.shop.svc.cluster.local", trafficPolicy=case["tls"])
    check(case, [*server_and_client(case, case["endpoints"]), *policies(case.get("policies", [])), rule])


@cases(CASES, "lookup")
def test_the_rule_that_a_client_finds(case):
    rules = []
    for number, entry in enumerate(case["rules"]):
        spec = {} if entry["tls"] is None else {"trafficPolicy": {"tls": {"mode": entry["tls"]}} if entry["tls"] else {"portLevelSettings": []}}
        if "exportTo" in entry:
            spec["exportTo"] = entry["exportTo"]
        if "selects" in entry:
            spec["workloadSelector"] = {"matchLabels": {"app": entry["selects"]}}
        rule = meshes.rule(entry["in"], entry.get("host", "server.shop.svc.cluster.local"), f"r{number}", **spec)
        rule["metadata"]["creationTimestamp"] = f"2026-01-01T00:00:{30 - entry.get('age', 0):02}Z"
        rules.append(rule)
    found = meshes.mesh([*server_and_client(case, ["car"]), *rules])
    rule = Engine.of(found).control("").rules.find("front", {"app": "client"}, "server.shop.svc.cluster.local", "shop")
    assert (rule.policy.tls.mode if rule and rule.policy and rule.policy.tls else "") == case["found"]


@cases(CASES, "scope")
def test_what_a_client_knows(case):
    objects = server_and_client(case, ["car"])
    if "exportTo" in case:
        next(o for o in objects if o["kind"] == "Service")["metadata"]["annotations"] = {"networking.istio.io/exportTo": case["exportTo"]}
    if "egress" in case:
        spec = {"egress": [{"hosts": case["egress"]}]}
        if "outbound" in case:
            spec["outboundTrafficPolicy"] = {"mode": case["outbound"]}
        if "selects" in case:
            spec["workloadSelector"] = {"labels": {"app": case["selects"]}}
        objects.append({"kind": "Sidecar", "metadata": {"name": "s", "namespace": case.get("in", "front")}, "spec": spec})
    check(case, objects)
