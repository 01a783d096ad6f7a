"""What a pod gets from its node, as from a kubelet: files, environment, order of its containers, restarts, time to end."""

import time
from collections.abc import Iterator

import pytest
import scene
from scene import SERVER, Json, container, lines, pod, policy, service, told, until

from meshtls.cluster.client import Client
from meshtls.lab import Lab

pytestmark = pytest.mark.lab

# prints the content of each file and each variable that it is asked for, then stays
TELL = """
import json, os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
told = {}
for name in sys.argv[1:]:
    if name.startswith("/"):
        try:
            told[name] = open(name).read()
        except OSError as error:
            told[name] = type(error).__name__
    else:
        told[name] = os.environ.get(name)
print(json.dumps(told), flush=True)
signal.pause()
"""
# one request; what came of it in one line
ASK = """
import http.client, json, os
try:
    connection = http.client.HTTPConnection("server.mesh", 8080, timeout=10)
    connection.request("GET", "/")
    answer = connection.getresponse().status
except (OSError, http.client.HTTPException) as error:
    answer = type(error).__name__
print(json.dumps({"asked": answer, "uid": os.getuid()}), flush=True)
"""
STAY = "import os, signal\nsignal.signal(signal.SIGTERM, lambda *_: os._exit(0))\nprint('up', flush=True)\nsignal.pause()"

# how many processes whose last argument is "sleeper" there are, over and over
COUNT = r"""
import json, os, signal, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
def command(number):
    try:
        return open(f"/proc/{number}/cmdline").read()
    except OSError:
        return ""
while True:
    found = [name for name in os.listdir("/proc") if name.isdecimal() and command(name).endswith("sleeper\0")]
    print(json.dumps({"sleepers": len(found)}), flush=True)
    time.sleep(0.1)
"""


SERVED = [
    scene.MESHED,
    scene.BARE,
    policy("STRICT"),
    service("server", "mesh"),
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "bare"}, "data": {"a.txt": "alpha", "b.txt": "beta"}},
    {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hidden", "namespace": "bare"}, "stringData": {"word": "sesame"}},
    pod("server", "mesh", container(SERVER, ports=[{"containerPort": 8080}])),
]  # fmt: skip


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(manifests=SERVED) as lab:
        yield lab


@pytest.fixture
def client(lab: Lab) -> Iterator[Client]:
    with lab.client() as client:
        yield client


def first(client: Client, where: str, name: str, of: str = "app") -> Json:
    """The first JSON line of a container, once it is there."""
    found: list[Json] = until(lambda: told(client, where, name, of))
    return found[0]


def status(client: Client, where: str, name: str, of: str = "app") -> Json:
    found = client.get("Pod", name, where).get("status", {})
    return next((one for one in [*found.get("containerStatuses", []), *found.get("initContainerStatuses", [])] if one["name"] == of), {})


def test_volumes_and_variables_hold_what_they_refer_to(lab: Lab, client: Client) -> None:
    field = {"fieldRef": {"fieldPath": "metadata.name"}}
    mounts = {"config": "/etc/config", "one": "/etc/one", "secret": "/etc/secret", "about": "/etc/about", "all": "/etc/all", "scratch": "/scratch"}
    volumes = [
        {"name": "config", "configMap": {"name": "settings"}},
        {"name": "one", "configMap": {"name": "settings", "items": [{"key": "b.txt", "path": "deep/er.txt"}]}},
        {"name": "secret", "secret": {"secretName": "hidden"}},
        {"name": "about", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "all", "projected": {"sources": [{"configMap": {"name": "settings"}}, {"secret": {"name": "hidden"}},
                                                   {"downwardAPI": {"items": [{"path": "name", **field}]}}]}},
        {"name": "scratch", "emptyDir": {}},
    ]  # fmt: skip
    env = [
        {"name": "PLAIN", "value": "as it is"},
        {"name": "NAME", "valueFrom": field},
        {"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "word"}}},
        {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a.txt"}}},
        {"name": "MADE", "value": "of $(PLAIN) and $$(NAME)"},
    ]
    expected = {
        "/etc/config/a.txt": "alpha", "/etc/config/b.txt": "beta", "/etc/one/deep/er.txt": "beta", "/etc/one/a.txt": "FileNotFoundError",
        "/etc/secret/word": "sesame", "/etc/about/labels": 'app="teller"', "/etc/all/a.txt": "alpha", "/etc/all/word": "sesame", "/etc/all/name": "teller",
        "/scratch/note": "from the first", "PLAIN": "as it is", "NAME": "teller", "WORD": "sesame", "A": "alpha", "MADE": "of as it is and $(NAME)",
    }  # fmt: skip
    write = "open('/scratch/note', 'w').write('from the first')"
    mounted = [{"name": name, "mountPath": path} for name, path in mounts.items()]
    lab.apply(pod("teller", "bare", container(TELL, *expected, "ADDRESS", env=env, volumeMounts=mounted),
                  initContainers=[container(write, name="first", volumeMounts=[mounted[-1]])], volumes=volumes))  # fmt: skip

    found = first(client, "bare", "teller")

    address = client.get("Pod", "teller", "bare")["status"]["podIP"]
    assert found == {**expected, "ADDRESS": address}


def test_a_secret_for_its_owner_alone_is_read_by_the_pods_group_too(lab: Lab, client: Client) -> None:
    secret = [{"name": "secret", "secret": {"secretName": "hidden", "defaultMode": 0o400}}]
    mount = [{"name": "secret", "mountPath": "/etc/secret"}]
    lab.apply(pod("member", "bare", container(TELL, "/etc/secret/word", volumeMounts=mount), volumes=secret, securityContext={"runAsUser": 1000, "fsGroup": 2000}))

    assert first(client, "bare", "member") == {"/etc/secret/word": "sesame"}


def test_what_a_stateful_sets_pod_has_kept_outlives_it(lab: Lab, client: Client) -> None:
    keep = "open('/data/kept', 'a').write('again ')\n" + TELL
    claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
    template = pod("keeper", "bare", container(keep, "/data/kept", volumeMounts=[{"name": "data", "mountPath": "/data"}]))
    lab.apply({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "keeper", "namespace": "bare"}, "spec": {
        "serviceName": "keeper", "selector": {"matchLabels": {"app": "keeper"}}, "volumeClaimTemplates": [claim],
        "template": {"metadata": {"labels": {"app": "keeper"}}, "spec": template["spec"]}}})  # fmt: skip

    assert first(client, "bare", "keeper-0") == {"/data/kept": "again "}
    assert client.get("PersistentVolumeClaim", "data-keeper-0", "bare")["status"]["phase"] == "Bound"
    client.delete("Pod", "keeper-0", "bare")
    until(lambda: told(client, "bare", "keeper-0") == [{"/data/kept": "again again "}])


def test_an_init_container_is_in_the_mesh_with_a_native_sidecar_and_outside_with_a_classic_one(lab: Lab, client: Client) -> None:
    ask = container(ASK, name="ask")
    lab.apply(pod("native", "mesh", container(STAY), initContainers=[ask]),
              pod("classic", "mesh", container(STAY), initContainers=[ask], annotations={"sidecar.istio.io/nativeSidecar": "false"}))  # fmt: skip

    assert first(client, "mesh", "native", "ask")["asked"] == 200
    assert first(client, "mesh", "classic", "ask")["asked"] in ("ConnectionResetError", "RemoteDisconnected")
    spec = client.get("Pod", "classic", "mesh")["spec"]
    assert "istio-proxy" in [one["name"] for one in spec["containers"]]


def test_user_and_group_1337_pass_their_own_sidecar_by(lab: Lab, client: Client) -> None:
    lab.apply(pod("proxied", "mesh", container(ASK + "\nimport signal; signal.pause()", securityContext={"runAsUser": 1000})),
              pod("past", "mesh", container(ASK + "\nimport signal; signal.pause()", securityContext={"runAsUser": 1337})))  # fmt: skip

    assert first(client, "mesh", "proxied")["asked"] == 200
    assert first(client, "mesh", "past")["asked"] in ("ConnectionResetError", "RemoteDisconnected")


def test_a_container_that_fails_is_started_again_and_its_exit_code_is_kept(lab: Lab, client: Client) -> None:
    lab.apply(pod("failing", "bare", container("import sys; sys.exit(3)"), restartPolicy="OnFailure"),
              pod("broken", "bare", container(STAY), initContainers=[container("raise SystemExit(4)", name="first")], restartPolicy="Never"),
              pod("finished", "bare", container("print('well')"), restartPolicy="Never"))  # fmt: skip

    again = until(lambda: (one := status(client, "bare", "failing")).get("restartCount", 0) >= 1 and one)
    assert again["lastState"]["terminated"]["exitCode"] == 3
    until(lambda: client.get("Pod", "broken", "bare")["status"]["phase"] == "Failed")
    assert status(client, "bare", "broken", "first")["state"]["terminated"]["exitCode"] == 4
    assert "terminated" not in status(client, "bare", "broken")["state"], "the application never ran"
    until(lambda: client.get("Pod", "finished", "bare")["status"]["phase"] == "Succeeded")


def test_a_failing_liveness_probe_ends_the_container_and_starts_it_again(lab: Lab, client: Client) -> None:
    probe = {"exec": {"command": ["python3", "-c", "raise SystemExit(1)"]}, "periodSeconds": 1, "failureThreshold": 1}
    lab.apply(pod("sick", "bare", container(STAY, livenessProbe=probe)))

    until(lambda: status(client, "bare", "sick").get("restartCount", 0) >= 1)
    events = until(lambda: [one for one in client.list("Event", "bare") if one["involvedObject"]["name"] == "sick" and one["reason"] == "Unhealthy"])
    assert "Liveness probe failed" in events[0]["message"]


def test_a_probe_that_cannot_be_asked_is_told_and_ends_nothing(lab: Lab, client: Client) -> None:
    probe = {"exec": {"command": ["nobody-has-this"]}, "periodSeconds": 1, "failureThreshold": 1}
    lab.apply(pod("asked", "bare", container(STAY, livenessProbe=probe)))

    def told_of() -> list[Json]:
        return [one for one in client.list("Event", "bare") if one["involvedObject"].get("name") == "asked" and one["reason"] == "Unhealthy"]

    (event,) = until(lambda: (found := told_of()) and found[0]["count"] >= 3 and found)
    assert event["message"].startswith("Liveness probe errored and resulted in unknown state: ")
    assert event["involvedObject"]["fieldPath"] == "spec.containers{app}"
    assert status(client, "bare", "asked")["restartCount"] == 0


def hooked(**hooks: Json) -> Json:
    return container(STAY, lifecycle={when: {"exec": {"command": ["python3", "-c", "raise SystemExit(7)"]}} for when in hooks})


def test_a_container_whose_post_start_hook_fails_is_started_again_and_one_whose_pre_stop_hook_fails_ends(lab: Lab, client: Client) -> None:
    lab.apply(pod("hooked", "bare", hooked(postStart={})), pod("leaving", "bare", hooked(preStop={}), terminationGracePeriodSeconds=30))

    def reasons(name: str) -> set[str]:
        return {one["reason"] for one in client.list("Event", "bare") if one["involvedObject"].get("name") == name}

    until(lambda: status(client, "bare", "hooked").get("restartCount", 0) >= 1 and "FailedPostStartHook" in reasons("hooked"))
    until(lambda: "up" in lines(client, "bare", "leaving"))
    client.delete("Pod", "leaving", "bare")
    until(lambda: "leaving" not in [one["metadata"]["name"] for one in client.list("Pod", "bare")])
    assert "FailedPreStopHook" in reasons("leaving")


def test_an_application_that_is_held_until_its_proxy_runs_makes_its_first_call_through_it(lab: Lab, client: Client) -> None:
    stay = container(ASK + "\nimport signal; signal.pause()")
    classic, hold = {"sidecar.istio.io/nativeSidecar": "false"}, {"proxy.istio.io/config": "holdApplicationUntilProxyStarts: true"}
    lab.apply(pod("held", "mesh", stay, annotations={**classic, **hold}))

    assert first(client, "mesh", "held")["asked"] == 200
    assert [one["name"] for one in client.get("Pod", "held", "mesh")["spec"]["containers"]] == ["istio-proxy", "app"]


def test_a_pod_that_ends_is_not_started_again_by_its_liveness_probe(lab: Lab, client: Client) -> None:
    program = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: open('/tmp/going', 'w'))\nprint('up', flush=True)\nwhile True: signal.pause()"
    alive = {"exec": {"command": ["python3", "-c", "import os; raise SystemExit(os.path.exists('/tmp/going'))"]}, "periodSeconds": 1, "failureThreshold": 1}
    lab.apply(pod("slowly", "bare", container(program, livenessProbe=alive), terminationGracePeriodSeconds=4))
    until(lambda: "up" in lines(client, "bare", "slowly"))
    client.delete("Pod", "slowly", "bare")
    until(lambda: "slowly" not in [one["metadata"]["name"] for one in client.list("Pod", "bare")])

    messages = [one["message"] for one in client.list("Event", "bare") if one["involvedObject"].get("name") == "slowly" and one["reason"] == "Killing"]
    assert messages == ["Stopping container app"]


def test_a_pods_generation_counts_what_was_wished_of_it_and_not_where_it_runs(lab: Lab, client: Client) -> None:
    lab.apply(pod("counted", "bare", container(STAY)))
    running = until(lambda: (one := client.get("Pod", "counted", "bare"))["status"].get("phase") == "Running" and one)

    assert running["spec"]["nodeName"] and running["metadata"]["generation"] == running["status"]["observedGeneration"] == 1


def test_a_probe_that_takes_too_long_leaves_no_process_behind(lab: Lab, client: Client) -> None:
    probe = {"exec": {"command": ["python3", "-c", "import time; time.sleep(600)", "sleeper"]}, "periodSeconds": 1, "timeoutSeconds": 1}
    lab.apply(pod("slow", "bare", container(COUNT, readinessProbe=probe)))

    def asked() -> int:
        return sum(one["count"] for one in client.list("Event", "bare") if one["involvedObject"]["name"] == "slow" and "timed out" in one["message"])

    until(lambda: asked() >= 4)
    assert told(client, "bare", "slow", tail=1)[-1]["sleepers"] <= 2, "one that is asked and one that is just ending"


def test_a_tcp_readiness_probe_waits_for_the_port(lab: Lab, client: Client) -> None:
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    lab.apply(pod("open", "bare", container(SERVER, readinessProbe=probe)), pod("shut", "bare", container(STAY, readinessProbe=probe)))

    until(lambda: status(client, "bare", "open").get("ready"))
    until(lambda: [one for one in client.list("Event", "bare") if one["involvedObject"]["name"] == "shut" and one["reason"] == "Unhealthy"])
    assert status(client, "bare", "shut")["ready"] is False


def test_a_pod_that_does_not_heed_sigterm_is_killed_when_its_grace_is_over(lab: Lab, client: Client) -> None:
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\nwhile True: signal.pause()"
    lab.apply(pod("deaf", "bare", container(deaf), terminationGracePeriodSeconds=2), pod("heeding", "bare", container(STAY), terminationGracePeriodSeconds=30))
    for name in ("deaf", "heeding"):
        until(lambda name=name: "up" in lines(client, "bare", name))
    began, took = time.monotonic(), {}
    for name in ("heeding", "deaf"):
        client.delete("Pod", name, "bare")
    left = {"deaf", "heeding"}
    while left:
        now = {one["metadata"]["name"] for one in client.list("Pod", "bare")} & left
        took.update(dict.fromkeys(left - now, time.monotonic() - began))
        left = now
        assert time.monotonic() - began < 60
        time.sleep(0.02)

    assert took["deaf"] >= 2.0
    assert took["heeding"] < took["deaf"]


def test_a_pod_on_the_hosts_network_has_the_nodes_address_and_no_sidecar(lab: Lab, client: Client) -> None:
    lab.apply(pod("host", "mesh", container(ASK + "\nimport signal; signal.pause()"), hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet"))

    assert first(client, "mesh", "host")["asked"] in ("ConnectionResetError", "RemoteDisconnected")
    found = client.get("Pod", "host", "mesh")
    assert found["status"]["podIP"] == found["status"]["hostIP"]
    assert [one["name"] for one in found["spec"]["containers"]] == ["app"] and not found["spec"].get("initContainers")
