"""StatefulSets: names, order, updates."""

from meshtls.lab.controllers.objects import labels_of
from tests.lab_controllers.cluster import image, workload


def stateful(**spec):
    return workload("StatefulSet", "db", serviceName="db-headless", **spec)


def images(cluster):
    return {name: cluster.get("pods", name)["spec"]["containers"][0]["image"] for name in cluster.pods()}


def test_pods_have_ordinals_host_names_and_labels(cluster):
    cluster.create("statefulsets.apps", stateful(replicas=2))
    assert cluster.pods() == ["db-0", "db-1"]
    pod = cluster.get("pods", "db-1")
    assert (pod["spec"]["hostname"], pod["spec"]["subdomain"], pod["metadata"]["generateName"]) == ("db-1", "db-headless", "db-")
    labels = labels_of(pod)
    assert labels["statefulset.kubernetes.io/pod-name"] == "db-1" and labels["apps.kubernetes.io/pod-index"] == "1"
    assert labels["controller-revision-hash"] == cluster.get("statefulsets.apps", "db")["status"]["updateRevision"]


def test_events_and_revisions_tell_what_was_done_and_why(cluster):
    made = stateful(replicas=1)
    made["metadata"]["annotations"] = {"kubernetes.io/change-cause": "first try"}
    cluster.create("statefulsets.apps", made)
    assert cluster.events("db") == [("SuccessfulCreate", "Create Pod db-0 in StatefulSet db successful")]
    [revision] = cluster.names("controllerrevisions.apps")
    about = cluster.get("controllerrevisions.apps", revision)["metadata"]
    assert about["annotations"] == {"kubernetes.io/change-cause": "first try"}
    assert f"db-{about['labels']['controller.kubernetes.io/hash']}" == revision


def test_each_pod_waits_for_the_one_before_it(slow):
    slow.create("statefulsets.apps", stateful(replicas=3))
    for number in range(3):
        assert slow.pods() == [f"db-{one}" for one in range(number + 1)]
        slow.ready(f"db-{number}")
    assert slow.get("statefulsets.apps", "db")["status"]["availableReplicas"] == 3


def test_parallel_waits_for_nobody(slow):
    slow.create("statefulsets.apps", stateful(replicas=3, podManagementPolicy="Parallel"))
    assert slow.pods() == ["db-0", "db-1", "db-2"]


def test_scaling_down_goes_from_the_top_one_by_one(slow):
    slow.create("statefulsets.apps", stateful(replicas=3))
    for number in range(3):
        slow.ready(f"db-{number}")
    slow.change("statefulsets.apps", "db", lambda one: one["spec"].update(replicas=1))
    assert slow.pods() == ["db-0", "db-1"]
    slow.gone("db-2")
    assert slow.pods() == ["db-0"]


def test_a_deleted_pod_comes_back_under_its_name_when_it_is_gone(slow):
    slow.create("statefulsets.apps", stateful(replicas=1))
    slow.ready("db-0")
    old = slow.get("pods", "db-0")["metadata"]["uid"]
    slow.delete("pods", "db-0")
    assert slow.get("pods", "db-0")["metadata"]["uid"] == old
    slow.gone("db-0")
    assert slow.get("pods", "db-0")["metadata"]["uid"] != old


def test_an_update_goes_from_the_top_and_waits_for_readiness(slow):
    slow.create("statefulsets.apps", stateful(replicas=2))
    slow.ready("db-0")
    slow.ready("db-1")
    slow.change("statefulsets.apps", "db", image("app:2"))
    slow.gone("db-1")
    assert images(slow) == {"db-0": "app:1", "db-1": "app:2"}
    slow.ready("db-1")
    slow.gone("db-0")
    assert images(slow) == {"db-0": "app:2", "db-1": "app:2"}


def test_the_partition_keeps_lower_ordinals_at_the_old_revision(cluster):
    cluster.create("statefulsets.apps", stateful(replicas=3, updateStrategy={"rollingUpdate": {"partition": 2}}))
    cluster.change("statefulsets.apps", "db", image("app:2"))
    assert images(cluster) == {"db-0": "app:1", "db-1": "app:1", "db-2": "app:2"}
    cluster.delete("pods", "db-0")
    assert images(cluster)["db-0"] == "app:1"
    status = cluster.get("statefulsets.apps", "db")["status"]
    assert (status["currentReplicas"], status["updatedReplicas"]) == (2, 1) and status["currentRevision"] != status[
        "updateRevision"
    ]
    cluster.change(
        "statefulsets.apps", "db", lambda one: one["spec"]["updateStrategy"]["rollingUpdate"].update(partition=0)
    )
    status = cluster.get("statefulsets.apps", "db")["status"]
    assert set(images(cluster).values()) == {"app:2"} and status["currentRevision"] == status["updateRevision"]


def test_on_delete_replaces_nothing_by_itself(cluster):
    cluster.create("statefulsets.apps", stateful(replicas=2, updateStrategy={"type": "OnDelete"}))
    cluster.change("statefulsets.apps", "db", image("app:2"))
    assert set(images(cluster).values()) == {"app:1"}
    for pod in ("db-1", "db-0"):
        cluster.delete("pods", pod)
        assert images(cluster)[pod] == "app:2"
    status = cluster.get("statefulsets.apps", "db")["status"]
    assert status["currentRevision"] != status["updateRevision"], "only a rolling update is ever complete"


def test_going_back_finds_the_old_revision_with_a_new_number(cluster):
    cluster.create("statefulsets.apps", stateful(replicas=1))
    first = cluster.get("statefulsets.apps", "db")["status"]["updateRevision"]
    cluster.change("statefulsets.apps", "db", image("app:2"))
    cluster.change("statefulsets.apps", "db", image("app:1"))
    assert cluster.get("statefulsets.apps", "db")["status"]["updateRevision"] == first
    assert cluster.get("controllerrevisions.apps", first)["revision"] == 3
    assert len(cluster.names("controllerrevisions.apps")) == 2


def test_ordinals_may_start_elsewhere(cluster):
    cluster.create("statefulsets.apps", stateful(replicas=2, ordinals={"start": 5}))
    assert cluster.pods() == ["db-5", "db-6"]


def test_claims_are_made_per_pod_and_stay(cluster):
    claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    cluster.create("statefulsets.apps", stateful(replicas=1, volumeClaimTemplates=[claim]))
    assert cluster.get("pods", "db-0")["spec"]["volumes"] == [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-0"}}
    ]
    cluster.change("statefulsets.apps", "db", lambda one: one["spec"].update(replicas=0))
    assert cluster.names("persistentvolumeclaims") == ["data-db-0"]
