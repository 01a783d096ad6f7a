"""How a run ended, as checks; and what is to be said of one that could not end."""

from meshtls.migrate.journal import Journal, Outcome, State
from meshtls.model.check import Check, Status


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
        case Outcome.LEFT:
            status = Status.PASS if wanted is Outcome.ROLLED_BACK else Status.FAIL
            return Check(id="migrate/outcome", title=f"{journal.namespace} is as it was, but for what somebody else changed", status=status,
                         group="outcome", reason=journal.reason)  # fmt: skip
        case _:
            why = journal.reason if journal.outcome is Outcome.STUCK and journal.reason else f"not finished: {journal.reason}".removesuffix(": ")
            return Check(id="migrate/outcome", title=title, status=Status.ERROR, group="outcome", reason=why)


def standing(journal: Journal) -> str:
    """Where a run stands, by what was last written: the way it goes, and each stage that was begun."""
    begun = [f"{entry.stage.id} {entry.state}" for entry in journal.entries if entry.state is not State.PLANNED]
    return f"going {journal.going.lower()}, {', '.join(begun) or 'nothing begun'}"


def unrestored(journal: Journal) -> tuple[str, ...]:
    """The policies that the run may have changed and has not restored."""
    begun = (e.stage.policy for e in journal.entries if e.state in (State.INTENT, State.APPLIED, State.PASSED))
    return tuple(dict.fromkeys(begun))
