"""`meshtls lab up` while it fills a lab that runs already."""

from typing import Any

import pytest

from meshtls.cli import lab
from meshtls.lab import manifests
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
