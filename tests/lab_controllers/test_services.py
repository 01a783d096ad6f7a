"""Services: their EndpointSlices."""

from tests.lab_controllers.cluster import pod, service, workload


def slices(cluster, name="web"):
    return cluster.store.list("endpointslices.discovery.k8s.io", "shop", {"kubernetes.io/service-name": name})


def test_a_slice_names_its_pods(cluster):
    cluster.create("services", service())
    cluster.create("deployments.apps", workload("Deployment", replicas=1))
    [pod] = [cluster.get("pods", name) for name in cluster.pods()]
    [found] = slices(cluster)
    assert found["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}] and found["addressType"] == "IPv4"
    assert found["endpoints"] == [
        {
            "addresses": [pod["status"]["podIP"]],
            "nodeName": "lab-1",
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "targetRef": {
                "kind": "Pod",
                "namespace": "shop",
                "name": pod["metadata"]["name"],
                "uid": pod["metadata"]["uid"],
            },
        }
    ]
    assert found["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] == "endpointslice-controller.k8s.io"
    assert found["metadata"]["ownerReferences"][0]["name"] == "web"


def test_readiness_and_termination_are_told_apart(slow):
    slow.create("services", service())
    slow.create("deployments.apps", workload("Deployment", replicas=1))
    [pod] = slow.pods()
    seen = []
    for value in (False, True):
        slow.ready(pod, value)
        seen.append(tuple(slices(slow)[0]["endpoints"][0]["conditions"].values()))
    slow.delete("pods", pod)
    seen.append(tuple(slices(slow)[0]["endpoints"][0]["conditions"].values()))
    slow.gone(pod)
    assert (
        seen == [(False, False, False), (True, True, False), (False, True, True)] and slices(slow)[0]["endpoints"] == []
    )


def test_not_ready_addresses_are_published_on_request(slow):
    slow.create("services", service(publishNotReadyAddresses=True))
    slow.create("deployments.apps", workload("Deployment", replicas=1))
    slow.ready(slow.pods()[0], False)
    assert slices(slow)[0]["endpoints"][0]["conditions"] == {"ready": True, "serving": False, "terminating": False}


def test_a_named_target_port_is_each_pods_own(cluster):
    cluster.create("services", service(ports=[{"name": "http", "port": 80, "targetPort": "web"}]))
    for name, number in (("one", 8080), ("two", 9090), ("three", 8080)):
        made = pod(name)
        made["spec"]["containers"][0]["ports"] = [{"name": "web", "containerPort": number}]
        cluster.create("pods", made)
    assert sorted(
        (one["ports"][0]["port"], sorted(end["targetRef"]["name"] for end in one["endpoints"]))
        for one in slices(cluster)
    ) == [(8080, ["one", "three"]), (9090, ["two"])]


def test_stateful_pods_bring_their_host_names_to_their_own_service(cluster):
    cluster.create("services", service("db", clusterIP="None", selector={"app": "db"}))
    cluster.create("services", service("other", selector={"app": "db"}))
    cluster.create("statefulsets.apps", workload("StatefulSet", "db", replicas=2, serviceName="db"))
    assert [end["hostname"] for end in slices(cluster, "db")[0]["endpoints"]] == ["db-0", "db-1"]
    assert "hostname" not in slices(cluster, "other")[0]["endpoints"][0]
    assert slices(cluster, "db")[0]["metadata"]["labels"]["service.kubernetes.io/headless"] == ""


def test_more_than_a_hundred_endpoints_fill_a_second_slice(cluster):
    cluster.create("services", service())
    cluster.create("deployments.apps", workload("Deployment", replicas=130))
    assert sorted(len(one["endpoints"]) for one in slices(cluster)) == [30, 100]


def test_a_service_without_selector_is_left_alone(cluster):
    made = service()
    del made["spec"]["selector"]
    cluster.create("services", made)
    assert slices(cluster) == []


def test_slices_go_with_their_service_and_come_back_when_deleted(cluster):
    cluster.create("services", service())
    [name] = cluster.names("endpointslices.discovery.k8s.io")
    cluster.delete("endpointslices.discovery.k8s.io", name)
    assert cluster.names("endpointslices.discovery.k8s.io") == [name]
    cluster.delete("services", "web")
    assert cluster.names("endpointslices.discovery.k8s.io") == []


def test_ended_pods_are_no_endpoints(cluster):
    cluster.create("services", service())
    cluster.create("deployments.apps", workload("Deployment", replicas=1))
    cluster.auto = False
    cluster.finish(cluster.pods()[0], "Failed")
    assert [end["targetRef"]["name"] for end in slices(cluster)[0]["endpoints"]] == []
