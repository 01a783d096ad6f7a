"""Deployments and their ReplicaSets, as kubectl meets them."""

import pytest

from meshtls.lab.controllers import conditions
from tests.lab_controllers.cluster import image, workload


def rollout_status(cluster):
    """What `kubectl rollout status` says (kubectl/pkg/polymorphichelpers/rollout_status.go)."""
    deployment = cluster.get("deployments.apps", "web")
    status, replicas = deployment["status"], deployment["spec"].get("replicas", 1)
    if deployment["metadata"]["generation"] > status.get("observedGeneration", 0):
        return "waiting for spec update"
    if (conditions.find(deployment, "Progressing") or {}).get("reason") == "ProgressDeadlineExceeded":
        return "exceeded its progress deadline"
    if status.get("updatedReplicas", 0) < replicas:
        return "new replicas have been updated"
    if status.get("replicas", 0) > status.get("updatedReplicas", 0):
        return "old replicas are pending termination"
    if status.get("availableReplicas", 0) < status.get("updatedReplicas", 0):
        return "updated replicas are available"
    return "successfully rolled out"


def test_a_deployment_becomes_a_replica_set_becomes_pods(cluster):
    cluster.create("deployments.apps", workload("Deployment", replicas=3))
    [name] = cluster.names("replicasets.apps")
    replica_set = cluster.get("replicasets.apps", name)
    mark = replica_set["metadata"]["labels"]["pod-template-hash"]
    assert name == f"web-{mark}"
    assert replica_set["spec"]["selector"] == {"matchLabels": {"app": "web", "pod-template-hash": mark}}
    pods = [cluster.get("pods", pod) for pod in cluster.pods()]
    assert len(pods) == 3
    for pod in pods:
        assert pod["metadata"]["labels"] == {"app": "web", "pod-template-hash": mark}
        assert pod["metadata"]["generateName"] == f"{name}-" and pod["metadata"]["name"].startswith(f"{name}-")
        assert pod["metadata"]["ownerReferences"] == [
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "name": name,
                "controller": True,
                "uid": replica_set["metadata"]["uid"],
                "blockOwnerDeletion": True,
            }
        ]


def test_its_status_says_that_the_rollout_is_over(cluster):
    cluster.create("deployments.apps", workload("Deployment", replicas=2))
    deployment = cluster.get("deployments.apps", "web")
    assert {key: value for key, value in deployment["status"].items() if key != "conditions"} == {
        "observedGeneration": 1,
        "replicas": 2,
        "updatedReplicas": 2,
        "readyReplicas": 2,
        "availableReplicas": 2,
        "terminatingReplicas": 0,
    }
    assert [(one["type"], one["status"], one["reason"]) for one in deployment["status"]["conditions"]] == [
        ("Available", "True", "MinimumReplicasAvailable"),
        ("Progressing", "True", "NewReplicaSetAvailable"),
    ]
    assert deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
    assert rollout_status(cluster) == "successfully rolled out"


def test_usual_events_are_written(cluster):
    cluster.create("deployments.apps", workload("Deployment", replicas=1))
    [replica_set], [pod] = cluster.names("replicasets.apps"), cluster.pods()
    assert sorted(cluster.events()) == [
        ("ScalingReplicaSet", f"Scaled up replica set {replica_set} from 0 to 1"),
        ("Scheduled", f"Successfully assigned shop/{pod} to lab-1"),
        ("SuccessfulCreate", f"Created pod: {pod}"),
    ]


def test_a_new_template_rolls_within_surge_and_availability(slow):
    slow.create(
        "deployments.apps",
        workload("Deployment", replicas=4, strategy={"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}),
    )
    first = slow.pods()
    for pod in first:
        slow.ready(pod)
    slow.change("deployments.apps", "web", image("app:2"))
    assert rollout_status(slow) == "new replicas have been updated"
    for _ in range(4):
        [fresh] = (
            set(slow.pods())
            - set(first)
            - {pod for pod in slow.pods() if slow.get("pods", pod).get("status", {}).get("podIP")}
        )
        assert len(slow.pods()) == 5
        slow.ready(fresh)
    assert rollout_status(slow) == "successfully rolled out"
    assert not set(first) & set(slow.pods())


def test_an_old_template_finds_its_old_replica_set_again(cluster):
    cluster.create("deployments.apps", workload("Deployment"))
    [first] = cluster.names("replicasets.apps")
    cluster.change("deployments.apps", "web", image("app:2"))
    cluster.change("deployments.apps", "web", image("app:1"))
    assert len(cluster.names("replicasets.apps")) == 2
    replica_set = cluster.get("replicasets.apps", first)
    assert replica_set["spec"]["replicas"] == 1
    assert replica_set["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"
    assert cluster.get("deployments.apps", "web")["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"


def test_history_beyond_the_limit_is_forgotten(cluster):
    cluster.create("deployments.apps", workload("Deployment", revisionHistoryLimit=1))
    for number in range(2, 6):
        cluster.change("deployments.apps", "web", image(f"app:{number}"))
    revisions = sorted(
        cluster.get("replicasets.apps", name)["metadata"]["annotations"]["deployment.kubernetes.io/revision"]
        for name in cluster.names("replicasets.apps")
    )
    assert revisions == ["4", "5"]


def test_scaling_keeps_the_replica_set(cluster):
    cluster.create("deployments.apps", workload("Deployment", replicas=1))
    cluster.change("deployments.apps", "web", lambda one: one["spec"].update(replicas=5))
    assert len(cluster.pods()) == 5 and len(cluster.names("replicasets.apps")) == 1
    cluster.change("deployments.apps", "web", lambda one: one["spec"].update(replicas=0))
    assert cluster.pods() == []
    assert rollout_status(cluster) == "successfully rolled out"


def test_recreate_waits_for_the_last_old_pod(slow):
    slow.create("deployments.apps", workload("Deployment", strategy={"type": "Recreate"}))
    [old] = slow.pods()
    slow.ready(old)
    slow.change("deployments.apps", "web", image("app:2"))
    assert slow.pods() == [] and len(slow.names("replicasets.apps")) == 1, "its own ReplicaSet comes when the old pods are gone"
    slow.gone(old)
    assert len(slow.pods()) == 1 and len(slow.names("replicasets.apps")) == 2


def test_a_paused_deployment_scales_but_does_not_roll(cluster):
    cluster.create("deployments.apps", workload("Deployment"))
    cluster.change("deployments.apps", "web", lambda one: one["spec"].update(paused=True, replicas=2))
    cluster.change("deployments.apps", "web", image("app:2"))
    assert len(cluster.pods()) == 2 and len(cluster.names("replicasets.apps")) == 1
    assert conditions.find(cluster.get("deployments.apps", "web"), "Progressing")["reason"] == "DeploymentPaused"
    cluster.change("deployments.apps", "web", lambda one: one["spec"].update(paused=False))
    assert len(cluster.names("replicasets.apps")) == 2
    assert rollout_status(cluster) == "successfully rolled out"


def test_min_ready_seconds_hold_availability_back(cluster):
    cluster.create("deployments.apps", workload("Deployment", minReadySeconds=30))
    assert rollout_status(cluster) == "updated replicas are available"
    cluster.advance(29)
    assert rollout_status(cluster) == "updated replicas are available"
    cluster.advance(1)
    assert rollout_status(cluster) == "successfully rolled out"


def test_no_progress_is_written_down_after_the_deadline(slow):
    slow.create("deployments.apps", workload("Deployment", progressDeadlineSeconds=60))
    slow.advance(59)
    assert conditions.find(slow.get("deployments.apps", "web"), "Progressing")["status"] == "True"
    slow.advance(1)
    assert rollout_status(slow) == "exceeded its progress deadline"
    slow.ready(slow.pods()[0])
    assert rollout_status(slow) == "successfully rolled out"


def test_a_refused_pod_is_said_on_the_owner_and_tried_again(cluster):
    why = 'pods "x" is forbidden: violates PodSecurity "baseline:latest": non-default capabilities'
    cluster.refuse = lambda pod: why
    cluster.create("deployments.apps", workload("Deployment", replicas=8))
    [name] = cluster.names("replicasets.apps")
    for obj in (cluster.get("replicasets.apps", name), cluster.get("deployments.apps", "web")):
        failure = conditions.find(obj, "ReplicaFailure")
        assert (failure["status"], failure["reason"], failure["message"]) == ("True", "FailedCreate", why)
    assert ("FailedCreate", f"Error creating: {why}") in cluster.events(name)
    assert cluster.events(name).count(("FailedCreate", f"Error creating: {why}")) == 1

    cluster.refuse = lambda pod: ""
    cluster.advance(1)
    assert len(cluster.pods()) == 8
    for obj in (cluster.get("replicasets.apps", name), cluster.get("deployments.apps", "web")):
        assert conditions.find(obj, "ReplicaFailure") is None


def test_a_refusal_costs_one_attempt_not_one_per_pod(cluster):
    asked = []
    cluster.refuse = lambda pod: asked.append(pod) or f"not {pod['metadata']['name']}"
    cluster.create("deployments.apps", workload("Deployment", replicas=50))
    assert len(asked) == 1


def test_a_deleted_pod_is_replaced_before_it_is_gone(slow):
    slow.create("deployments.apps", workload("Deployment"))
    [old] = slow.pods()
    slow.ready(old)
    slow.delete("pods", old)
    [new] = slow.pods()
    assert old in slow.names("pods") and new != old
    assert slow.get("deployments.apps", "web")["status"]["terminatingReplicas"] == 1


def test_scaling_down_gives_up_what_is_not_ready_first(slow):
    slow.create("deployments.apps", workload("Deployment", replicas=3))
    good, bad, other = slow.pods()
    slow.ready(good)
    slow.ready(other)
    slow.change("deployments.apps", "web", lambda one: one["spec"].update(replicas=2))
    assert slow.pods() == sorted([good, other])
    assert bad not in slow.pods()


def test_a_pod_whose_labels_no_longer_match_is_released_and_replaced(cluster):
    cluster.create("deployments.apps", workload("Deployment"))
    [pod] = cluster.pods()
    cluster.change("pods", pod, lambda one: one["metadata"]["labels"].pop("app"))
    assert cluster.get("pods", pod)["metadata"]["ownerReferences"] == []
    assert len(cluster.pods()) == 2


def test_an_orphaned_replica_set_is_adopted_by_its_deployment_made_anew(cluster):
    cluster.create("deployments.apps", workload("Deployment"))
    before = cluster.pods()
    cluster.change("deployments.apps", "web", lambda one: one["metadata"].update(finalizers=["orphan"]))
    cluster.delete("deployments.apps", "web")
    assert cluster.pods() == before and cluster.names("deployments.apps") == []
    cluster.create("deployments.apps", workload("Deployment"))
    assert cluster.pods() == before
    assert rollout_status(cluster) == "successfully rolled out"


def test_one_hundred_deployments_have_their_pods_without_any_time_passing(cluster):
    def make():
        for number in range(100):
            cluster.store.create("deployments.apps", workload("Deployment", f"web-{number}"))

    cluster.do(make)
    assert len(cluster.pods()) == 100
    assert cluster.clock.now().isoformat() == "2030-01-01T12:00:00+00:00"


@pytest.mark.parametrize("field", ["availableReplicas", "readyReplicas"])
def test_counts_follow_readiness(cluster, field):
    cluster.create("deployments.apps", workload("Deployment", replicas=2))
    cluster.ready(cluster.pods()[0], False)
    conditions = cluster.get("deployments.apps", "web")["status"]["conditions"]
    assert [one["type"] for one in conditions] == ["Progressing", "Available"], "the one written last"
    assert cluster.get("deployments.apps", "web")["status"][field] == 1
    assert cluster.get("deployments.apps", "web")["status"]["unavailableReplicas"] == 1
