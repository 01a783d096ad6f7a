"""The generated part of the audit's documentation. Write it anew with `python -m tests.audit.pages`; a test compares."""

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import yaml

from meshtls.audit.catalogue import ENTRIES, least_sure
from meshtls.audit.rules import RULES
from meshtls.guard.regression import QUESTIONS
from meshtls.report.accept import CODE, TITLE
from tests.audit import cases

DOCS = Path(__file__).parents[2] / "docs"
BEGIN, END = "<!-- generated: python -m tests.audit.pages -->", "<!-- end of what is generated -->"

def findings() -> str:
    """docs/findings.md: an entry for each code."""
    lines = ["# Findings", "", "Every code of the audit, and of `guard check` (MT91x). Codes are never reused. Severities: `critical` and `error` break traffic or lock you out, `warning`",
             "breaks it where objects cannot say so for certain or leaves STRICT unenforced, `info` is good to know.", "", BEGIN, ""]
    bad = {code: case for code, name, case in cases.everything() if name == "bad"}
    for rule in RULES:
        module = inspect.getdoc(importlib.import_module(rule.find.__module__)) or ""
        lines += [f'<a id="{rule.code.lower()}"></a>', f"## {rule.code}: {rule.title}", "",
                  f"{rule.severity}, {least_sure(rule.catalogue, rule.confidence)}; catalogue {', '.join(rule.catalogue)}; looks at {', '.join(rule.about)}", "", module, "",
                  "Found in, for example:", "", "```yaml", *_example(bad[rule.code]), "```", ""]
    for question in QUESTIONS:
        lines += [f'<a id="{question.code.lower()}"></a>', f"## {question.code}: {question.title}", "",
                  f"{question.severity}, source; catalogue {', '.join(question.catalogue)}; found by `meshtls guard check`", "", question.says, ""]
    lines += [f'<a id="{CODE.lower()}"></a>', f"## {CODE}: {TITLE}", "", "warning", "",
              "An accepted finding carries its owner, its reason and the day on which the acceptance ends; see report.md.", "", END]
    return "\n".join(lines) + "\n"


def _example(case: dict) -> Iterator[str]:
    for document in cases.documents(case["objects"]):
        yield from yaml.safe_dump(document.body, sort_keys=False, default_flow_style=None, width=110).rstrip().split("\n")
        yield "---"


def table() -> str:
    """The table of docs/audit.md: each entry of the catalogue and where it is dealt with."""
    by_id: dict[str, list[str]] = {}
    for rule in RULES:
        for entry in rule.catalogue:
            by_id.setdefault(entry, []).append(f"[{rule.code}](findings.md#{rule.code.lower()})")
    lines = [BEGIN, "", "| entry | what | how sure | dealt with by |", "|---|---|---|---|"]
    lines += [f"| {e.id} | {e.says} | {e.sure} | {', '.join(by_id[e.id]) if e.id in by_id else e.elsewhere} |" for e in ENTRIES]
    return "\n".join([*lines, "", END])


def audit_page(current: str) -> str:
    """docs/audit.md with its table renewed."""
    before, _, rest = current.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + table() + after


if __name__ == "__main__":
    (DOCS / "findings.md").write_text(findings())
    page = DOCS / "audit.md"
    page.write_text(audit_page(page.read_text()))
