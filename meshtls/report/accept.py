"""Findings that somebody accepted: by a suppression with owner, reason and expiry, or because a baseline holds them.

An accepted finding stays in the report and fails nothing. A suppression that is expired, lacks its owner, reason or date, or
matches nothing is itself a finding (MT900) with its line, so that the list cannot rot. Today's date is an argument.

    suppressions:
    - {code: MT201, subject: "DestinationRule/shop/*", owner: team-cart, reason: "moves in May", expires: 2026-12-31}

The same entry without subject, in the annotation `meshtls.dev/suppress` of an object, accepts findings about that object.

One list serves all verbs. That a suppression matches nothing is said only where its finding was looked for: by the verb that finds
such codes, in the namespaces that were asked about, and not where a check of that code had to be left open. What is wrong with an
entry of a file is always said.
"""

import datetime
import fnmatch
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from meshtls.model.check import Check, Finding, Severity, Status
from meshtls.model.marks import Marks
from meshtls.model.mesh import Mesh

# report -> the first digits of the codes that it may hold; MT900 is about the suppressions themselves
FINDS = {"AuditReport": "1234", "ProbeReport": "58", "ObserveReport": "6", "ExpectationReport": "8", "GuardReport": "9"}
ANNOTATION = "meshtls.dev/suppress"
CODE = "MT900"
TITLE = "A suppression is expired, incomplete or matches nothing"
_FIELDS = ("code", "subject", "owner", "reason", "expires")
_MOST = 10_000


class Suppression(msgspec.Struct, frozen=True, kw_only=True):
    """Who accepts what until when. `code` and `subject` may hold `*`; `file` and `line`, or the object `where`, say so."""

    code: str
    subject: str
    owner: str
    reason: str
    expires: datetime.date | None
    where: str
    file: str = ""
    line: int = 0
    broken: str = ""

    def wrong(self, today: datetime.date) -> str:
        """Why it does not count; "" where it does."""
        if self.broken:
            return f"it cannot be read: {self.broken}"
        lacking = [name for name in ("code", "owner", "reason") if not getattr(self, name)]
        if self.expires is None:
            lacking.append("expires (a date such as 2026-12-31)")
        if lacking:
            return f"it lacks {', '.join(lacking)}"
        return f"it expired on {self.expires}" if self.expires and self.expires < today else ""


class Malformed(ValueError):
    """An entry that cannot be read; `line` is where it stands."""

    def __init__(self, says: str, line: int) -> None:
        super().__init__(says)
        self.line = line


def entries(data: Any, marks: Marks, file: str, subject: str = "") -> list[Suppression]:
    """Suppressions in YAML as `meshtls.model.marks` reads it: a mapping with `suppressions`, a list, or one entry. Raises Malformed.

    With a `subject`, they stand in the annotation of that object, and `file` names it.
    """
    path = "$"
    if isinstance(data, dict) and "suppressions" in data:
        data, path = data["suppressions"], "$.suppressions"
    listed = data if isinstance(data, list) else [data]
    if len(listed) > _MOST:
        raise Malformed(f"more than {_MOST} suppressions", 0)
    found = []
    for i, entry in enumerate(listed):
        line = marks.get(f"{path}[{i}]" if isinstance(data, list) else path, (0, 0))[0]
        if not isinstance(entry, dict):
            raise Malformed("a suppression is a mapping with code, subject, owner, reason and expires", line)
        unknown = [key for key in entry if key not in _FIELDS]
        if unknown:
            raise Malformed(f"unknown field {unknown[0]!r}; a suppression has {', '.join(_FIELDS)}", line)
        found.append(Suppression(
            code=_text(entry.get("code")), subject=subject or _text(entry.get("subject")) or "*", owner=_text(entry.get("owner")),
            reason=_text(entry.get("reason")), expires=_date(entry.get("expires")),
            where=f"{file}, annotation {ANNOTATION}" if subject else f"{file}:{line}", file="" if subject else file, line=0 if subject else line))
    return found


def broken(ref: str, why: str) -> Suppression:
    """What stands for an annotation that cannot be read: somebody's mistake in one object, which ends no command."""
    return Suppression(code="", subject=ref, owner="", reason="", expires=None, where=f"{ref}, annotation {ANNOTATION}", broken=why)


def annotated(mesh: Mesh) -> Iterator[tuple[str, str]]:
    """(ref, text) of every object that carries the annotation."""
    for obj in mesh.objects():
        text = obj.metadata.annotations.get(ANNOTATION)
        if text is not None:
            yield obj.ref, text


def accept(
    checks: Sequence[Check], suppressions: Sequence[Suppression], today: datetime.date, looked_for: Callable[[Suppression], bool] = lambda _: True
) -> list[Check]:
    """The checks with accepted findings marked, and one check more on the suppressions themselves, if there are any.

    `looked_for`: whether what a suppression is about would have been found, were it still there.
    """
    good = [s for s in suppressions if not s.wrong(today)]
    used: set[int] = set()

    def mark(finding: Finding) -> Finding:
        for suppression in good:
            if fnmatch.fnmatchcase(finding.code, suppression.code) and fnmatch.fnmatchcase(finding.subject, suppression.subject):
                used.add(id(suppression))
                return finding if finding.accepted else msgspec.structs.replace(
                    finding, accepted=f"{suppression.owner} until {suppression.expires}: {suppression.reason} ({suppression.where})")
        return finding

    marked = [_with(check, tuple(mark(f) for f in check.findings)) for check in checks]
    if not suppressions:
        return marked
    bad = [_bad(s, s.wrong(today) or "no finding matches it any more") for s in suppressions
           if id(s) not in used and ((s.file and s.wrong(today)) or looked_for(s))]
    return [*marked, Check(id=CODE, title=TITLE, group="suppressions", status=Status.FAIL if bad else Status.PASS, findings=tuple(bad))]


def looked_for(kind: str, checks: Sequence[Check], namespaces: Iterable[str], narrowed: bool) -> Callable[[Suppression], bool]:
    """Whether a report of this kind would have found what a suppression is about. `namespaces`: the only ones that were meant (none: all);
    `narrowed`: some workloads were left out, or the run ended early."""
    spaces = frozenset(namespaces)
    open_ = [check.id for check in checks if check.status in (Status.SKIP, Status.ERROR)]

    def told(suppression: Suppression) -> bool:
        digit = suppression.code[2:3] if suppression.code.startswith("MT") else ""
        ours = digit in FINDS.get(kind, "") if digit.isdigit() else kind == "AuditReport"
        space = suppression.subject.split("/")[1] if suppression.subject.count("/") == 2 else "*"
        meant = not spaces or space in spaces or bool(set("*?[") & set(space))
        return ours and meant and not narrowed and not any(fnmatch.fnmatchcase(id_, suppression.code) for id_ in open_)

    return told


def known(checks: Sequence[Check], baseline: Iterable[tuple[str, str, tuple[str, ...]]], where: str) -> list[Check]:
    """The checks with findings that the baseline holds marked as accepted."""
    held = set(baseline)

    def mark(finding: Finding) -> Finding:
        if not finding.accepted and identity(finding) in held:
            return msgspec.structs.replace(finding, accepted=f"in the baseline {where}")
        return finding

    return [_with(check, tuple(mark(f) for f in check.findings)) for check in checks]


def identity(finding: Finding) -> tuple[str, str, tuple[str, ...]]:
    """What a finding is about, whatever its wording and line."""
    return finding.code, finding.subject, finding.path


def _with(check: Check, findings: tuple[Finding, ...]) -> Check:
    if check.status is not Status.FAIL or findings == check.findings:
        return check
    open_ = any(not f.accepted for f in findings)
    return msgspec.structs.replace(check, findings=findings, status=Status.FAIL if open_ else Status.PASS)


def _bad(suppression: Suppression, why: str) -> Finding:
    subject = f"Suppressions/{suppression.file.replace(chr(92), '/').rpartition('/')[2]}" if suppression.file else suppression.subject
    return Finding(code=CODE, severity=Severity.WARNING, subject=subject, path=(suppression.code, suppression.subject),
                   file=suppression.file, line=suppression.line,
                   message=f"The suppression of {suppression.code or 'no code'} for {suppression.subject} does not count: {why}.",
                   fix="Renew it with an owner, a reason and a date, or remove it.")


def _text(value: Any) -> str:
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""


def _date(value: Any) -> datetime.date | None:
    if isinstance(value, datetime.datetime):
        return value.date()
    if isinstance(value, datetime.date):
        return value
    try:
        return datetime.date.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
