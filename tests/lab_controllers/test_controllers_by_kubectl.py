"""The controllers behind the lab's API, asked by an unmodified kubectl. The node is pretended: bound pods run at once, deleted ones go."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meshtls.lab.api.store import Event, Store
from meshtls.lab.controllers import Controllers
from meshtls.lab.node import register
from tests.lone_api import standalone

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: app, image: "app:1", ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
"""
CRON = """
apiVersion: batch/v1
kind: CronJob
metadata: {name: tick}
spec:
  schedule: "0 0 1 1 *"
  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: app, image: "app:1"}]}}}}
"""
STATEFUL = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: app, image: "app:1"}]}
"""


def kubelet(store: Store) -> Callable[[Event], None]:
    """Pods run as soon as they are bound; those of Jobs end well at once."""

    def run(pod: dict) -> None:
        owner = (pod["metadata"].get("ownerReferences") or [{}])[0].get("kind")
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": store.now()}
        status = pod.setdefault("status", {})
        status.update(podIP="10.77.0.1", phase="Succeeded" if owner == "Job" else "Running",
                      conditions=[*status.get("conditions", []), ready])  # fmt: skip

    def hear(event: Event) -> None:
        if event.resource != "pods" or event.type == "DELETED" or not event.object["spec"].get("nodeName"):
            return
        key = event.object["metadata"]["namespace"], event.object["metadata"]["name"]
        if "deletionTimestamp" in event.object["metadata"]:
            store.remove("pods", *key)
        elif "podIP" not in (event.object.get("status") or {}):
            store.mutate("pods", *key, run)

    return hear


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    home = tmp_path_factory.mktemp("home")
    held: list[object] = []

    def prepare(store: Store) -> None:
        controllers = Controllers(store, "MESH ROOT")
        store.subscribe(kubelet(store))
        store.create("nodes", register.node("lab-1", "10.0.0.1", store.now()))
        held.append(asyncio.ensure_future(controllers.start()))

    with standalone(caretaking=False, prepare=prepare) as api:
        environment = {"HOME": str(home), "PATH": os.environ["PATH"], "KUBECONFIG": api.kubeconfig}

        def run(*arguments: str, stdin: str = "", code: int = 0) -> str:
            command = [str(Path(sys.executable).with_name("kubectl")), *arguments]
            done = subprocess.run(command, input=stdin, env=environment, capture_output=True, text=True, timeout=60)
            assert done.returncode == code, f"{' '.join(command[1:])}: {done.returncode}\n{done.stdout}\n{done.stderr}"
            return done.stdout + done.stderr

        yield run


@pytest.fixture
def space(kubectl: Callable[..., str], request: pytest.FixtureRequest) -> Iterator[Callable[..., str]]:
    """kubectl in a namespace of the test's own, which must end whole."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name)[:60].strip("-")
    kubectl("create", "namespace", name)
    yield lambda *arguments, **options: kubectl("-n", name, *arguments, **options)
    kubectl("delete", "namespace", name, "--timeout=20s")


def test_a_rollout_is_followed_undone_and_restarted(space):
    space("apply", "-f", "-", stdin=DEPLOYMENT)
    assert 'deployment "web" successfully rolled out' in space("rollout", "status", "deployment/web", "--timeout=20s")
    space("set", "image", "deployment/web", "app=app:2")
    assert "successfully rolled out" in space("rollout", "status", "deployment/web", "--timeout=20s")
    assert space("rollout", "history", "deployment/web").split() == [
        "deployment.apps/web", "REVISION", "CHANGE-CAUSE", "1", "<none>", "2", "<none>"]  # fmt: skip
    space("rollout", "undo", "deployment/web")
    space("rollout", "status", "deployment/web", "--timeout=20s")
    images = space("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].spec.containers[0].image}")
    assert images == "app:1 app:1 app:1"
    space("rollout", "restart", "deployment/web")
    space("rollout", "status", "deployment/web", "--timeout=20s")
    space("scale", "deployment/web", "--replicas=1")
    space("wait", "--for=condition=Available", "deployment/web", "--timeout=20s")
    assert space("get", "deployment", "web", "--no-headers").split()[:4] == ["web", "1/1", "1", "1"]


def test_a_named_port_reaches_the_slices(space):
    space("apply", "-f", "-", stdin=DEPLOYMENT)
    space("rollout", "status", "deployment/web", "--timeout=20s")
    [found] = json.loads(space("get", "endpointslices", "-o", "json"))["items"]
    assert found["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}] and len(found["endpoints"]) == 3
    assert "Endpoints:" in space("describe", "service", "web")


def test_a_job_from_a_cron_job_runs_to_its_end(space):
    space("apply", "-f", "-", stdin=CRON)
    space("create", "job", "now", "--from=cronjob/tick")
    space("wait", "--for=condition=Complete", "job/now", "--timeout=20s")
    assert "1 Succeeded" in space("describe", "job", "now")
    assert space("get", "job", "now", "--no-headers").split()[:3] == ["now", "Complete", "1/1"]
    assert space("get", "pods", "-l", "job-name=now", "-o", "jsonpath={.items[*].status.phase}") == "Succeeded"


def test_a_stateful_set_rolls_out(space):
    space("apply", "-f", "-", stdin=STATEFUL)
    assert "complete" in space("rollout", "status", "statefulset/db", "--timeout=20s")
    space("set", "image", "statefulset/db", "app=app:2")
    assert "complete" in space("rollout", "status", "statefulset/db", "--timeout=20s")
    assert space("get", "pods", "-o", "jsonpath={.items[*].metadata.name}") == "db-0 db-1"


@pytest.mark.parametrize(("cascade", "left"), [("background", ""), ("foreground", ""), ("orphan", "app:1 app:1 app:1")])
def test_deletion_cascades_as_asked(space, cascade, left):
    space("apply", "-f", "-", stdin=DEPLOYMENT)
    space("rollout", "status", "deployment/web", "--timeout=20s")
    space("delete", "deployment", "web", f"--cascade={cascade}", "--timeout=20s")
    if not left:
        space("wait", "--for=delete", "pod", "-l", "app=web", "--timeout=20s")
    assert space("get", "pods", "-o", "jsonpath={.items[*].spec.containers[0].image}") == left


def test_pod_security_refuses_the_pods_and_says_so_on_the_owner(space):
    name = space("get", "configmap", "kube-root-ca.crt", "-o", "jsonpath={.metadata.namespace}")
    space("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    space("apply", "-f", "-", stdin=DEPLOYMENT)
    space("wait", "--for=condition=ReplicaFailure", "deployment/web", "--timeout=20s")
    assert 'violates PodSecurity "restricted:latest"' in space("get", "events", "--field-selector=reason=FailedCreate")
    space("label", "namespace", name, "pod-security.kubernetes.io/enforce-")
    assert "successfully rolled out" in space("rollout", "status", "deployment/web", "--timeout=20s")
