"""`meshtls guard admission`: manifests on standard output, everything else on standard error, and the right exit code."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from meshtls.cli.main import cli
from meshtls.guard.admission import ENGINES
from tests.guard import cases, pages

WORLD = str(cases.WORLD)
DOCS = Path(__file__).parents[2] / "docs/guard.md"


def run(*arguments: str, code: int = 0):
    done = CliRunner().invoke(cli, ["guard", *arguments])
    got = getattr(done.exception, "exit_code", None) if done.exception and not isinstance(done.exception, SystemExit) else done.exit_code
    assert got == code, (done.output, done.exception)
    return done


@pytest.mark.parametrize("engine", ENGINES)
def test_manifests_are_labelled_as_ours_named_once_and_the_same_each_time(engine):
    done = run("admission", WORLD, "--engine", engine)
    made = list(yaml.safe_load_all(done.stdout))

    assert all(m["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "meshtls" for m in made)
    names = [(m["apiVersion"], m["kind"], m["metadata"]["name"]) for m in made]
    assert len(set(names)) == len(names) > 20
    assert run("admission", WORLD, "--engine", engine).stdout == done.stdout
    assert json.loads(run("admission", WORLD, "--engine", engine, "-o", "json").stdout) == {"apiVersion": "v1", "kind": "List", "items": made}
    assert "&id" not in done.stdout and "*id" not in done.stdout


@pytest.mark.parametrize("engine", ENGINES)
def test_what_an_engine_cannot_do_is_said_and_documented(engine):
    said = run("admission", WORLD, "--engine", engine).stderr

    page = " ".join(DOCS.read_text().split())
    for limit in ENGINES[engine].limits:
        assert f"note: {limit}" in said
        assert limit in page
    assert ENGINES[engine].needs in said and ENGINES[engine].needs in page


def test_the_page_lists_every_rule_and_engine():
    assert DOCS.read_text() == pages.page(DOCS.read_text())


def test_namespaces_that_are_not_kept_are_named_with_the_reason():
    assert "note: not kept: namespace free is PERMISSIVE by PeerAuthentication/free/default" in run("admission", WORLD).stderr


def test_only_the_namespaces_that_were_asked_for_are_kept_and_the_meshs_policy_with_those_that_need_it():
    def guards(*names: str) -> set[str]:
        return {m["metadata"]["labels"]["meshtls.dev/guard"] for m in yaml.safe_load_all(run("admission", WORLD, "-n", ",".join(names)).stdout)}

    assert guards("shop") == {"shop"} and guards("inherits") == {"inherits", "istio-system"}


def test_where_nothing_was_achieved_there_is_nothing_to_keep():
    done = run("admission", WORLD, "-n", "free", code=4)

    assert not done.stdout and "migrate first: meshtls migrate plan -n free" in str(done.exception)


@pytest.mark.parametrize(("action", "actions"), [("audit", ["Audit"]), ("warn", ["Audit", "Warn"]), ("deny", ["Audit", "Deny"])])
def test_a_guard_is_introduced_step_by_step(action, actions):
    made = list(yaml.safe_load_all(run("admission", WORLD, "--action", action).stdout))

    assert {tuple(m["spec"]["validationActions"]) for m in made if m["kind"].endswith("Binding")} == {tuple(actions)}
    made = list(yaml.safe_load_all(run("admission", WORLD, "--engine", "gatekeeper", "--action", action).stdout))
    assert {m["spec"]["enforcementAction"] for m in made if m["kind"] != "ConstraintTemplate"} == {{"audit": "dryrun"}.get(action, action)}


def test_an_exception_that_is_over_is_left_out_and_that_is_said(tmp_path):
    file = tmp_path / "exceptions.yaml"
    file.write_text(yaml.safe_dump([
        {"rule": "host-network", "namespace": "shop", "subject": "DaemonSet/agent", "owner": "team-node", "reason": "x", "expires": day}
        for day in ("2999-01-01", "2001-01-01")]))  # fmt: skip
    done = run("admission", WORLD, "--exception", str(file))

    assert "2999-01-02T00:00:00Z" in done.stdout and "2001" not in done.stdout
    assert "note: left out, its time was over on 2001-01-02: host-network of DaemonSet/agent (team-node)" in done.stderr


def test_people_read_what_is_kept_and_every_exception():
    text = run("admission", WORLD, "-o", "wide").stdout

    assert "port-mode 3306 PERMISSIVE (PeerAuthentication/db)" in text and "some workloads" in text and "client-tls" in text


def test_without_a_kind_that_decides_nothing_is_written(tmp_path):
    import msgspec

    from meshtls.sources import load
    from meshtls.sources.dump import write

    dump = tmp_path / "dump.json"
    dump.write_bytes(b"".join(write(msgspec.structs.replace(load([WORLD]), absent={"DestinationRule": "may not list destinationrules"}, live=True))))
    done = run("admission", str(dump), code=3)

    assert not done.stdout and "DestinationRule could not be read" in done.stderr
