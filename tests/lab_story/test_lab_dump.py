"""A dump of a running lab, pods and all, stands in for it: the same findings, modes and calls."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from meshtls.lab import Lab

SHOP = pathlib.Path(__file__).parents[2] / "examples" / "shop"


def answer(lab: Lab, *arguments: str) -> Any:
    environment = {**os.environ, "KUBECONFIG": lab.kubeconfig}
    command = [sys.executable, "-m", "meshtls.cli.main", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def told(document: Any) -> list[Any]:
    """What is said, without times and places in files."""
    if document["kind"] != "AuditReport":
        return list(document["items"])
    return [[f["code"], f["subject"], f["severity"], f["message"]] for f in document["findings"]] + [
        [c["id"], c["status"], c["reason"]] for c in document["checks"]]


@pytest.mark.lab
def test_a_dump_of_a_running_lab_answers_as_the_lab(tmp_path: pathlib.Path) -> None:
    file = str(tmp_path / "dump.json")
    with Lab(manifests=[SHOP]) as lab:
        subprocess.run([sys.executable, "-m", "meshtls.cli.main", "dump", file], env={**os.environ, "KUBECONFIG": lab.kubeconfig}, check=True, timeout=120)
        for verb in (["audit"], ["modes"], ["predict"], ["predict", "--strict", "shop", "--direct"]):
            live, dumped = answer(lab, *verb, "-A", "-o", "json"), answer(lab, *verb, file, "-A", "-o", "json")
            assert told(live) == told(dumped), verb
            assert told(live), verb
    held = json.loads(pathlib.Path(file).read_text())
    kinds = {item["kind"] for item in held["items"]}
    assert "Pod" in kinds and "Secret" not in kinds and held["live"] is True
