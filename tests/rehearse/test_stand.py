"""The manifests of a rehearsal: what decides about calls is as in the source, and the program alone is ours."""

import json

import pytest
import yaml

from meshtls.model.kinds import BY_KIND
from meshtls.rehearse import stand
from meshtls.rehearse.calls import best
from meshtls.rehearse.scope import scope
from meshtls.rehearse.stand import Programs, objects, spoken
from tests.rehearse.meshes import MESHED, namespace, shop, workload, written

PROGRAMS = Programs("print()", "PEM")


def made(mesh, name="shop", most=40):
    """ref -> object, of all that is applied."""
    known = best(mesh, name)
    found = [obj for batch in objects(mesh, scope(mesh, name, known.calls, most), PROGRAMS) for obj in batch]
    return {"/".join(filter(None, (obj["kind"], obj["metadata"].get("namespace"), obj["metadata"]["name"]))): obj for obj in found}


def pod(obj):
    return obj["spec"]["template"]


def test_the_shop_keeps_names_labels_accounts_policies_and_services():
    found = made(shop(), "payments")

    gateway = found["Deployment/payments/gateway"]
    assert pod(gateway)["metadata"]["labels"] == {"app": "gateway"} == gateway["spec"]["selector"]["matchLabels"]
    assert pod(gateway)["spec"]["serviceAccountName"] == "gateway" and "ServiceAccount/payments/gateway" in found
    assert found["PeerAuthentication/payments/gateway-for-billing"]["spec"] == {
        "selector": {"matchLabels": {"app": "gateway"}}, "portLevelMtls": {"80": {"mode": "PERMISSIVE"}}}
    assert found["Service/payments/gateway"]["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": "http"}]
    assert "DestinationRule/shop/inventory-debugging" in found and found["Namespace/payments"]["metadata"]["labels"] == {"istio-injection": "enabled"}


def test_nothing_of_the_application_is_left_in_a_stand_in():
    spec = pod(made(shop(), "payments")["Deployment/legacy/billing"])["spec"]

    [container] = spec["containers"]
    assert container["image"] == stand.IMAGE and "env" not in container and "readinessProbe" not in container
    assert all("configMap" in volume for volume in spec["volumes"])


def test_the_plan_says_what_is_served_and_who_is_called():
    found = made(shop(), "payments")
    plans = {key: json.loads(text) for home in ("legacy", "payments") for key, text in found[f"ConfigMap/{home}/{stand.CONFIG}"]["data"].items() if key.endswith(".json")}

    assert plans["deployment-gateway.json"]["serve"] == [{"port": 8080, "as": "http"}]
    [call] = plans["deployment-billing.json"]["calls"]
    assert (call["host"], call["port"], call["as"]) == ("gateway.payments.svc.cluster.local", 80, "http") and call["every_s"] >= stand.FASTEST_S


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
def test_kinds_that_the_lab_runs_for_ever_keep_their_kind(kind):
    assert f"{kind}/shop/a" in made(written(MESHED + workload("a", kind=kind)))


def test_other_kinds_stand_in_as_deployments_and_are_told_by_their_own_name():
    mesh = shop()
    known = best(mesh, "data", {"calls": [{"client": "legacy/nightly-export", "server": "data/db"}]})
    found = scope(mesh, "data", known.calls)
    kinds = {(obj["kind"], obj["metadata"]["name"]) for batch in objects(mesh, found, PROGRAMS) for obj in batch}

    assert ("Deployment", "nightly-export") in kinds and ("StatefulSet", "db") in kinds
    assert stand.deployed(found.stands) == {"Deployment/legacy/nightly-export": "CronJob/legacy/nightly-export"}


def labelled(name, labels=None, annotations=None, namespace="shop", calls="", **container):
    """A workload whose pods have more labels and annotations, and its container more fields."""
    parts = [part for part in yaml.safe_load_all(workload(name, namespace, calls=calls)) if part]
    template = parts[0]["spec"]["template"]
    template["metadata"] = {"labels": {"app": name, **(labels or {})}, "annotations": annotations or {}}
    template["spec"]["containers"][0] |= container
    return "".join(f"{yaml.safe_dump(part)}---\n" for part in parts)


INJECT = "sidecar.istio.io/inject"


@pytest.mark.parametrize(("home", "label"), [("enabled", None), ("enabled", "false"), ("", None), ("", "true"), ("disabled", None), ("disabled", "true")])
def test_the_words_of_the_source_on_injection_are_kept_where_they_say_what_is(home, label):
    """A namespace that says `disabled` says nothing to the lab: the label on its pods has no webhook there, in life as here."""
    marks = namespace("shop", istio_injection=home) if home else namespace("shop")
    client = labelled("a", {INJECT: label} if label else {}, calls="http://b.in")
    found = made(written(marks + client + namespace("in", istio_injection="enabled") + workload("b", "in")), "in")

    said = pod(found["Deployment/shop/a"])["metadata"]["labels"].get(INJECT)
    assert said == ("false" if (home, label) == ("disabled", "true") else label)
    assert found["Namespace/shop"]["metadata"]["labels"] == ({"istio-injection": "enabled"} if home == "enabled" else {})


def test_a_sidecar_of_another_revision_is_one_of_the_labs_only_revision():
    mesh = written(namespace("shop").replace("labels: {}", "labels: {istio.io/rev: '1-20'}") + workload("a") + """
apiVersion: v1
kind: Pod
metadata: {name: a-1, namespace: shop, uid: a-1, labels: {app: a, istio.io/rev: 1-20, security.istio.io/tlsMode: istio, pod-template-hash: x},
           ownerReferences: [{kind: ReplicaSet, name: a-x, apiVersion: apps/v1}]}
spec: {containers: [{name: main}, {name: istio-proxy}]}
status: {phase: Running, podIP: 10.1.0.1}
""")
    found = made(mesh)

    assert found["Namespace/shop"]["metadata"]["labels"] == {}
    assert pod(found["Deployment/shop/a"])["metadata"]["labels"] == {"app": "a", "sidecar.istio.io/inject": "true"}


def test_what_only_its_own_cluster_can_give_is_left_out_of_a_service():
    found = made(written(MESHED + workload("a")))["Service/shop/a"]["spec"]

    assert "clusterIP" not in found and "nodePort" not in found["ports"][0] and found["selector"] == {"app": "a"}


def test_pod_security_is_left_out_since_the_lab_has_no_network_plugin():
    mesh = written(MESHED.replace("istio-injection: enabled", "istio-injection: enabled\n    pod-security.kubernetes.io/enforce: restricted") + workload("a"))

    assert made(mesh)["Namespace/shop"]["metadata"]["labels"] == {"istio-injection": "enabled"}


def test_annotations_that_decide_stay_and_those_of_other_templates_do_not():
    mesh = written(MESHED + labelled("a", annotations={"traffic.sidecar.istio.io/excludeInboundPorts": "8080", "inject.istio.io/templates": "sidecar,own",
                                                       "proxy.istio.io/config": "drainDuration: 5s"}))

    assert pod(made(mesh)["Deployment/shop/a"])["metadata"]["annotations"] == {
        "traffic.sidecar.istio.io/excludeInboundPorts": "8080", "proxy.istio.io/config": "drainDuration: 5s"}


def test_user_1337_stays_since_its_traffic_passes_the_sidecar():
    mesh = written(MESHED + labelled("a", securityContext={"runAsUser": 1337}))

    assert pod(made(mesh)["Deployment/shop/a"])["spec"]["containers"][0]["securityContext"] == {"runAsUser": 1337}


def _policy(name, age):
    return f"""
apiVersion: security.istio.io/v1beta1
kind: PeerAuthentication
metadata: {{name: {name}, namespace: shop, creationTimestamp: "2026-01-0{age}T00:00:00Z", uid: {name}, annotations: {{kubectl.kubernetes.io/last-applied-configuration: x}}}}
spec: {{mtls: {{mode: PERMISSIVE}}}}
---
"""


def test_of_several_policies_the_oldest_stays_the_oldest():
    def order(*ages):
        mesh = written(MESHED + workload("a") + "".join(_policy(name, age) for name, age in zip("abc", ages, strict=True)))
        batches = objects(mesh, scope(mesh, "shop", best(mesh, "shop").calls), PROGRAMS)
        return [[obj["metadata"]["name"] for obj in batch if obj["kind"] == "PeerAuthentication"] for batch in batches]

    assert order(1, 2, 3) == [["a", "b", "c"], []]  # a second for all: the name decides as the age did
    assert order(3, 2, 1) == [["c"], ["b"], ["a"], []]
    assert order(2, 1, 3) == [["b"], ["a", "c"], []]


def test_a_policy_comes_without_what_the_server_writes():
    mesh = written(MESHED + workload("a") + _policy("a", 1))

    assert made(mesh)["PeerAuthentication/shop/a"] == {
        "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": "a", "namespace": "shop", "labels": {}, "annotations": {}},
        "spec": {"mtls": {"mode": "PERMISSIVE"}}}


@pytest.mark.parametrize(("protocol", "name", "number", "how"), [
    ("HTTP", "http", 80, "http"), ("GRPC", "grpc", 80, "http"), ("TCP", "tcp-x", 5432, "tcp"), ("Redis", "redis", 6379, "tcp"), ("AUTO", "", 8080, "http"),
    ("TLS", "tls", 443, "tls"), ("HTTPS", "https", 443, "tls"), ("MySQL", "mysql", 3306, "banner"), ("TCP", "smtp", 25, "banner"), ("AUTO", "", 22, "banner"),
    ("TCP", "tcp-mysql", 5000, "banner")])
def test_a_port_is_served_by_what_its_protocol_is(protocol, name, number, how):
    assert spoken(protocol, name, number) == how


def test_everything_that_is_carried_is_a_kind_that_a_mesh_has():
    fields = {field for field, _ in BY_KIND.values()}

    assert set(stand.AS_IS) <= fields


def test_the_meshs_settings_go_to_the_lab_and_access_logs_are_off_where_they_are_off():
    mesh = written(MESHED + workload("a") + """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "trustDomain: other.example\\ndefaultConfig: {drainDuration: 5s}"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio-sidecar-injector, namespace: istio-system}
data: {values: '{"global": {"hub": "registry.example", "proxy": {"image": "ours", "excludeInboundPorts": "9000"}}}'}
""")

    assert stand.settings(mesh) == ({"accessLogFile": "", "trustDomain": "other.example", "defaultConfig": {"drainDuration": "5s"}},
                                    {"global": {"proxy": {"excludeInboundPorts": "9000"}}})
    assert stand.settings(written(MESHED)) == ({}, {})
