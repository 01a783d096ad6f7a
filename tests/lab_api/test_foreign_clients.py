"""Clients that we did not write list, watch and patch the lab's API: the official Python client and kr8s."""
import warnings

import pytest

from tests.lone_api import Standalone


@pytest.fixture
def core(api: Standalone):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import kubernetes
    configuration = kubernetes.client.Configuration()
    kubernetes.config.load_kube_config(config_file=api.kubeconfig, client_configuration=configuration)
    with kubernetes.client.ApiClient(configuration) as client:
        yield kubernetes.client.CoreV1Api(client)


def test_the_official_client_creates_lists_watches_and_patches(core) -> None:
    from kubernetes import client, watch
    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="official", labels={"by": "official"}), data={"a": "1"})
    made = core.create_namespaced_config_map("default", body)
    listed = core.list_namespaced_config_map("default", label_selector="by=official")
    assert [item.metadata.name for item in listed.items] == ["official"]
    core.patch_namespaced_config_map("official", "default", {"data": {"b": "2"}})
    stream = watch.Watch()
    seen = []
    for event in stream.stream(core.list_namespaced_config_map, "default", label_selector="by=official",
                               resource_version=made.metadata.resource_version, timeout_seconds=20):
        seen.append((event["type"], event["object"].data))
        stream.stop()
    assert seen == [("MODIFIED", {"a": "1", "b": "2"})]
    core.delete_namespaced_config_map("official", "default")
    assert not core.list_namespaced_config_map("default", label_selector="by=official").items


def test_the_official_client_reads_logs_and_custom_objects(core, api: Standalone, log) -> None:
    from kubernetes import client
    api.run(api.store.create, "pods",
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "said", "namespace": "default"},
                                       "spec": {"nodeName": "one", "containers": [{"name": "app", "image": "i"}]}})
    log.text["said"] = [b"hello\n"]
    assert core.read_namespaced_pod_log("said", "default") == "hello\n"
    custom = client.CustomObjectsApi(core.api_client)
    body = {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": "default"},
            "spec": {"mtls": {"mode": "STRICT"}}}
    custom.create_namespaced_custom_object("security.istio.io", "v1", "default", "peerauthentications", body)
    held = custom.list_cluster_custom_object("security.istio.io", "v1beta1", "peerauthentications")
    assert [(item["metadata"]["name"], item["spec"])
            for item in held["items"]] == [("default", {"mtls": {"mode": "STRICT"}})]


def test_kr8s_lists_watches_and_patches(api: Standalone) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import kr8s
        from kr8s.objects import ConfigMap
        client = kr8s.api(kubeconfig=api.kubeconfig)
        one = ConfigMap({"metadata": {"name": "kr", "namespace": "default", "labels": {"by": "kr8s"}},
                         "data": {"a": "1"}}, api=client)
        one.create()
        one.patch({"data": {"b": "2"}})
        assert [item.name for item in client.get("configmaps", namespace="default", label_selector="by=kr8s")] == ["kr"]
        for event, item in client.watch("configmaps", namespace="default", label_selector="by=kr8s"):
            assert (event, dict(item.data)) == ("ADDED", {"a": "1", "b": "2"})
            break
        one.delete()
        assert not list(client.get("configmaps", namespace="default", label_selector="by=kr8s"))
