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


def test_its_pods_go_first_and_what_protects_them_stays_until_then(slow):
    slow.create("deployments.apps", workload("Deployment", replicas=2))
    slow.create("peerauthentications.security.istio.io", {**config_map("strict"), "kind": "PeerAuthentication"})
    for pod in slow.pods():
        slow.ready(pod)
    slow.delete("namespaces", "shop", namespace="")
    home = slow.get("namespaces", "shop", "")
    assert home["status"]["phase"] == "Terminating"
    assert {one["status"] for one in home["status"]["conditions"]} == {"False"} and len(home["status"]["conditions"]) == 5
    assert slow.names("peerauthentications.security.istio.io") == ["strict"] and slow.names("deployments.apps") == ["web"]
    for pod in slow.names("pods"):
        slow.gone(pod)
    assert slow.store.get("namespaces", "", "shop") is None


def test_a_finalizer_inside_holds_it_and_is_named(cluster):
    cluster.create("configmaps", config_map("held", finalizers=["example.com/hold"]))
    cluster.delete("namespaces", "shop", namespace="")
    home = cluster.get("namespaces", "shop", "")
    left, held = (conditions.find(home, kind) for kind in ("NamespaceContentRemaining", "NamespaceFinalizersRemaining"))
    assert left["message"] == "Some resources are remaining: configmaps. has 1 resource instances"
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
