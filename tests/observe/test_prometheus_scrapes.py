"""A real Prometheus that finds and scrapes the lab's real proxies, and what observe and migrate make of what it counted."""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prom
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "lab_story"))
import scene
from scene import container, pod, policy, service, until

from meshtls.lab import Lab, state

pytestmark = [*prom.NEEDED, pytest.mark.lab]
# who asks again and again, and who asks once and then only waits
CALLER = "import signal, os, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: os._exit(0))\n" + scene.ASKING + """
while True:
    said = answer(sys.argv[2], 5)
    while said == 200 and sys.argv[1] == "once":
        time.sleep(1)
    time.sleep(0.2)
"""
CONFIG = """
global: {{scrape_interval: 1s}}
scrape_configs:
- job_name: kubernetes-pods
  metrics_path: /stats/prometheus
  static_configs: [{{targets: [{targets}]}}]
"""
SERVERS = ("stormy", "calm", "quiet", "rare", "direct", "unseen")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    servers = [one for name in SERVERS for one in (service(name, "mesh"), pod(name, "mesh", container(scene.SERVER)))]
    callers = [pod("stranger", "bare", container(CALLER, "ever", "stormy.mesh")), pod("meshed", "mesh", container(CALLER, "ever", "calm.mesh")),
               pod("visitor", "bare", container(CALLER, "once", "rare.mesh")), pod("friend", "mesh", container(CALLER, "ever", "stormy.mesh"))]  # fmt: skip
    servers += [scene.namespace("clean", **{"istio-injection": "enabled"}), service("tidy", "clean"), pod("tidy", "clean", container(scene.SERVER))]
    callers += [pod("caller", "clean", container(CALLER, "ever", "tidy.clean"))]
    # loopback mode: a process of this machine reaches its pods
    with Lab(manifests=[scene.MESHED, scene.BARE, policy("PERMISSIVE"), *servers, *callers], mode=state.LOOPBACK) as lab:
        with lab.client() as client:
            address = client.get("Pod", "direct", "mesh")["status"]["podIP"]
        lab.apply(pod("bypass", "mesh", container(CALLER, "ever", address)))
        lab.wait()
        yield lab


@pytest.fixture(scope="module")
def url(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("prometheus")
    with prom.running(folder, CONFIG.format(targets=", ".join(targets(lab)))) as url:
        until(lambda: {"stormy", "calm", "rare", "direct"} <= counts(lab, url))
        yield url


def targets(lab: Lab) -> list[str]:
    """What the pods' annotations say is to be scraped, as Istio's sample configuration reads them; one is forgotten."""
    with lab.client() as client:
        pods = [one for one in client.list("Pod") if one["metadata"]["name"] != "unseen"]
    notes = [(one["metadata"].get("annotations") or {}, one["status"]["podIP"]) for one in pods]
    return [f"'{address}:{note['prometheus.io/port']}'" for note, address in notes if note.get("prometheus.io/scrape") == "true"]


def counts(lab: Lab, url: str) -> set[str]:
    """The workloads of which something was counted."""
    checks = json.loads(run(lab, "observe", "-n", "mesh", "--prometheus", url, "-o", "json").stdout)["checks"]
    return {c["id"].rpartition("/")[2] for c in checks if c["id"].startswith("metrics/") and c["status"] in ("PASS", "FAIL")}


def run(lab: Lab, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "meshtls.cli.main", *args]
    return subprocess.run(command, env={**os.environ, "KUBECONFIG": lab.kubeconfig}, capture_output=True, text=True, timeout=120, check=False)


def observed(lab: Lab, url: str, *args: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and the metrics' checks by the workload's name, each with its findings."""
    done = run(lab, "observe", "-n", "mesh", "--prometheus", url, "-o", "json", *args)
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    checks = {c["id"].rpartition("/")[2]: {**c, "findings": [f for f in report["findings"] if f["check"] == c["id"]]}
              for c in report["checks"] if c["id"].startswith("metrics")}  # fmt: skip
    return done.returncode, checks


def test_plaintext_mtls_silence_and_what_nobody_scrapes_are_told_apart(lab: Lab, url: str) -> None:
    code, checks = observed(lab, url)

    assert code == 1
    assert {name: checks[name]["status"] for name in SERVERS} == {
        "stormy": "FAIL", "calm": "PASS", "rare": "FAIL", "direct": "FAIL", "quiet": "SKIP", "unseen": "ERROR"}  # fmt: skip


def test_the_logs_lend_the_client_its_name(lab: Lab, url: str) -> None:
    _, checks = observed(lab, url)

    for name, client in (("stormy", "Pod/bare/stranger"), ("rare", "Pod/bare/visitor")):
        assert [f["subject"] for f in checks[name]["findings"]] == [client], checks[name]


def test_a_meshed_client_that_calls_an_address_is_named_by_its_proxy_and_why(lab: Lab, url: str) -> None:
    found, = observed(lab, url)[1]["direct"]["findings"]

    assert found["subject"] == "Pod/mesh/bypass"
    assert any("PassthroughCluster" in line for line in found["because"])


def test_what_is_meant_can_be_narrowed(lab: Lab, url: str) -> None:
    code, checks = observed(lab, url, "-l", "app=calm")

    assert code == 0 and set(checks) == {"calm"}


def test_a_migration_is_held_by_what_was_counted_and_by_a_prometheus_that_is_silent(lab: Lab, url: str) -> None:
    plan = functools.partial(run, lab, "migrate", "plan", "-n", "mesh", "-o", "json", "--prometheus")
    counted = {c["id"]: c["status"] for c in json.loads(plan(url).stdout)["checks"]}
    silent = {c["id"]: c for c in json.loads(plan("http://127.0.0.1:1").stdout)["checks"]}

    assert counted["metrics/Pod/mesh/stormy"] == "FAIL" and counted["metrics/Pod/mesh/unseen"] == "ERROR"
    assert silent["metrics"]["status"] == "ERROR" and "cannot be reached" in silent["metrics"]["reason"]


def test_a_namespace_of_which_only_mtls_is_logged_and_counted_goes_strict(lab: Lab, url: str) -> None:
    done = run(lab, "migrate", "apply", "-n", "clean", "--prometheus", url, "--soak", "1s", "--yes", "-o", "json")
    report = json.loads(done.stdout)

    assert done.returncode == 0, done.stderr
    assert {c["id"]: c["status"] for c in report["checks"] if c["id"].startswith("metrics/")} == {
        "metrics/Pod/clean/caller": "SKIP", "metrics/Pod/clean/tidy": "PASS"}  # fmt: skip
    assert "2 of 2 proxies scraped" in report["facts"]["metrics"]


def test_without_access_logs_the_client_has_no_name_and_mtls_is_still_known(lab: Lab, url: str) -> None:
    with lab.client() as client:
        was = client.get("ConfigMap", "istio", "istio-system")["data"]["mesh"]
        client.patch("ConfigMap", "istio", "istio-system", {"data": {"mesh": was.replace("/dev/stdout", '""')}})
    try:
        # lines that were written before are older then
        until(lambda: silent(lab))
        code, checks = observed(lab, url, "--since", "3s")
        assert code == 1
        assert [f["subject"] for f in checks["stormy"]["findings"]] == ["Pod/mesh/stormy"]
        assert "a client that the metrics do not name, nor do the logs" in checks["stormy"]["findings"][0]["message"]
        assert checks["calm"]["status"] == "PASS"
    finally:
        with lab.client() as client:
            client.patch("ConfigMap", "istio", "istio-system", {"data": {"mesh": was}})


def silent(lab: Lab) -> bool:
    """Whether the logs have had nothing to say for three seconds."""
    return run(lab, "observe", "-n", "mesh", "--since", "3s").returncode == 3
