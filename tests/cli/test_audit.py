"""`meshtls audit` as a user runs it, on files."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from meshtls.cli import main

SHOP = str(Path(__file__).parents[2] / "examples/shop")
SAMPLE = str(Path(__file__).parents[1] / "audit/samples/shop.yaml")
FAR = "2999-01-01"


def _run(*arguments, code=0, stdin=None):
    result = CliRunner().invoke(main.cli, ["audit", *arguments], input=stdin)
    if result.exception and not isinstance(result.exception, SystemExit):
        from meshtls.errors import MeshtlsError

        assert isinstance(result.exception, MeshtlsError), result.exception
    assert result.exit_code == code or code is None, result.output
    return result.stdout


def _findings(*arguments, code=None):
    return json.loads(_run(*arguments, "-o", "json", code=code))["findings"]


def test_the_troubles_of_the_example_are_all_named():
    found = {(f["code"], f["subject"]) for f in _findings(SHOP, "-A", code=1)}

    assert {
        ("MT201", "DestinationRule/shop/inventory-debugging"),
        ("MT104", "PeerAuthentication/payments/gateway-for-billing"),
        ("MT230", "ValidatingWebhookConfiguration/policy.shop.example"),
        ("MT240", "Deployment/legacy/billing"),
        ("MT241", "CronJob/legacy/nightly-export"),
        ("MT242", "Namespace/monitoring"),
        ("MT250", "StatefulSet/data/db"),
        ("MT272", "StatefulSet/data/db"),
    } <= found


def test_the_document_has_the_form_that_is_promised():
    document = json.loads(_run(SHOP, "-o", "json", code=1))

    assert document["apiVersion"] == "meshtls.dev/v1" and document["kind"] == "AuditReport"
    assert document["coverage"]["answered"] < document["coverage"]["questions"]
    assert {"code", "severity", "subject", "catalogue", "file", "line", "message", "fix"} <= set(document["findings"][0])


def test_a_namespace_keeps_what_concerns_it_also_from_elsewhere():
    subjects = {f["subject"] for f in _findings(SHOP, "-n", "data")}

    assert "DestinationRule/shop/inventory-debugging" in subjects
    assert "PeerAuthentication/payments/gateway-for-billing" not in subjects


def test_a_selector_keeps_objects_with_such_labels():
    assert {f["subject"] for f in _findings(SHOP, "-l", "app=db")} == {"StatefulSet/data/db"}


def test_equal_input_gives_equal_output():
    strip = _findings(SHOP)

    assert strip == _findings(SHOP) == sorted(strip, key=lambda f: (["critical", "error", "warning", "info"].index(f["severity"]), f["code"], f["subject"]))


@pytest.mark.parametrize(("arguments", "code"), [
    ((SHOP,), 1), ((SHOP, "--fail-on", "never"), 0), ((SHOP, "--fail-on", "critical"), 0), ((SAMPLE,), 0), ((SAMPLE, "--fail-on", "info"), 0),
    ((SHOP, "-n", "no-such"), 2), (("/no/such/file",), 2), ((SHOP, "--fail-on-new"), 2), ((SHOP, "-l", "a b"), 2),
    ((SHOP, "--suppress", "/no/such"), 2), ((SHOP, "--baseline", SAMPLE), 2)])
def test_the_exit_code_does_not_depend_on_the_format(arguments, code):
    for output in ("table", "json", "yaml"):
        result = CliRunner().invoke(main.cli, ["audit", *arguments, "-o", output])
        assert getattr(result.exception, "exit_code", None) or result.exit_code == code or result.exit_code, output
        actual = result.exception.exit_code if hasattr(result.exception, "exit_code") else result.exit_code
        assert actual == code, (output, result.output)


def test_what_show_leaves_out_is_counted():
    everything, some = _run(SHOP, "--show", "info", "--fail-on", "never"), _run(SHOP, "--show", "error", "--fail-on", "never")

    assert "WARNING MT241" in everything and "WARNING MT241" not in some
    assert "findings below --show error not listed" in some


def test_standard_input_is_read():
    manifest = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: x, namespace: istio-system}\nspec: {selector: {matchLabels: {a: b}}}\n"

    assert "MT101" in _run("-", stdin=manifest)


def test_a_baseline_lets_only_new_findings_fail(tmp_path):
    old = tmp_path / "old.json"
    document = json.loads(_run(SHOP, "-o", "json", code=1))
    old.write_text(json.dumps(document))

    assert "0 new, " in _run(SHOP, "--baseline", str(old), "--fail-on-new")
    document["findings"] = [f for f in document["findings"] if f["code"] != "MT201"]
    old.write_text(json.dumps(document))
    shown = _run(SHOP, "--baseline", str(old), "--fail-on-new", code=1)
    assert "1 new" in shown and "ERROR MT201" in shown and "ERROR MT104" not in shown


def _suppress(tmp_path, **changes):
    entry = {"code": "MT201", "subject": "DestinationRule/shop/*", "owner": "team", "reason": "known", "expires": FAR, **changes}
    path = tmp_path / "suppress.yaml"
    path.write_text(yaml.safe_dump({"suppressions": [{k: v for k, v in entry.items() if v}]}))
    return str(path)


def test_a_suppressed_finding_is_listed_with_its_owner_and_fails_nothing(tmp_path):
    found = {f["code"]: f for f in _findings(SHOP, "--suppress", _suppress(tmp_path))}

    assert found["MT201"]["accepted"].startswith(f"team until {FAR}: known")
    assert found["MT104"]["accepted"] is None


@pytest.mark.parametrize("changes", [{"expires": "2020-01-01"}, {"owner": ""}, {"reason": ""}, {"expires": ""}, {"subject": "DestinationRule/other/*"}])
def test_a_suppression_that_does_not_count_is_a_finding_itself(tmp_path, changes):
    found = {f["code"]: f for f in _findings(SHOP, "--suppress", _suppress(tmp_path, **changes))}

    assert found["MT201"]["accepted"] is None
    assert found["MT900"]["severity"] == "warning"


def test_a_suppression_that_does_not_count_is_told_with_its_line(tmp_path):
    path = _suppress(tmp_path, subject="DestinationRule/other/*")
    text = "# why this list\n" + Path(path).read_text()
    Path(path).write_text(text)
    _run(SHOP, "--suppress", path, "--fail-on", "never", "--report", f"sarif={tmp_path / 's.json'}")
    results = json.loads((tmp_path / "s.json").read_text())["runs"][0]["results"]
    (place,) = [r["locations"][0]["physicalLocation"] for r in results if r["ruleId"] == "MT900"]

    assert place["artifactLocation"]["uri"].endswith("suppress.yaml") and place["region"]["startLine"] == 3


@pytest.mark.parametrize("more", [("-n", "payments"), ("-l", "app=db")])
def test_a_suppression_about_what_was_not_asked_is_not_called_unused(tmp_path, more):
    assert "MT900" in _run(SHOP, "--suppress", _suppress(tmp_path, subject="DestinationRule/shop/gone"), "--fail-on", "never")
    assert "MT900" not in _run(SHOP, "--suppress", _suppress(tmp_path, subject="DestinationRule/shop/gone"), "--fail-on", "never", *more)
    assert "MT900" not in _run(SHOP, "--suppress", _suppress(tmp_path, code="MT601", subject="*"), "--fail-on", "never"), "it is observe's"
    assert "MT900" in _run(SHOP, "--suppress", _suppress(tmp_path, code="MT601", expires="2020-01-01"), "--fail-on", "never"), "its day has passed"


def test_a_suppression_for_a_rule_that_could_not_be_asked_is_not_called_unused(tmp_path):
    part = tmp_path / "part.yaml"
    part.write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n")

    assert "MT900" not in _run(str(part), "--suppress", _suppress(tmp_path), "--fail-on", "never")


@pytest.mark.parametrize(("text", "says"), [
    ("suppressions:\n- {code: MT201}\n- {kode: MT201}", ":3: unknown field 'kode'"), ("suppressions:\n- MT201", ":2: a suppression is a mapping"),
    ("suppressions: [", "broken YAML"), ("a: &a [*a]", "broken YAML")])
def test_a_list_that_cannot_be_read_is_told_with_its_line(tmp_path, text, says):
    path = tmp_path / "s.yaml"
    path.write_text(text)

    result = CliRunner().invoke(main.cli, ["audit", SHOP, "--suppress", str(path)])
    assert result.exit_code == 2 and says in result.stderr


def test_an_annotation_accepts_findings_about_its_own_object(tmp_path):
    rule = {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "spec": {"selector": {"matchLabels": {"a": "b"}}},
            "metadata": {"name": "x", "namespace": "istio-system",
                         "annotations": {"meshtls.dev/suppress": f"{{code: MT101, owner: me, reason: moving, expires: {FAR}}}"}}}
    file = tmp_path / "pa.yaml"
    file.write_text(yaml.safe_dump(rule))

    (finding,) = [f for f in _findings(str(file)) if f["code"] == "MT101"]
    assert finding["accepted"].startswith("me until")


@pytest.mark.parametrize("text", ["[", "{kode: MT101}", "MT101", "{code: MT101}"])
def test_an_annotation_that_cannot_be_read_is_a_finding_and_ends_nothing(tmp_path, text):
    rule = {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "spec": {"selector": {"matchLabels": {"a": "b"}}},
            "metadata": {"name": "x", "namespace": "istio-system", "annotations": {"meshtls.dev/suppress": text}}}
    file = tmp_path / "pa.yaml"
    file.write_text(yaml.safe_dump(rule))
    found = {f["code"]: f for f in _findings(str(file))}

    assert found["MT101"]["accepted"] is None
    assert found["MT900"]["subject"] == "PeerAuthentication/istio-system/x" and "does not count" in found["MT900"]["message"]


def test_every_report_is_written_in_one_run(tmp_path):
    formats = {"json": "r.json", "junit": "r.xml", "sarif": "r.sarif", "html": "r.html", "markdown": "r.md", "console": "r.txt"}
    _run(SHOP, "--fail-on", "never", "--report", ",".join(f"{form}={tmp_path / name}" for form, name in formats.items()))

    assert all("MT201" in (tmp_path / name).read_text() for name in formats.values())


def test_every_rule_is_listed():
    from meshtls.audit import RULES

    assert [line[:5] for line in _run("--list-rules").splitlines()] == [rule.code for rule in RULES]
    assert json.loads(_run("--list-rules", "-o", "json"))["kind"] == "RuleList"


def test_findings_carry_file_and_line():
    (finding,) = [f for f in _findings(SHOP) if f["code"] == "MT201"]

    assert finding["file"].endswith("10-shop.yaml") and finding["line"] > 1
