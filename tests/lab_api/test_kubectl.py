"""An unmodified kubectl does its everyday verbs against the lab's API."""
import json
import subprocess
from collections.abc import Callable

import pytest
from lone import KUBECTL, WrittenLog

from tests.lone_api import Standalone

Kubectl = Callable[..., str]
pytestmark = pytest.mark.skipif(not KUBECTL.exists(), reason="no kubectl beside this Python")

SHOP = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: kube-shop, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: app, image: "example/app:1", ports: [{containerPort: 8080}], env: [{name: A, value: b}]}
      - {name: side, image: "example/side:1"}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: kube-shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: kube-shop}
spec: {mtls: {mode: PERMISSIVE}}
"""


@pytest.fixture(scope="module")
def shop(kubectl: Kubectl) -> str:
    """A namespace with the shop applied client-side."""
    kubectl("create", "namespace", "kube-shop")
    kubectl("apply", "-f", "-", stdin=SHOP)
    return "kube-shop"


def test_a_second_apply_changes_nothing(kubectl: Kubectl, shop: str) -> None:
    said = kubectl("apply", "-f", "-", stdin=SHOP)
    assert said.count("unchanged") == 3, said
    assert kubectl("diff", "-f", "-", stdin=SHOP) == ""


def test_diff_shows_only_what_would_change(kubectl: Kubectl, shop: str) -> None:
    said = kubectl("diff", "-f", "-", stdin=SHOP.replace("PERMISSIVE", "STRICT"), code=1)
    changed = [line.strip() for line in said.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert [line for line in changed if "generation" not in line] == ["-    mode: PERMISSIVE", "+    mode: STRICT"]


def test_get_prints_the_columns_of_kubectl(kubectl: Kubectl, shop: str) -> None:
    wide = kubectl("get", "deployment", "web", "-n", shop, "-o", "wide")
    assert wide.split()[:8] == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "CONTAINERS", "IMAGES", "SELECTOR"]
    assert "app,side" in wide and "app=web" in wide
    assert kubectl("get", "peerauthentication", "-n",
                   shop).split()[:6][:5] == ["NAME", "MODE", "AGE", "default", "PERMISSIVE"]
    assert kubectl("get", "svc", "web", "-n", shop, "-o", "jsonpath={.spec.ports[0].targetPort}") == "8080"
    assert "kind: Deployment" in kubectl("get", "deploy", "web", "-n", shop, "-o", "yaml")
    assert json.loads(kubectl("get", "deploy,svc", "-n", shop, "-o", "json"))["kind"] == "List"
    assert kubectl("get", "nodes").split()[5:7] == ["one", "Ready"]


def test_server_side_apply_tells_conflicts_and_can_be_forced(kubectl: Kubectl, shop: str) -> None:
    kubectl("apply", "--server-side", "--field-manager", "alice", "-f", "-", stdin=_config("1"))
    said = kubectl("apply", "--server-side", "--field-manager", "bob", "-f", "-", stdin=_config("2"), code=1)
    assert 'conflict with "alice": .data.mine' in said
    kubectl("apply", "--server-side", "--field-manager", "bob", "--force-conflicts", "-f", "-", stdin=_config("2"))
    assert kubectl("get", "cm", "applied", "-n", shop, "-o", "jsonpath={.data.mine}") == "2"


def _config(value: str) -> str:
    metadata = {"name": "applied", "namespace": "kube-shop"}
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"mine": value}})


def test_label_annotate_patch_scale_and_set_image_change_the_object(kubectl: Kubectl, shop: str) -> None:
    kubectl("label", "deploy", "web", "-n", shop, "tier=front")
    kubectl("annotate", "deploy", "web", "-n", shop, "note=hi")
    kubectl("patch", "deploy", "web", "-n", shop, "-p",
            '{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"example/side:2"}]}}}}')
    kubectl("patch", "deploy", "web", "-n", shop, "--type=json", "-p",
            '[{"op":"add","path":"/metadata/labels/x","value":"y"}]')
    kubectl("set", "image", "deploy/web", "app=example/app:3", "-n", shop)
    kubectl("scale", "deploy", "web", "-n", shop, "--replicas=5")
    held = json.loads(kubectl("get", "deploy", "web", "-n", shop, "-o", "json"))
    assert held["metadata"]["labels"] == {"app": "web", "tier": "front", "x": "y"}
    assert held["metadata"]["annotations"]["note"] == "hi"
    assert [one["image"]
            for one in held["spec"]["template"]["spec"]["containers"]] == ["example/app:3", "example/side:2"]
    assert held["spec"]["replicas"] == 5


def test_create_reads_what_kubectl_sends_as_protobuf(kubectl: Kubectl, shop: str) -> None:
    kubectl("create", "configmap", "c", "--from-literal=a=b", "-n", shop)
    kubectl("create", "secret", "generic", "s", "--from-literal=a=b", "-n", shop)
    kubectl("create", "serviceaccount", "worker", "-n", shop)
    kubectl("create", "cronjob", "tick", "--image=example/tick:1", "--schedule=*/5 * * * *", "-n", shop, "--", "run",
            "--now")
    kubectl("create", "job", "tock", "--from=cronjob/tick", "-n", shop)
    held = json.loads(kubectl("get", "job", "tock", "-n", shop, "-o", "json"))
    assert held["spec"]["template"]["spec"]["containers"][0]["command"] == ["run", "--now"]
    assert held["metadata"]["ownerReferences"][0]["kind"] == "CronJob"
    assert kubectl("get", "secret", "s", "-n", shop, "-o", "jsonpath={.data.a}") == "Yg=="
    assert kubectl("create", "token", "worker", "-n", shop).count(".") == 2


def test_a_kind_that_nobody_serves_is_told_as_by_a_cluster(kubectl: Kubectl) -> None:
    monitor = "apiVersion: monitoring.example/v1\nkind: Monitor\nmetadata: {name: web}\n"
    told = kubectl("apply", "-f", "-", stdin=monitor, code=1)
    assert 'no matches for kind "Monitor" in version "monitoring.example/v1"' in told


def test_istios_definitions_can_be_waited_for(kubectl: Kubectl) -> None:
    assert "condition met" in kubectl("wait", "--for=condition=Established", "crd/peerauthentications.security.istio.io")
    kinds = kubectl("get", "crd", "-l", "istio=security", "-o", "jsonpath={.items[*].spec.names.kind}")
    assert kinds == "AuthorizationPolicy PeerAuthentication RequestAuthentication"


def test_watching_get_prints_a_row_for_every_change(kubectl: Kubectl, shop: str) -> None:
    command = [str(KUBECTL), "get", "cm", "-n", shop, "-w", "-o", "name", "--field-selector=metadata.name=watched"]
    with subprocess.Popen(command, env=kubectl.environment, stdout=subprocess.PIPE,
                          text=True) as watch:  # type: ignore[attr-defined]
        assert watch.stdout is not None
        for change in (("create", "configmap", "watched"), ("label", "cm", "watched", "a=b")):
            kubectl(*change, "-n", shop)
            assert watch.stdout.readline().strip() == "configmap/watched"
        watch.terminate()


def test_wait_sees_a_condition_come_true(kubectl: Kubectl, shop: str, api: Standalone) -> None:
    _pod(api, "waited")

    def ready(pod: dict) -> None:
        pod["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    with subprocess.Popen([str(KUBECTL), "wait", "--for=condition=Ready", "pod/waited", "-n", shop, "--timeout=30s"],
                          env=kubectl.environment, stdout=subprocess.PIPE,
                          text=True) as wait:  # type: ignore[attr-defined]
        api.run(api.store.mutate, "pods", shop, "waited", ready)
        assert wait.communicate()[0].strip() == "pod/waited condition met"
    kubectl("delete", "pod", "waited", "-n", shop, "--grace-period=0", "--force")
    assert "NotFound" in kubectl("get", "pod", "waited", "-n", shop, code=1)


def _pod(api: Standalone, name: str) -> None:
    api.run(api.store.create, "pods", {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "kube-shop"},
        "status": {"phase": "Running"},
        "spec": {"nodeName": "one", "containers": [{"name": "app", "image": "example/app:1"}]}})


def test_logs_are_read_and_followed(kubectl: Kubectl, shop: str, api: Standalone, log: WrittenLog) -> None:
    _pod(api, "talker")
    log.text["talker"] = [b"one\n", b"two\n"]
    assert kubectl("logs", "talker", "-n", shop) == "one\ntwo\n"
    assert kubectl("logs", "talker", "-n", shop, "--tail=1") == "two\n"
    with subprocess.Popen([str(KUBECTL), "logs", "-f", "talker", "-n", shop],
                          env=kubectl.environment,  # type: ignore[attr-defined]
                          stdout=subprocess.PIPE, text=True) as follow:
        assert follow.stdout is not None
        assert [follow.stdout.readline() for _ in range(2)] == ["one\n", "two\n"]
        api.run(lambda: log.more["talker"].put_nowait(b"three\n"))
        assert follow.stdout.readline() == "three\n"
        api.run(lambda: log.more["talker"].put_nowait(None))
        assert follow.wait(30) == 0
    assert "container ghost is not valid for pod talker" in kubectl("logs", "talker", "-c", "ghost", "-n", shop, code=1)


def test_can_i_and_as_ask_rbac(kubectl: Kubectl, shop: str) -> None:
    kubectl("create", "role", "reader", "--verb=get,list", "--resource=configmaps", "-n", shop)
    kubectl("create", "rolebinding", "bob", "--role=reader", "--user=bob", "-n", shop)
    assert kubectl("auth", "can-i", "list", "configmaps", "-n", shop, "--as", "bob").strip() == "yes"
    assert kubectl("auth", "can-i", "delete", "configmaps", "-n", shop, "--as", "bob", code=1).strip() == "no"
    assert "configmaps" in kubectl("auth", "can-i", "--list", "-n", shop, "--as", "bob")
    assert 'User "bob" cannot list resource "pods" in API group "" in the namespace "kube-shop"' in kubectl(
        "get", "pods", "-n", shop, "--as", "bob", code=1)


STORE = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: store}
spec:
  serviceName: store
  selector: {matchLabels: {app: store}}
  volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]
  template:
    metadata: {labels: {app: store}}
    spec: {containers: [{name: app, image: "example/app:1", volumeMounts: [{name: data, mountPath: /data}]}]}
"""


def test_a_stateful_sets_claims_are_volumes_of_its_template(kubectl: Kubectl, shop: str) -> None:
    kubectl("apply", "-n", shop, "-f", "-", stdin=STORE)
    other = STORE.replace("name: store}", "name: other}").replace("{metadata: {name: data}", "{metadata: {name: absent}")
    assert 'volumeMounts[0].name: Not found: "data"' in kubectl("apply", "-n", shop, "-f", "-", stdin=other, code=1)


def test_explain_and_api_resources_know_istio(kubectl: Kubectl) -> None:
    assert "PERMISSIVE\n    STRICT" in kubectl("explain", "peerauthentication.spec.mtls.mode")
    assert "peerauthentications" in kubectl("api-resources", "--api-group=security.istio.io")


def test_delete_takes_everything_away(kubectl: Kubectl, api: Standalone) -> None:
    kubectl("create", "namespace", "gone")
    kubectl("apply", "-f", "-", stdin=SHOP.replace("kube-shop", "gone"))
    assert kubectl("delete", "-f", "-", stdin=SHOP.replace("kube-shop", "gone")).count("deleted") == 3
    kubectl("delete", "namespace", "gone")
    assert "NotFound" in kubectl("get", "namespace", "gone", code=1)
