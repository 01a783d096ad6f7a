"""HTML: one page that can be mailed, archived and opened offline. No script, no external resource.

The page filters by namespace, severity and agreement with style rules alone (`:has()`), so nothing has to run, and the
content policy allows nothing but its own style sheet, by hash. Every text goes through the template's autoescape.
"""

import base64
import hashlib
from importlib import resources
from typing import Any

import jinja2
import markupsafe

import meshtls
from meshtls.model.check import Matrix, Report, Severity, Status
from meshtls.report import text
from meshtls.report.json import docs_link, order

_MARKS = {Status.PASS: "✓", Status.FAIL: "✗", Status.SKIP: "–", Status.ERROR: "!"}
_TONES: dict[bool | None, tuple[str, str]] = {True: ("ok", "✓"), False: ("bad", "✗"), None: ("unknown", "?")}


def render(report: Report) -> str:
    """The page."""
    findings = sorted(report.findings, key=lambda f: (bool(f.accepted), order(f)))
    rows = [row for matrix in report.matrices for row in matrix.rows]
    names = sorted({ns for ns in [*(namespace(f.subject) for f in findings), *map(namespace, rows)] if ns})
    index = {name: f"n{i}" for i, name in enumerate(names)}
    present = [level for level in Severity if any(f.severity is level for f in findings)]
    style = resources.files("meshtls.report").joinpath("page.css").read_text("utf-8") + _filters(len(names), present)
    page = _environment().get_template("page")
    return page.render(
        version=meshtls.__version__,
        policy=f"default-src 'none'; style-src '{_hash(style)}'; base-uri 'none'; form-action 'none'",
        style=markupsafe.Markup(style),
        report=report,
        verdict=_verdict(report),
        tiles=_tiles(report),
        namespaces=names,
        toggles=_toggles(report, present),
        matrices=[_matrix(matrix, index) for matrix in report.matrices],
        findings=[_finding(f, index) for f in findings],
        unanswered=sum(c.status in (Status.SKIP, Status.ERROR) for c in report.checks),
        marks=_MARKS,
    )


def namespace(subject: str) -> str:
    """The namespace in `Kind/namespace/name` or `namespace/name`; "" where there is none."""
    parts = subject.split(" ")[0].split("/")
    return parts[1] if len(parts) >= 3 else parts[0] if len(parts) == 2 and parts[0].islower() else ""


def _environment() -> jinja2.Environment:
    source = resources.files("meshtls.report").joinpath("page.html.j2").read_text("utf-8")
    environment = jinja2.Environment(loader=jinja2.DictLoader({"page": source}), autoescape=True,
                                     undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    environment.filters["line"] = lambda value: text.line(str(value))
    environment.filters["safe_text"] = lambda value: text.safe(str(value))
    return environment


def _hash(style: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()


def _filters(names: int, present: list[Severity]) -> str:
    """The rules that hide what is not chosen."""
    rules = [f'body:has(#ns option[value="n{i}"]:checked) [data-ns^="n"]:not([data-ns="n{i}"])' for i in range(names)]
    rules += [f"body:has(#show-{level}:not(:checked)) .finding.{level}" for level in present]
    rules += [f"body:has(#show-{tone}:not(:checked)) .matrix td.{tone} > *" for tone, _ in _TONES.values()]
    return "".join(rule + "{display:none}\n" for rule in rules)


def _toggles(report: Report, present: list[Severity]) -> list[dict[str, str]]:
    toggles = [{"id": f"show-{level}", "label": str(level)} for level in present]
    if report.matrices:
        toggles += [{"id": "show-ok", "label": "cells as expected"}, {"id": "show-bad", "label": "cells that differ"},
                    {"id": "show-unknown", "label": "unknown cells"}]
    return toggles


def _verdict(report: Report) -> dict[str, str]:
    cells = [cell.ok for matrix in report.matrices for cell in matrix.cells]
    answered = [c for c in report.checks if c.status in (Status.PASS, Status.FAIL)]
    open_ = [f for f in report.findings if not f.accepted]
    worst = min((f.severity for f in open_), key=lambda s: s.rank, default=None)
    wrong = cells.count(False)
    if worst in (Severity.CRITICAL, Severity.ERROR) or wrong or any(c.status is Status.FAIL and not c.findings for c in answered):
        parts = [text.plural(len(open_), "finding")] if open_ else []
        parts += [f"{text.plural(wrong, 'cell')} not as expected"] if wrong else []
        return {"tone": "bad", "mark": "✗", "text": ", ".join(parts) or "failed"}
    if any(c.status is Status.ERROR for c in report.checks) or cells.count(None) or (report.checks and not answered):
        return {"tone": "unknown", "mark": "?", "text": "Not everything could be answered"}
    if worst:
        return {"tone": "warning", "mark": "!", "text": text.plural(len(open_), "finding")}
    return {"tone": "ok", "mark": "✓", "text": "As it should be" if cells else "No findings"}


def _tiles(report: Report) -> list[dict[str, Any]]:
    tiles: list[dict[str, Any]] = []
    for level in Severity:
        if count := sum(f.severity is level and not f.accepted for f in report.findings):
            tiles.append({"label": str(level), "value": count, "tone": str(level)})
    cells = [cell.ok for matrix in report.matrices for cell in matrix.cells]
    if cells:
        tiles.append({"label": "cells as expected", "value": f"{cells.count(True)} / {len(cells)}",
                      "tone": "ok" if all(cells) else "bad"})
    answered = sum(c.status in (Status.PASS, Status.FAIL) for c in report.checks)
    if report.checks:
        tiles.append({"label": "checks answered", "value": f"{answered} / {len(report.checks)}",
                      "tone": "ok" if answered == len(report.checks) else "warning"})
    return tiles


def _matrix(matrix: Matrix, index: dict[str, str]) -> dict[str, Any]:
    cells = {(cell.row, cell.column): cell for cell in matrix.cells}

    def drawn(row: str, column: str) -> dict[str, Any] | None:
        if (cell := cells.get((row, column))) is None:
            return None
        tone, mark = _TONES[cell.ok]
        return {"tone": tone, "mark": mark, "column": column, "expected": cell.expected, "observed": cell.observed,
                "detail": cell.detail}

    verdicts = [cell.ok for cell in matrix.cells]
    return {
        "title": matrix.title, "columns": matrix.columns, "good": verdicts.count(True), "wrong": verdicts.count(False),
        "unknown": verdicts.count(None),
        "rows": [{"label": row, "ns": index.get(namespace(row), ""), "cells": [drawn(row, c) for c in matrix.columns]}
                 for row in matrix.rows],
    }


def _finding(f: Any, index: dict[str, str]) -> dict[str, Any]:
    place = f"{f.file}:{f.line}" if f.file and f.line else f.file
    return {"code": f.code, "severity": str(f.severity), "subject": f.subject, "ns": index.get(namespace(f.subject), ""),
            "place": place, "message": f.message, "because": f.because, "fix": f.fix.rstrip("\n"), "docs": docs_link(f.code),
            "catalogue": f.catalogue, "confidence": str(f.confidence), "accepted": f.accepted}
