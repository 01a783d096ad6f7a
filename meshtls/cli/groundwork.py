"""What is done before a namespace is touched: read the mesh, make the plan, ask the baseline's questions, say what holds."""

import contextlib
from typing import TYPE_CHECKING

import click
import msgspec

from meshtls import audit, sources
from meshtls.cli import changes
from meshtls.cli.before import baseline as listen
from meshtls.cli.meshes import CALLING, DECIDING, unread
from meshtls.cli.options import duration
from meshtls.cli.output import GATE, say
from meshtls.migrate import baseline, drain
from meshtls.migrate.baseline import NEVER_WAIVED, Waiver, holding
from meshtls.migrate.plan import Plan
from meshtls.migrate.plan import plan as make
from meshtls.migrate.preflight import ask
from meshtls.model.check import Check
from meshtls.model.mesh import Mesh
from meshtls.observe.run import open_plaintext

if TYPE_CHECKING:
    from meshtls.cli.output import Draft
    from meshtls.cluster.client import Client
    from meshtls.observe.prometheus import Prometheus

SHOWN = 3
DRAIN_S = 45.0  # Istio's default


def prepare(
    client: "Client", namespace: str, canary: str, since: float, place: str, waiver: Waiver, draft: "Draft",
    prometheus: "Prometheus | None" = None,
) -> tuple[Mesh, Plan, tuple[Check, ...]]:
    """The mesh as it is, the plan, and the checks of the baseline; the report has them."""
    click.echo(f"{namespace}: reading the cluster", err=True)
    mesh = sources.load(client=client)
    before = listen(client, mesh, namespace, since, prometheus)
    audited = tuple(audit.check(mesh, [namespace]))
    troubled = {f.subject for check in audited for f in check.findings}
    found = make(mesh, namespace, canary=canary, arrivals=before.arrivals, troubled=troubled, past_plaintext=waiver.force)
    draft.facts += [("namespace", namespace), ("mode before", found.was), ("canary", found.canary or "none")]
    draft.facts += [("note", note) for note in found.notes]
    if before.reach:
        draft.facts.append(("metrics", before.reach))
    if not found.stages:
        return mesh, found, ()
    held_open, unopened = open_plaintext(client, mesh, namespace)
    facts = msgspec.structs.replace(
        ask(client, found, place or namespace), observed=before.observed, unobserved=before.unobserved, counted=before.counted,
        audited=audited, unread=unread(mesh, kinds=DECIDING + CALLING), unopened=unopened, opened=tuple((one.client, one.server, one.count) for one in held_open),
    )
    checks = baseline.checks(mesh, found, facts, waiver)
    draft.checks += checks
    return mesh, found, checks


def held(checks: tuple[Check, ...], waiver: Waiver, draft: "Draft") -> bool:
    """Whether the baseline holds the run; then says by what, and sets the exit code."""
    found = holding(checks, waiver)
    for check in found:
        # what was found speaks for itself; a question without an answer has to be told
        reasons = [f.message if f.subject in f.message else f"{f.subject}: {f.message}" for f in check.findings]
        for reason in reasons[:SHOWN] or [f"not so, or not known: {check.title}: {check.reason}"]:
            say(f"HELD  {reason}")
        if len(reasons) > SHOWN:
            say(f"HELD  and {len(reasons) - SHOWN} more: {check.title}")
    if found:
        waivable = all(check.id not in NEVER_WAIVED for check in found)
        click.echo("nothing was changed" + ("; to go on all the same: --force" if waivable else ""), err=True)
        draft.code = GATE
    return bool(found)


def soak(mesh: Mesh, asked: float | None, namespace: str, draft: "Draft") -> float:
    """How long stages are watched, in seconds; says what a change does to connections, and what a short soak does not see."""
    drain_s = DRAIN_S
    for text in drain.durations(mesh, namespace):
        with contextlib.suppress(ValueError):
            drain_s = max(drain_s, duration(text))
    soak_s = drain_s + 15 if asked is None else asked
    notes = [*drain.notes(mesh, namespace, drain_s)]
    if soak_s < drain_s:
        notes.append(f"a soak of {soak_s:g} s ends before that: it judges new connections only")
    draft.facts += [("note", note) for note in notes]
    for note in notes:
        say(f"{namespace}: {note}")
    return soak_s


def shown(client: "Client", found: Plan, draft: "Draft", exactly: bool) -> None:
    """The plan's stages, with `exactly` in the report and with their exact changes, else as progress; notes aside."""
    told = [changes.stage(found.namespace, one) for one in found.stages]
    if exactly:
        draft.facts += [("stage", line) for line in told] + [("change", text) for text in changes.diffs(client, found)]
    else:
        for line in told:
            click.echo(line, err=True)
    for note in found.notes:
        say(f"{found.namespace}: {note}")
