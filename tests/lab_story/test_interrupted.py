"""A migration that is disturbed on real Envoys: killed, interrupted, hung up, met by a second run, edited by somebody else."""

import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from meshtls.lab import Lab

SHOP = pathlib.Path(__file__).parents[2] / "examples" / "shop"
pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def shop() -> Iterator[Lab]:
    with Lab(manifests=[SHOP]) as lab:
        yield lab


@pytest.fixture
def lab(shop: Lab) -> Iterator[Lab]:
    """The shop, which must be afterwards what it was before."""
    before = policies(shop)
    yield shop
    assert policies(shop) == before
    assert created(shop) == []


def policies(lab: Lab) -> dict[str, Any]:
    with lab.client() as client:
        return {o["metadata"]["name"]: (o["metadata"]["uid"], o["spec"]) for o in client.list("PeerAuthentication", "shop")}


def created(lab: Lab) -> list[str]:
    """What runs made and ought to have removed: everything but journals."""
    with lab.client() as client:
        found = [o for kind in ("Pod", "ConfigMap", "Service", "Lease") for o in client.list(kind, labels="app.kubernetes.io/managed-by=meshtls")]
    return [o["metadata"]["name"] for o in found if not o["metadata"]["name"].startswith("meshtls-journal")]


def started(lab: Lab, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "meshtls.cli.main", "migrate", *args]
    environment = {**os.environ, "KUBECONFIG": lab.kubeconfig}
    # under nohup the tests, and all that they start, would not hear of a hang-up
    heed = functools.partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heed)


def apply(lab: Lab, until: str, *more: str, soak: str = "60s") -> tuple[subprocess.Popen[str], list[str]]:
    """A run that has come as far as saying `until`, and what it said."""
    process, said = started(lab, "apply", "-n", "shop", "--yes", "--soak", soak, *more), []
    assert process.stderr is not None
    for line in process.stderr:
        said.append(line)
        if until in line:
            return process, said
    raise AssertionError("".join(said))


def ended(lab: Lab, *args: str) -> tuple[int, str]:
    process = started(lab, *args)
    out, err = process.communicate(timeout=180)
    return process.returncode, out + err


@pytest.mark.parametrize("where", ["stage canary: watching", "stage namespace: watching"])
def test_a_run_that_was_killed_is_taken_back_by_another(lab: Lab, where: str) -> None:
    process, _ = apply(lab, where, soak="3s")
    process.kill()
    process.communicate()

    code, said = ended(lab, "status", "-n", "shop")
    assert code == 4, said
    code, said = ended(lab, "rollback", "-n", "shop", "--yes")
    assert code == 0, said
    tidy(lab)


def test_a_run_that_was_killed_is_finished_by_another(lab: Lab) -> None:
    process, _ = apply(lab, "stage canary: watching", soak="3s")
    process.kill()
    process.communicate()

    code, said = ended(lab, "apply", "-n", "shop", "--yes", "--dry-run")
    assert code == 4, said
    assert "nothing was changed" in said
    code, said = ended(lab, "apply", "-n", "shop", "--yes")
    assert code == 0, said
    assert "it goes forward, to STRICT" in said
    assert {name: spec for name, (_, spec) in policies(lab).items()} == {"default": {"mtls": {"mode": "STRICT"}}}
    code, said = ended(lab, "rollback", "-n", "shop", "--yes")
    assert code == 0, said
    tidy(lab)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_interrupted_goes_back_in_bounded_time_and_reports(lab: Lab, number: signal.Signals, tmp_path: pathlib.Path) -> None:
    process, _ = apply(lab, "stage canary: watching", "--report", f"json={tmp_path / 'r.json'}")
    sent = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 130, err
    assert time.monotonic() - sent < 20
    assert "Traceback" not in err
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["interrupted"] is True
    assert {check["status"] for check in report["checks"]} >= {"ERROR", "PASS"}


def test_a_second_interrupt_ends_at_once_and_says_how_to_go_on(lab: Lab) -> None:
    process, _ = apply(lab, "stage canary: watching")
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "run: meshtls migrate rollback -n shop; meshtls cleanup -n shop" in err or "rolled back" in err
    code, said = ended(lab, "rollback", "-n", "shop", "--yes")
    assert code == 0, said
    tidy(lab)


def test_a_second_run_is_told_of_the_first(lab: Lab) -> None:
    process, _ = apply(lab, "stage canary: watching")
    code, said = ended(lab, "apply", "-n", "shop", "--yes")
    assert code == 3, said
    assert "is migrating this namespace" in said
    code, said = ended(lab, "rollback", "-n", "shop", "--yes")
    assert code == 3, said
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130


def test_a_strangers_edit_during_the_soak_is_kept_and_told(lab: Lab) -> None:
    theirs = {"selector": {"matchLabels": {"app": "cart"}}, "mtls": {"mode": "PERMISSIVE"}, "portLevelMtls": {"9000": {"mode": "STRICT"}}}
    process, _ = apply(lab, "stage canary: watching", soak="3s")
    with lab.client() as client:
        held = client.get("PeerAuthentication", "meshtls-canary-cart", "shop")
        client.replace({**held, "spec": theirs})
    _, err = process.communicate(timeout=120)

    assert process.returncode == 4, err
    with lab.client() as client:
        held = client.get("PeerAuthentication", "meshtls-canary-cart", "shop")
        assert held["spec"] == theirs
        code, said = ended(lab, "rollback", "-n", "shop", "--yes")
        assert code == 4, said
        assert "left alone" in said
        client.delete("PeerAuthentication", "meshtls-canary-cart", "shop")
    code, said = ended(lab, "rollback", "-n", "shop", "--yes")
    assert code == 0, said


def tidy(lab: Lab) -> None:
    """What a killed run probed with is found by cleanup."""
    for namespace in ("shop", "payments"):
        environment = {**os.environ, "KUBECONFIG": lab.kubeconfig}
        command = [sys.executable, "-m", "meshtls.cli.main", "cleanup", "-n", namespace]
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
    deadline = time.monotonic() + 20
    while created(lab) and time.monotonic() < deadline:
        time.sleep(0.1)
