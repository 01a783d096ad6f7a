"""What the stand-ins' calls say, and whether the way back led back: attempts and two readings of the policies -> checks. Pure.

A call is judged only if it was answered before anything was changed: of one that fails already nothing is known, and "refused" is not said.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from meshtls.model.check import Cell, Check, Confidence, Finding, Matrix, Severity, Status
from meshtls.model.origin import Origins
from meshtls.rehearse.calls import Call

GROUP = "calls of the stand-ins"
Obj = dict[str, Any]


class Attempt(msgspec.Struct, frozen=True, order=True):
    """One connection of a call, by the call's id."""

    at: float
    call: str
    ok: bool
    said: str = ""


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """`changed`: when the migration began; `ended`: when what it left had been called; `back`: when all was taken back. Seconds of one clock."""

    changed: float
    ended: float
    back: float


def read(lines: Iterable[str]) -> list[Attempt]:
    """The attempts in a stand-in's log; other lines are passed over."""
    found = []
    for line in lines:
        try:
            found.append(msgspec.json.decode(line.encode(), type=Attempt))
        except (msgspec.DecodeError, RecursionError):
            continue
    return found


def settled(attempts: Sequence[Attempt], ids: Iterable[str], since: float = 0.0) -> bool:
    """Whether each call was answered twice in a row since then, at the end of what is known."""
    by_id = _by_id(attempts, since)
    return all(len(found := by_id.get(one, [])) >= 2 and all(a.ok for a in found[-2:]) for one in ids)


def asked(attempts: Sequence[Attempt], ids: Iterable[str], since: float, times: int = 2) -> bool:
    """Whether each call was made that often since then, whatever came of it."""
    by_id = _by_id(attempts, since)
    return all(len(by_id.get(one, [])) >= times for one in ids)


def _by_id(attempts: Sequence[Attempt], since: float = 0.0) -> dict[str, list[Attempt]]:
    found: dict[str, list[Attempt]] = {}
    for attempt in sorted(attempts):
        if attempt.at >= since:
            found.setdefault(attempt.call, []).append(attempt)
    return found


def checks(calls: Mapping[str, Call], attempts: Sequence[Attempt], times: Times, *, stayed: bool, accepted: Sequence[str] = ()) -> tuple[Check, ...]:
    """One check a call (by id), and one of what was restored. `stayed`: the namespace was STRICT at the end, before it was taken back."""
    by_id = _by_id(attempts)
    found = []
    for one, call in calls.items():
        made = by_id.get(one, [])
        before = [a for a in made if a.at < times.changed][-2:]
        during = [a for a in made if times.changed <= a.at < times.ended]
        after = [a for a in made if a.at >= times.back]
        found.append(_call(one, call, before, during, stayed, accepted))
        if before and all(a.ok for a in before):
            found.append(_restored(one, call, after))
    return tuple(found)


def _call(one: str, call: Call, before: list[Attempt], during: list[Attempt], stayed: bool, accepted: Sequence[str]) -> Check:
    def check(status: Status, reason: str, *findings: Finding) -> Check:
        return Check(id=f"rehearse/call/{one}", title=f"{call} is answered all the time", group=GROUP, status=status, reason=reason, findings=findings)

    if not before or not all(a.ok for a in before):
        why = before[-1].said if before else "it was not made"
        return check(Status.ERROR, f"{call} is not judged: it fails before anything is changed: {why}")
    if not during:
        return check(Status.ERROR, f"{call} is not judged: it was not made while the namespace changed")
    failed = [a for a in during if not a.ok]
    answered = f"{len(during) - len(failed)} of {len(during)} answered"
    if not failed:
        return check(Status.PASS, answered)
    again = stayed and during[-1].ok
    finding = Finding(
        code="MT721", severity=Severity.WARNING if again else Severity.ERROR, subject=call.client, confidence=Confidence.MEASURED,
        message=f"{call.client} would {'lose some calls' if again else 'be refused'} at {call.server} port {call.port}: {failed[-1].said} "
                f"({len(failed)} of {len(during)} calls{'' if stayed else ', until all was taken back'})",
        fix="" if again else "give the client a sidecar, or except the port with portLevelMtls, then rehearse again (--apply FILE)",
        accepted="--accept-plaintext-from" if any(name in (call.client, call.client.partition("/")[2]) for name in accepted) else "",
    )  # fmt: skip
    return check(Status.PASS if finding.accepted else Status.FAIL, answered, finding)


def _restored(one: str, call: Call, after: list[Attempt]) -> Check:
    findings: tuple[Finding, ...] = ()
    status, reason = Status.PASS, ""
    if not after:
        status, reason = Status.ERROR, f"{call} was not made after the way back"
    elif not all(a.ok for a in after[-2:]):
        status = Status.FAIL
        findings = (Finding(code="MT722", severity=Severity.ERROR, subject=call.client, confidence=Confidence.MEASURED,
                            message=f"{call} worked before and does not work after the way back: {after[-1].said}"),)  # fmt: skip
    return Check(id=f"rehearse/back/{one}", title=f"{call} is answered again after the way back", group="the way back", status=status, reason=reason,
                 findings=findings)  # fmt: skip


def exactly(namespace: str, before: Sequence[Obj], after: Sequence[Obj], left: Sequence[str]) -> Check:
    """Whether the PeerAuthentications are what they were: the same objects (uid) with the same content; `left` is what else remained."""
    was, now = ({_key(obj): _lean(obj) for obj in side} for side in (before, after))
    problems = [f"{key} is gone" for key in was.keys() - now.keys()] + [f"{key} was not there" for key in now.keys() - was.keys()]
    for key in sorted(was.keys() & now.keys()):
        if was[key] != now[key]:
            fields = [f for f in sorted({*was[key], *now[key]}) if was[key].get(f) != now[key].get(f)]
            problems.append(f"{key} differs in {', '.join(fields)}: {json.dumps({f: now[key].get(f) for f in fields}, sort_keys=True)[:200]}")
    problems += [f"{name} is left" for name in left]
    findings = tuple(Finding(code="MT722", severity=Severity.ERROR, subject=f"Namespace/{namespace}", message=text, confidence=Confidence.MEASURED)
                     for text in sorted(problems))  # fmt: skip
    return Check(id="rehearse/restored", title=f"the way back restores {namespace} exactly", group="the way back", findings=findings,
                 status=Status.FAIL if findings else Status.PASS, reason=f"{len(was)} PeerAuthentications compared, field by field")  # fmt: skip


def _key(obj: Obj) -> str:
    return f"PeerAuthentication/{obj['metadata']['namespace']}/{obj['metadata']['name']}"


def _lean(obj: Obj) -> Obj:
    """What a rollback must restore: identity and content, without the server's counters."""
    meta = obj["metadata"]
    return {"uid": meta.get("uid"), "labels": meta.get("labels") or {}, "annotations": meta.get("annotations") or {}, "spec": obj.get("spec")}


def matrix(calls: Mapping[str, Call], attempts: Sequence[Attempt], times: Times, stayed: bool) -> Matrix:
    """Calls by what became of them before, while the namespace changed, and after the way back."""
    columns = ("before", "STRICT" if stayed else "tried", "restored")
    spans = ((0.0, times.changed), (times.changed, times.ended), (times.back, float("inf")))
    by_id, cells, rows = _by_id(attempts), [], []
    for one, call in calls.items():
        row = f"{call.client.partition('/')[2]} -> {call.server.partition('/')[2]}:{call.port}"
        rows.append(row)
        base = [a for a in by_id.get(one, []) if a.at < times.changed][-2:]
        for column, (start, end) in zip(columns, spans, strict=True):
            made = base if column == "before" else [a for a in by_id.get(one, []) if start <= a.at < end]
            good = sum(a.ok for a in made)
            seen = "NOT MADE" if not made else "ANSWERED" if good == len(made) else "REFUSED" if not made[-1].ok or not stayed else f"{len(made) - good} LOST"
            known = bool(base) and all(a.ok for a in base) and bool(made)
            cells.append(Cell(row=row, column=column, expected="ANSWERED", observed=seen, ok=(seen == "ANSWERED") if known else None,
                              detail=f"{good} of {len(made)} answered"))  # fmt: skip
    return Matrix(title="Calls of the stand-ins", rows=tuple(dict.fromkeys(rows)), columns=columns, cells=tuple(cells))


def verdict(namespace: str, code: int | None, stayed: bool, migrated: Sequence[Check], own: Sequence[Check]) -> str:
    """The rehearsal in one sentence. `code` is None where the migration ended well, `migrated` its checks."""
    gates = list(dict.fromkeys(check.id.split("/")[1] for check in migrated if check.id.startswith("gate/")))
    if code is not None:
        if stayed:
            return f"{namespace} would go STRICT, and the way back would not end as it should"
        return f"{namespace} would go back at stage {gates[-1]}" if gates else f"{namespace} would be held, with nothing changed"
    if not stayed:
        return f"{namespace} is STRICT already: nothing would be changed"
    failed = sum(check.status is Status.FAIL for check in own)
    unknown = sum(check.status is Status.ERROR for check in own)
    doubts = [f"{number} of the questions {what}" for number, what in ((failed, "badly answered"), (unknown, "not judged")) if number]
    return f"{namespace} would go STRICT" + (f", but with {' and '.join(doubts)}" if doubts else ", stage by stage, and the way back is exact")


def named(text: str, renamed: Mapping[str, str]) -> str:
    """A text about stand-ins as one about the workloads that they stand in for."""
    for ref, real in renamed.items():
        text = re.sub(rf"{re.escape(ref)}(?![-\w]|\.\w)", real, text)
    return text


def as_told(check: Check, renamed: Mapping[str, str], origins: Origins, prefix: str = "") -> Check:
    """A check of the migration with the workloads' own names and the places of the source; `prefix` tells a second verb's checks apart."""
    findings = []
    for found in check.findings:
        subject = named(found.subject, renamed)
        where = origins.where(subject, found.path)
        findings.append(msgspec.structs.replace(found, subject=subject, message=named(found.message, renamed), file=where.file, line=where.line,
                                                column=where.column))  # fmt: skip
    return msgspec.structs.replace(check, id=prefix + check.id, reason=named(check.reason, renamed), title=named(check.title, renamed),
                                   findings=tuple(findings), group="the way back" if prefix else check.group)  # fmt: skip
