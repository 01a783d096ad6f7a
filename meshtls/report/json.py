"""JSON: the document other programs read. Its schema is `docs/schemas/report.schema.json`, generated from `Document`.

Findings stand in one flat list, worst first, each naming its check, so that `jq '.findings[]'` is all one needs; the
checks list every question with its answer, also those that could not be asked.
"""

from typing import Any, Literal

import msgspec

from meshtls.model.check import Cell, Check, Confidence, Finding, Matrix, Report, Severity, Status
from meshtls.report.text import in_json, safe

API_VERSION = "meshtls.dev/v1"
DOCS = "docs/findings.md"


class FindingItem(msgspec.Struct, frozen=True, kw_only=True):
    """One bad answer. `subject` is Kind/namespace/name; `line` and `column` are 1-based, null where unknown.

    `accepted` says who accepted it (a suppression, a baseline); null: it counts.
    """

    code: str
    severity: Severity
    subject: str
    message: str
    check: str
    catalogue: tuple[str, ...]
    confidence: Confidence
    path: tuple[str, ...]
    because: tuple[str, ...]
    fix: str
    docs: str
    accepted: str | None = None
    file: str | None = None
    line: int | None = None
    column: int | None = None


class CheckItem(msgspec.Struct, frozen=True, kw_only=True):
    """One question. `findings` counts its entries in the flat list."""

    id: str
    title: str
    group: str
    status: Status
    reason: str
    findings: int
    seconds: float


class MatrixItem(msgspec.Struct, frozen=True, kw_only=True):
    """A table of expectation beside observation; `ok` is null where one of the two is unknown."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[Cell, ...]


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """How many checks ended how, and how many findings that count there are of each severity."""

    checks: dict[str, int]
    findings: dict[str, int]


class Document(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A report of meshtls, version 1: fields may be added, never removed or given another meaning."""

    api_version: Literal["meshtls.dev/v1"] = "meshtls.dev/v1"
    kind: str
    title: str
    started: str
    finished: str
    interrupted: bool
    summary: Summary
    coverage: dict[str, int] | None
    facts: dict[str, str]
    findings: tuple[FindingItem, ...]
    checks: tuple[CheckItem, ...]
    matrices: tuple[MatrixItem, ...]


def _facts(pairs: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Facts by name; those that share one stand below each other."""
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return {name: "\n".join(values) for name, values in found.items()}


def document(report: Report) -> Document:
    """The report as the published document."""
    pairs = [(check, finding) for check in report.checks for finding in check.findings]
    pairs.sort(key=lambda pair: order(pair[1]))
    return Document(
        kind=report.kind,
        title=report.title,
        started=report.started,
        finished=report.finished,
        interrupted=report.interrupted,
        summary=Summary(
            checks={status: sum(check.status is status for check in report.checks) for status in Status},
            findings={level: sum(f.severity is level and not f.accepted for _, f in pairs) for level in Severity},
        ),
        coverage=report.coverage,
        facts=_facts(report.facts),
        findings=tuple(_finding(check.id, finding) for check, finding in pairs),
        checks=tuple(
            CheckItem(id=c.id, title=c.title, group=c.group, status=c.status, reason=c.reason,
                      findings=len(c.findings), seconds=round(c.seconds, 6))
            for c in report.checks
        ),
        matrices=tuple(MatrixItem(title=m.title, rows=m.rows, columns=m.columns, cells=m.cells) for m in report.matrices),
    )


def order(finding: Finding) -> tuple[object, ...]:
    """Worst first; then by code, subject and place, so that equal input gives equal output."""
    return finding.severity.rank, finding.code, finding.subject, finding.path, finding.file, finding.line, finding.message


# the codes that have a page of their own; all others are the audit's
PAGES = {"MT5": "docs/probe.md#findings", "MT6": "docs/observe.md", "MT7": "docs/migrate.md", "MT8": "docs/expectations.md#findings"}


def docs_link(code: str) -> str:
    """Where a code is explained."""
    return PAGES.get(code[:3], f"{DOCS}#{code.lower()}")


def _finding(check: str, f: Finding) -> FindingItem:
    return FindingItem(
        code=f.code, severity=f.severity, subject=f.subject, message=f.message, check=check, catalogue=f.catalogue,
        confidence=f.confidence, path=f.path, because=f.because, fix=f.fix, docs=docs_link(f.code), accepted=f.accepted or None,
        file=safe(f.file) or None, line=f.line or None, column=f.column or None,
    )


def render(report: Report) -> str:
    """The document, indented."""
    return in_json(msgspec.json.format(msgspec.json.encode(document(report)), indent=2).decode()) + "\n"


def schema() -> dict[str, Any]:
    """JSON Schema of what `render` writes."""
    made = msgspec.json.schema(Document)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://meshtls.dev/schemas/report.schema.json",
            "title": "A report of meshtls", **made}


def parse(text: str | bytes) -> Report:
    """The report that `render` wrote. Raises msgspec.ValidationError for anything else."""
    read = msgspec.json.decode(text, type=Document)
    findings: dict[str, list[Finding]] = {}
    for item in read.findings:
        fields = {name: getattr(item, name) or "" for name in ("code", "subject", "message", "fix", "file")}
        findings.setdefault(item.check, []).append(
            Finding(severity=item.severity, path=item.path, because=item.because, catalogue=item.catalogue,
                    confidence=item.confidence, line=item.line or 0, column=item.column or 0, **fields))
    checks = tuple(Check(id=c.id, title=c.title, status=c.status, reason=c.reason, group=c.group, seconds=c.seconds,
                         findings=tuple(findings.get(c.id, ()))) for c in read.checks)
    matrices = tuple(Matrix(title=m.title, rows=m.rows, columns=m.columns, cells=m.cells) for m in read.matrices)
    return Report(kind=read.kind, title=read.title, checks=checks, matrices=matrices, facts=tuple(read.facts.items()),
                  started=read.started, finished=read.finished, interrupted=read.interrupted, coverage=read.coverage)
