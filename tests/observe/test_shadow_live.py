"""The dry run of STRICT on real Envoys and a real Prometheus: it counts plaintext, HTTP and TCP, refuses nothing, and goes whatever happens."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prom
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "lab_story"))
import scene
import test_roles
from scene import container, pod, policy, service, until

from meshtls.lab import Lab, state

pytestmark = [*prom.NEEDED, pytest.mark.lab]
# HTTP and TCP, again and again; a line a round
CALLER = "import signal, os, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: os._exit(0))\n" + scene.ASKING + scene.ECHOING + """
while True:
    print(answer(sys.argv[1], 5), echoed(sys.argv[1]), flush=True)
    time.sleep(0.2)
"""
SERVERS = ("both", "calm", "quiet", "unseen")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    servers = [one for name in SERVERS for one in (service(name, "mesh", ports={"http": 8080, "tcp-echo": 9000}), pod(name, "mesh", container(scene.HTTP_AND_LINES)))]
    callers = [pod("stranger", "bare", container(CALLER, "both.mesh")), pod("friend", "bare-not", container(CALLER, "both.mesh")),
               pod("meshed", "bare-not", container(CALLER, "calm.mesh"))]  # fmt: skip
    other = scene.namespace("bare-not", **{"istio-injection": "enabled"})
    with Lab(manifests=[scene.MESHED, scene.BARE, other, policy("PERMISSIVE"), *servers, *callers], mode=state.LOOPBACK) as lab:
        yield lab


@pytest.fixture(scope="module")
def url(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with lab.client() as client:
        targets = [f"'{one['status']['podIP']}:15020'" for one in client.list("Pod", "mesh") if one["metadata"]["name"] != "unseen"]
    config = f"global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: pods, metrics_path: /stats/prometheus, static_configs: [{{targets: [{', '.join(targets)}]}}]}}]"
    with prom.running(tmp_path_factory.mktemp("prometheus"), config) as url:
        yield url


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "meshtls.cli.main", *args]


def run(lab: Lab, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*args), env={**os.environ, "KUBECONFIG": lab.kubeconfig}, capture_output=True, text=True, timeout=120, check=False)


def left(lab: Lab) -> list[dict[str, Any]]:
    with lab.client() as client:
        return [one for one in client.list("AuthorizationPolicy", "mesh") if one["metadata"]["name"].startswith("meshtls-")]


def test_plaintext_is_counted_by_port_nothing_is_refused_and_the_policy_goes(lab: Lab, url: str) -> None:
    done = run(lab, "shadow", "-n", "mesh", "--prometheus", url, "--for", "8s", "--yes", "-o", "json")
    report = json.loads(done.stdout)
    checks = {c["id"].rpartition("/")[2]: c["status"] for c in report["checks"]}

    assert done.returncode == 1, done.stderr
    assert checks == {"both": "FAIL", "calm": "PASS", "quiet": "SKIP", "unseen": "ERROR"}
    found = [re.sub(r": \d+ .*", "", f["message"].partition(" takes on ")[2]) for f in report["findings"]]
    assert sorted(found) == ["its TCP ports (the counter does not say which)", "port 8080"]
    assert left(lab) == []
    with lab.client() as client:
        # 503: before the servers were ready
        said = {line for who, where in (("stranger", "bare"), ("friend", "bare-not")) for line in client.logs(where, who, "app", tail=40)}
    assert said == {"200 6"}


def test_labels_narrow_it_to_some_pods(lab: Lab, url: str) -> None:
    done = run(lab, "shadow", "-n", "mesh", "-l", "app=calm", "--prometheus", url, "--for", "6s", "--yes", "-o", "json")

    assert done.returncode == 0, done.stderr + done.stdout
    assert [c["id"] for c in json.loads(done.stdout)["checks"]] == ["shadow/Pod/mesh/calm"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_an_interrupt_takes_it_away_and_tells_what_was_counted(lab: Lab, url: str, number: int, code: int) -> None:
    process = subprocess.Popen(command("shadow", "-n", "mesh", "--prometheus", url, "--for", "10m", "--yes", "-o", "json"),
                               env={**os.environ, "KUBECONFIG": lab.kubeconfig}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    made = until(lambda: left(lab))
    process.send_signal(number)
    out, err = process.communicate(timeout=60)

    assert process.returncode == code, err
    assert made[0]["metadata"]["annotations"]["istio.io/dry-run"] == "true" and made[0]["metadata"]["annotations"]["meshtls.dev/expires"]
    assert {c["status"] for c in json.loads(out)["checks"] if c["id"].startswith("shadow/")} and left(lab) == []


def test_what_a_killed_run_leaves_cleanup_finds(lab: Lab, url: str) -> None:
    process = subprocess.Popen(command("shadow", "-n", "mesh", "--prometheus", url, "--for", "10m", "--yes"),
                               env={**os.environ, "KUBECONFIG": lab.kubeconfig}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    until(lambda: left(lab))
    process.kill()
    process.wait()

    assert run(lab, "cleanup", "-n", "mesh", "--expired-only").returncode == 0 and left(lab)
    assert "AuthorizationPolicy/mesh/meshtls-shadow-" in run(lab, "cleanup", "-n", "mesh").stdout
    assert left(lab) == []


def test_where_another_dry_run_counts_it_is_not_tried(lab: Lab, url: str) -> None:
    other = {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
             "metadata": {"name": "other", "namespace": "mesh", "annotations": {"istio.io/dry-run": "true"}}, "spec": {"selector": {"matchLabels": {"app": "quiet"}}, "action": "DENY", "rules": [{}]}}  # fmt: skip
    lab.apply(other)
    done = run(lab, "shadow", "-n", "mesh", "--prometheus", url, "--for", "5s", "--yes")
    with lab.client() as client:
        client.delete("AuthorizationPolicy", "other", "mesh")

    assert done.returncode == 2 and "not tried: AuthorizationPolicy/mesh/other" in done.stderr


def test_its_role_is_enough_and_without_it_nothing_is_tried(lab: Lab, url: str, tmp_path: Path) -> None:
    lab.apply(test_roles.ROLES)
    reader = test_roles.account(lab, "counts-not", ("meshtls-audit", ""), folder=tmp_path)
    counter = test_roles.account(lab, "counts", ("meshtls-audit", ""), ("meshtls-shadow", "mesh"), folder=tmp_path)
    how = ("shadow", "-n", "mesh", "-l", "app=calm", "--prometheus", url, "--for", "6s", "--yes")
    refused, done = test_roles.run(reader, *how), test_roles.run(counter, *how)

    assert refused.returncode == 3 and "not allowed" in refused.stderr and "Traceback" not in refused.stderr
    assert done.returncode == 0, done.stderr
    assert left(lab) == []
