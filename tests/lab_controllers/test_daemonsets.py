"""DaemonSets: one pod a node."""

import pytest

from tests.lab_controllers.cluster import image, workload


@pytest.fixture
def three(make_cluster):
    return make_cluster("lab-1", "lab-2", "lab-3")


def nodes(cluster):
    return sorted(cluster.get("pods", name)["spec"]["nodeName"] for name in cluster.pods())


def test_every_node_has_one_pod(three):
    three.create("daemonsets.apps", workload("DaemonSet", "agent"))
    assert nodes(three) == ["lab-1", "lab-2", "lab-3"]
    assert three.get("daemonsets.apps", "agent")["status"] == {
        "currentNumberScheduled": 3,
        "desiredNumberScheduled": 3,
        "numberAvailable": 3,
        "numberMisscheduled": 0,
        "numberReady": 3,
        "observedGeneration": 1,
        "updatedNumberScheduled": 3,
    }


def test_a_new_node_gets_its_pod(three):
    three.create("daemonsets.apps", workload("DaemonSet", "agent"))
    three.create("nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "lab-4"}})
    assert nodes(three) == ["lab-1", "lab-2", "lab-3", "lab-4"]


def test_a_node_selector_chooses_nodes_and_a_changed_label_moves_pods(three):
    daemon = workload("DaemonSet", "agent")
    daemon["spec"]["template"]["spec"]["nodeSelector"] = {"disk": "fast"}
    three.create("daemonsets.apps", daemon)
    assert nodes(three) == []
    three.change("nodes", "lab-2", lambda node: node["metadata"]["labels"].update(disk="fast"), namespace="")
    assert nodes(three) == ["lab-2"]
    three.change("nodes", "lab-2", lambda node: node["metadata"]["labels"].pop("disk"), namespace="")
    assert nodes(three) == []


def test_an_update_takes_one_node_at_a_time(three):
    three.create("daemonsets.apps", workload("DaemonSet", "agent"))
    three.auto = False
    three.change("daemonsets.apps", "agent", image("app:2"))
    assert len(three.pods()) == 2 + 1
    going = [name for name in three.names("pods") if name not in three.pods()]
    assert len(going) == 1
    three.auto = True
    for name in going:
        three.gone(name)
    for name in three.pods():
        three.ready(name)
    assert {three.get("pods", name)["spec"]["containers"][0]["image"] for name in three.pods()} == {"app:2"}
    assert nodes(three) == ["lab-1", "lab-2", "lab-3"]


def test_a_cordoned_node_keeps_its_daemon(three):
    three.change(
        "nodes",
        "lab-1",
        lambda node: node["spec"].update(
            unschedulable=True, taints=[{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]
        ),
        namespace="",
    )
    three.create("daemonsets.apps", workload("DaemonSet", "agent"))
    assert len(three.pods()) == 3
