"""`meshtls migrate`: move a namespace to STRICT in steps, with gates and rollback."""

import contextlib
import datetime
import difflib
import getpass
import secrets
import socket
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
import msgspec

from meshtls.cli.options import Duration, Options, duration, same_cluster, shared
from meshtls.errors import InputError, MeshtlsError

if TYPE_CHECKING:
    from meshtls.cli.output import Draft
    from meshtls.cluster.client import Client
    from meshtls.migrate.baseline import Waiver
    from meshtls.migrate.journal import Journal, Outcome
    from meshtls.migrate.plan import Plan
    from meshtls.migrate.store import Store
    from meshtls.model.check import Check
    from meshtls.model.mesh import Mesh

GATE = 4
DRAIN_S = 45.0  # Istio's default
_journal_namespace = click.option("--journal-namespace", default="", metavar="NS", help="Where the journal is kept, if not in NS itself.")
_canary = click.option("--canary", default="", metavar="NAME", help="The workload that goes first: name or Kind/name.")
_since = click.option("--since", type=Duration(), default="1h", show_default=True, help="How far back plaintext is looked for.")
_yes = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
_break_lock = click.option("--break-lock", is_flag=True, help="Take over from another run, which must be dead.")


@click.group()
def migrate() -> None:
    """Move a namespace to STRICT in steps, each with a gate after it and a way back.

    Exit codes: 0 STRICT (or nothing to do), 2 usage, 3 the cluster did not answer, 4 held at a gate, rolled back or stuck,
    124 timeout, 130 interrupted; the last two after everything was restored.
    """


@migrate.command()
@shared("cluster", "place", "output", "report", "timeout")
@_canary
@_since
@_journal_namespace
def plan(options: Options, canary: str, since: float, journal_namespace: str) -> None:
    """Show what apply would do, and what would hold it. Changes nothing."""
    from meshtls.migrate.baseline import Waiver

    with _session(options, "Plan") as (client, draft):
        mesh, found, checks = _prepare(client, _one(options, client), canary, since, journal_namespace, Waiver(), draft)
        _held(checks, Waiver(), draft)
        _say_plan(found)
        _diff(client, found)


@migrate.command()
@shared("cluster", "place", "output", "report", "timeout")
@_canary
@_since
@click.option("--soak", type=Duration(), help="How long each stage is watched; by default until 15 s after the proxies' drain (45 s) ends.")
@click.option("--force", is_flag=True, help="Go on past plaintext and predictions that would hold; a client that is refused still rolls back.")
@click.option("--accept-plaintext-from", "accept", multiple=True, metavar="NS/NAME", help="A client whose refusal is accepted.")
@click.option("--gitops-override", is_flag=True, help="Change policies that Argo CD or Flux writes.")
@click.option("--image", default="", metavar="IMAGE", help="An image with Python 3.8 or newer for the probe pods.")
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
    """
    from meshtls.migrate.baseline import Waiver
    from meshtls.migrate.journal import Going, Outcome, begin, untouched
    from meshtls.migrate.store import Store

    waiver = Waiver(force=force, gitops=gitops_override, accepted=accept)
    with _session(options, "Migration") as (client, draft):
        namespace = _one(options, client)
        with _locked(client, namespace, journal_namespace, break_lock, dry_run):
            store = Store(client, namespace, journal_namespace)
            journal = store.load()
            if journal is None or journal.outcome in (Outcome.DONE, Outcome.ROLLED_BACK) or untouched(journal):
                mesh, found, checks = _prepare(client, namespace, canary, since, journal_namespace, waiver, draft)
                if not found.stages:
                    click.echo(f"{namespace}: {found.notes[0]}", err=True)
                    draft.code = 0
                    return
                _say_plan(found)
                if dry_run:
                    _diff(client, found)
                    _held(checks, waiver, draft)
                    return
                if _held(checks, waiver, draft):
                    return
                soak_s = _soak(mesh, soak, found, draft)
                _ask(f"Take {namespace} from {found.was} to STRICT?", yes)
                journal = begin(found, run=secrets.token_hex(4), now=_now(), who=_who(), soak_s=soak_s, forced=force, accepted=accept)
                # what was waived, and against which evidence, is part of the record
                waived = [f"{c.title}: {c.reason or c.findings[0].message}" for c in checks if str(c.status) in ("FAIL", "ERROR")]
                for line in waived:
                    journal = journal.noted(_now(), f"went on all the same (--force): {line}")
                store.save(journal)
            elif journal.outcome is Outcome.STUCK:
                _stuck(journal, draft)
                return
            else:
                way = "forward, to STRICT" if journal.going is Going.FORWARD else "back"
                click.echo(f"{namespace}: run {journal.run} of {journal.started} by {journal.who} has not ended; it goes {way}", err=True)
                if dry_run:
                    click.echo("nothing was changed; see: meshtls migrate status", err=True)
                    draft.code = GATE
                    return
                _ask("Continue it, with what it was begun with?", yes)
            _carry(options, client, store, journal, image, draft, Outcome.DONE)


@migrate.command()
@shared("cluster", "place", "output", "report", "timeout")
@_yes
@_break_lock
@_journal_namespace
def rollback(options: Options, yes: bool, break_lock: bool, journal_namespace: str) -> None:
    """Restore what the last run changed, and nothing that somebody else has changed since."""
    from meshtls.migrate.journal import Outcome, back
    from meshtls.migrate.store import Store

    with _session(options, "Rollback") as (client, draft):
        namespace = _one(options, client)
        with _locked(client, namespace, journal_namespace, break_lock, False):
            store = Store(client, namespace, journal_namespace)
            journal = store.load()
            if journal is None or journal.outcome is Outcome.ROLLED_BACK:
                click.echo(f"{namespace}: nothing to roll back", err=True)
                draft.code = 0
                return
            _ask(f"Restore {namespace} to what it was before run {journal.run} ({journal.was})?", yes)
            journal = back(journal, journal.reason or f"asked for by {_who()}")
            journal = journal.noted(_now(), f"rollback asked for by {_who()}")
            store.save(journal)
            _carry(options, client, store, journal, "", draft, Outcome.ROLLED_BACK)


@migrate.command()
@shared("cluster", "place", "output", "report", "timeout")
@_journal_namespace
def status(options: Options, journal_namespace: str) -> None:
    """Show how far the last run of a namespace is, and its history. Exit codes: 0 finished or none, 4 unfinished or stuck."""
    from meshtls.migrate.journal import Outcome
    from meshtls.migrate.run import outcome_check
    from meshtls.migrate.store import Store
    from meshtls.model.check import Check, Status

    with _session(options, "Migration status") as (client, draft):
        namespace = _one(options, client)
        journal = Store(client, namespace, journal_namespace).load()
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
            draft.checks.append(outcome_check(journal, None))
            draft.code = GATE


@contextlib.contextmanager
def _session(options: Options, title: str) -> "Iterator[tuple[Client, Draft]]":
    from meshtls.cli.output import session
    from meshtls.cluster.client import Client

    if options.all_namespaces or len(options.namespaces) > 1:
        raise click.UsageError("migrate works on one namespace: -n NS")
    with session(options, kind="MigrateReport", title=title) as draft, Client.connect(options.kubeconfig, options.context) as client:
        yield client, draft


def _one(options: Options, client: "Client") -> str:
    """The namespace asked for. Raises InputError where it does not exist."""
    from meshtls.cli.meshes import exists

    name = options.namespaces[0] if options.namespaces else client.namespace
    exists(client, name)
    return name


@contextlib.contextmanager
def _locked(client: "Client", namespace: str, place: str, take: bool, dry_run: bool) -> Iterator[None]:
    from meshtls.migrate.store import Lock, holder

    if dry_run:
        yield
        return
    with Lock(client, namespace, place, holder(), lambda: datetime.datetime.now(datetime.UTC), take) as lock:
        click.get_current_context().obj = lock
        yield


def _prepare(
    client: "Client", namespace: str, canary: str, since: float, place: str, waiver: "Waiver", draft: "Draft"
) -> "tuple[Mesh, Plan, tuple[Check, ...]]":
    """The mesh as it is, the plan, and the checks of the baseline; the report has them."""
    from meshtls import audit, sources
    from meshtls.cli.witness import baseline as listen
    from meshtls.migrate import baseline
    from meshtls.migrate.plan import plan as make
    from meshtls.migrate.preflight import ask

    click.echo(f"{namespace}: reading the cluster", err=True)
    mesh = sources.load(client=client)
    observed, unobserved, arrivals = listen(client, mesh, namespace, since)
    audited = tuple(audit.check(mesh, [namespace]))
    troubled = {f.subject for check in audited for f in check.findings}
    found = make(mesh, namespace, canary=canary, arrivals=arrivals, troubled=troubled, past_plaintext=waiver.force)
    draft.facts += [("namespace", namespace), ("mode before", found.was), ("canary", found.canary or "none")]
    draft.facts += [("note", note) for note in found.notes]
    if not found.stages:
        return mesh, found, ()
    facts = msgspec.structs.replace(
        ask(client, found, place or namespace), observed=observed, unobserved=unobserved, audited=audited
    )
    checks = baseline.checks(mesh, found, facts, waiver)
    draft.checks += checks
    return mesh, found, checks


def _held(checks: "tuple[Check, ...]", waiver: "Waiver", draft: "Draft") -> bool:
    """Whether the baseline holds the run; then says by what, and sets the exit code."""
    from meshtls.migrate.baseline import holding

    held = holding(checks, waiver)
    for check in held:
        # what was found speaks for itself; a question without an answer has to be told
        reasons = [f.message for f in check.findings][:3] or [f"not so, or not known: {check.title}: {check.reason}"]
        for reason in reasons:
            click.echo(f"HELD  {reason}", err=True)
    if held:
        waivable = all(check.id not in _never() for check in held)
        click.echo("nothing was changed" + ("; to go on all the same: --force" if waivable else ""), err=True)
        draft.code = GATE
    return bool(held)


def _never() -> frozenset[str]:
    from meshtls.migrate.baseline import NEVER_WAIVED

    return NEVER_WAIVED


def _carry(
    options: Options, client: "Client", store: "Store", journal: "Journal", image: str, draft: "Draft", wanted: "Outcome"
) -> None:
    """Go on until the run has ended; the report has the gates' checks whatever becomes of it. 0 is the code of `wanted`."""
    from meshtls.cli.witness import Eyes, progress
    from meshtls.migrate.journal import Outcome
    from meshtls.migrate.run import Runner, other_check, outcome_check

    where = f"-n {journal.namespace}{same_cluster(options)}"
    kept = "" if store.place == journal.namespace else f" --journal-namespace {store.place}"
    draft.cleanup_command = f"meshtls migrate rollback {where}{kept}; meshtls cleanup {where}"
    eyes = Eyes(client, journal.namespace, image=image, say=progress)
    lock = click.get_current_context().obj
    runner = Runner(client, store, eyes, say=progress, now=_now, tick=lock.renew)
    try:
        journal = runner.carry(journal)
    finally:
        draft.checks += runner.checks
        draft.matrices += [matrix for found in eyes.matrices.values() for matrix in found]
        if runner.back_s is not None:
            draft.facts.append(("rolled back", f"{runner.back_s:.2f} s after it was seen"))
    if journal.outcome is Outcome.STUCK:
        _stuck(journal, draft)
        return
    draft.checks.append(outcome_check(journal, runner.back_s, wanted))
    draft.code = 0 if journal.outcome is wanted else GATE
    if journal.outcome is Outcome.ROLLED_BACK and (other := _moved(client, journal)):
        click.echo(f"{journal.namespace}: {other}", err=True)
        draft.checks.append(other_check(journal, other))
        draft.code = GATE


def _moved(client: "Client", journal: "Journal") -> str:
    """What the namespace's mode is after a way back, where it is not what it was; "" where it is.

    A policy that is absent again leaves the mode to the mesh, and that may have changed meanwhile.
    """
    from meshtls import sources
    from meshtls.policy.authn import Authn

    try:
        mesh = sources.load(client=client)
    except MeshtlsError as error:
        return f"every policy is as it was; whether the mode is {journal.was} again could not be read: {error}"
    mode, _ = Authn(mesh.peer_authentications, mesh.root).hint(journal.namespace)
    return "" if mode == journal.was else f"every policy is as it was, but the mode is {mode} and was {journal.was}: the mesh's own has changed"


def _soak(mesh: "Mesh", asked: float | None, found: "Plan", draft: "Draft") -> float:
    """How long stages are watched, in seconds; says what a change does to connections, and what a short soak does not see."""
    from meshtls.migrate import drain

    drain_s = DRAIN_S
    for text in drain.durations(mesh, found.namespace):
        with contextlib.suppress(ValueError):
            drain_s = max(drain_s, duration(text))
    soak_s = drain_s + 15 if asked is None else asked
    notes = [*drain.notes(mesh, found.namespace, drain_s)]
    if soak_s < drain_s:
        notes.append(f"a soak of {soak_s:g} s ends before that: it judges new connections only")
    draft.facts += [("note", note) for note in notes]
    for note in notes:
        click.echo(f"{found.namespace}: {note}", err=True)
    return soak_s


def _stuck(journal: "Journal", draft: "Draft") -> None:
    from meshtls.migrate.journal import Going
    from meshtls.migrate.run import outcome_check

    back = journal.going is Going.BACK
    click.echo(f"{journal.namespace}: STUCK: {journal.reason}", err=True)
    click.echo("everything else was restored; put this right by hand, then run meshtls migrate rollback again" if back else
               "look at it; meshtls migrate rollback restores what is still as it was written", err=True)  # fmt: skip
    draft.checks.append(outcome_check(journal, None))
    draft.code = GATE


def _say_plan(found: "Plan") -> None:
    from meshtls.report.text import plural

    for stage in found.stages:
        how = "create" if stage.create else "patch"
        click.echo(f"{found.namespace}: will {how} PeerAuthentication {stage.policy}: {stage.id} to {stage.mode}"
                   f" ({plural(len(stage.workloads), 'workload')})", err=True)  # fmt: skip
    for note in found.notes:
        click.echo(f"{found.namespace}: {note}", err=True)


def _diff(client: "Client", found: "Plan") -> None:
    """The exact changes of each stage as unified diffs of YAML, on standard error."""
    from meshtls.errors import NotFound
    from meshtls.migrate.journal import Entry, intent, written

    for stage in found.stages:
        live: dict[str, Any] | None = None
        if not stage.create:
            with contextlib.suppress(NotFound):
                live = client.get("PeerAuthentication", stage.policy, found.namespace)
        entry = intent(Entry(stage=stage), live)
        after = written(entry, found.namespace, "RUN")
        name = f"PeerAuthentication/{found.namespace}/{stage.policy}"
        lines = difflib.unified_diff(_yaml(live), _yaml(after), name if live else "/dev/null", f"{name} ({stage.id})", lineterm="")
        click.echo("\n".join(lines), err=True)


def _yaml(obj: dict[str, Any] | None) -> list[str]:
    import yaml

    if obj is None:
        return []
    meta = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return str(yaml.safe_dump({**obj, "metadata": meta}, sort_keys=True)).splitlines()


def _ask(question: str, yes: bool) -> None:
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


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _who() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = "unknown"
    return f"{name}@{socket.gethostname()}"
