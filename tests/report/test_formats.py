"""Each format of one report, byte for byte. After a change that is meant: MESHTLS_GOLDEN=write pytest tests/report, and read the diff."""

import html
import json
import os
import re
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

import meshtls
from meshtls.model.check import Check, Report, Status
from meshtls.report import FORMATS, console
from tests.report.sample import HOSTILE, REPORT

GOLDEN = Path(__file__).parent / "golden"
ENDINGS = {"console": "txt", "json": "json", "junit": "xml", "sarif": "sarif", "html": "html", "markdown": "md"}


@pytest.mark.parametrize("form", FORMATS)
def test_a_format_says_exactly_this(form):
    path = GOLDEN / f"report.{ENDINGS[form]}"
    text = FORMATS[form](REPORT).replace(f'"version": "{meshtls.__version__}"', '"version": "VERSION"').replace(f"meshtls {meshtls.__version__}", "meshtls VERSION")
    if os.environ.get("MESHTLS_GOLDEN") == "write":
        path.write_text(text)

    assert text == path.read_text()


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_from_outside_moves_a_cursor_or_reorders_text(form):
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", FORMATS[form](REPORT))


@pytest.mark.parametrize("form", ["junit", "html", "markdown"])
def test_nothing_from_outside_becomes_markup(form):
    text = FORMATS[form](REPORT)

    assert "<script" not in text and "<b>bold" not in text


@pytest.mark.parametrize("form", FORMATS)
def test_an_empty_report_is_a_report_too(form):
    assert FORMATS[form](Report(kind="AuditReport", title="Audit", interrupted=True))


def test_the_console_fits_its_width_and_stays_plain_without_a_terminal():
    text = console.render(REPORT, console.Style(width=60))

    assert text.isascii() and "\x1b" not in text
    long = [line for line in text.splitlines() if len(line) > 60 and " " in line.strip()]
    assert not [line for line in long if not line.startswith(("    ", "ERROR", "CRITICAL"))]


def test_a_fix_is_wrapped_as_prose_and_what_is_to_be_copied_stays_whole():
    command = "kubectl -n shop rollout restart deployment/" + "x" * 40
    manifest = "spec:\n  " + "y: " + "z" * 80
    fix = f"Let peers use names, prove it with meshtls probe, or keep the ports of the peers open until they do:\n{manifest}\nThen: {command}"
    check = Check(id="MT1", title="t", status=Status.FAIL, findings=(msgspec.structs.replace(REPORT.checks[1].findings[0], fix=fix),))
    lines = console.render(msgspec.structs.replace(REPORT, checks=(check,), matrices=())).split("\n")
    at = lines.index("  fix:")

    assert lines[at + 1:at + 7] == [
        "    Let peers use names, prove it with meshtls probe, or keep the ports of the",
        "    peers open until they do:",
        "    spec:",
        "      y: " + "z" * 80,
        "    Then:",
        "      " + command,
    ]


def test_colour_and_marks_come_only_where_they_are_allowed():
    text = console.render(REPORT, console.Style(colour=True, unicode=True))

    assert "\x1b[1;31mERROR\x1b[0m" in text and "✗" in text
    assert HOSTILE not in text


def test_junit_has_one_case_a_check_and_its_kind():
    root = ElementTree.fromstring(FORMATS["junit"](REPORT))

    assert root.get("tests") == str(len(REPORT.checks)) == str(len(root.findall(".//testcase")))
    for tag, status in (("failure", Status.FAIL), ("skipped", Status.SKIP), ("error", Status.ERROR)):
        assert len(root.findall(f".//{tag}")) == sum(c.status is status for c in REPORT.checks)


def test_json_agrees_with_its_published_schema():
    from meshtls.report.json import schema

    published = json.loads((Path(__file__).parents[2] / "docs/schemas/report.schema.json").read_text())

    assert published == json.loads(json.dumps(schema())), "write docs/schemas/report.schema.json anew"


def test_sarif_names_a_place_for_each_finding_that_has_one():
    (run,) = json.loads(FORMATS["sarif"](REPORT))["runs"]

    places = {r["ruleId"]: r["locations"][0].get("physicalLocation") for r in run["results"]}
    assert places["MT201"] == {"artifactLocation": {"uri": "shop/20-cart.yaml"}, "region": {"startLine": 14, "startColumn": 7}}
    assert places["MT104"]["artifactLocation"]["uri"] == "pay%20ments/30.yaml"
    assert places["MT121"] is None
    assert [r["ruleId"] for r in run["results"] if "suppressions" in r] == ["MT270"]
    assert not run["invocations"][0]["executionSuccessful"]


def test_the_page_runs_nothing_and_loads_nothing():
    page = FORMATS["html"](REPORT)

    assert "<script" not in page
    assert "default-src 'none'; style-src 'sha256-" in html.unescape(page)
    assert not re.search(r"""(?:src|href)=|url\(|@import|\son[a-z]+=""", page)
    assert not re.search(r'\sstyle="', page), "the content policy refuses inline styles"
