"""The order of several namespaces: who can go, who waits for whom, who is blocked by whom, and what would let them go."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from meshtls import audit, sources
from meshtls.migrate.blockers import Observed, Seen
from meshtls.migrate.waves import Place, State, document, waves
from meshtls.model.mesh import Mesh
from meshtls.policy.change import strict
from meshtls.policy.predict import groups
from meshtls.policy.server import BREAKS

Objects = list[dict[str, Any]]


def space(name: str, inject: bool = True) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"istio-injection": "enabled"} if inject else {}}}


def workload(name: str, where: str, *, proxy: bool = True, port: int = 8080, probe: bool = False) -> Objects:
    """A Deployment with a running pod, and its Service; `proxy` False: the pod is older than its namespace's label."""
    app: dict[str, Any] = {"name": "app", "image": "x", "ports": [{"containerPort": port, "name": "http"}]}
    if probe:
        app["livenessProbe"] = {"httpGet": {"path": "/", "port": port}}
    labels, notes = {"app": name}, {"sidecar.istio.io/rewriteAppHTTPProbers": "false"} if probe else {}
    beside = [{"name": "istio-proxy", "image": "p"}] if proxy else []
    meta = {"namespace": where, "labels": labels | ({"security.istio.io/tlsMode": "istio"} if proxy else {}), "annotations": notes}
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": where},
         "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels, "annotations": notes}, "spec": {"containers": [app]}}}},
        {"apiVersion": "v1", "kind": "Pod", "status": {"phase": "Running", "podIP": f"10.0.{len(where)}.{len(name)}"},
         "metadata": {**meta, "name": f"{name}-abc", "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": "u", "controller": True}]},
         "spec": {"containers": [app, *beside]}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": where},
         "spec": {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": port}]}},
    ]  # fmt: skip


def wide(mode: str, where: str) -> dict[str, Any]:
    return {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": "default", "namespace": where},
            "spec": {"mtls": {"mode": mode}}}  # fmt: skip


@pytest.fixture
def mesh(tmp_path: Path):
    def make(*parts: Objects | dict[str, Any]) -> Mesh:
        objects = [obj for part in parts for obj in (part if isinstance(part, list) else [part])]
        path = tmp_path / "mesh.yaml"
        path.write_text(yaml.safe_dump_all(objects))
        return sources.load([str(path)])

    return make


def judged(mesh: Mesh, *names: str, accepted: tuple[str, ...] = (), **observed: Observed) -> dict[str, Place]:
    seen = {name: observed.get(name, Observed()) for name in names}
    return {place.namespace: place for place in waves(mesh, names, seen, audit.check, accepted)}


def sends(client: str, server: str, port: int = 8080) -> Seen:
    return Seen(client=f"{client} (pod x)", ref=client, server=server, port=port, says="sends plaintext")


def test_namespaces_that_break_nobody_go_first_the_least_called_before_the_others(mesh) -> None:
    found = judged(mesh(space("a"), workload("one", "a"), space("b"), workload("two", "b")), "a", "b",
                   a=Observed(callers=frozenset({"b", "x"})), b=Observed(callers=frozenset({"a"})))  # fmt: skip
    assert [(p.namespace, p.state, p.wave) for p in found.values()] == [("b", State.SAFE, 1), ("a", State.SAFE, 1)]


def test_what_was_not_observed_is_unknown_and_never_safe(mesh) -> None:
    found = judged(mesh(space("a"), workload("one", "a")), "a", a=Observed(unknown="access logging is off"))
    assert (found["a"].state, found["a"].wave, found["a"].because) == (State.UNKNOWN, 0, "access logging is off")


def test_a_namespace_whose_clients_would_get_a_sidecar_goes_after_theirs(mesh) -> None:
    found = judged(mesh(space("a"), workload("one", "a"), space("b"), workload("two", "b"), workload("late", "b", proxy=False)), "a", "b",
                   a=Observed(seen=(sends("Deployment/b/late", "Deployment/a/one"),)))  # fmt: skip
    assert (found["b"].state, found["b"].wave) == (State.SAFE, 1)
    assert (found["a"].state, found["a"].wave, found["a"].after) == (State.AFTER, 2, ("b",))
    assert document(found.values()).waves == (("b",), ("a",))


def test_namespaces_that_wait_for_each_other_go_together(mesh) -> None:
    found = judged(mesh(space("a"), workload("one", "a"), workload("old", "a", proxy=False), space("b"), workload("two", "b"),
                        workload("late", "b", proxy=False)), "a", "b",
                   a=Observed(seen=(sends("Deployment/b/late", "Deployment/a/one"),)),
                   b=Observed(seen=(sends("Deployment/a/old", "Deployment/b/two"),)))  # fmt: skip
    assert [(p.state, p.wave) for p in found.values()] == [(State.AFTER, 1), (State.AFTER, 1)]


def test_who_waits_for_a_namespace_that_cannot_go_cannot_either(mesh) -> None:
    found = judged(mesh(space("a"), workload("one", "a"), space("b"), workload("two", "b"), workload("late", "b", proxy=False)), "a", "b",
                   a=Observed(seen=(sends("Deployment/b/late", "Deployment/a/one"),)),
                   b=Observed(seen=(sends("Deployment/c/outside", "Deployment/b/two"),)))  # fmt: skip
    assert (found["a"].state, found["b"].state) == (State.BLOCKED, State.BLOCKED)
    assert "b cannot go" in found["a"].because


def test_a_client_outside_the_mesh_blocks_and_one_port_would_let_the_namespace_go(mesh) -> None:
    found = judged(mesh(space("a"), workload("one", "a"), space("c", False), workload("cron", "c", proxy=False)), "a",
                   a=Observed(seen=(sends("Deployment/c/cron", "Deployment/a/one"),)))["a"]  # fmt: skip
    assert (found.state, found.because) == (State.BLOCKED, "by Deployment/c/cron")
    (opening,) = found.openings
    assert (opening.workload, opening.ports, found.enough) == ("Deployment/a/one", (8080,), True)
    assert yaml.safe_load(opening.manifest)["spec"] == {"selector": {"matchLabels": {"app": "one"}}, "portLevelMtls": {"8080": {"mode": "PERMISSIVE"}}}


def test_an_accepted_client_blocks_nobody(mesh) -> None:
    found = judged(mesh(space("a"), workload("one", "a")), "a", accepted=("c/cron",),
                   a=Observed(seen=(sends("Deployment/c/cron", "Deployment/a/one"),)))  # fmt: skip
    assert found["a"].state is State.SAFE


def test_an_unknown_client_without_a_port_leaves_nothing_that_would_be_enough(mesh) -> None:
    seen = Seen(client="unknown client 10.9.9.9", ref="", server="Deployment/a/one", port=0, says="counted")
    found = judged(mesh(space("a"), workload("one", "a")), "a", a=Observed(seen=(seen,)))["a"]
    assert (found.state, found.openings, found.enough) == (State.BLOCKED, (), False)


def disabling(where: str, host: str) -> dict[str, Any]:
    return {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": "plain", "namespace": where},
            "spec": {"host": host, "trafficPolicy": {"tls": {"mode": "DISABLE"}}}}  # fmt: skip


def test_a_predicted_break_blocks_and_its_exception_is_held_against_the_prediction(mesh) -> None:
    made = mesh(space("a"), workload("one", "a"), space("b"), workload("two", "b"), disabling("b", "one.a.svc.cluster.local"))
    found = judged(made, "a", "b")
    assert (found["a"].state, found["b"].state) == (State.BLOCKED, State.SAFE)
    assert [(b.by, b.client, b.port) for b in found["a"].blockers] == [("predicted", "Deployment/b/two", 8080)]
    assert found["a"].enough


def test_all_at_once_are_predicted_as_each_by_itself(mesh) -> None:
    """One prediction with every namespace STRICT stands for one each: a policy reaches its own namespace's servers only."""
    made = mesh(space("a"), workload("one", "a"), workload("three", "a"), space("b"), workload("two", "b"),
                disabling("b", "*.a.svc.cluster.local"), disabling("a", "two.b.svc.cluster.local"))  # fmt: skip
    together = judged(made, "a", "b")
    for name in ("a", "b"):
        alone = {(c, g.server) for g in groups(strict(made, [name]), made, server_namespaces=frozenset({name}))
                 if g.verdict == BREAKS and g.was is not None and g.was.verdict != BREAKS for c in g.clients}  # fmt: skip
        assert {(b.client, b.server) for b in together[name].blockers if b.by == "predicted"} == alone
        assert alone


def hook(where: str, service: str) -> dict[str, Any]:
    return {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "hook"}, "webhooks": [
        {"name": "hook.example.com", "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"],
         "clientConfig": {"service": {"namespace": where, "name": service, "port": 80}},
         "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]}]}  # fmt: skip


def test_what_the_api_server_and_the_kubelet_call_blocks_and_their_ports_would_be_enough(mesh) -> None:
    found = judged(mesh(space("a"), workload("one", "a", port=9443), hook("a", "one"), space("b"), workload("two", "b", probe=True)), "a", "b")
    for name, ref, port in (("a", "Deployment/a/one", 9443), ("b", "Deployment/b/two", 8080)):
        place = found[name]
        assert place.state is State.BLOCKED, place
        assert [(o.workload, o.ports) for o in place.openings] == [(ref, (port,))]
        assert place.enough, place


def test_exceptions_are_not_enough_where_nobody_listened(mesh) -> None:
    place = judged(mesh(space("a"), workload("one", "a", port=9443), hook("a", "one")), "a", a=Observed(unknown="access logging is off"))["a"]
    assert (place.state, place.because) == (State.BLOCKED, "by ValidatingWebhookConfiguration/hook; and access logging is off")
    assert place.openings and not place.enough


def test_metrics_are_advice_and_no_block(mesh) -> None:
    parts = workload("one", "a", port=9100)
    parts[1]["metadata"]["annotations"] = {"prometheus.io/scrape": "true", "prometheus.io/port": "9100"}
    place = judged(mesh(space("a"), parts, space("c", False), workload("scraper", "c", proxy=False)), "a")["a"]
    assert place.state is State.SAFE
    assert [(b.code, b.holds, b.port) for b in place.blockers if b.code == "MT250"] == [("MT250", False, 9100)]
    assert [o.ports for o in place.openings] == [(9100,)]


def test_strict_outside_and_root_namespaces_have_nothing_to_do(mesh) -> None:
    found = judged(mesh(space("a"), workload("one", "a"), wide("STRICT", "a"), space("c", False), workload("x", "c", proxy=False),
                        space("istio-system", False), workload("gw", "istio-system")), "a", "c", "istio-system")  # fmt: skip
    assert {name: place.state for name, place in found.items()} == {"a": State.STRICT, "c": State.OUTSIDE, "istio-system": State.OUTSIDE}
    assert document(found.values()).waves == ()


def test_an_exception_with_a_wrong_port_is_mended_not_kept(mesh) -> None:
    wrong = {**wide("STRICT", "a"), "metadata": {"name": "for-cron", "namespace": "a"},
             "spec": {"selector": {"matchLabels": {"app": "one"}}, "portLevelMtls": {"80": {"mode": "PERMISSIVE"}}}}  # fmt: skip
    place = judged(mesh(space("a"), workload("one", "a"), wrong), "a", a=Observed(seen=(sends("Deployment/c/cron", "Deployment/a/one"),)))["a"]
    assert {b.code for b in place.blockers if b.by == "audit" and b.holds} == {"MT104"}
    (opening,) = place.openings
    assert yaml.safe_load(opening.manifest)["metadata"]["name"] == "for-cron"
    assert yaml.safe_load(opening.manifest)["spec"]["portLevelMtls"] == {"8080": {"mode": "PERMISSIVE"}}
    assert place.enough
