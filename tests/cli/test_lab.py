"""`meshtls lab up` while it starts a lab and fills it: what is said, and what an interrupt does."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from meshtls.cli import lab
from meshtls.errors import LabError
from meshtls.lab import launch, manifests
from tests.lone_api import standalone


def test_who_interrupts_the_wait_is_told_that_the_lab_stays(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(manifests, "wait", interrupted)
    with standalone() as api, pytest.raises(KeyboardInterrupt):
        lab._fill("mine", api.kubeconfig, [], 1.0)

    assert "'mine' stays up" in (said := capsys.readouterr().err)
    assert "meshtls lab down --name mine" in said


def test_one_of_a_thing_is_said_as_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with standalone() as api:
        lab._fill("mine", api.kubeconfig, [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "default"}}], None)

    assert capsys.readouterr().err == "1 object applied\n"


def test_an_installation_without_the_lab_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'starlette'\" >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(launch.sys, "executable", str(python))
    with pytest.raises(LabError, match="starlette") as caught:
        launch.launch("bare", mode="loopback")

    assert caught.value.hint == "pip install 'meshtls[lab]'"


INTERRUPTED_WHILE_IT_FORKS = """
import os, signal
from meshtls.lab.node import world
signal.signal(signal.SIGINT, signal.default_int_handler)
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGINT))
try:
    world.refused()
except KeyboardInterrupt:
    print("heard")
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/ns/net"), reason="nothing is tried where there are no Linux namespaces")
def test_an_interrupt_while_namespaces_are_tried_is_heard() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_WHILE_IT_FORKS], capture_output=True, text=True, timeout=60, check=False)

    assert (done.stdout, done.stderr, done.returncode) == ("heard\n", "", 0)
