"""JUnit XML: each check is one test case, so that a CI's test view shows what was asked and not only what was wrong.

PASS is a plain case, FAIL a failure with its findings in words, SKIP and ERROR are `skipped` and `error` with their
reason. A check's group is the suite.
"""

from xml.etree import ElementTree as xml

from meshtls.model.check import Check, Finding, Report, Severity, Status
from meshtls.report.json import order
from meshtls.report.text import safe


def render(report: Report) -> str:
    """The document, with its declaration."""
    groups: dict[str, list[Check]] = {}
    for check in report.checks:
        groups.setdefault(check.group or report.kind, []).append(check)
    root = xml.Element("testsuites", {"name": _text(report.title), **_counts(report.checks)})
    for name, checks in groups.items():
        attributes = {"name": _text(name), **_counts(checks)}
        if report.started:
            attributes["timestamp"] = report.started.removesuffix("Z")
        suite = xml.SubElement(root, "testsuite", attributes)
        for check in checks:
            _case(suite, f"{report.kind}.{name}" if check.group else report.kind, check)
    xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + xml.tostring(root, encoding="unicode") + "\n"


def _counts(checks: list[Check] | tuple[Check, ...]) -> dict[str, str]:
    def count(status: Status) -> str:
        return str(sum(check.status is status for check in checks))

    return {"tests": str(len(checks)), "failures": count(Status.FAIL), "errors": count(Status.ERROR),
            "skipped": count(Status.SKIP), "time": f"{sum(check.seconds for check in checks):.3f}"}


def _case(suite: xml.Element, classname: str, check: Check) -> None:
    case = xml.SubElement(suite, "testcase", {
        "name": _text(f"{check.id} {check.title}"), "classname": _text(classname), "time": f"{check.seconds:.3f}"})
    if check.status is Status.FAIL:
        findings = sorted((f for f in check.findings if not f.accepted), key=order)
        worst = findings[0].severity if findings else Severity.ERROR
        message = findings[0].message if len(findings) == 1 else f"{len(findings)} findings"
        failure = xml.SubElement(case, "failure", {"type": str(worst), "message": _text(message if findings else check.reason)})
        failure.text = _text("\n\n".join(_words(f) for f in findings) or check.reason)
    elif check.status is Status.PASS and check.findings:
        xml.SubElement(case, "system-out").text = _text("\n".join(f"accepted: {f.subject}: {f.accepted}" for f in check.findings))
    elif check.status is Status.SKIP:
        xml.SubElement(case, "skipped", {"message": _text(check.reason)})
    elif check.status is Status.ERROR:
        xml.SubElement(case, "error", {"type": "error", "message": _text(check.reason)}).text = _text(check.reason)


def _words(f: Finding) -> str:
    place = f" ({f.file}{f':{f.line}' if f.line else ''})" if f.file else ""
    lines = [f"{f.severity} {f.code} {f.subject}{place}", f.message, *(f"- {because}" for because in f.because)]
    return "\n".join([*lines, "fix:", f.fix] if f.fix else lines)


def _text(text: str) -> str:
    """Only characters that XML 1.0 allows."""
    return safe(text).replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")
