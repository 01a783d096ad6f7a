"""Each expectation becomes one check, whoever answers: a prediction, or a probe.

1. An expectation holds if everything that it means is as it says. One call or port that is not makes it FAIL.
2. What could not be told satisfies nothing: with nothing wrong, it is an ERROR with the reason.
3. An expectation that means nothing that is there is a FAIL: a name that was mistyped must not pass.
4. An exception takes out what it covers while its day has not passed, and stays in sight as an accepted finding. One that has
   ended, or that nothing needs, is told in a check of its own.

    MTLS and PLAINTEXT are ways to work, REFUSED is a way to break: all that arrives is refused.
"""

import datetime
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec

from meshtls.expect.file import Call, Exception_, Expected, Modes, listed
from meshtls.expect.match import leaves_out
from meshtls.model.check import Check, Confidence, Finding, Severity, Status
from meshtls.policy.server import UNKNOWN

GROUP = "expectations"
OUTSIDE = "OUTSIDE"  # not asked, because the user asked about other namespaces
SATISFIES = {
    "MTLS": ("MTLS",), "PLAINTEXT": ("PLAINTEXT",), "WORKS": ("MTLS", "PLAINTEXT", "WORKS"),
    "REFUSED": ("REFUSED",), "BREAKS": ("REFUSED", "BREAKS"),
}  # fmt: skip


class Answer(msgspec.Struct, frozen=True):
    """What became of a call of these clients, or what a port enforces (`clients` is empty, `port` `*`: any that nothing declares).

    `got`: MTLS, PLAINTEXT, WORKS (in several ways), REFUSED, BREAKS (otherwise, or at some endpoints), or a mode; UNKNOWN; OUTSIDE.
    """

    clients: tuple[str, ...]
    server: str
    port: str
    got: str
    because: tuple[str, ...] = ()
    name: str = ""


class Answers(Protocol):
    """Who answers."""

    def calls(self, call: Call) -> Iterable[Answer]:
        """An answer for each port that is meant; several where clients differ."""

    def modes(self, modes: Modes) -> Iterable[Answer]:
        """An answer for each port of each workload that is meant."""

    def lacking(self, each: Call | Modes) -> str:
        """What an expectation without any answer names that is not there."""


def checks(expected: Expected, answers: Answers, today: datetime.date, confidence: Confidence = Confidence.SOURCE) -> list[Check]:
    """One check for each expectation, in their order, and one on the exceptions if there are any."""
    needed: set[str] = set()
    found = []
    for path, each in listed(expected.document):
        judged = _Judged(expected, path, each, today, confidence)
        for answer in answers.calls(each) if isinstance(each, Call) else answers.modes(each):
            judged.take(answer)
        found.append(judged.check(answers.lacking))
        needed |= judged.needed
    exceptions = [(f"{path}.except[{i}]", e) for path, each in listed(expected.document) for i, e in enumerate(each.except_)]
    return [*found, _exceptions(expected, exceptions, needed, today)] if exceptions else found


def unknown(expected: Expected, reason: str) -> list[Check]:
    """A check for each expectation where none could be looked at."""
    return [Check(id=each.says, title=_title(each), status=Status.ERROR, group=GROUP, reason=reason) for _, each in listed(expected.document)]


class _Judged:
    """An expectation while answers come in. `wrong`: (server, port of a call, got, because, who accepts it, what has ended) -> clients or ports."""

    def __init__(self, expected: Expected, path: str, each: Call | Modes, today: datetime.date, confidence: Confidence) -> None:
        self.expected, self.path, self.each, self.day, self.confidence = expected, path, each, today, confidence
        self.asked = self.outside = 0
        self.wrong: dict[tuple[str, str, str, tuple[str, ...], str, str], list[str]] = {}
        self.unknown: dict[tuple[str, str], list[str]] = {}
        self.needed: set[str] = set()

    def take(self, answer: Answer) -> None:
        """Count what is as it should be, note what is not; what an exception takes out is told apart."""
        if answer.got == OUTSIDE:
            self.outside += len(answer.clients or ("",))
            self.needed |= {f"{self.path}.except[{i}]" for i in range(len(self.each.except_))}
            return
        self.asked += len(answer.clients or ("",))
        call = isinstance(self.each, Call)
        if answer.got in SATISFIES[self.each.must] if isinstance(self.each, Call) else answer.got == self.each.mode:
            return
        for client in answer.clients or ("",):
            accepted, ended = self._excepted(client, answer)
            if answer.got == UNKNOWN and not accepted:
                why = "; ".join(answer.because[-2:]) or "not known"
                self.unknown.setdefault((f"{answer.server}:{answer.port}", why), []).append(client)
            else:
                key = (answer.server, answer.port if call else "", answer.got, answer.because, accepted, ended)
                self.wrong.setdefault(key, []).append(client if call else answer.port)

    def _excepted(self, client: str, answer: Answer) -> tuple[str, str]:
        """(who takes this out, which exceptions of it have ended)."""
        ended = []
        for i, exception in enumerate(self.each.except_):
            if leaves_out(exception, client, answer.server, answer.port, answer.name):
                path = f"{self.path}.except[{i}]"
                where = f"{self.expected.file}:{self.expected.at(path)[0]}"
                if not exception.ended(self.day):
                    self.needed.add(path)
                    return f"{exception.owner} until {exception.until}{exception.reason and f': {exception.reason}'} ({where})", ""
                ended.append(f"the exception of {exception.owner} ({where}) ended on {exception.until}")
        return "", "; ".join(ended)

    def _finding(self, server: str, port: str, got: str, because: tuple[str, ...], accepted: str, ended: str, told: list[str]) -> Finding:
        line, column = self.expected.at(self.path)
        some = _some(told)
        if isinstance(self.each, Call):
            code, says = "MT801", f"{some} -> {server}:{port} is {got}, must be {self.each.must}."
        else:
            ports = f"port {some}".replace("port *", "*").replace("*", "any port that nothing declares")
            code, says = "MT802", f"{server} is {got} on {ports}, must be {self.each.mode}."
        return Finding(code=code, severity=Severity.ERROR, subject=server, confidence=self.confidence, path=("ports", port, *told) if port else ("ports", *told),
                       because=(*because, *((ended,) if ended else ())), accepted=accepted, message=says, file=self.expected.file, line=line, column=column)

    def check(self, lacking: Callable[[Call | Modes], str]) -> Check:
        """The verdict on all that came in."""
        findings = tuple(self._finding(*key, told) for key, told in self.wrong.items())
        first = [f"{f'{_some(clients)} -> ' if clients[0] else ''}{where}: {why}" for (where, why), clients in self.unknown.items()]
        reason = "; ".join(first[:3]) + (f"; and {len(first) - 3} more" if len(first) > 3 else "")
        if not self.asked and self.outside:
            status, reason = Status.SKIP, "it is about other namespaces than -n"
        elif not self.asked:
            status, findings = Status.FAIL, (self._nothing(lacking(self.each)),)
        elif any(not f.accepted for f in findings):
            status, reason = Status.FAIL, f"besides, it could not be told: {reason}" if first else ""
        elif first:
            status = Status.ERROR
        else:
            status, reason = Status.PASS, f"looked at: {self.asked}" + (f"; outside of -n: {self.outside}" if self.outside else "")
        return Check(id=self.each.says, title=_title(self.each), status=status, group=GROUP, reason=reason, findings=findings)

    def _nothing(self, what: str) -> Finding:
        line, column = self.expected.at(self.path)
        return Finding(code="MT803", severity=Severity.ERROR, subject=_subject(self.expected), path=(self.each.says,), file=self.expected.file, line=line,
                       column=column, message=f"The expectation about {self.each.says} means nothing that is there: {what}.",
                       fix="Correct the name, or remove the expectation. What there is: meshtls modes -A; meshtls predict -A")


def _exceptions(expected: Expected, listed_: Sequence[tuple[str, Exception_]], needed: set[str], today: datetime.date) -> Check:
    """Whether each exception still counts and is needed."""
    findings = []
    for path, each in listed_:
        why = f"ended on {each.until}" if each.ended(today) else "is not needed: all that it covers is as expected, or it covers nothing"
        if each.ended(today) or path not in needed:
            line, column = expected.at(path)
            findings.append(Finding(code="MT804", severity=Severity.WARNING, subject=_subject(expected), path=(path,), file=expected.file, line=line, column=column,
                                    message=f"The exception of {each.owner} {why}.", fix="Remove it, or give it a new day with its owner's consent."))
    return Check(id="exceptions", title="of expectations are current and needed", status=Status.FAIL if findings else Status.PASS, group=GROUP, findings=tuple(findings))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2} more"


def _title(each: Call | Modes) -> str:
    """The check's id is what is expected about; the title says what of it."""
    return f"must be {each.must if isinstance(each, Call) else each.mode}"


def _subject(expected: Expected) -> str:
    return f"Expectations/{expected.file.replace(chr(92), '/').rpartition('/')[2]}"
