"""`meshtls migrate` for several namespaces: the order of all, one after the other, and where each is."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click
import msgspec

from meshtls import audit, sources
from meshtls.cli import output
from meshtls.cli.before import baseline
from meshtls.cli.carrying import ask
from meshtls.cli.emit import emit
from meshtls.cli.forward import Wish, forward
from meshtls.cli.meshes import CALLING, DECIDING, known, unread
from meshtls.cli.options import Options
from meshtls.cli.witness import progress
from meshtls.errors import NoData
from meshtls.migrate.blockers import Observed, Seen
from meshtls.migrate.plan import plan as make
from meshtls.migrate.register import MigrationList, Standing, standing
from meshtls.migrate.store import journals
from meshtls.migrate.waves import Place, State, WavePlan, document, waves
from meshtls.model.check import Check, Severity, Status
from meshtls.model.mesh import Mesh
from meshtls.report.columns import columns
from meshtls.report.text import plural

if TYPE_CHECKING:
    from meshtls.cli.output import Draft
    from meshtls.cluster.client import Client
    from meshtls.observe.prometheus import Prometheus

OVER = (State.STRICT, State.OUTSIDE)


def order(
    client: "Client", options: Options, since_s: float, accepted: tuple[str, ...], prometheus: "Prometheus | None" = None
) -> tuple[Mesh, WavePlan]:
    """The mesh, and the waves of the namespaces asked about, from the cluster as it is now."""
    progress("reading the cluster")
    mesh = sources.load(client=client)
    for name in options.namespaces:
        known(mesh, name)
    names = options.namespaces or tuple(sorted({w.namespace for w in mesh.workloads}))
    progress(f"listening to the last {since_s:g} s of {plural(len(names), 'namespace')}")
    observed = {name: _observed(client, mesh, name, since_s, prometheus) for name in names}
    lacking = unread(mesh, kinds=DECIDING + CALLING)
    if lacking and not names:
        raise NoData(lacking[0], "ask for meshtls' audit role, see docs/rbac.md")
    if lacking:
        # what could not be read breaks nobody in a prediction: that is no answer
        observed = {name: msgspec.structs.replace(one, unknown=lacking[0]) for name, one in observed.items()}
    places = waves(mesh, names, observed, audit.check, accepted)
    if lacking:
        # nor is there nothing to do where that was not seen
        places = tuple(msgspec.structs.replace(p, state=State.UNKNOWN, because=lacking[0]) if p.state in OVER else p for p in places)
    return mesh, document(places, mesh.notes, mesh.absent)


def _observed(client: "Client", mesh: Mesh, name: str, since_s: float, prometheus: "Prometheus | None") -> Observed:
    before = baseline(client, mesh, name, since_s, prometheus)
    unknown = before.unobserved
    if not unknown and before.observed and all(check.status is Status.SKIP for check in before.observed):
        unknown = "no arrival at any workload was logged"
    unasked = [check.reason for check in (*before.observed, *before.counted) if check.status is Status.ERROR]
    counted = tuple(
        Seen(client=f.subject, ref=f.subject, server=f.subject, port=0, says=f.message)
        for check in before.counted if check.status is Status.FAIL for f in check.findings if f.severity.rank <= Severity.ERROR.rank
    )  # fmt: skip
    return Observed(seen=(*before.seen, *counted), callers=before.callers, unknown=unknown or (unasked[0] if unasked else ""))


def shown(plan: WavePlan, wide: bool) -> str:
    """The plan for people."""
    rows = []
    for place in plan.items:
        if place.state is State.OUTSIDE and not wide:
            continue
        rows.append([str(place.wave or "-"), place.namespace, place.state, place.was, str(place.workloads), place.because])
    if not rows:
        return "no namespace has a workload in the mesh\n"
    text = columns(rows, ["WAVE", "NAMESPACE", "STATE", "MODE", "WORKLOADS", "BECAUSE"], width=output.terminal_width(), below=("BECAUSE",))
    for place in plan.items:
        text += _blocked(place, wide)
    going = sum(len(wave) for wave in plan.waves)
    counts = ", ".join(f"{n} {state}" for state in State if (n := sum(p.state is state for p in plan.items)))
    return f"{text}\n{plural(going, 'namespace')} can go, in {plural(len(plan.waves), 'wave')}: {counts}\n"


def _blocked(place: Place, wide: bool) -> str:
    """Who blocks a namespace, and what would let it go."""
    if not place.blockers:
        return ""
    shown = place.blockers if wide else place.blockers[:5]
    width = 0 if wide else output.terminal_width()
    text = f"\n{place.namespace}\n"
    for b in shown:
        port = f" port {b.port}" if b.port else ""
        said = f"{'' if b.holds else 'advice: '}{b.client} ({b.by}{' ' + b.code if b.code else ''})"
        at = f"at {b.server}{port}{': a restart gives it a sidecar' if b.moves else ''}"
        beside = not width or len(said) + len(at) + 3 <= width
        text += f"  {said} {at}\n" if beside else f"  {said}\n    {at}\n"
    if len(shown) < len(place.blockers):
        text += f"  and {len(place.blockers) - len(shown)} more: -o wide\n"
    if place.openings:
        enough = "these exceptions let it go" if place.enough else "these exceptions help, but are not enough"
        text += f"  {enough}:\n"
        for opening in place.openings:
            ports = ", ".join(map(str, opening.ports))
            text += f"    {opening.workload} port {ports} PERMISSIVE" + (f": none can be made: {opening.reason}\n" if opening.reason else "\n")
            if wide and opening.manifest:
                text += "".join(f"      {line}\n" for line in opening.manifest.rstrip().split("\n"))
        text += "" if wide else "    (their manifests: -o wide or yaml)\n"
    return text


def emitted(client: "Client", mesh: Mesh, namespace: str, directory: str) -> None:
    """Write the stages of one namespace that can go."""
    for path in emit(client, make(mesh, namespace), directory):
        progress(f"wrote {path}")


def code(plan: WavePlan) -> int:
    """4 where something cannot go yet, or nobody knows."""
    return output.GATE if any(place.state in (State.BLOCKED, State.UNKNOWN) for place in plan.items) else 0


def apply(client: "Client", draft: "Draft", options: Options, wish: Wish, prometheus: "Prometheus | None" = None) -> None:
    """Wave by wave, one namespace at a time, until one is held or taken back; says what remains."""
    _, plan = order(client, options, wish.since_s, wish.waiver.accepted, prometheus)
    click.echo(shown(plan, False), err=True, nl=False)
    going = [place.namespace for place in plan.items if place.wave]
    kept = [place.namespace for place in plan.items if place.state in (State.BLOCKED, State.UNKNOWN)]
    draft.facts += [("wave", f"{n}: {', '.join(wave)}") for n, wave in enumerate(plan.waves, 1)]
    if not going:
        click.echo(f"nothing was changed: {_remaining(kept)}" if kept else "nothing to do", err=True)
        draft.code = output.GATE if kept else 0
        return
    if not wish.dry_run:
        ask(f"Take {', '.join(going)} to STRICT, one after the other, in {plural(len(plan.waves), 'wave')}?", wish.yes)
    wish = msgspec.structs.replace(wish, yes=True)
    done: list[str] = []
    try:
        for namespace in going:
            before = len(draft.checks)
            draft.code = None
            try:
                forward(options, client, draft, namespace, wish, prometheus)
            finally:
                draft.checks[before:] = [_of(namespace, check) for check in draft.checks[before:]]
            if draft.code:
                break
            done.append(namespace)
    finally:
        left = [name for name in going if name not in done]
        said = f"done: {', '.join(done) or 'none'}" if not wish.dry_run else f"planned: {', '.join(done) or 'none'}"
        progress(f"{said}; {_remaining([*left, *kept])}" if left or kept else said)
        draft.facts += [("done", ", ".join(done) or "none"), ("remaining", ", ".join([*left, *kept]) or "none")]
    draft.code = output.GATE if kept and not draft.code else draft.code


def _remaining(names: Iterable[str]) -> str:
    return f"remaining: {', '.join(names)}"


def _of(namespace: str, check: Check) -> Check:
    """A check of one of several namespaces, told apart by its id and group."""
    return msgspec.structs.replace(check, id=f"{namespace}/{check.id}", group=f"{namespace}: {check.group}" if check.group else namespace)


def status(client: "Client", options: Options) -> MigrationList:
    """Where every run is that left a journal: of all namespaces, or of those named."""
    found: list[Standing] = []
    for place, namespace, text in journals(client):
        if not options.namespaces or namespace in options.namespaces:
            found.append(standing(place, namespace, text))
    return MigrationList(items=tuple(sorted(found, key=lambda s: (s.over, s.namespace))))


def status_shown(found: MigrationList) -> str:
    """The list for people."""
    if not found.items:
        return "no run was made\n"
    rows = [[s.namespace, s.outcome or "not finished", s.going, s.stages, s.was, s.started, s.who, s.reason] for s in found.items]
    head = ["NAMESPACE", "OUTCOME", "GOING", "STAGES", "WAS", "STARTED", "WHO", "REASON"]
    return columns(rows, head, width=output.terminal_width(), below=("REASON", "WHO", "STARTED"))
