"""Carrying a run on from its journal to its end, and what is said of it: shared by apply and rollback."""

import contextlib
import datetime
import getpass
import socket
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from meshtls import sources
from meshtls.cli.before import raw_clients
from meshtls.cli.options import Options, same_cluster
from meshtls.cli.output import GATE, now, say
from meshtls.cli.witness import Eyes, progress
from meshtls.errors import InputError, MeshtlsError
from meshtls.migrate.journal import Going, Journal, Outcome
from meshtls.migrate.outcome import other_check, outcome_check
from meshtls.migrate.raw import lost
from meshtls.migrate.run import Runner
from meshtls.migrate.store import Lock, Store, holder
from meshtls.policy.authn import Authn

if TYPE_CHECKING:
    from meshtls.cli.output import Draft
    from meshtls.cluster.client import Client

def where(options: Options, store: Store) -> str:
    """The flags that lead another command to the same namespace and its journal."""
    kept = "" if store.place == store.namespace else f" --journal-namespace {store.place}"
    return f"-n {store.namespace}{same_cluster(options)}{kept}"


@contextlib.contextmanager
def locked(client: "Client", namespace: str, place: str, take: bool, dry_run: bool = False) -> Iterator[Lock | None]:
    """The namespace's lock; None for a dry run, which takes none."""
    if dry_run:
        yield None
        return
    with Lock(client, namespace, place, holder(), lambda: datetime.datetime.now(datetime.UTC), take) as lock:
        yield lock


def found_here(store: Store) -> Journal | None:
    """The journal; None where there is none. Raises InputError where one lies elsewhere: that run must not be overlooked."""
    journal = store.load()
    if journal is None and (places := store.elsewhere()):
        raise InputError(f"{store.namespace}: its journal is kept in {', '.join(places)}", f"add --journal-namespace {places[0]}")
    return journal


def warned(client: "Client", journal: Journal, since_s: float, draft: "Draft") -> None:
    """Say which clients the rollback of a run that is done would break; what cannot be read is told, and holds nothing.

    A run that has not ended goes back at once: nobody came to rely on its STRICT.
    """
    if journal.outcome is not Outcome.DONE:
        return
    try:
        mesh = sources.load(client=client)
        seen, scrapers = raw_clients(client, mesh, journal.namespace, since_s)
    except MeshtlsError as error:
        click.echo(f"{journal.namespace}: whether clients need STRICT could not be read: {error}", err=True)
        return
    check = lost(mesh, journal, seen, scrapers)
    draft.checks.append(check)
    for finding in check.findings:
        say(f"{journal.namespace}: {finding.message}\n{finding.fix}")


def carry(
    options: Options, client: "Client", store: Store, journal: Journal, image: str, draft: "Draft", wanted: Outcome, lock: Lock
) -> None:
    """Go on until the run has ended; the report has the gates' checks whatever becomes of it. 0 is the code of `wanted`."""
    flags = where(options, store)
    draft.cleanup_command = f"meshtls migrate rollback {flags}; meshtls cleanup -n {store.namespace}{same_cluster(options)}"
    eyes = Eyes(client, journal.namespace, image=image, say=progress)
    runner = Runner(client, store, eyes, say=progress, now=now, tick=lock.renew, where=flags)
    try:
        journal = runner.carry(journal)
    finally:
        draft.checks += runner.checks
        draft.matrices += [matrix for found in eyes.matrices.values() for matrix in found]
        if runner.back_s is not None:
            draft.facts.append(("rolled back", f"{runner.back_s:.2f} s after it was seen"))
    if journal.outcome is Outcome.STUCK:
        stuck(journal, draft, flags)
        return
    draft.checks.append(outcome_check(journal, runner.back_s, wanted))
    good = (wanted,) if wanted is Outcome.DONE else (wanted, Outcome.LEFT)
    draft.code = 0 if journal.outcome in good else GATE
    if journal.outcome is Outcome.ROLLED_BACK and (other := _moved(client, journal)):
        click.echo(f"{journal.namespace}: {other}", err=True)
        draft.checks.append(other_check(journal, other))
        draft.code = GATE


def stuck(journal: Journal, draft: "Draft", flags: str) -> None:
    """Say that a human has to look, and every way on from there."""
    say(f"{journal.namespace}: STUCK: {journal.reason}")
    if journal.going is Going.BACK:
        click.echo("everything else was restored; look at it, then either put it right and run the first of these, or leave it as it is "
                   "and run the second:", err=True)  # fmt: skip
    else:
        click.echo("look at it, then restore what is still as it was written, and with --leave let the rest be as it is; or put it right "
                   "and run meshtls migrate apply again:", err=True)  # fmt: skip
    click.echo(f"  meshtls migrate rollback {flags}\n  meshtls migrate rollback --leave {flags}", err=True)
    draft.checks.append(outcome_check(journal, None))
    draft.code = GATE


def _moved(client: "Client", journal: Journal) -> str:
    """What the namespace's mode is after a way back, where it is not what it was; "" where it is.

    A policy that is absent again leaves the mode to the mesh, and that may have changed meanwhile.
    """
    try:
        mesh = sources.load(client=client)
    except MeshtlsError as error:
        return f"every policy is as it was; whether the mode is {journal.was} again could not be read: {error}"
    mode, _ = Authn(mesh.peer_authentications, mesh.root).hint(journal.namespace)
    return "" if mode == journal.was else f"every policy is as it was, but the mode is {mode} and was {journal.was}: the mesh's own has changed"


def ask(question: str, yes: bool) -> None:
    """Raises InputError where nobody can answer, and Exit where the answer is no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise InputError("nobody can be asked: standard input is no terminal", "give --yes to change the cluster")
    try:
        agreed = click.confirm(question, err=True)
    except click.exceptions.Abort:
        click.echo(err=True)  # what follows begins on a line of its own
        raise KeyboardInterrupt from None
    if not agreed:
        click.echo("nothing was changed", err=True)
        raise click.exceptions.Exit(0)


def who() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = "unknown"
    return f"{name}@{socket.gethostname()}"
