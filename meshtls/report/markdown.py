"""Markdown: for a CI's job summary or a comment on a pull request. Text from outside cannot become markup."""

import html
import re

from meshtls.model.check import Finding, Matrix, Report, Status
from meshtls.report.json import docs_link, order
from meshtls.report.text import line, plural, safe

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~@-])")


def render(report: Report) -> str:
    """The report; findings as a table with their explanation folded beneath."""
    findings = sorted((f for f in report.findings if not f.accepted), key=order)
    accepted = len(report.findings) - len(findings)
    lines = [f"# {_text(report.title)}", ""]
    if report.interrupted:
        lines += ["**Interrupted: incomplete.**", ""]
    if findings:
        lines += ["| severity | code | subject | message |", "|---|---|---|---|"]
        lines += [f"| {f.severity} | [{f.code}]({docs_link(f.code)}) | {_text(f.subject)} | {_text(f.message)} |" for f in findings]
        lines.append("")
        lines += [text for f in findings for text in _details(f)]
    for matrix in report.matrices:
        lines += _matrix(matrix)
    unanswered = [c for c in report.checks if c.status in (Status.SKIP, Status.ERROR)]
    lines += [f"- {_text(c.id)} {c.status}: {_text(c.reason)}" for c in unanswered] + ([""] if unanswered else [])
    lines += [f"{_text(name)}: {_text(value)}  " for name, value in report.facts]
    answered = len(report.checks) - len(unanswered)
    lines.append(f"{plural(len(findings), 'finding')}{f' and {accepted} accepted' if accepted else ''}; {answered} of {plural(len(report.checks), 'check')} answered.")
    return "\n".join(lines) + "\n"


def _details(f: Finding) -> list[str]:
    if not (f.because or f.fix):
        return []
    place = f" at {line(f.file)}{f':{f.line}' if f.line else ''}" if f.file else ""
    lines = ["<details>", f"<summary>{f.code} {html.escape(line(f.subject))}{html.escape(place)}</summary>", ""]
    lines += [f"- {_text(because)}" for because in f.because]
    if f.fix:
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", f.fix)), default=0))
        lines += ["", fence + "yaml", safe(f.fix).rstrip("\n"), fence]
    return [*lines, "", "</details>", ""]


def _matrix(matrix: Matrix) -> list[str]:
    cells = {(cell.row, cell.column): cell for cell in matrix.cells}
    lines = [f"## {_text(matrix.title)}", "", "| |" + "".join(f" {_text(c)} |" for c in matrix.columns),
             "|---|" + "---|" * len(matrix.columns)]
    for row in matrix.rows:
        text = f"| {_text(row)} |"
        for column in matrix.columns:
            cell = cells.get((row, column))
            mark = {True: "ok", False: "**differs**", None: "unknown"}[cell.ok] if cell else ""
            text += f" {mark}: {_text(cell.expected)}, seen {_text(cell.observed)} |" if cell else "  |"
        lines.append(text)
    return [*lines, ""]


def _text(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", html.escape(line(text), quote=False))
