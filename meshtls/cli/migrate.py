"""`meshtls migrate`: move a namespace to STRICT in steps, with gates and rollback."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from meshtls.cli import meshes
from meshtls.cli.counting import asking
from meshtls.cli.options import Duration, Options, shared

if TYPE_CHECKING:
    from meshtls.cli.output import Draft
    from meshtls.cluster.client import Client
    from meshtls.observe.prometheus import Prometheus

GATE = 4
RAW_S = 900.0  # how far back a rollback looks for clients that need STRICT
_journal_namespace = click.option("--journal-namespace", default="", metavar="NS", help="Where the journal is kept, if not in NS itself.")
_canary = click.option("--canary", default="", metavar="NAME", help="The workload that goes first: name or Kind/name.")
_since = click.option("--since", type=Duration(), default="1h", show_default=True, help="How far back plaintext is looked for.")
_accept = click.option("--accept-plaintext-from", "accept", multiple=True, metavar="NS/NAME", help="A client whose refusal is accepted.")
_soak = click.option("--soak", type=Duration(), help="How long each stage is watched; by default until 15 s after the proxies' drain (45 s) ends.")
_image = click.option("--image", default="", metavar="IMAGE", help="An image with Python 3.8 or newer for the probe pods.")
_yes = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
_break_lock = click.option("--break-lock", is_flag=True, help="Take over from another run, which must be dead.")


@click.group()
def migrate() -> None:
    """Move a namespace to STRICT in steps, each with a gate after it and a way back.

    Exit codes: 0 STRICT (or nothing to do), 2 usage, 3 the cluster did not answer, 4 held at a gate, rolled back or stuck,
    124 timeout, 130 interrupted; the last two after everything was restored.
    """


@migrate.command(short_help="Show what apply would do, and what would hold it.")
@shared("cluster", "place", "output", "report", "timeout", "prometheus")
@_canary
@_since
@_accept
@click.option("--emit", "directory", default="", metavar="DIR", help="Also write the manifests of each stage to DIR/NS, to commit them.")
@_journal_namespace
def plan(options: Options, canary: str, since: float, accept: tuple[str, ...], directory: str, journal_namespace: str) -> None:
    """Show what apply would do, and what would hold it. Changes nothing.

    With -A or several namespaces: which can go, in which order, and which cannot, by whom, with the exceptions that would let
    them. Exit code 4 where one cannot, or nobody knows.
    """
    if _many(options):
        from meshtls.cli import many
        from meshtls.cli.output import emit_document

        with _reading(options) as (client, prometheus):
            mesh, ordered = many.order(client, options, since, accept, prometheus)
            for place in ordered.items if directory else ():
                if place.wave:
                    many.emitted(client, mesh, place.namespace, directory)
            emit_document(ordered, options, lambda: many.shown(ordered, options.output == "wide"))
            raise click.exceptions.Exit(many.code(ordered))
    from meshtls.cli.groundwork import held, prepare, shown
    from meshtls.migrate.baseline import Waiver

    waiver = Waiver(accepted=accept)
    with _session(options, "Plan") as (client, draft, prometheus):
        _, found, checks = prepare(client, meshes.one(options, client), canary, since, journal_namespace, waiver, draft, prometheus)
        held(checks, waiver, draft)
        shown(client, found, draft, exactly=True)
        if directory and found.stages:
            from meshtls.cli.emit import emit

            draft.facts += [("file", path) for path in emit(client, found, directory)]


@migrate.command(short_help="Take namespaces to STRICT, stage by stage.")
@shared("cluster", "place", "output", "report", "timeout", "prometheus")
@_canary
@_since
@_soak
@click.option("--force", is_flag=True, help="Go on past plaintext and predictions that would hold; a client that is refused still rolls back.")
@_accept
@click.option("--gitops-override", is_flag=True, help="Change policies that Argo CD or Flux writes.")
@_image
@click.option("--dry-run", is_flag=True, help="Print the exact changes, and make none.")
@_yes
@_break_lock
@_journal_namespace
def apply(
    options: Options, canary: str, since: float, soak: float | None, force: bool, accept: tuple[str, ...], gitops_override: bool,
    image: str, dry_run: bool, yes: bool, break_lock: bool, journal_namespace: str,
) -> None:  # fmt: skip
    """Take a namespace to STRICT: baseline, canary workload, namespace. Continues a run that was killed.

    A client that is refused, or a probe that sees what it should not, takes the run back to where it began. So do the
    first Ctrl-C, --timeout, and an answer that does not come.

    With -A or several namespaces they go wave by wave (see plan -A), one at a time, and the first that is held ends it.
    """
    from meshtls.cli.forward import Wish, forward
    from meshtls.migrate.baseline import Waiver

    wish = Wish(canary=canary, since_s=since, soak_s=soak, waiver=Waiver(force=force, gitops=gitops_override, accepted=accept),
                image=image, dry_run=dry_run, yes=yes, break_lock=break_lock, place=journal_namespace)  # fmt: skip
    if _many(options) and (canary or force):
        raise click.UsageError("--canary and --force are for one namespace: -n NS")
    with _session(options, "Migration", many=True) as (client, draft, prometheus):
        if _many(options):
            from meshtls.cli import many

            many.apply(client, draft, options, wish, prometheus)
            return
        forward(options, client, draft, meshes.one(options, client), wish, prometheus)


@migrate.command(short_help="Restore what the last run changed.")
@shared("cluster", "place", "output", "report", "timeout")
@click.option("--leave", is_flag=True, help="Let what somebody else has changed stay as it is, and close the run.")
@_yes
@_break_lock
@_journal_namespace
def rollback(options: Options, leave: bool, yes: bool, break_lock: bool, journal_namespace: str) -> None:
    """Restore what the last run changed, and nothing that somebody else has changed since."""
    from meshtls.cli.carrying import ask, carry, found_here, locked, warned, who
    from meshtls.cli.output import now
    from meshtls.migrate.journal import Outcome, back
    from meshtls.migrate.store import Store

    with _session(options, "Rollback") as (client, draft, _):
        namespace = meshes.one(options, client)
        with locked(client, namespace, journal_namespace, break_lock) as lock:
            store = Store(client, namespace, journal_namespace)
            journal = found_here(store)
            if journal is None or journal.outcome in (Outcome.ROLLED_BACK, Outcome.LEFT):
                click.echo(f"{namespace}: nothing to roll back", err=True)
                draft.code = 0
                return
            warned(client, journal, RAW_S, draft)
            ask(f"Restore {namespace} to what it was before run {journal.run} ({journal.was})?", yes)
            journal = back(journal, journal.reason or f"asked for by {who()}", leave)
            journal = journal.noted(now(), f"rollback asked for by {who()}{', leaving what others changed' if leave else ''}")
            store.save(journal)
            assert lock is not None
            carry(options, client, store, journal, "", draft, Outcome.ROLLED_BACK, lock)


@migrate.command(short_help="Judge a stage that somebody else has applied.")
@shared("cluster", "place", "output", "report", "timeout")
@_soak
@_accept
@_image
def verify(options: Options, soak: float | None, accept: tuple[str, ...], image: str) -> None:
    """Judge a stage that somebody else has applied, such as Argo CD or Flux, by the gate of a migration. Changes no policy.

    What is STRICT in the namespace now is watched: the proxies' logs for refused clients, the mode of every port, calls between
    probes. Exit codes: 0 the gate holds, 4 it is broken, 3 nobody can say.
    """
    from meshtls.cli.verify import verify as judge

    with _session(options, "Verification") as (client, draft, _):
        judge(client, draft, meshes.one(options, client), soak, accept, image)


@migrate.command(short_help="Show how far runs are.")
@shared("cluster", "place", "output", "report", "timeout")
@_journal_namespace
def status(options: Options, journal_namespace: str) -> None:
    """Show how far the last run of a namespace is, and its history. Exit codes: 0 finished or none, 4 unfinished or stuck.

    With -A or several namespaces: where every run is, in one list.
    """
    if _many(options):
        from meshtls.cli import many
        from meshtls.cli.output import emit_document

        with _reading(options) as (client, _):
            listed = many.status(client, options)
            emit_document(listed, options, lambda: many.status_shown(listed))
            raise click.exceptions.Exit(0 if all(each.over for each in listed.items) else GATE)
    from meshtls.cli.carrying import found_here
    from meshtls.migrate.journal import Going, Outcome
    from meshtls.migrate.outcome import outcome_check
    from meshtls.migrate.store import Store
    from meshtls.model.check import Check, Status

    with _session(options, "Migration status") as (client, draft, _):
        namespace = meshes.one(options, client)
        journal = found_here(Store(client, namespace, journal_namespace))
        if journal is None:
            draft.checks.append(Check(id="migrate/status", title=f"a run of {namespace}", status=Status.PASS, reason="none was made"))
            return
        draft.facts += [("run", journal.run), ("started", journal.started), ("who", journal.who), ("was", journal.was),
                        ("going", journal.going), ("outcome", journal.outcome or "not finished")]  # fmt: skip
        draft.facts += [("history", line) for line in journal.history]
        for entry in journal.entries:
            draft.checks.append(Check(id=f"stage/{entry.stage.id}", title=f"{entry.stage.id}: {entry.stage.policy} {entry.stage.mode}",
                                      status=Status.PASS, group="stages", reason="; ".join((entry.state, *entry.evidence))))  # fmt: skip
        if journal.outcome in (Outcome.NONE, Outcome.STUCK):
            wanted = Outcome.ROLLED_BACK if journal.going is Going.BACK else Outcome.DONE
            draft.checks.append(outcome_check(journal, None, wanted))
            draft.code = GATE


def _many(options: Options) -> bool:
    return options.all_namespaces or len(options.namespaces) > 1


@contextlib.contextmanager
def _reading(options: Options) -> "Iterator[tuple[Client, Prometheus | None]]":
    """A client for what only reads and prints one document."""
    from meshtls.cli.meshes import connect
    from meshtls.cli.output import stops
    from meshtls.cli.witness import progress

    if options.reports:
        raise click.UsageError("--report is for one namespace: this is a list, see -o json")
    with (
        stops(options.timeout_s),
        asking(options) as prometheus,
        connect(options, say=progress) as client,
    ):
        yield client, prometheus


@contextlib.contextmanager
def _session(options: Options, title: str, many: bool = False) -> "Iterator[tuple[Client, Draft, Prometheus | None]]":
    from meshtls.cli.meshes import connect
    from meshtls.cli.output import session
    from meshtls.cli.witness import progress

    if _many(options) and not many:
        raise click.UsageError("this works on one namespace: -n NS")
    with (
        session(options, kind="MigrateReport", title=title) as draft,
        asking(options) as prometheus,
        connect(options, say=progress) as client,
    ):
        yield client, draft, prometheus


