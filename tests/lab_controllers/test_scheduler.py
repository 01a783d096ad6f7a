"""Which node a pod gets, and what is said when it gets none."""

import pytest

from meshtls.lab.controllers import conditions
from tests.lab_controllers.cluster import pod


@pytest.fixture
def two(make_cluster):
    return make_cluster("lab-1", "lab-2")


def test_pods_are_spread(two):
    for number in range(6):
        two.create("pods", pod(f"p{number}"))
    placed = [two.get("pods", name)["spec"]["nodeName"] for name in two.pods()]
    assert sorted(placed) == ["lab-1"] * 3 + ["lab-2"] * 3
    assert conditions.find(two.get("pods", "p0"), "PodScheduled") == {
        "type": "PodScheduled",
        "status": "True",
        "lastTransitionTime": "2030-01-01T12:00:00Z",
    }


def test_node_selectors_and_affinity_are_followed(two):
    two.create("pods", pod("selected", nodeSelector={"kubernetes.io/hostname": "lab-2"}))
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["lab-1"]}]}
    two.create(
        "pods",
        pod(
            "affine",
            affinity={
                "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
            },
        ),
    )
    assert [two.get("pods", name)["spec"]["nodeName"] for name in ("selected", "affine")] == ["lab-2", "lab-2"]


def test_a_pod_that_fits_nowhere_says_why_and_waits(two):
    two.change("nodes", "lab-2", lambda node: node["spec"].update(unschedulable=True), namespace="")
    two.create("pods", pod("picky", nodeSelector={"disk": "fast"}))
    message = (
        "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) were unschedulable."
    )
    assert two.events("picky") == [("FailedScheduling", message)]
    scheduled = conditions.find(two.get("pods", "picky"), "PodScheduled")
    assert (scheduled["status"], scheduled["reason"], scheduled["message"]) == ("False", "Unschedulable", message)
    two.change("nodes", "lab-1", lambda node: node["metadata"]["labels"].update(disk="fast"), namespace="")
    assert two.get("pods", "picky")["spec"]["nodeName"] == "lab-1"


def test_a_pod_waits_for_its_claim_which_it_binds(two):
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "kept"}}
    two.create("pods", pod("storing", volumes=[volume]))
    assert two.events("storing") == [("FailedScheduling", '0/2 nodes are available: persistentvolumeclaim "kept" not found.')]
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    two.create("persistentvolumeclaims", {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "kept", "namespace": "shop"}, "spec": spec})
    assert two.get("pods", "storing")["spec"]["nodeName"]
    assert two.get("persistentvolumeclaims", "kept")["status"] == {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}


def test_taints_need_tolerations(two):
    for node in ("lab-1", "lab-2"):
        two.change(
            "nodes",
            node,
            lambda one, node=node: one["spec"].update(taints=[{"key": "only", "value": node, "effect": "NoSchedule"}]),
            namespace="",
        )
    two.create("pods", pod("plain"))
    two.create("pods", pod("tolerant", tolerations=[{"key": "only", "value": "lab-2", "effect": "NoSchedule"}]))
    assert (
        "nodeName" not in two.get("pods", "plain")["spec"]
        and two.get("pods", "tolerant")["spec"]["nodeName"] == "lab-2"
    )


def test_other_schedulers_and_gates_are_respected(two):
    two.create("pods", pod("theirs", schedulerName="other"))
    two.create("pods", pod("gated", schedulingGates=[{"name": "example.com/gate"}]))
    assert ["nodeName" in two.get("pods", name)["spec"] for name in ("theirs", "gated")] == [False, False]


def test_a_pod_on_a_node_that_does_not_exist_goes_when_deleted(two):
    two.auto = False
    two.create("pods", pod("lost", nodeName="nowhere"))
    two.delete("pods", "lost")
    assert two.names("pods") == []
