"""Controllers and nodes together, with pods that really run: a DaemonSet on each node, an Indexed Job, Jobs of a CronJob, pods where they were asked for."""

from collections.abc import Iterator

import pytest
import scene
from scene import Json, container, lines, pod, until

from meshtls.cluster.client import Client
from meshtls.lab import Lab

pytestmark = pytest.mark.lab
STAY = "import os, signal\nsignal.signal(signal.SIGTERM, lambda *_: os._exit(0))\nprint(os.uname().nodename, flush=True)\nsignal.pause()"
INDEX = "import os\nprint(os.environ['JOB_COMPLETION_INDEX'], os.environ['HOSTNAME'])"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(manifests=[scene.BARE], nodes=2) as lab:
        yield lab


@pytest.fixture
def client(lab: Lab) -> Iterator[Client]:
    with lab.client() as client:
        yield client


def workload(kind: str, name: str, program: str, *, api: str = "apps/v1", restart: str = "Always", **spec: object) -> Json:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container(program)], "restartPolicy": restart, "terminationGracePeriodSeconds": 1}}
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": "bare"}, "spec": {"template": template, **spec}}


def pods(client: Client, name: str) -> list[Json]:
    return [one for one in client.list("Pod", "bare", labels=f"app={name}") if one["status"].get("hostIP")]


def test_a_daemon_set_has_a_pod_on_each_node(lab: Lab, client: Client) -> None:
    lab.apply(workload("DaemonSet", "daemon", STAY, selector={"matchLabels": {"app": "daemon"}}))
    found = until(lambda: len(one := pods(client, "daemon")) == 2 and one)
    assert {one["spec"]["nodeName"] for one in found} == {"lab-1", "lab-2"}
    assert len({one["status"]["hostIP"] for one in found}) == 2
    until(lambda: client.get("DaemonSet", "daemon", "bare")["status"].get("numberReady") == 2)


def test_a_pod_runs_on_the_node_that_it_names_or_selects(lab: Lab, client: Client) -> None:
    by_ip = {address["address"]: node["metadata"]["name"] for node in client.list("Node") for address in node["status"]["addresses"] if address["type"] == "InternalIP"}
    lab.apply(pod("named", "bare", container(STAY), nodeName="lab-2"), pod("selecting", "bare", container(STAY), nodeSelector={"kubernetes.io/hostname": "lab-2"}),
              pod("host", "bare", container(STAY), nodeName="lab-2", hostNetwork=True), pod("nowhere", "bare", container(STAY), nodeSelector={"kubernetes.io/hostname": "lab-9"}))  # fmt: skip
    for name in ("named", "selecting", "host"):
        status = until(lambda name=name: lines(client, "bare", name) and client.get("Pod", name, "bare")["status"])
        assert by_ip[status["hostIP"]] == "lab-2"
        assert (by_ip.get(status["podIP"]) == "lab-2") is (name == "host")
    until(lambda: any(one["involvedObject"]["name"] == "nowhere" and one["reason"] == "FailedScheduling" for one in client.list("Event", "bare")))
    assert client.get("Pod", "nowhere", "bare")["status"]["phase"] == "Pending"


def test_an_indexed_jobs_pods_know_their_index(lab: Lab, client: Client) -> None:
    lab.apply(workload("Job", "indexed", INDEX, api="batch/v1", restart="Never", completionMode="Indexed", completions=3, parallelism=2))
    job = until(lambda: (one := client.get("Job", "indexed", "bare"))["status"].get("succeeded") == 3 and one)
    assert job["status"]["completedIndexes"] == "0-2"
    said = sorted(line for one in pods(client, "indexed") for line in lines(client, "bare", one["metadata"]["name"]))
    assert said == ["0 indexed-0", "1 indexed-1", "2 indexed-2"]


def test_a_job_without_another_try_fails_and_its_pod_keeps_the_exit_code(lab: Lab, client: Client) -> None:
    lab.apply(workload("Job", "failing", "raise SystemExit(7)", api="batch/v1", restart="Never", backoffLimit=0))
    job = until(lambda: (one := client.get("Job", "failing", "bare"))["status"].get("failed") and one)
    until(lambda: any(one["type"] == "Failed" and one["reason"] == "BackoffLimitExceeded" for one in client.get("Job", "failing", "bare")["status"].get("conditions", [])))
    (failed,) = pods(client, "failing")
    assert job["status"]["failed"] == 1 and failed["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 7


def test_a_cron_jobs_job_runs_when_its_minute_comes_and_when_somebody_triggers_it(lab: Lab, client: Client) -> None:
    template = {"spec": workload("Job", "tick", "print('ticked')", api="batch/v1", restart="Never")["spec"]}
    lab.apply({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tick", "namespace": "bare"}, "spec": {"schedule": "* * * * *", "jobTemplate": template}})
    lab.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "by-hand", "namespace": "bare", "annotations": {"cronjob.kubernetes.io/instantiate": "manual"}}, **template})

    def done(job: Json) -> bool:
        return job["status"].get("succeeded") == 1

    until(lambda: done(client.get("Job", "by-hand", "bare")))
    scheduled = until(lambda: [one for one in client.list("Job", "bare") if one["metadata"]["name"].startswith("tick-") and done(one)], 120)
    assert scheduled[0]["metadata"]["ownerReferences"][0]["kind"] == "CronJob"
    assert all(lines(client, "bare", one["metadata"]["name"]) == ["ticked"] for one in pods(client, "tick"))
