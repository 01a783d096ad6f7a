"""From an agent's log lines to observations.

What an agent does not say was not measured: a missing line is NOT_RUN, and so is a whole run whose count does not match.
Lines come from a pod and are foreign: they are bounded, decoded by type, and what does not fit is counted, not trusted.
"""

from collections.abc import Iterable

import msgspec

from meshtls.probe.case import Outcome

SCHEMA = "meshtls.dev/probe-result/v1"
MAX_LINE = 16384  # characters
MAX_TEXT = 400  # characters of foreign text that are kept


class Certificate(msgspec.Struct, frozen=True):
    """What a server's certificate said. `not_after` as in the certificate (UTCTime or GeneralizedTime)."""

    uris: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    issuer: str = ""
    not_after: str = ""
    sha256: str = ""


class Timing(msgspec.Struct, frozen=True):
    """Milliseconds."""

    total: float = 0.0
    connect: float | None = None
    handshake: float | None = None


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an agent about one case. `answered`: bytes came back, although nothing shows how they travelled."""

    id: str
    outcome: Outcome
    reason: str = ""
    detail: str = ""
    answered: bool = False
    status: int = 0
    xfcc: str = ""
    peer: str = ""
    tls: str = ""
    alpn: str = ""
    cert: Certificate = Certificate()
    asks_cert: bool | None = None
    ms: Timing = Timing()
    attempts: int = 1

    @property
    def spiffe(self) -> str:
        """The first SPIFFE name of the certificate that was shown, or ""."""
        return next((uri for uri in self.cert.uris if uri.startswith("spiffe://")), "")

    @property
    def words(self) -> str:
        """Outcome and reason, as messages write them."""
        return f"{self.outcome} {self.reason}".strip() + (f": {self.detail}" if self.detail else "")


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """The first and the last line of an agent, and what every line has."""

    schema: str = ""
    start: bool = False
    done: bool = False
    agent: str = ""
    count: int = 0
    cases: int = 0
    cold: int = 0
    stopped: bool = False
    seconds: float = 0.0
    uid: int = -1
    id: str = ""
    outcome: str = ""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent said. `complete`: its last line came, and counts what was read. `problem` says what is wrong, or ""."""

    observations: dict[str, Observation]
    complete: bool
    problem: str = ""
    foreign: int = 0
    seconds: float = 0.0


class Reader:
    """Takes an agent's lines as they come; `done` turns true with the last one."""

    def __init__(self, expected: Iterable[str]) -> None:
        self.expected = frozenset(expected)
        self._seen: dict[str, Observation] = {}
        self._foreign = 0
        self._last: Frame | None = None
        self._start: Frame | None = None

    @property
    def done(self) -> bool:
        return self._last is not None

    def take(self, line: str) -> Observation | None:
        """The observation that `line` holds, or None. Never raises for what a line says."""
        try:
            if len(line) > MAX_LINE:
                raise ValueError
            raw = line.encode()
            frame = _FRAME.decode(raw)
            if frame.schema != SCHEMA:
                raise ValueError
            if frame.done:
                self._last = frame
                return None
            if frame.start:
                self._start = frame
                return None
            seen = _OBSERVATION.decode(raw)
        except (ValueError, UnicodeError, RecursionError):
            self._foreign += bool(line.strip())
            return None
        if seen.id not in self.expected or seen.id in self._seen:
            self._foreign += 1
            return None
        seen = msgspec.structs.replace(
            seen,
            detail=printable(seen.detail),
            reason=printable(seen.reason)[:60],
            xfcc=printable(seen.xfcc),
            peer=printable(seen.peer),
        )
        self._seen[seen.id] = seen
        return seen

    def reading(self, why: str = "") -> Reading:
        """What was read so far. `why` says why no more comes, for the cases without an answer."""
        problem = why
        if self._last is None:
            problem = problem or ("the agent's log ended early" if self._start else "the agent said nothing")
        elif self._last.stopped:
            problem = problem or "the agent was stopped"
        elif self._last.count != len(self._seen):
            problem = f"the agent answered {self._last.count} cases, {len(self._seen)} answers were read"
        missing = [case for case in self.expected if case not in self._seen]
        if missing and not problem:
            problem = f"{len(missing)} cases without an answer"
        observations = dict(self._seen)
        for case in missing:
            observations[case] = not_run(case, problem)
        return Reading(
            observations=observations,
            complete=self.done and not problem,
            problem=problem,
            foreign=self._foreign,
            seconds=self._last.seconds if self._last else 0.0,
        )


def not_run(case: str, why: str) -> Observation:
    """The observation of a case that nothing was heard of."""
    return Observation(id=case, outcome=Outcome.NOT_RUN, reason="SILENCE", detail=why)


def printable(text: str) -> str:
    """Foreign text without control characters, bounded."""
    return "".join(c if c.isprintable() else "." for c in text[:MAX_TEXT])


_FRAME = msgspec.json.Decoder(Frame)
_OBSERVATION = msgspec.json.Decoder(Observation)
