"""The report as a person reads it on a terminal, in a CI log or in a pager.

Findings first, worst first, then the matrices, then what could not be asked, then one summary line. Colour never
carries meaning alone. Without a terminal there is no escape sequence and no line longer than the width but what is to be copied; without UTF-8
there is no character outside ASCII. Width, colour and encoding are arguments: the environment is read by `cli.output`.
"""

import re

import msgspec

from meshtls.model.check import Check, Finding, Report, Severity, Status
from meshtls.report import json
from meshtls.report.grid import grid
from meshtls.report.text import line, plural, safe


class Style(msgspec.Struct, frozen=True, kw_only=True):
    """How to draw: `width` in columns, `colour` allowed, `unicode` allowed; findings below `show` are only counted."""

    width: int = 80
    colour: bool = False
    unicode: bool = False
    show: Severity = Severity.INFO


_COLOURS = {Severity.CRITICAL: "1;37;41", Severity.ERROR: "1;31", Severity.WARNING: "33", Severity.INFO: "36"}


PLAIN = Style()

_COMMAND = re.compile(r"(.*[:,]) ((?:kubectl|istioctl|meshtls) .*)")


def render(report: Report, style: Style = PLAIN) -> str:
    """The whole report; ends with a newline."""
    lines: list[str] = []
    findings = sorted((f for f in report.findings if not f.accepted), key=json.order)
    shown = [f for f in findings if f.severity.rank <= style.show.rank]
    for finding in shown:
        lines += _finding(finding, style) + [""]
    for matrix in report.matrices:
        lines += grid(matrix, style) + [""]
    lines += _unanswered(report.checks, style)
    lines += _facts(report, style)
    lines += _summary(report, findings, len(findings) - len(shown), style)
    return "\n".join(text.rstrip() for text in lines) + "\n"


def wrap(text: str, width: int, indent: str = "") -> list[str]:
    """Words of `text` in lines of at most `width` columns; a word longer than that is left whole, so it can be copied."""
    lines, current = [], ""
    for paragraph in safe(text).split("\n"):
        for word in paragraph.split(" "):
            if current and len(indent) + len(current) + 1 + len(word) > width:
                lines.append(indent + current)
                current = word
            else:
                current = f"{current} {word}" if current else word
        lines.append(indent + current)
        current = ""
    return lines


def paint(text: str, code: str, style: Style) -> str:
    """`text` in a colour, where colours are allowed."""
    return f"\x1b[{code}m{text}\x1b[0m" if style.colour and text else text


def _place(finding: Finding) -> str:
    if not finding.file:
        return ""
    return ":".join([line(finding.file), *(str(n) for n in (finding.line, finding.column) if n)])


def _finding(f: Finding, style: Style) -> list[str]:
    head = f"{paint(f.severity.upper(), _COLOURS[f.severity], style)} {f.code} {paint(line(f.subject), '1', style)}"
    lines = [head]
    if place := _place(f):
        lines.append(f"  {paint('at ' + place, '2', style)}")
    lines += wrap(f.message, style.width, "  ")
    for because in f.because:
        bullet = wrap(because, style.width - 4)
        lines += [f"  {'-' if index == 0 else ' '} {text}" for index, text in enumerate(bullet)]
    if f.fix:
        lines.append("  fix:")
        for text in safe(f.fix).rstrip("\n").split("\n"):
            lines += _remedy(text, style.width)
    tail = [", ".join(f.catalogue)] if f.catalogue else []
    if f.confidence not in ("measured", "source"):
        tail.append(str(f.confidence))
    if tail:
        lines.append(paint(f"  [{'; '.join(tail)}]", "2", style))
    return lines


def _remedy(text: str, width: int) -> list[str]:
    """A line of a fix: prose in columns; manifests (they are short or indented) and commands whole, so they can be copied."""
    if len(text) + 4 <= width or text.startswith(" "):
        return [f"    {text}"]
    prose, command = (match[1], match[2]) if (match := _COMMAND.fullmatch(text)) else (text, "")
    return wrap(prose, width, "    ") + ([f"      {command}"] if command else [])


def _unanswered(checks: tuple[Check, ...], style: Style) -> list[str]:
    lines = []
    for check in checks:
        if check.status is Status.ERROR:
            lines += wrap(f"could not evaluate {check.id} {check.title}: {check.reason}", style.width)
    by_reason: dict[str, list[str]] = {}
    for check in checks:
        if check.status is Status.SKIP:
            by_reason.setdefault(check.reason, []).append(check.id)
    for reason, ids in by_reason.items():
        lines += wrap(f"skipped {', '.join(ids)}: {reason}", style.width)
    return lines + [""] if lines else []


def _facts(report: Report, style: Style) -> list[str]:
    lines = []
    for name, value in report.facts:
        # several lines are a document, such as a diff: as it is
        lines += [f"{name}:", *safe(value).split("\n")] if "\n" in value else wrap(f"{name}: {value}", style.width)
    return lines + [""] if lines else []


def _summary(report: Report, findings: list[Finding], hidden: int, style: Style) -> list[str]:
    levels = [(level, sum(f.severity is level for f in findings)) for level in Severity]
    parts = [f"{count} {level}" for level, count in levels if count] or ["no findings"]
    counts = {status: sum(check.status is status for check in report.checks) for status in Status}
    answered = counts[Status.PASS] + counts[Status.FAIL]
    text = f"{safe(report.title)}: {', '.join(parts)}; {answered} of {plural(len(report.checks), 'check')} answered"
    if report.interrupted:
        text += "; interrupted, incomplete"
    lines = wrap(text, style.width)
    if accepted := len(report.findings) - len(findings):
        lines += wrap(f"{plural(accepted, 'finding')} accepted", style.width)
    if hidden:
        lines += wrap(f"{plural(hidden, 'finding')} below --show {style.show} not listed", style.width)
    return lines
