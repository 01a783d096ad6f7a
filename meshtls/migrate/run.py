"""The hand of migrating: carry out what `decide` says, write the journal first, ask again.

What goes wrong on the way forward turns the run back: an error of the cluster, a deadline, Ctrl-C. The way back is patient
with a server that does not answer. The first Ctrl-C restores what this run changed, before anything else, and then ends
with 130; a second one ends at once, and the journal tells the next run where to go on. Nothing is touched once another
run has written the journal.
"""

import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from meshtls.cluster.client import Client
from meshtls.errors import (
    Conflict,
    DeadlineError,
    Forbidden,
    GateError,
    Invalid,
    MeshtlsError,
    NotFound,
    ServerFault,
    Throttled,
    Unreachable,
)
from meshtls.migrate import gate
from meshtls.migrate.decide import Do, Step, current, decide
from meshtls.migrate.gate import Evidence, Verdict
from meshtls.migrate.journal import Entry, Going, Journal, Outcome, State, back, compare, intent, written
from meshtls.migrate.plan import Stage
from meshtls.migrate.store import Store, Taken
from meshtls.model.check import Check, Status

KIND = "PeerAuthentication"
_LOST = (Unreachable, ServerFault, Throttled)
_TRIES, _BACK_TRIES = 4, 20
_MOVING = (Do.BEGIN, Do.APPLY, Do.UNDO)
_ENDED = {Outcome.DONE: "done", Outcome.ROLLED_BACK: "rolled back: everything is as it was"}


class Witness(Protocol):
    """Who gathers evidence; made of `observe` and `probe` by the command line."""

    def listen(self, stage: Stage) -> None:
        """Begin to hear the proxies of the stage's workloads: called before the change."""

    def gather(self, stage: Stage, soak_s: float, accepted: tuple[str, ...], tick: Callable[[], None]) -> Evidence:
        """Listen and probe for `soak_s` seconds; return at once when a real client is refused. Calls `tick` often."""

    def settle(self) -> None:
        """Stop listening, and remove what probing created."""


class Runner:
    """One run. `checks` are the gates' so far; `back_s` is how long the way back took from the refusal's being seen."""

    def __init__(
        self, client: Client, store: Store, witness: Witness, *, say: Callable[[str], None], now: Callable[[], str],
        tick: Callable[[], None] = lambda: None, clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self._client, self._store, self._witness = client, store, witness
        self._say, self._now, self._tick, self._clock, self._pause = say, now, tick, clock, pause
        self.checks: list[Check] = []
        self.back_s: float | None = None
        self._seen: float | None = None
        self._last: Journal | None = None

    def carry(self, journal: Journal) -> Journal:
        """Go on until the run is finished or stuck. Re-raises what turned it back, once it is back."""
        turned: BaseException | None = None
        self._last = journal
        try:
            while True:
                try:
                    journal = self._go(journal)
                    break
                except Taken:
                    raise
                except (MeshtlsError, KeyboardInterrupt) as error:
                    interrupted = isinstance(error, (KeyboardInterrupt, DeadlineError))
                    if isinstance(error, MeshtlsError) and not interrupted and self._last.going is Going.BACK:
                        raise self._left(error) from turned or error
                    turned = turned or error
                    journal = self._turned(error)
        finally:
            self._witness.settle()
        if turned is not None:
            raise turned
        return journal

    def _turned(self, error: BaseException) -> Journal:
        """The journal of the way back from an error. Raises GateError where it cannot be read or written."""
        for attempt in range(_BACK_TRIES):
            try:
                return self._begin_back(error)
            except Taken:
                raise
            except _LOST as lost:
                if attempt == _BACK_TRIES - 1:
                    raise self._left(lost) from error
                self._say(f"{lost.message}; trying again")
                self._pause(min(0.2 * 2**attempt, 3.0))
            except MeshtlsError as lost:
                raise self._left(lost) from error
        raise AssertionError

    def _begin_back(self, error: BaseException) -> Journal:
        assert self._last is not None
        # an interrupt may have come between a write and its answer: what the cluster holds is the truth
        journal = self._store.load() or self._last
        if journal.outcome is Outcome.NONE and journal.going is Going.FORWARD:
            why = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
            self._say(f"{journal.namespace}: {why}; going back")
            journal = self._turn(journal, why)
        return journal

    def _go(self, journal: Journal) -> Journal:
        verdict, because, refused, lost = Verdict.PENDING, "", "", 0
        while journal.outcome is Outcome.NONE:
            self._tick()
            step: Step | None = None
            try:
                entry = current(journal)
                live = self._read(journal, entry) if entry else None
                seen = compare(entry, live, journal.run) if entry else None
                step = decide(journal, seen, verdict, because, refused)
                verdict, because, refused = Verdict.PENDING, "", ""
                if step.do is Do.WATCH and entry is not None:
                    evidence = self._gather(journal, entry, live)
                    verdict, because = gate.verdict(evidence)
                    journal = self._weighed(journal, entry, evidence, verdict, because)
                else:
                    journal = self._do(journal, step, entry, live)
                lost = 0
            except (Conflict, NotFound) as error:
                # somebody was faster, or our own answer was lost: the next reading tells
                lost += 1
                if isinstance(error, Taken) or step is None or step.do not in _MOVING or lost >= _BACK_TRIES:
                    raise
            except _LOST as error:
                lost += 1
                if lost >= self._tries(journal, step):
                    raise
                self._say(f"{journal.namespace}: {error.message}; trying again")
                self._pause(min(0.2 * 2**lost, 3.0))
            except (Invalid, Forbidden) as error:
                if step is None or step.do is not Do.APPLY:
                    raise
                refused = error.message
        return journal

    def _tries(self, journal: Journal, step: Step | None) -> int:
        """How often a step may go without an answer. Reading is safe to repeat, but the client has done so already."""
        if journal.going is Going.BACK:
            return _BACK_TRIES if step is None or step.do in _MOVING else 1
        return _TRIES if step is not None and step.do in _MOVING else 1

    def _read(self, journal: Journal, entry: Entry) -> dict[str, Any] | None:
        try:
            return self._client.get(KIND, entry.stage.policy, journal.namespace)
        except NotFound:
            return None

    def _do(self, journal: Journal, step: Step, entry: Entry | None, live: dict[str, Any] | None) -> Journal:
        """Carry out one step but WATCH; returns the journal as saved."""
        if step.do is Do.FINISH:
            return self._finish(journal, step)
        if step.do is Do.TURN:
            return self._turn(journal, step.reason)
        if step.do is Do.STUCK:
            stuck = msgspec.structs.replace(journal, outcome=Outcome.STUCK, reason=step.reason)
            return self._save(stuck, f"stuck: {step.reason}")
        assert entry is not None
        stage = entry.stage
        match step.do:
            case Do.BEGIN:
                self._say(f"{journal.namespace}: stage {stage.id}: {stage.policy} to {stage.mode}")
                begun = intent(entry, _lean(live))
                return self._save(
                    journal.update(stage.id, state=State.INTENT, before=begun.before, wanted=begun.wanted, uid=begun.uid),
                    f"{stage.id}: will {'create' if live is None else 'change'} {KIND} {stage.policy}",
                )
            case Do.APPLY:
                self._witness.listen(stage)
                self._apply(journal, entry, live)
                return journal
            case Do.CONFIRM:
                uid = (live or {}).get("metadata", {}).get("uid", "")
                return self._save(journal.update(stage.id, state=State.APPLIED, uid=uid), f"{stage.id}: {stage.mode} is written")
            case Do.PASS:
                self._witness.settle()
                return self._save(journal.update(stage.id, state=State.PASSED), f"{stage.id}: the gate holds")
            case Do.UNDO:
                self._undo(entry, live)
                return journal
            case Do.FORGET:
                self._returned(journal)
                how = "is absent again" if entry.before is None else "is as it was"
                self._say(f"{journal.namespace}: stage {stage.id}: {stage.policy} {how}")
                return self._save(journal.update(stage.id, state=State.UNDONE), f"{stage.id}: {stage.policy} {how}")
            case Do.LEAVE:
                self._say(f"{journal.namespace}: stage {stage.id}: left alone: {step.reason}")
                return self._save(journal.update(stage.id, left=True), f"{stage.id}: left alone: {step.reason}")
            case _:
                raise AssertionError(step)

    def _apply(self, journal: Journal, entry: Entry, live: dict[str, Any] | None) -> None:
        if live is None:
            self._client.create(written(entry, journal.namespace, journal.run))
        else:
            self._client.replace({**live, "spec": entry.wanted})

    def _undo(self, entry: Entry, live: dict[str, Any] | None, dry_run: bool = False) -> None:
        """Restore exactly what was there, in place of exactly what we wrote."""
        assert live is not None
        meta = live["metadata"]
        if entry.before is None:
            self._client.delete(KIND, meta["name"], meta["namespace"], uid=meta["uid"], resource_version=meta["resourceVersion"],
                                dry_run=dry_run)  # fmt: skip
            return
        restored = {key: value for key, value in live.items() if key != "spec"}
        if "spec" in entry.before:
            restored["spec"] = entry.before["spec"]
        self._client.replace(restored, dry_run=dry_run)

    def _gather(self, journal: Journal, entry: Entry, live: dict[str, Any] | None) -> Evidence:
        """Soak. That the server would take the rollback is asked before, and after: a webhook is cut off only by then."""
        locked = self._locked(entry, live)
        self._say(f"{journal.namespace}: stage {entry.stage.id}: watching for {journal.soak_s:g} s")
        # a run that is continued after a crash was not listening yet
        self._witness.listen(entry.stage)
        evidence = self._witness.gather(entry.stage, journal.soak_s, journal.accepted, self._tick)
        self._seen = self._clock()
        # the step back after a refusal does not wait for one more question
        locked = locked or ("" if evidence.refused else self._locked(entry, live))
        return msgspec.structs.replace(evidence, locked=locked)

    def _locked(self, entry: Entry, live: dict[str, Any] | None) -> str:
        """Why the server would not take the rollback now, or "". Of an object that changed, the next reading decides."""
        try:
            self._undo(entry, live, dry_run=True)
        except (Conflict, NotFound):
            return ""
        except (Invalid, Forbidden, ServerFault) as error:
            return error.message
        return ""

    def _weighed(self, journal: Journal, entry: Entry, evidence: Evidence, verdict: Verdict, because: str) -> Journal:
        """The journal with the evidence in it; saved with the step that follows from it."""
        self.checks += gate.checks(entry.stage.id, evidence)
        for one in evidence.refused:
            self._say(f"{journal.namespace}: REFUSED {one.client} by {one.server} port {one.port}")
        # a refusal has just been told in full
        told = "" if evidence.refused else f": {because}"
        self._say(f"{journal.namespace}: stage {entry.stage.id}: {verdict}{told}")
        return journal.update(entry.stage.id, evidence=(*entry.evidence, f"{self._now()} {verdict}: {because}"))

    def _turn(self, journal: Journal, reason: str) -> Journal:
        return self._save(back(journal, reason), f"going back: {reason}")

    def _returned(self, journal: Journal) -> None:
        """The moment at which plaintext is accepted again: the first restored policy of a run that a gate turned back."""
        if journal.going is Going.BACK and self._seen is not None and self.back_s is None:
            self.back_s = self._clock() - self._seen
            self._say(f"{journal.namespace}: rolled back {self.back_s:.2f} s after it was seen")

    def _finish(self, journal: Journal, step: Step) -> Journal:
        done = msgspec.structs.replace(journal, outcome=step.outcome)
        self._say(f"{journal.namespace}: {_ENDED[step.outcome]}")
        return self._save(done, f"finished: {step.outcome}")

    def _save(self, journal: Journal, what: str) -> Journal:
        noted = journal.noted(self._now(), what)
        self._store.save(noted)
        self._last = noted
        return noted

    def _left(self, error: MeshtlsError) -> GateError:
        """The error of a way back that did not end, with the objects that have to be restored."""
        assert self._last is not None
        begun = [e.stage.policy for e in self._last.entries if e.state in (State.INTENT, State.APPLIED, State.PASSED)]
        names = ", ".join(dict.fromkeys(begun))
        place = self._store.place
        kept = "" if place == self._last.namespace else f" --journal-namespace {place}"
        return GateError(
            f"the way back did not end: {error.message}; not restored: {KIND} {names or '-'} in {self._last.namespace}",
            f"run: meshtls migrate rollback -n {self._last.namespace}{kept}; if the server goes on refusing, delete them with kubectl",
        )


def other_check(journal: Journal, reason: str) -> Check:
    """That a namespace whose policies are as they were has another mode all the same."""
    return Check(id="migrate/mode", title=f"{journal.namespace} is {journal.was} again", status=Status.FAIL, group="outcome", reason=reason)


def outcome_check(journal: Journal, back_s: float | None, wanted: Outcome = Outcome.DONE) -> Check:
    """How the run ended, as a check of what was `wanted`."""
    passed = [e.stage.id for e in journal.entries if e.state is State.PASSED]
    title = f"{journal.namespace} is {'STRICT' if wanted is Outcome.DONE else 'as it was'}"
    match journal.outcome:
        case Outcome.DONE:
            return Check(id="migrate/outcome", title=title, status=Status.PASS, group="outcome", reason=f"passed: {', '.join(passed)}")
        case Outcome.ROLLED_BACK:
            took = f"; rolled back {back_s:.2f} s after it was seen" if back_s is not None else ""
            status = Status.PASS if wanted is Outcome.ROLLED_BACK else Status.FAIL
            return Check(id="migrate/outcome", title=title, status=status, group="outcome",
                         reason=f"everything is as it was: {journal.reason}{took}")  # fmt: skip
        case _:
            return Check(id="migrate/outcome", title=title, status=Status.ERROR, group="outcome", reason=journal.reason or "not finished")


def _lean(obj: dict[str, Any] | None) -> dict[str, Any] | None:
    """The object without the bookkeeping of field owners, which is large and cannot be restored."""
    if obj is None:
        return None
    return {**obj, "metadata": {key: value for key, value in obj["metadata"].items() if key != "managedFields"}}
