"""What is brought up is what decides about the namespace, as much as fits; what is left out is named."""

import pytest

from meshtls.errors import NoData
from meshtls.model.check import Status
from meshtls.rehearse import limits
from meshtls.rehearse.calls import Call, best
from meshtls.rehearse.scope import scope
from tests.rehearse.meshes import BILLING, CART, MESHED, namespace, shop, workload, written


def _of(mesh, name, most=40, everybody=False):
    known = best(mesh, name, everybody=everybody)
    return known, scope(mesh, name, known.calls, most)


def _refs(found):
    return {stand.workload.ref for stand in found.stands}


def test_the_namespace_its_clients_and_its_servers_are_brought_up():
    _, found = _of(shop(), "payments")

    assert _refs(found) == {"Deployment/payments/gateway", "Deployment/payments/ledger", CART, BILLING}
    assert _refs(_of(shop(), "shop")[1]) >= {"Deployment/payments/gateway", "Deployment/data/inventory"}


def test_a_workload_with_several_pods_gets_two_and_one_where_they_do_not_fit():
    mesh = written(MESHED + workload("a") + workload("b", calls="http://a.shop"))

    assert [stand.replicas for stand in _of(mesh, "shop")[1].stands] == [2, 2]
    assert [stand.replicas for stand in _of(mesh, "shop", 3)[1].stands] == [1, 1]


def test_what_does_not_fit_is_named_and_the_rehearsal_is_not_whole():
    mesh = shop()
    known, found = _of(mesh, "payments", 2)

    assert _refs(found) == {"Deployment/payments/gateway", "Deployment/payments/ledger"}
    lost = {left.what: left for left in found.left if not left.whole}
    assert lost[BILLING].why == "no room: --max-pods is 2, give more if this machine has it"
    assert lost[str(Call(BILLING, "Service/payments/gateway", 80))].why == "the client has no stand-in"
    assert found.calls == (Call("Deployment/payments/gateway", "Service/payments/ledger", 80),)
    checks = {c.id: c for c in limits.checks(mesh, "payments", known, found)}
    assert checks[f"rehearse/left-out/{BILLING}"].status is Status.ERROR


def test_the_workloads_of_the_namespace_that_are_called_come_first():
    mesh = written(MESHED + namespace("out") + workload("a") + workload("b") + workload("c", "out", calls="http://b.shop"))

    assert _refs(_of(mesh, "shop", 1)[1]) == {"Deployment/shop/b"}


def test_an_ambient_namespace_is_not_rehearsed_and_the_error_says_what_to_do():
    mesh = written(namespace("shop").replace("labels: {}", "labels: {istio.io/dataplane-mode: ambient}") + workload("a"))

    with pytest.raises(NoData, match="shop is ambient, and the lab has no ambient data plane") as error:
        _of(mesh, "shop")
    assert "predict" in error.value.hint


def test_an_ambient_client_is_left_out_and_its_call_is_not_judged():
    ambient = namespace("out").replace("labels: {}", "labels: {istio.io/dataplane-mode: ambient}")
    mesh = written(MESHED + ambient + workload("a") + workload("c", "out", calls="http://a.shop"))
    _, found = _of(mesh, "shop")

    assert _refs(found) == {"Deployment/shop/a"} and not found.calls
    assert {left.what for left in found.left if not left.whole} == {"Deployment/out/c", "Deployment/out/c -> Service/shop/a:80"}


def test_a_namespace_without_any_sidecar_is_not_rehearsed():
    with pytest.raises(NoData, match="no workload of legacy would have a sidecar"):
        _of(shop(), "legacy", everybody=True)


def test_a_workload_of_which_some_pods_have_a_sidecar_stands_in_twice():
    pods = "".join(f"""
apiVersion: v1
kind: Pod
metadata: {{name: a-{n}, namespace: shop, uid: a-{n}, labels: {{app: a, pod-template-hash: x}}, ownerReferences: [{{kind: ReplicaSet, name: a-x, apiVersion: apps/v1}}]}}
spec: {{containers: [{{name: main, ports: [{{containerPort: 8080}}]}}{proxy}]}}
status: {{phase: Running, podIP: 10.1.0.{n}}}
---
""" for n, proxy in ((1, ", {name: istio-proxy}"), (2, "")))
    mesh = written(MESHED + workload("a") + pods)
    known, found = _of(mesh, "shop")

    assert [(stand.sidecar, stand.replicas, stand.first) for stand in found.stands] == [(True, 1, True), (False, 1, False)]
    assert any("with and without" in check.reason and "Deployment/shop/a" in check.reason for check in limits.checks(mesh, "shop", known, found))


@pytest.mark.parametrize("replicas", [0, 1, 5])
def test_what_is_scaled_to_nothing_is_not_brought_up(replicas):
    mesh = written(MESHED + workload("a", replicas=replicas) + workload("b"))

    assert ("Deployment/shop/a" in _refs(_of(mesh, "shop")[1])) == bool(replicas)


def test_every_rehearsal_says_what_it_cannot_know():
    mesh = shop()
    said = {c.id.removeprefix("rehearse/limit/"): c for c in limits.checks(mesh, "payments", *_of(mesh, "payments"))}

    assert {"clients", "applications", "control-plane", "elsewhere", "settings"} <= said.keys()
    assert all(check.status is Status.SKIP and check.reason for check in said.values())
    assert "assumed" not in said["clients"].reason
    assumed = limits.checks(mesh, "payments", *_of(mesh, "payments", everybody=True))
    assert "who is refused here may never call" in next(c.reason for c in assumed if c.id == "rehearse/limit/clients")


def test_a_service_that_nobody_is_known_to_call_is_named():
    mesh = written(MESHED + workload("a") + workload("b", calls="http://a.shop"))
    said = {c.id: c.reason for c in limits.checks(mesh, "shop", *_of(mesh, "shop"))}

    assert "Service/shop/b" in said["rehearse/limit/uncalled"] and "Service/shop/a" not in said["rehearse/limit/uncalled"]
    assert "rehearse/limit/uncalled" not in {c.id for c in limits.checks(shop(), "payments", *_of(shop(), "payments"))}


def test_envoyfilters_webhooks_and_addresses_in_policies_are_named():
    more = """
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: tuned, namespace: shop}
spec: {configPatches: []}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-office, namespace: shop}
spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24}}]}]}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: judge}
webhooks: [{name: judge.shop, clientConfig: {service: {name: a, namespace: shop}}, admissionReviewVersions: [v1], sideEffects: None}]
---
"""
    mesh = written(MESHED + workload("a") + more)
    said = {c.id.removeprefix("rehearse/limit/"): c.reason for c in limits.checks(mesh, "shop", *_of(mesh, "shop"))}

    assert "EnvoyFilter/shop/tuned" in said["envoyfilters"]
    assert "NetworkPolicy/shop/only-office" in said["networkpolicies"]
    assert "ValidatingWebhookConfiguration/judge" in said["webhooks"]
