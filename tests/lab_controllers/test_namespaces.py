"""What a namespace holds from its first moment, and its end."""

from meshtls.lab.controllers import conditions
from tests.lab_controllers.cluster import config_map, service, workload


def test_a_new_namespace_is_furnished(cluster):
    assert cluster.names("serviceaccounts") == ["default"]
    assert cluster.get("configmaps", "kube-root-ca.crt")["data"] == {"ca.crt": "API ROOT"}
    root = cluster.get("configmaps", "istio-ca-root-cert")
    assert root["data"] == {"root-cert.pem": "MESH ROOT"} and root["metadata"]["labels"] == {"istio.io/config": "true"}


def test_what_was_changed_or_deleted_is_restored(cluster):
    cluster.change("configmaps", "istio-ca-root-cert", lambda one: one.update(data={}))
    cluster.delete("serviceaccounts", "default")
    cluster.delete("configmaps", "kube-root-ca.crt")
    test_a_new_namespace_is_furnished(cluster)


def test_istio_leaves_some_namespaces_alone(cluster):
    cluster.namespace("kube-public")
    cluster.namespace("kube-system")
    assert cluster.names("configmaps", "kube-public") == ["kube-root-ca.crt"]
    assert cluster.names("configmaps", "kube-system") == ["istio-ca-root-cert", "kube-root-ca.crt"]


def test_a_deleted_namespace_takes_everything_with_it(cluster):
    cluster.create("deployments.apps", workload("Deployment", replicas=3))
    cluster.create("services", service())
    cluster.delete("namespaces", "shop", namespace="")
    assert cluster.store.get("namespaces", "", "shop") is None
    assert {
        resource: cluster.names(resource) for resource in cluster.store.resources() if cluster.names(resource)
    } == {}


def test_it_waits_for_pods_and_says_what_is_left(slow):
    slow.create("deployments.apps", workload("Deployment", replicas=2))
    for pod in slow.pods():
        slow.ready(pod)
    slow.delete("namespaces", "shop", namespace="")
    home = slow.get("namespaces", "shop", "")
    assert home["status"]["phase"] == "Terminating"
    assert (
        conditions.find(home, "NamespaceContentRemaining")["message"]
        == "Some resources are remaining: pods has 2 resource instances"
    )
    for pod in slow.names("pods"):
        slow.gone(pod)
    assert slow.store.get("namespaces", "", "shop") is None


def test_a_finalizer_inside_holds_it_and_is_named(cluster):
    cluster.create("configmaps", config_map("held", finalizers=["example.com/hold"]))
    cluster.delete("namespaces", "shop", namespace="")
    held = conditions.find(cluster.get("namespaces", "shop", ""), "NamespaceFinalizersRemaining")
    assert (
        held["message"]
        == "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
    )
    cluster.change("configmaps", "held", lambda one: one["metadata"].update(finalizers=[]))
    assert cluster.store.get("namespaces", "", "shop") is None


def test_no_pod_is_made_in_a_namespace_that_goes(slow):
    slow.create("deployments.apps", workload("Deployment"))
    [pod] = slow.pods()
    slow.ready(pod)
    slow.change("pods", pod, lambda one: one["metadata"].update(finalizers=["example.com/hold"]))
    slow.delete("namespaces", "shop", namespace="")
    assert slow.names("pods") == [pod] and slow.pods() == []
