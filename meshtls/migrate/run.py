"""The hand of migrating: carry out what `decide` says, write the journal first, ask again.

What goes wrong on the way forward turns the run back: an error of the cluster, a deadline, Ctrl-C. The way back is patient
with a server that does not answer, but not for ever: then it says what the journal holds, and which command goes on. The
first Ctrl-C restores what this run changed, before anything else, and then ends with 130; a second one ends at once, and the
journal tells the next run where to go on. Nothing is touched once another run has written the journal.

While a stage is watched, the namespace's policies are read again every LOOK_S seconds: what somebody else does to them is
seen then, and not at the end.
"""

import re
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
from meshtls.migrate.journal import Entry, Going, Journal, Outcome, State, back, bystanders, compare, disturbed, intent, written
from meshtls.migrate.outcome import standing, unrestored
from meshtls.migrate.plan import Stage
from meshtls.migrate.store import PART, REHEARSAL, Store, Taken
from meshtls.model.check import Check

KIND = "PeerAuthentication"
_LOST = (Unreachable, ServerFault, Throttled)
# how long an answer may stay away, beyond what the client itself waits: on the way forward the run turns back after that
FORWARD_S, BACK_S = 30.0, 120.0
# a validator that restarts is away for a while, and then would take the rollback again
LOCKED_S = 30.0
LOOK_S = 2.0
_RACES = 20
_MOVING = (Do.BEGIN, Do.APPLY, Do.UNDO)
_WAY_OUT = re.compile(r"kubectl delete \S+ (-l meshtls\.dev/guard=[a-z0-9-]+|meshtls-guard)\b")  # in what a guard of ours says when it refuses
_ENDED = {Outcome.DONE: "done", Outcome.ROLLED_BACK: "rolled back: everything is as it was",
          Outcome.LEFT: "rolled back, but for what somebody else changed"}  # fmt: skip


class Witness(Protocol):
    """Who gathers evidence; made of `observe` and `probe` by the command line."""

    def listen(self, stage: Stage) -> None:
        """Begin to hear the proxies of the stage's workloads: called before the change."""

    def gather(self, stage: Stage, soak_s: float, accepted: tuple[str, ...], tick: Callable[[], None]) -> Evidence:
        """Listen and probe for `soak_s` seconds; return at once when a real client is refused. Calls `tick` often."""

    def settle(self) -> None:
        """Stop listening, and remove what probing created."""


class _Disturbed(Exception):
    """Somebody else changed a policy while a stage was watched."""


class Runner:
    """One run. `checks` are the gates' so far; `back_s` is how long the way back took from the refusal's being seen.

    `where` are the flags that lead another command to the same journal.
    """

    def __init__(
        self, client: Client, store: Store, witness: Witness, *, say: Callable[[str], None], now: Callable[[], str],
        tick: Callable[[], None] = lambda: None, clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep, where: str = "",
    ) -> None:  # fmt: skip
        self._where = where or f"-n {store.namespace}"
        self._client, self._store, self._witness = client, store, witness
        self._say, self._now, self._tick, self._clock, self._pause = say, now, tick, clock, pause
        self.checks: list[Check] = []
        self.back_s: float | None = None
        self._seen: float | None = None
        self._last: Journal | None = None

    def carry(self, journal: Journal) -> Journal:
        """Go on until the run is finished or stuck. Re-raises what turned it back, once it is back."""
        turned: BaseException | None = None
        error: BaseException | None = None
        self._last = journal
        try:
            while True:
                try:
                    journal = self._go(journal if error is None else self._turned(error))
                    break
                except (Taken, GateError):
                    raise
                except (MeshtlsError, KeyboardInterrupt) as caught:
                    interrupted = isinstance(caught, (KeyboardInterrupt, DeadlineError))
                    if not interrupted and isinstance(caught, MeshtlsError) and self._last.going is Going.BACK:
                        raise self._left(caught) from turned or caught
                    turned, error = turned or caught, caught
        finally:
            self._witness.settle()
        if turned is not None:
            raise turned
        return journal

    def _turned(self, error: BaseException) -> Journal:
        """The journal of the way back from an error. Raises GateError where it cannot be read or written."""
        since = self._clock()
        while True:
            try:
                return self._begin_back(error)
            except Taken:
                raise
            except _LOST as lost:
                if not self._again(lost, since, BACK_S):
                    raise self._left(lost) from error
            except MeshtlsError as lost:
                raise self._left(lost) from error

    def _again(self, error: MeshtlsError, since: float, limit_s: float) -> bool:
        """Whether to try again what has had no answer since then; says so, and waits."""
        gone = self._clock() - since
        if gone >= limit_s:
            return False
        self._say(f"{self._store.namespace}: {error.message}; trying again, for {limit_s - gone:.0f} s more at most")
        self._pause(min(max(0.2, gone), 3.0))
        return True

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
        verdict, because, refused, races = Verdict.PENDING, "", "", 0
        since: float | None = None
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
                races, since = 0, None
            except (Conflict, NotFound) as error:
                # somebody was faster, or our own answer was lost: the next reading tells
                races += 1
                if isinstance(error, Taken) or step is None or step.do not in _MOVING or races >= _RACES:
                    raise
            except _LOST as error:
                since = self._clock() if since is None else since
                back = journal.going is Going.BACK or verdict in (Verdict.BROKEN, Verdict.UNKNOWN)
                if not self._again(error, since, BACK_S if back else FORWARD_S):
                    raise
            except (Invalid, Forbidden) as error:
                if step is None or step.do is not Do.APPLY:
                    raise
                refused = error.message
        return journal

    def _read(self, journal: Journal, entry: Entry) -> dict[str, Any] | None:
        try:
            return self._client.get(KIND, entry.stage.policy, journal.namespace)
        except NotFound:
            return None

    def _policies(self, journal: Journal) -> dict[str, dict[str, Any]]:
        """The namespace's policies by name; those that a rehearsal made are none."""
        found = self._client.list(KIND, journal.namespace)
        return {obj["metadata"]["name"]: obj for obj in found if (obj["metadata"].get("labels") or {}).get(PART) != REHEARSAL}

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
                if journal.others is None:
                    journal = msgspec.structs.replace(journal, others=bystanders(journal, self._policies(journal)))
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
        began = self._clock()
        try:
            evidence = self._witness.gather(entry.stage, journal.soak_s, journal.accepted, self._looking(journal))
            if not evidence.refused:
                self._look(journal)
        except _Disturbed as other:
            evidence = Evidence(soaked_s=self._clock() - began, needed_s=journal.soak_s, proxies=0, disturbed=str(other))
        self._seen = self._clock()
        # the step back after a refusal does not wait for one more question
        locked = locked or ("" if evidence.refused or evidence.disturbed else self._locked(entry, live))
        return msgspec.structs.replace(evidence, locked=locked)

    def _looking(self, journal: Journal) -> Callable[[], None]:
        """The tick of a soak: keeps the Lease, and looks every LOOK_S seconds whether somebody else changes policies."""
        looked: list[float] = []

        def tick() -> None:
            self._tick()
            now = self._clock()
            if looked and now - looked[-1] < LOOK_S:
                return
            looked[:] = [now]
            self._look(journal)

        return tick

    def _look(self, journal: Journal) -> None:
        if other := disturbed(journal, self._policies(journal)):
            raise _Disturbed(other)

    def _locked(self, entry: Entry, live: dict[str, Any] | None) -> str:
        """Why the server would not take the rollback, or "". Of an object that changed, the next reading decides.

        A webhook that does not answer may be restarting: it gets LOCKED_S seconds.
        """
        since = self._clock()
        while True:
            try:
                self._undo(entry, live, dry_run=True)
                return ""
            except (Conflict, NotFound):
                return ""
            except ServerFault as error:
                if self._clock() - since >= LOCKED_S:
                    return error.message
                self._tick()
                self._pause(1.0)
            except (Invalid, Forbidden) as error:
                return error.message

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
        done = msgspec.structs.replace(journal, outcome=step.outcome, reason=step.reason)
        self._say(f"{journal.namespace}: {_ENDED[step.outcome]}")
        return self._save(done, f"finished: {step.outcome}")

    def _save(self, journal: Journal, what: str) -> Journal:
        noted = journal.noted(self._now(), what)
        self._store.save(noted)
        self._last = noted
        return noted

    def _left(self, error: MeshtlsError) -> GateError:
        """The error of a way back that did not end: which objects, what the journal says, which command goes on."""
        assert self._last is not None
        names = unrestored(self._last)
        again = f"to restore, from any machine: meshtls migrate rollback {self._where}"
        out = f"; if the server refuses that for good, kubectl delete peerauthentication -n {self._last.namespace} {' '.join(names)} leaves the mode to the mesh"
        if found := _WAY_OUT.search(error.message):
            again, out = f"it is guarded: {found[0]}; then {again}", ""
        return GateError(
            f"the way back did not end: {error.message}; not restored: {KIND} {', '.join(names) or '-'} in "
            f"{self._last.namespace}; the journal, ConfigMap {self._store.place}/{self._store.name}, says: {standing(self._last)}",
            again + out,
        )


def _lean(obj: dict[str, Any] | None) -> dict[str, Any] | None:
    """The object without the bookkeeping of field owners, which is large and cannot be restored."""
    if obj is None:
        return None
    return {**obj, "metadata": {key: value for key, value in obj["metadata"].items() if key != "managedFields"}}
