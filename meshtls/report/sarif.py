"""SARIF 2.1.0: findings with file and line, for code scanning and editors.

Severities critical and error become `error`, warning `warning`, info `note`. A finding in a live object has a logical
location only. `partialFingerprints` names what a finding is about, so that a moved line is not a new finding. Checks
that were skipped or could not be evaluated are notifications of the invocation, never silence.
"""

import hashlib
import json
import posixpath
import urllib.parse
from typing import Any

import meshtls
from meshtls.model.check import Finding, Report, Severity, Status
from meshtls.report.json import docs_link, order
from meshtls.report.text import safe

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {Severity.CRITICAL: "error", Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
# codes that many checks may find: a check's title would tell of that one alone
_TITLES = {
    "MT501": "An offer was accepted that the policies should refuse", "MT502": "mTLS should work and does not",
    "MT503": "A probe ended otherwise than expected", "MT504": "A refusal was not the mesh's",
    "MT505": "A port's mode on the wire is not the policies'", "MT801": "A call is not as expected",
    "MT802": "A mode is not as expected", "MT803": "An expectation means nothing that is there",
    "MT804": "An exception has ended or is not needed",
}  # fmt: skip
_RANKS = {Severity.CRITICAL: 100.0, Severity.ERROR: 75.0, Severity.WARNING: 50.0, Severity.INFO: 10.0}


def render(report: Report) -> str:
    """The log with one run."""
    findings = sorted(report.findings, key=order)
    titles = {f.code: _TITLES.get(f.code, check.title) for check in report.checks for f in check.findings}
    codes = sorted(titles)
    notes = [c for c in report.checks if c.status in (Status.SKIP, Status.ERROR)]
    invocation: dict[str, Any] = {
        "executionSuccessful": not report.interrupted and all(c.status is not Status.ERROR for c in report.checks),
        "toolExecutionNotifications": [
            {"level": "error" if c.status is Status.ERROR else "note", "message": {"text": safe(f"{c.id} {c.title}: {c.reason}")}}
            for c in notes
        ],
    }
    if report.started:
        invocation["startTimeUtc"] = report.started
    if report.finished:
        invocation["endTimeUtc"] = report.finished
    log = {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "meshtls", "version": meshtls.__version__,
                                "rules": [_rule(code, titles[code]) for code in codes]}},
            "columnKind": "unicodeCodePoints",
            "invocations": [invocation],
            "results": [_result(f, codes.index(f.code)) for f in findings],
        }],
    }
    return json.dumps(log, indent=2, ensure_ascii=False) + "\n"


def _rule(code: str, title: str) -> dict[str, Any]:
    return {"id": code, "shortDescription": {"text": safe(title)}, "help": {"text": f"See {docs_link(code)}."}}


def _result(f: Finding, index: int) -> dict[str, Any]:
    text = "\n".join([f.message, *(f"- {because}" for because in f.because)])
    if f.fix:
        text += f"\nfix:\n{f.fix}"
    location: dict[str, Any] = {"logicalLocations": [{
        "name": safe(f.subject.rsplit("/", 1)[-1]), "fullyQualifiedName": safe(".".join((f.subject, *f.path))), "kind": "resource"}]}
    if f.file and f.file != "-":
        physical: dict[str, Any] = {"artifactLocation": {"uri": _uri(f.file)}}
        if f.line:
            physical["region"] = {"startLine": f.line, **({"startColumn": f.column} if f.column else {})}
        location["physicalLocation"] = physical
    accepted = {"suppressions": [{"kind": "external", "justification": safe(f.accepted)}]} if f.accepted else {}
    return {
        **accepted,
        "ruleId": f.code, "ruleIndex": index, "level": _LEVELS[f.severity], "rank": _RANKS[f.severity],
        "message": {"text": safe(text)}, "locations": [location],
        "partialFingerprints": {"meshtls/v1": fingerprint(f)},
        "properties": {"severity": str(f.severity), "confidence": str(f.confidence), "tags": list(f.catalogue)},
    }


def fingerprint(f: Finding) -> str:
    """What the finding is about, independent of line numbers and wording."""
    return hashlib.sha256("\0".join((f.code, f.subject, *f.path)).encode("utf-8", "backslashreplace")).hexdigest()[:32]


def _uri(path: str) -> str:
    path = posixpath.normpath(path.replace("\\", "/"))
    return ("file://" if path.startswith("/") else "") + urllib.parse.quote(path.encode("utf-8", "surrogateescape"))
