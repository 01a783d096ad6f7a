"""`--expect` on the command line: exit codes, reports, lines, and what is an error of usage."""

import json
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest
from click.testing import CliRunner

from meshtls.cli.main import cli
from meshtls.errors import MeshtlsError

SHOP = str(Path(__file__).parents[2] / "examples/shop")
HEAD = "apiVersion: meshtls.dev/v1\nkind: Expectations\n"


def run(tmp_path, text, *more):
    file = tmp_path / "expect.yaml"
    file.write_text(HEAD + text)
    done = CliRunner().invoke(cli, ["predict", SHOP, "--expect", str(file), *more])
    return done.exception.exit_code if isinstance(done.exception, MeshtlsError) else done.exit_code, done


def call(from_, to, must, **more):
    return "- " + json.dumps({"from": from_, "to": to, "must": must, **more}) + "\n"


@pytest.mark.parametrize("text, more, code", [
    (call("Deployment/shop/cart", "payments/gateway:80", "MTLS"), (), 0),
    (call("legacy/*", "payments/gateway", "PLAINTEXT"), (), 0),
    (call("legacy/*", "payments/gateway", "REFUSED"), (), 1),
    (call("legacy/*", "payments/gateway", "REFUSED"), ("--strict", "payments"), 0),
    (call("legacy/*", "payments/gateway", "BREAKS"), ("--strict", "payments"), 0),
    (call("legacy/*", "payments/gateway", "WORKS"), ("--strict", "payments"), 1),
    (call("legacy/*", "payments/gateway", "WORKS"), ("--strict", "payments", "--fail-on", "never"), 0),
    (call("shop/*", "payments/gateway", "MTLS"), ("--strict", "payments"), 0),
    (call("legacy/billing", "Deployment/payments/gateway:8080", "REFUSED"), ("--strict", "payments"), 0),
    (call("legacy/billing", "Deployment/payments/gateway:8080", "PLAINTEXT"), (), 0),
    (call("legacy/nobody", "payments/gateway", "PLAINTEXT"), (), 1),
    (call("legacy/*", "payments/gateway:81", "PLAINTEXT"), (), 1),
    (call("legacy/*", "payments/gateway", "PLAINTEXT", port="http"), (), 0),
])  # fmt: skip
def test_the_exit_code_says_whether_expectations_hold(tmp_path, text, more, code):
    got, done = run(tmp_path, "calls:\n" + text, *more)

    assert got == code, done.output


@pytest.mark.parametrize("text, more, code", [
    ("{workloads: payments/*, mode: STRICT}", (), 1),
    ("{workloads: Deployment/payments/led*, mode: STRICT}", ("--strict", "payments"), 0),
    ("{workloads: payments/*, mode: STRICT}", ("--strict", "payments"), 1),  # an exception of the example for a port 80 that nothing has
    ("{workloads: payments/*, mode: STRICT, except: [{workload: 'payments/gateway:80', owner: a, until: 2999-01-01}]}", ("--strict", "payments"), 0),
    ("{workloads: payments/*, mode: STRICT, except: [{workload: 'payments/gateway:80', owner: a, until: 2020-01-01}]}", ("--strict", "payments"), 1),
    ("{workloads: 'Deployment/payments/gateway:8080', mode: STRICT}", ("--strict", "payments"), 0),
    ("{workloads: Deployment/legacy/*, mode: NONE}", (), 0),
    ("{workloads: Deployment/legacy/*, mode: STRICT}", ("--strict", "legacy"), 1),
    ("{workloads: nowhere/*, mode: STRICT}", (), 1),
])  # fmt: skip
def test_modes_are_expected_port_by_port(tmp_path, text, more, code):
    assert run(tmp_path, f"modes:\n- {text}\n", *more)[0] == code


def test_a_deciding_kind_that_cannot_be_read_leaves_every_expectation_open(tmp_path):
    import msgspec

    from meshtls import sources
    from meshtls.sources.dump import write

    dump, file = tmp_path / "dump.json", tmp_path / "expect.yaml"
    mesh = msgspec.structs.replace(sources.load([SHOP]), absent={"PeerAuthentication": "may not list peerauthentications"}, live=True)
    dump.write_bytes(b"".join(write(mesh)))
    file.write_text(HEAD + "calls:\n" + call("legacy/*", "payments/gateway", "PLAINTEXT"))
    done = CliRunner().invoke(cli, ["predict", str(dump), "--expect", str(file), "-o", "json"])

    assert done.exit_code == 3
    assert [(c["status"], "may not list" in c["reason"]) for c in json.loads(done.stdout)["checks"]] == [("ERROR", True)]


def test_junit_has_a_case_for_each_expectation_and_sarif_the_line_of_the_file(tmp_path):
    text = "calls:\n" + call("shop/*", "payments/*", "MTLS") + call("legacy/*", "payments/gateway", "MTLS") + "modes:\n- {workloads: payments/*, mode: PERMISSIVE}\n"
    code, _ = run(tmp_path, text, "--report", f"junit={tmp_path / 'j.xml'},sarif={tmp_path / 's.json'},html={tmp_path / 'h.html'}")
    cases = {case.get("name"): [child.tag for child in case] for case in xml.parse(tmp_path / "j.xml").iter("testcase")}
    (result,) = json.loads((tmp_path / "s.json").read_text())["runs"][0]["results"]
    where = result["locations"][0]["physicalLocation"]

    assert code == 1
    assert cases == {"shop/* -> payments/* must be MTLS": [], "legacy/* -> payments/gateway must be MTLS": ["failure"], "mode of payments/* must be PERMISSIVE": []}
    assert where["artifactLocation"]["uri"].endswith("expect.yaml") and where["region"]["startLine"] == 5
    assert "CronJob/legacy/nightly-export" in result["message"]["text"]


@pytest.mark.parametrize("more, says", [(("--all",), "--expect excludes"), (("--direct",), "--expect excludes"), (("-l", "app=cart"), "--expect excludes")])
def test_what_the_file_decides_is_no_option_besides(tmp_path, more, says):
    code, done = run(tmp_path, "calls:\n" + call("shop/*", "payments/*", "MTLS"), *more)

    assert code == 2 and says in done.output


@pytest.mark.parametrize("more", [("--report", "junit=x.xml"), ("--fail-on", "never"), ("--show", "info")])
def test_options_of_a_report_need_expectations(more):
    done = CliRunner().invoke(cli, ["predict", SHOP, *more])

    assert done.exit_code == 2 and f"{more[0]} needs --expect FILE" in done.output


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_bytes(b"\xff\xfe\x00"), lambda p: p.write_text("{{ .Values.x }}"),
                                  lambda p: p.write_text("[" * 5000)])  # fmt: skip
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, make):
    file = tmp_path / "expect.yaml"
    make(file)
    done = CliRunner().invoke(cli, ["predict", SHOP, "--expect", str(file)])

    assert done.exit_code == 2
    assert done.stderr.startswith("meshtls: ") and str(file) in done.stderr and "Traceback" not in done.stderr


def test_the_report_is_a_published_document(tmp_path):
    import jsonschema

    _, done = run(tmp_path, "calls:\n" + call("shop/*", "payments/*", "MTLS"), "-o", "json")
    document = json.loads(done.stdout)

    jsonschema.validate(document, json.loads((Path(__file__).parents[2] / "docs/schemas/report.schema.json").read_text()))
    assert document["kind"] == "ExpectationReport"


def test_a_baseline_and_suppressions_count_for_expectations_too(tmp_path):
    text = "calls:\n" + call("legacy/*", "payments/gateway", "MTLS")
    old, list_ = tmp_path / "old.json", tmp_path / "s.yaml"
    code, done = run(tmp_path, text, "-o", "json")
    old.write_text(done.stdout)
    list_.write_text("- {code: MT801, subject: Service/payments/gateway, owner: a, reason: b, expires: 2999-01-01}")

    assert code == 1
    assert run(tmp_path, text, "--baseline", str(old))[0] == 1
    assert run(tmp_path, text, "--baseline", str(old), "--fail-on-new")[0] == 0
    assert run(tmp_path, text + call("monitoring/*", "payments/gateway", "MTLS"), "--baseline", str(old), "--fail-on-new")[0] == 1
    assert run(tmp_path, text, "--suppress", str(list_))[0] == 0
    list_.write_text(list_.read_text().replace("2999", "2020"))
    assert run(tmp_path, text, "--suppress", str(list_))[0] == 1


def test_a_baseline_of_another_verb_is_none(tmp_path):
    old = tmp_path / "old.json"
    old.write_text(CliRunner().invoke(cli, ["audit", SHOP, "-o", "json", "--fail-on", "never"]).stdout)
    code, done = run(tmp_path, "calls:\n" + call("legacy/*", "payments/gateway", "MTLS"), "--baseline", str(old))

    assert code == 2 and "it is a AuditReport" in done.stderr


@pytest.mark.parametrize("spaces, statuses, expected", [
    ("", ["FAIL", "PASS", "PASS"], 1), ("legacy", ["FAIL", "SKIP", "SKIP"], 1), ("payments", ["FAIL", "PASS", "SKIP"], 1),
    ("shop", ["SKIP", "PASS", "PASS"], 0), ("data", ["SKIP", "SKIP", "SKIP"], 3),
])  # fmt: skip
def test_with_namespaces_only_what_concerns_them_is_judged(tmp_path, spaces, statuses, expected):
    text = "calls:\n" + call("legacy/*", "payments/gateway", "MTLS") + call("*/visitor", "*/gateway", "MTLS") + "modes:\n- {workloads: shop/*, mode: PERMISSIVE}\n"
    code, done = run(tmp_path, text, "-o", "json", *(("-n", spaces) if spaces else ()))

    assert ([c["status"] for c in json.loads(done.stdout)["checks"]], code) == (statuses, expected)
