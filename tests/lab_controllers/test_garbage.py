"""Owner references and finalizers."""

from meshtls.lab.controllers.objects import owner_reference
from tests.lab_controllers.cluster import config_map, workload


def owned(name, *owners, block=True):
    references = [{**owner_reference(one), "controller": False, "blockOwnerDeletion": block} for one in owners]
    return config_map(name, ownerReferences=references)


def test_what_a_deleted_deployment_made_goes_with_it(cluster):
    cluster.create("deployments.apps", workload("Deployment", replicas=3))
    cluster.delete("deployments.apps", "web")
    assert cluster.names("replicasets.apps") == [] and cluster.names("pods") == []


def test_with_two_owners_the_last_one_counts(cluster):
    first, second = cluster.create("configmaps", owned("first")), cluster.create("configmaps", owned("second"))
    cluster.create("configmaps", owned("child", first, second))
    cluster.delete("configmaps", "first")
    assert [ref["name"] for ref in cluster.get("configmaps", "child")["metadata"]["ownerReferences"]] == ["second"]
    cluster.delete("configmaps", "second")
    assert "child" not in cluster.names("configmaps")


def test_an_object_that_comes_with_an_unknown_owner_goes_at_once(cluster):
    cluster.create("configmaps", owned("child", config_map("ghost", uid="no-such-uid")))
    assert "child" not in cluster.names("configmaps")


def test_an_owner_in_another_namespace_is_no_owner(cluster):
    cluster.namespace("other")
    far = cluster.create("configmaps", config_map("far", "other"))
    cluster.create("configmaps", owned("child", far))
    assert "child" not in cluster.names("configmaps")


def test_orphaned_dependents_stay(cluster):
    cluster.create("deployments.apps", workload("Deployment"))
    cluster.change("deployments.apps", "web", lambda one: one["metadata"].update(finalizers=["orphan"]))
    cluster.delete("deployments.apps", "web")
    [replica_set] = cluster.names("replicasets.apps")
    assert (
        cluster.names("deployments.apps") == []
        and cluster.get("replicasets.apps", replica_set)["metadata"]["ownerReferences"] == []
    )


def test_foreground_deletion_ends_with_the_owner(slow):
    slow.create("deployments.apps", workload("Deployment"))
    slow.ready(slow.pods()[0])
    slow.change("deployments.apps", "web", lambda one: one["metadata"].update(finalizers=["foregroundDeletion"]))
    slow.delete("deployments.apps", "web")
    [pod] = slow.names("pods")
    assert slow.names("deployments.apps") == ["web"] and len(slow.names("replicasets.apps")) == 1 and slow.pods() == []
    slow.gone(pod)
    assert slow.names("deployments.apps") == [] and slow.names("replicasets.apps") == []


def test_foreground_deletion_does_not_wait_for_dependents_that_do_not_block(cluster):
    owner = cluster.create("configmaps", owned("owner"))
    cluster.create("configmaps", owned("child", owner, block=False))
    cluster.change("configmaps", "child", lambda one: one["metadata"].update(finalizers=["example.com/hold"]))
    cluster.change("configmaps", "owner", lambda one: one["metadata"].update(finalizers=["foregroundDeletion"]))
    cluster.delete("configmaps", "owner")
    assert (
        "owner" not in cluster.names("configmaps")
        and "deletionTimestamp" in cluster.get("configmaps", "child")["metadata"]
    )
