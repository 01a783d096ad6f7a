"""Probe pods are harmless and clean, and an agent's document says what was planned."""

import json

import pytest
from world import a_plan

from meshtls.probe import deploy
from meshtls.probe.case import HTTP, TCP, Client, Server
from meshtls.probe.deploy import Address, Settings
from meshtls.probe.plan import Plan

SETTINGS = Settings(run="r1")


def pods():
    for meshed in (True, False):
        yield deploy.echo_pod(SETTINGS, Server(namespace="a", meshed=meshed), (HTTP, TCP)), meshed
        yield deploy.agent_objects(SETTINGS, Client(namespace="a", meshed=meshed), 0, {"cases": []}, {})[1], meshed


@pytest.mark.parametrize("pod, meshed", list(pods()))
def test_a_probe_pod_meets_pod_security_restricted_and_mounts_no_token(pod, meshed):
    spec, (container,) = pod["spec"], pod["spec"]["containers"]

    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert (spec["automountServiceAccountToken"], spec["restartPolicy"]) == (False, "Never")
    assert spec["activeDeadlineSeconds"] > 0 and spec["terminationGracePeriodSeconds"] <= 5
    assert container["resources"].keys() == {"requests", "limits"}
    assert all("configMap" in volume for volume in spec["volumes"])


@pytest.mark.parametrize("pod, meshed", list(pods()))
def test_the_injection_label_says_what_the_pod_is(pod, meshed):
    labels = pod["metadata"]["labels"]

    assert labels["sidecar.istio.io/inject"] == ("true" if meshed else "false")
    assert labels.get("istio.io/dataplane-mode") == (None if meshed else "none")
    assert not any(key in labels for key in ("app", "app.kubernetes.io/name"))


def test_cluster_specifics_reach_the_pod():
    settings = Settings(run="r", image="registry.example/py:1", pull_secrets=("s",), node_selector={"d": "x"}, user=None,
                        tolerations=({"key": "k", "operator": "Exists"},), revision="canary")  # fmt: skip
    pod = deploy.echo_pod(settings, Server(namespace="a", meshed=True), (HTTP,))

    assert pod["spec"]["containers"][0]["image"] == "registry.example/py:1"
    assert pod["spec"]["imagePullSecrets"] == [{"name": "s"}]
    assert pod["spec"]["nodeSelector"] == {"d": "x"}
    assert pod["spec"]["tolerations"] == [{"key": "k", "operator": "Exists"}]
    assert pod["metadata"]["labels"]["istio.io/rev"] == "canary"
    assert "runAsUser" not in pod["spec"]["securityContext"]


def documents(plan: Plan, client):
    addresses = {server: Address(pod_ip=f"10.0.0.{i}", name=f"e{i}") for i, server in enumerate(plan.servers)}
    cases = [case for case in plan.cases if case.client == client]
    return list(deploy.documents(SETTINGS, client, cases, [], addresses))


def test_proof_is_asked_of_what_can_give_it():
    plan = a_plan("a")
    (document,) = documents(plan, Client(namespace="a", meshed=True))
    proofs = {(c["host"], c["port"]): c["proof"] for c in document["cases"]}

    assert proofs == {
        ("10.0.0.0", 8080): "wire", ("10.0.0.0", 9000): "wire", ("10.0.0.1", 8080): "wire", ("10.0.0.1", 9000): "wire",
        ("meshtls-r1-echo-meshed.a.svc.cluster.local", 8080): "xfcc", ("meshtls-r1-echo-meshed.a.svc.cluster.local", 9000): "",
        ("meshtls-r1-echo-naked.a.svc.cluster.local", 8080): "wire", ("meshtls-r1-echo-naked.a.svc.cluster.local", 9000): "wire",
    }  # fmt: skip
    assert {w["host"] for w in document["warm_up"]} == {host for host, _ in proofs if "svc" in host}


def test_a_client_without_sidecar_goes_to_pods_only():
    (document,) = documents(a_plan("a"), Client(namespace="a", meshed=False))

    assert {case["host"] for case in document["cases"]} == {"10.0.0.0", "10.0.0.1"}
    assert document["warm_up"] == []
    assert not any("sidecar" in case for case in document["cases"])


def test_only_the_certificates_that_are_used_are_delivered():
    plan = a_plan("a")
    (document,) = documents(plan, Client(namespace="a", meshed=False))
    config, _ = deploy.agent_objects(
        SETTINGS, Client(namespace="a", meshed=False), 0, document, {"unknown-ca": "PEM", "expired": "PEM2"}
    )

    assert config["data"].keys() == {"cases.json", "unknown-ca.pem"}


def test_many_questions_are_shared_out_so_that_no_config_map_or_log_grows_too_large():
    plan = a_plan("a", cells=False, pods=[])
    case = a_plan("a").cases[0]
    addresses = {case.server: Address(pod_ip="10.0.0.1", name="e")}
    shards = list(deploy.documents(SETTINGS, case.client, [case] * 9000, [], addresses))

    assert plan.clients == ()
    assert [len(shard["cases"]) for shard in shards] == [4000, 4000, 1000]
    assert max(len(json.dumps(shard)) for shard in shards) < 1 << 20
