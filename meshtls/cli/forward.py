"""`meshtls migrate apply` for one namespace: begin a run, or go on with the one that has not ended."""

import secrets
from typing import TYPE_CHECKING

import click
import msgspec

from meshtls.cli.carrying import ask, carry, found_here, locked, who
from meshtls.cli.groundwork import held, prepare, shown, soak
from meshtls.cli.options import Options
from meshtls.cli.output import GATE, now, say
from meshtls.migrate.baseline import Waiver
from meshtls.migrate.journal import Going, Journal, Outcome, again, back, begin, untouched
from meshtls.migrate.preflight import rehearse
from meshtls.migrate.store import Store
from meshtls.model.check import Check, Status

if TYPE_CHECKING:
    from meshtls.cli.output import Draft
    from meshtls.cluster.client import Client
    from meshtls.observe.prometheus import Prometheus

OVER = (Outcome.DONE, Outcome.ROLLED_BACK, Outcome.LEFT)


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What the flags of apply say. Times in seconds; `soak_s` None: until the drain is over."""

    canary: str = ""
    since_s: float = 3600.0
    soak_s: float | None = None
    waiver: Waiver = Waiver()
    image: str = ""
    dry_run: bool = False
    yes: bool = False
    break_lock: bool = False
    place: str = ""


def forward(options: Options, client: "Client", draft: "Draft", namespace: str, wish: Wish, prometheus: "Prometheus | None") -> None:
    """Take one namespace to STRICT; the draft has the checks and the exit code."""
    with locked(client, namespace, wish.place, wish.break_lock, wish.dry_run) as lock:
        store = Store(client, namespace, wish.place)
        journal = found_here(store)
        if journal is None or journal.outcome in OVER or untouched(journal):
            journal = _begun(client, draft, namespace, wish, store, prometheus)
        else:
            journal = _continued(draft, journal, wish)
        if journal is not None and lock is not None:
            carry(options, client, store, journal, wish.image, draft, Outcome.DONE, lock)


def _begun(
    client: "Client", draft: "Draft", namespace: str, wish: Wish, store: Store, prometheus: "Prometheus | None"
) -> Journal | None:
    """The journal of a new run; None where there is nothing to do, or something holds it."""
    mesh, found, checks = prepare(client, namespace, wish.canary, wish.since_s, wish.place, wish.waiver, draft, prometheus)
    if not found.stages:
        click.echo(f"{namespace}: {found.notes[0]}", err=True)
        draft.code = 0
        return None
    shown(client, found, draft, exactly=wish.dry_run)
    if held(checks, wish.waiver, draft) or wish.dry_run:
        return None
    soak_s = soak(mesh, wish.soak_s, namespace, draft)
    ask(f"Take {namespace} from {found.was} to STRICT?", wish.yes)
    journal = begin(found, run=secrets.token_hex(4), now=now(), who=who(), soak_s=soak_s, forced=wish.waiver.force,
                    accepted=wish.waiver.accepted)  # fmt: skip
    # what was waived, and against which evidence, is part of the record
    waived = [f"{c.title}: {c.reason or c.findings[0].message}" for c in checks if c.status in (Status.FAIL, Status.ERROR)]
    for line in waived:
        journal = journal.noted(now(), f"went on all the same (--force): {line}")
    store.save(journal)
    problem = rehearse(client, journal)
    draft.checks.append(Check(id="baseline/rehearsal", title="the way back works on a policy that selects nothing", group="gate before anything",
                              status=Status.FAIL if problem else Status.PASS, reason=problem))  # fmt: skip
    if problem:
        ended = msgspec.structs.replace(back(journal, problem), outcome=Outcome.ROLLED_BACK)
        store.save(ended.noted(now(), f"held before anything: {problem}"))
        click.echo(f"HELD  the way back from STRICT would be refused: {problem}\nnothing was changed", err=True)
        draft.code = GATE
        return None
    return journal


def _continued(draft: "Draft", journal: Journal, wish: Wish) -> Journal | None:
    """The journal of a run that has not ended; None for a dry run. One that was stuck looks at everything again."""
    way = "forward, to STRICT" if journal.going is Going.FORWARD else "back"
    state = f"is stuck ({journal.reason})" if journal.outcome is Outcome.STUCK else "has not ended"
    say(f"{journal.namespace}: run {journal.run} of {journal.started} by {journal.who} {state}; it goes {way}")
    if wish.dry_run:
        click.echo("nothing was changed; see: meshtls migrate status", err=True)
        draft.code = GATE
        return None
    ask("Continue it, with what it was begun with?", wish.yes)
    return again(journal)

