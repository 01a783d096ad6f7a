"""A rehearsal as a user runs it: what comes of the shop, from its manifests and from a dump, and that nothing is left however it ends."""

import json
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any

import psutil
import pytest

from meshtls.lab import Lab, state

SHOP = pathlib.Path(__file__).parents[2] / "examples" / "shop"
BILLING = "Deployment/legacy/billing"
pytestmark = pytest.mark.lab
EXCEPTION = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: gateway-for-billing, namespace: payments}
spec:
  selector: {matchLabels: {app: gateway}}
  portLevelMtls:
    8080: {mode: PERMISSIVE}
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "meshtls.cli.main", "rehearse", *arguments]


def rehearse(*arguments: str) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(command(*arguments, "-o", "json"), capture_output=True, text=True, timeout=300, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


def checks(report: dict[str, Any], start: str) -> dict[str, str]:
    return {c["id"].removeprefix(start): c["status"] for c in report["checks"] if c["id"].startswith(start)}


def cells(report: dict[str, Any]) -> dict[tuple[str, str], str]:
    return {(c["row"], c["column"]): c["observed"] for m in report["matrices"] if m["title"] == "Calls of the stand-ins" for c in m["cells"]}


def left() -> list[str]:
    """Labs of rehearsals whose processes run, or whose files are there."""
    return [name for name in state.names() if name.startswith("rehearse-") and not psutil.pid_exists(int(name.partition("-")[2]))]


def test_a_namespace_without_trouble_goes_through_and_its_way_back_is_rehearsed_too() -> None:
    code, report, said = rehearse(str(SHOP), "-n", "shop")

    assert code == 0, said
    assert set(checks(report, "rehearse/call/").values()) == set(checks(report, "rehearse/back/").values()) == {"PASS"}
    assert len(checks(report, "rehearse/call/")) == 5
    assert checks(report, "rehearse/restored") == {"": "PASS"} and checks(report, "rollback/migrate/outcome") == {"": "PASS"}
    assert set(cells(report).values()) == {"ANSWERED"}
    assert checks(report, "rehearse/limit/")["clients"] == "SKIP"
    assert report["facts"]["verdict"] == "shop would go STRICT, stage by stage, and the way back is exact"
    assert not left()


def test_plaintext_holds_and_its_sender_is_named() -> None:
    code, report, said = rehearse(str(SHOP), "-n", "payments")

    assert code == 4, said
    assert {f["subject"] for f in report["findings"] if f["code"] == "MT601"} == {BILLING}
    trouble = next(f for f in report["findings"] if f["code"] == "MT104")
    assert trouble["file"].endswith("20-payments.yaml") and trouble["line"]
    assert report["facts"]["verdict"] == "payments would be held, with nothing changed"
    assert not checks(report, "gate/") and not checks(report, "rehearse/call/")  # nothing was changed, so nothing is said of calls
    assert checks(report, "rehearse/restored") == {"": "PASS"}


def test_forced_past_it_the_client_is_refused_and_the_step_takes_itself_back_exactly() -> None:
    code, report, said = rehearse(str(SHOP), "-n", "payments", "--force")

    assert code == 4, said
    refused = [f for f in report["findings"] if f["code"] in ("MT711", "MT721")]
    assert {(f["code"], f["subject"]) for f in refused} == {("MT711", BILLING), ("MT721", BILLING)}
    assert checks(report, "rehearse/restored") == {"": "PASS"} and set(checks(report, "rehearse/back/").values()) == {"PASS"}
    assert cells(report)["legacy/billing -> payments/gateway:80", "tried"] == "REFUSED"
    assert cells(report)["shop/cart -> payments/gateway:80", "tried"] == "ANSWERED"


def test_a_fix_laid_over_the_source_is_rehearsed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "fix.yaml").write_text(EXCEPTION)
    code, report, said = rehearse(str(SHOP), "-n", "payments", "--apply", str(tmp_path / "fix.yaml"), "--force")

    assert code == 0, said
    assert set(cells(report).values()) == {"ANSWERED"} and checks(report, "rehearse/restored") == {"": "PASS"}


def test_a_dump_of_a_cluster_is_rehearsed_as_the_cluster_would_be(tmp_path: pathlib.Path) -> None:
    dump = str(tmp_path / "dump.json")
    with Lab(manifests=[SHOP]) as lab:
        subprocess.run([sys.executable, "-m", "meshtls.cli.main", "dump", dump, "--kubeconfig", lab.kubeconfig], check=True, timeout=120)
        live, reported, said = rehearse("-n", "payments", "--force", "--kubeconfig", lab.kubeconfig)
        with lab.client() as client:
            assert not client.list("ConfigMap", "payments", labels="app.kubernetes.io/managed-by=meshtls")  # no journal: the cluster is only read
    code, report, told = rehearse(dump, "-n", "payments", "--force")

    assert code == live == 4, said + told
    for each in (report, reported):
        assert {f["subject"] for f in each["findings"] if f["code"] in ("MT711", "MT721")} == {BILLING}
        assert checks(each, "rehearse/restored") == {"": "PASS"}
    assert rehearse(dump, "-n", "shop")[0] == 0


def test_a_job_that_nobody_sees_running_is_rehearsed_by_its_own_name(tmp_path: pathlib.Path) -> None:
    (tmp_path / "calls.yaml").write_text("calls: [{client: legacy/nightly-export, server: data/db, port: 5432}, {client: monitoring/scraper, server: data/db, port: 9100}]")
    code, report, said = rehearse(str(SHOP), "-n", "data", "--calls", str(tmp_path / "calls.yaml"), "--force")

    assert code == 4, said
    assert {f["subject"] for f in report["findings"] if f["code"] in ("MT601", "MT711")} <= {"CronJob/legacy/nightly-export", "Deployment/monitoring/scraper"}
    assert "CronJob/legacy/nightly-export" in {f["subject"] for f in report["findings"] if f["code"] in ("MT601", "MT721")}
    assert checks(report, "rehearse/restored") == {"": "PASS"}


def test_a_proxy_that_never_hears_of_the_change_turns_the_run_back() -> None:
    code, report, said = rehearse(str(SHOP), "-n", "shop", "--fault", "stuck-proxy", "--soak", "1s")

    assert code == 4, said
    assert checks(report, "rehearse/fault/") == {"stuck-proxy": "PASS"} and checks(report, "rehearse/restored") == {"": "PASS"}
    assert set(checks(report, "rehearse/back/").values()) == {"PASS"}


def test_a_slow_control_plane_and_an_api_that_fails_for_a_moment_are_waited_for() -> None:
    code, report, said = rehearse(str(SHOP), "-n", "shop", "--fault", "slow-control-plane=4s", "--fault", "api-503=1s", "--soak", "1s")

    assert code == 0, said
    assert checks(report, "rehearse/fault/") == {"slow-control-plane": "PASS", "api-503": "PASS"}
    assert "probing again" in said and said.index("to STRICT (4") < said.index("the API answers 503 for 1 s") < said.index("HOLDS")
    assert checks(report, "rehearse/restored") == {"": "PASS"}


def test_without_namespaces_it_runs_in_loopback_mode_and_says_what_that_loses() -> None:
    code, report, said = rehearse(str(SHOP), "-n", "payments", "--force", "--mode", "loopback")

    assert code == 4, said
    assert checks(report, "rehearse/limit/")["loopback"] == "SKIP"
    assert {f["subject"] for f in report["findings"] if f["code"] == "MT721"} == {BILLING}


@pytest.mark.parametrize("moment", ["bringing up", "stage canary: watching"])
def test_after_a_ctrl_c_a_report_is_written_and_nothing_is_left(tmp_path: pathlib.Path, moment: str) -> None:
    report = tmp_path / "report.json"
    with subprocess.Popen(command(str(SHOP), "-n", "shop", "--report", f"json={report}"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if moment in line:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
        code = process.wait(60)

    assert code == 130, rest
    assert "Traceback" not in rest and json.loads(report.read_text())["interrupted"]
    assert f"rehearse-{process.pid}" not in state.names()
    mine = [p for p in psutil.process_iter(["environ"]) if f"rehearse-{process.pid}-" in ((p.info["environ"] or {}).get(state.MARK) or "")]
    assert not mine


def test_a_killed_rehearsal_takes_its_lab_with_it() -> None:
    with subprocess.Popen(command(str(SHOP), "-n", "shop"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if "pods are ready" in line)
        found = state.load(f"rehearse-{process.pid}")
        os.kill(process.pid, signal.SIGKILL)
    assert found is not None
    with open(os.devnull) if not psutil.pid_exists(found.pid) else _waited(found.pid):
        assert not state.alive(found)


def _waited(pid: int) -> Any:
    """Until the process has ended."""
    psutil.wait_procs([psutil.Process(pid)], timeout=30)
    return open(os.devnull)
