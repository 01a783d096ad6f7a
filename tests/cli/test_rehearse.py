"""What `meshtls rehearse` says before any lab: what cannot be rehearsed is one line that says what to do, with the right code."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from meshtls.cli import main
from meshtls.cli.rehearse import FaultType
from meshtls.rehearse.fault import KINDS, Fault
from meshtls.rehearse.run import Rehearsal

SHOP = str(Path(__file__).parents[2] / "examples/shop")
AMBIENT = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: a, namespace: shop}
spec: {selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: a}}, spec: {containers: [{name: a, image: a}]}}}
"""


def run(*arguments, stdin=None):
    return CliRunner().invoke(main.cli, ["rehearse", *arguments], input=stdin)


@pytest.fixture(autouse=True)
def no_lab(monkeypatch):
    """A lab that would come up is an error here."""
    monkeypatch.setattr(Rehearsal, "run", lambda self: pytest.fail("a lab came up"))


@pytest.mark.parametrize(("arguments", "says"), [
    ((SHOP,), "-n NS"), ((SHOP, "-n", "shop,payments"), "one namespace"), ((SHOP, "-A"), "-n NS"),
    ((SHOP, "-n", "shop", "--calls", "x", "--all-predicted"), "exclude each other"), ((SHOP, "-n", "shop", "--max-pods", "0"), "max-pods"),
    ((SHOP, "-n", "shop", "--fault", "earthquake"), "is no fault"), ((SHOP, "-n", "shop", "--fault", "stuck-proxy=3s"), "takes no duration"),
    ((SHOP, "-n", "shop", "--fault", "api-503=3"), "is no duration")])
def test_wrong_usage_is_told_as_everywhere(arguments, says):
    done = run(*arguments)

    assert done.exit_code == 2 and says in done.output


@pytest.mark.parametrize(("source", "namespace", "says", "code"), [
    ("missing.json", "shop", "missing.json", 2), ("broken.json", "shop", "broken.json", 2), ("empty.yaml", "shop", "no namespace shop", 2),
    ("ambient.yaml", "shop", "the lab has no ambient data plane", 3), (SHOP, "nowhere", "no namespace nowhere", 2),
    (SHOP, "legacy", "no workload of legacy would have a sidecar", 3)])
def test_a_source_that_cannot_be_rehearsed_is_one_line_and_a_report(tmp_path, source, namespace, says, code):
    (tmp_path / "broken.json").write_text('{"apiVersion": "meshtls.dev/v1", "kind": "Dump", "items": [')
    (tmp_path / "empty.yaml").write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n")
    (tmp_path / "ambient.yaml").write_text(AMBIENT)
    path = source if source == SHOP else str(tmp_path / source)
    done = run(path, "-n", namespace, "-o", "json")

    assert done.exit_code == code and says in done.stderr and "Traceback" not in done.output
    report = json.loads(done.stdout)
    assert report["kind"] == "RehearseReport" and says in report["checks"][-1]["reason"]


@pytest.mark.parametrize(("text", "says"), [(None, "cannot read"), ("a: [", "neither JSON nor YAML"), ("- 1", "cannot be read"), ("\xff", "cannot be read"),
                                            ("calls: [{client: a/b, server: c/d}]", "no Service c/d")])
def test_a_file_of_calls_that_cannot_be_used_is_one_line(tmp_path, text, says):
    path = tmp_path / "calls.yaml"
    if text is not None:
        path.write_text(text)
    done = run(SHOP, "-n", "shop", "--calls", str(path))

    assert done.exit_code == 2 and says in done.stderr


def test_a_fault_is_read_with_its_duration_or_its_own():
    assert {kind: FaultType().convert(kind, None, None) for kind in KINDS} == {kind: Fault(kind, seconds) for kind, (seconds, _) in KINDS.items()}
    assert FaultType().convert("api-429=1m", None, None) == Fault("api-429", 60.0)


def test_a_rehearsal_that_goes_wrong_midway_still_tells_what_it_cannot_know(monkeypatch):
    from meshtls.errors import LabError

    def refuse(self):
        raise LabError("no Envoy here", "install one")

    monkeypatch.setattr(Rehearsal, "run", refuse)
    done = run(SHOP, "-n", "payments", "-o", "json")
    report = json.loads(done.stdout)

    assert done.exit_code == 3 and "no Envoy here (install one)" in done.stderr
    assert {"rehearse/limit/clients", "run"} <= {check["id"] for check in report["checks"]}
    assert report["facts"]["calls"] == "3 of 3, from names of Services in environments and arguments"


def test_standard_input_is_a_source_too(monkeypatch):
    monkeypatch.setattr(Rehearsal, "run", lambda self: 4)
    text = "\n---\n".join(p.read_text() for p in sorted(Path(SHOP).glob("*.yaml")))

    assert run("-", "-n", "payments", "-o", "json", stdin=text).exit_code == 4
