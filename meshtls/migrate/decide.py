"""The whole state machine of a migration: journal, live objects and verdict in, the one next step out. Pure.

Rule 1: everything that decides what happens next is in the two tables below. `run` carries a step out, writes the journal
and asks again; it never decides. So a run that was killed is continued by asking again, from any machine.

Rule 2: an object is touched only where it is exactly what was there before or what we wrote (Live.BEFORE, Live.WANTED).
Anything else is FOREIGN: nothing has been applied yet, and the run goes back; or something has, and it is STUCK, with the
reason, for a human. The way back leaves a FOREIGN object alone, restores the others, and ends STUCK because of it, or LEFT
where the human said that it may stay. STUCK is no dead end: either verb looks at every object again.

Rule 3: a verdict advances only by HOLDS. UNKNOWN at the end of a soak goes back like BROKEN: a STRICT that nobody can
vouch for is not left behind.

Forward, the current entry is the first that has not passed; when all have, the temporary ones are undone and the run is
done. Back, it is the last that was begun and is not undone; when none is left, the run is rolled back.
"""

import enum

import msgspec

from meshtls.migrate.gate import Verdict
from meshtls.migrate.journal import Entry, Going, Journal, Live, Outcome, State


class Do(enum.StrEnum):
    """The steps that `run` can carry out."""

    BEGIN = "BEGIN"  # record the intent, the before-image and what will be written
    APPLY = "APPLY"  # make the change
    CONFIRM = "CONFIRM"  # record that it is made
    WATCH = "WATCH"  # soak, and gather evidence
    PASS = "PASS"  # record that the gate holds
    TURN = "TURN"  # record that the run goes back, and why
    UNDO = "UNDO"  # restore the before-image
    FORGET = "FORGET"  # record that it is restored
    LEAVE = "LEAVE"  # record that it is left alone
    FINISH = "FINISH"  # record the outcome
    STUCK = "STUCK"  # record that a human has to look


class Step(msgspec.Struct, frozen=True):
    """One thing to do, to the entry of that stage ("" for the run), and why."""

    do: Do
    stage: str = ""
    reason: str = ""
    outcome: Outcome = Outcome.NONE


_CHANGED = "is no longer what the plan was made for: somebody changed it"
_EDITED = "was changed by somebody else: it is neither what the journal says was there nor what was written"
_TAKEN = "is as it was before: somebody took the change back"

FORWARD: dict[tuple[State, Live], tuple[Do, str]] = {
    (State.PLANNED, Live.BEFORE): (Do.BEGIN, ""),
    (State.PLANNED, Live.WANTED): (Do.TURN, _CHANGED),
    (State.PLANNED, Live.FOREIGN): (Do.TURN, _CHANGED),
    (State.INTENT, Live.BEFORE): (Do.APPLY, ""),
    (State.INTENT, Live.WANTED): (Do.CONFIRM, ""),
    (State.INTENT, Live.FOREIGN): (Do.STUCK, _EDITED),
    (State.APPLIED, Live.BEFORE): (Do.TURN, _TAKEN),
    (State.APPLIED, Live.WANTED): (Do.WATCH, ""),
    (State.APPLIED, Live.FOREIGN): (Do.STUCK, _EDITED),
    # only temporary entries are looked at once they have passed, and only when all have
    (State.PASSED, Live.BEFORE): (Do.FORGET, ""),
    (State.PASSED, Live.WANTED): (Do.UNDO, ""),
    (State.PASSED, Live.FOREIGN): (Do.STUCK, _EDITED),
}
BACK: dict[tuple[State, Live], tuple[Do, str]] = {
    (State.INTENT, Live.BEFORE): (Do.FORGET, ""),
    (State.INTENT, Live.WANTED): (Do.UNDO, ""),
    (State.INTENT, Live.FOREIGN): (Do.LEAVE, _EDITED),
    (State.APPLIED, Live.BEFORE): (Do.FORGET, ""),
    (State.APPLIED, Live.WANTED): (Do.UNDO, ""),
    (State.APPLIED, Live.FOREIGN): (Do.LEAVE, _EDITED),
    (State.PASSED, Live.BEFORE): (Do.FORGET, ""),
    (State.PASSED, Live.WANTED): (Do.UNDO, ""),
    (State.PASSED, Live.FOREIGN): (Do.LEAVE, _EDITED),
}
# what WATCH becomes when its evidence is in
WATCHED: dict[Verdict, Do] = {
    Verdict.PENDING: Do.WATCH,
    Verdict.HOLDS: Do.PASS,
    Verdict.BROKEN: Do.TURN,
    Verdict.UNKNOWN: Do.TURN,
}


def current(journal: Journal) -> Entry | None:
    """The entry that the next step is about; None where the run only has to be finished."""
    if journal.going is Going.BACK:
        begun = [e for e in journal.entries if e.state not in (State.PLANNED, State.UNDONE) and not e.left]
        return begun[-1] if begun else None
    for entry in journal.entries:
        if entry.state not in (State.PASSED, State.UNDONE):
            return entry
    return next((e for e in reversed(journal.entries) if e.stage.temporary and e.state is State.PASSED), None)


def decide(
    journal: Journal, live: Live | None, verdict: Verdict = Verdict.PENDING, because: str = "", refused: str = ""
) -> Step:
    """The next step. `live` is what the current entry's object is (None where there is no current entry).

    `verdict` is of the evidence gathered since the last step, `because` the fact that decided it; `refused` is why the
    server did not take the change that was tried last ("": none was tried, or it may be tried again).
    """
    entry = current(journal)
    if entry is None:
        if left := [e.stage.policy for e in journal.entries if e.left]:
            why = f"PeerAuthentication {journal.namespace}/{', '.join(left)} {_EDITED}: it was left alone"
            return Step(Do.FINISH, outcome=Outcome.LEFT, reason=why) if journal.leave else Step(Do.STUCK, reason=why)
        outcome = Outcome.ROLLED_BACK if journal.going is Going.BACK else Outcome.DONE
        return Step(Do.FINISH, outcome=outcome, reason=journal.reason)
    if live is None:
        raise ValueError(f"stage {entry.stage.id}: what its object is must be known")
    do, why = (FORWARD if journal.going is Going.FORWARD else BACK)[entry.state, live]
    reason = f"PeerAuthentication {journal.namespace}/{entry.stage.policy} {why}" if why else ""
    if do is Do.WATCH:
        do, reason = WATCHED[verdict], because
    if do is Do.APPLY and refused:
        do, reason = Do.TURN, refused
    return Step(do, entry.stage.id, reason)


def diagram() -> str:
    """The tables as a Mermaid state diagram, for docs/migrate.md."""
    lines = ["stateDiagram-v2", "    direction LR", "    [*] --> PLANNED"]
    then = {Do.BEGIN: "INTENT", Do.APPLY: "INTENT", Do.CONFIRM: "APPLIED", Do.TURN: "Back", Do.STUCK: "Stuck",
            Do.FORGET: "UNDONE", Do.UNDO: "{state}", Do.LEAVE: "Left"}  # fmt: skip
    for (state, live), (do, _) in FORWARD.items():
        if do is Do.WATCH:
            for verdict, after in WATCHED.items():
                target = {Do.WATCH: "APPLIED", Do.PASS: "PASSED", Do.TURN: "Back"}[after]
                lines.append(f"    APPLIED --> {target}: {live} and {verdict} / {after}")
        else:
            lines.append(f"    {state} --> {then[do].format(state=state)}: {live} / {do}")
    lines += ["    PASSED --> [*]: all passed, temporary ones undone / FINISH", "    state Back {"]
    for (state, live), (do, _) in BACK.items():
        lines.append(f"        {state}_ --> {then[do].format(state=f'{state}_')}: {live} / {do}")
    lines += ["    }", "    Back --> [*]: nothing left to undo / FINISH", "    Back --> Stuck: something was left alone / STUCK",
              "    Back --> [*]: something was left alone, and may be / FINISH", "    Stuck --> [*]: a human looks"]  # fmt: skip
    return "\n".join(lines)
