"""In which order namespaces can go STRICT, which cannot yet, by whom, and the smallest exceptions that would let them. Pure.

    SAFE      nobody who is known to call would break: by the prediction, by what the proxies' logs tell, and by the audit
    AFTER     only clients of other namespaces of the plan would, which would get a sidecar if they were restarted: those go first
    BLOCKED   somebody would, and no order helps: named, each with its port
    UNKNOWN   nobody is known to, but nothing was observed: no data is no leave
    STRICT, OUTSIDE    there is nothing to do: STRICT already; no workload with a proxy, or the mesh's root namespace

A wave holds what can go once the waves before it have; within it, the namespace that the fewest others call goes first, so that
what goes wrong goes wrong small. Namespaces that wait for each other go in one wave. An exception keeps one port of one workload
PERMISSIVE; whether all of them together are enough is asked of the prediction again, with them in it.
"""

import enum
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import msgspec
import yaml

from meshtls.migrate.baseline import OWN_CODES
from meshtls.migrate.blockers import Blocker, Observed, audited_breaks, findings_of, movers, observed_breaks, predicted_breaks
from meshtls.migrate.exceptions import Doors, exception, manifest, modes_in, proposed
from meshtls.migrate.plan import injected
from meshtls.model.check import Check
from meshtls.model.mesh import Mesh
from meshtls.model.objects import PeerAuthentication
from meshtls.model.workload import Workload
from meshtls.policy.authn import PERMISSIVE, STRICT, Authn
from meshtls.policy.change import strict
from meshtls.policy.select import subset


class State(enum.StrEnum):
    """What a namespace can do."""

    SAFE = "SAFE"
    AFTER = "AFTER"
    BLOCKED = "BLOCKED"
    UNKNOWN = "UNKNOWN"
    STRICT = "STRICT"
    OUTSIDE = "OUTSIDE"


class Opening(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An exception: `ports` of a workload stay PERMISSIVE, by the PeerAuthentication in `manifest` ("" and `reason`: none can be made)."""

    workload: str
    ports: tuple[int, ...]
    manifest: str = ""
    reason: str = ""


class Place(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One namespace. `wave` counts from 1 (0: in none), `after` are those it waits for, `enough` whether its openings would unblock it."""

    namespace: str
    state: State
    was: str
    wave: int = 0
    workloads: int = 0
    callers: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    because: str = ""
    blockers: tuple[Blocker, ...] = ()
    openings: tuple[Opening, ...] = ()
    enough: bool = False


def waves(
    mesh: Mesh, namespaces: Iterable[str], observed: Mapping[str, Observed], audit: Callable[[Mesh], Iterable[Check]],
    accepted: Iterable[str] = (),
) -> tuple[Place, ...]:  # fmt: skip
    """Every namespace with its state, in the order in which they go.

    `audit` judges a mesh, now and with the exceptions in it; `accepted` are clients (`namespace/name`) that may break.
    """
    names = tuple(dict.fromkeys(namespaces))
    authn = Authn(mesh.peer_authentications, mesh.root)
    workloads = {name: tuple(w for w in mesh.workloads if w.namespace == name and injected(w)) for name in names}
    ahead = {name for name in names if name != mesh.root and authn.hint(name)[0] != STRICT and workloads[name]}
    findings = findings_of(audit(mesh))
    mended = {
        (o["metadata"]["namespace"], o["metadata"]["name"]): modes_in(o)
        for f in findings if f.code.startswith(OWN_CODES) and (o := proposed(f.fix))
    }  # fmt: skip
    names_accepted = frozenset(accepted)
    moving = movers(mesh)
    predicted = predicted_breaks(strict(mesh, sorted(ahead)), mesh, ahead)
    places = []
    for name in names:
        was = authn.hint(name)[0]
        if name not in ahead:
            state = State.STRICT if was == STRICT and name != mesh.root else State.OUTSIDE
            why = "STRICT already" if state is State.STRICT else "the mesh's root namespace" if name == mesh.root else "no workload is in the mesh"
            places.append(Place(namespace=name, state=state, was=was, because=why, workloads=len(workloads[name])))
            continue
        heard = observed.get(name, Observed(unknown="nobody listened"))
        blockers = tuple(
            msgspec.structs.replace(b, moves=b.client in moving) for b in
            (*predicted.get(name, ()), *observed_breaks(heard), *audited_breaks(mesh, name, findings))
            if not names_accepted & {b.client, b.client.partition("/")[2]}
        )  # fmt: skip
        places.append(_judged(name, was, workloads[name], heard, blockers, ahead))
        openings = _openings(mesh, authn, workloads[name], blockers, mended)
        places[-1] = msgspec.structs.replace(places[-1], openings=openings)
    return _ordered(_enough(mesh, places, observed, audit))


def _judged(
    name: str, was: str, workloads: tuple[Workload, ...], heard: Observed, blockers: tuple[Blocker, ...], ahead: set[str]
) -> Place:
    holding = [b for b in blockers if b.holds]
    elsewhere = {b.client.split("/")[1] for b in holding if b.moves} - {name}
    if holding and all(b.moves for b in holding) and elsewhere and elsewhere <= ahead:
        state, why = State.AFTER, f"{_some(holding)} would get a sidecar by a restart, when {', '.join(sorted(elsewhere))} moves"
    elif holding:
        state, why = State.BLOCKED, f"by {_some(holding)}" + (f"; and {heard.unknown}" if heard.unknown else "")
    elif heard.unknown:
        state, why = State.UNKNOWN, heard.unknown
    else:
        state, why = State.SAFE, "nobody who is known to call would break"
    callers = tuple(sorted(heard.callers - {name}))
    return Place(namespace=name, state=state, was=was, workloads=len(workloads), callers=callers, because=why, blockers=blockers,
                 after=tuple(sorted(elsewhere)) if state is State.AFTER else ())  # fmt: skip


def _some(blockers: list[Blocker]) -> str:
    said = list(dict.fromkeys(b.client for b in blockers))
    return ", ".join(said[:3]) + (f" and {len(said) - 3} more" if len(said) > 3 else "")


def _openings(
    mesh: Mesh, authn: Authn, workloads: tuple[Workload, ...], blockers: Iterable[Blocker], mended: Mapping[tuple[str, str], dict[str, str]]
) -> tuple[Opening, ...]:
    """The least that would let the namespace go: for each workload the ports on which somebody would break."""
    wanted: dict[str, set[int]] = {}
    by_ref = {w.ref: w for w in workloads}
    for b in blockers:
        for server in _behind(mesh, b.server, by_ref):
            if b.port:
                wanted.setdefault(server, set()).add(b.port)
    found = []
    for ref, ports in sorted(wanted.items()):
        made = exception(mesh, authn, by_ref[ref], dict.fromkeys(sorted(ports), PERMISSIVE), mended)
        said = {"reason": made} if isinstance(made, str) else {"manifest": manifest(made)}
        found.append(Opening(workload=ref, ports=tuple(sorted(ports)), **said))
    return tuple(found)


def _behind(mesh: Mesh, server: str, workloads: Mapping[str, Workload]) -> list[str]:
    """The workloads that a Service leads to, or the workload itself."""
    if server in workloads:
        return [server]
    kind, _, rest = server.partition("/")
    service = mesh.services_by_name.get(tuple(rest.split("/"))) if kind == "Service" else None  # type: ignore[arg-type]
    if service is None or not service.spec.selector:
        return []
    return [ref for ref, w in workloads.items() if w.namespace == service.namespace and any(subset(service.spec.selector, p.labels) for p in w.faces)]


def _enough(mesh: Mesh, places: list[Place], observed: Mapping[str, Observed], audit: Callable[[Mesh], Iterable[Check]]) -> list[Place]:
    """Whether the openings would be enough: somebody listened, what was observed has one, and prediction and audit, with all in it, find nobody."""
    made = [opening.manifest for place in places for opening in place.openings if opening.manifest]
    if not made:
        return places
    opened = _with(mesh, made)
    names = sorted(place.namespace for place in places if place.openings)
    after = strict(opened, names)
    predicted, findings, doors = predicted_breaks(after, opened, names), findings_of(audit(opened)), Doors(after)
    result = []
    for place in places:
        heard = place.namespace in observed and not observed[place.namespace].unknown
        covered = heard and all(b.port and doors.open(b.server, b.port) for b in place.blockers if b.by == "observed")
        left = predicted.get(place.namespace) or any(b.holds for b in audited_breaks(opened, place.namespace, findings))
        result.append(msgspec.structs.replace(place, enough=bool(place.openings) and covered and not left))
    return result


def _with(mesh: Mesh, manifests: Iterable[str]) -> Mesh:
    """The mesh with these PeerAuthentications applied; one that is there keeps its age."""
    policies = {(p.namespace, p.name): p for p in mesh.peer_authentications}
    for text in manifests:
        new = msgspec.convert(yaml.safe_load(text), PeerAuthentication, strict=False)
        old = policies.get((new.namespace, new.name))
        meta = old.metadata if old else msgspec.structs.replace(new.metadata, creation_timestamp="9999-12-31T23:59:59Z")
        policies[new.namespace, new.name] = msgspec.structs.replace(new, metadata=meta)
    return msgspec.structs.replace(mesh, peer_authentications=tuple(policies[key] for key in sorted(policies)))


def _ordered(places: list[Place]) -> tuple[Place, ...]:
    """With their waves, in the order in which they go; what goes in none comes last."""
    by_name = {place.namespace: place for place in places}
    waiting = True
    while waiting:
        going = {name for name, place in by_name.items() if place.state in (State.SAFE, State.AFTER)}
        waiting = False
        for name in sorted(going):
            place = by_name[name]
            if lost := sorted(set(place.after) - going):
                why = f"{place.because}, but {', '.join(lost)} cannot go"
                by_name[name] = msgspec.structs.replace(place, state=State.BLOCKED, after=(), because=why)
                waiting = True
    left = {name: set(by_name[name].after) for name in going}
    wave: dict[str, int] = {}
    while left:
        # of those that wait for each other none comes first: they go together
        ready = {name for name, waits in left.items() if not waits & left.keys()} or set(left)
        wave |= dict.fromkeys(ready, max(wave.values(), default=0) + 1)
        left = {name: waits for name, waits in left.items() if name not in ready}
    done = [msgspec.structs.replace(place, wave=wave.get(name, 0)) for name, place in by_name.items()]
    rank = {state: n for n, state in enumerate((State.SAFE, State.AFTER, State.UNKNOWN, State.BLOCKED, State.STRICT, State.OUTSIDE))}
    return tuple(sorted(done, key=lambda p: (not p.wave, p.wave, rank[p.state], len(p.callers), p.workloads, p.namespace)))


class WavePlan(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """`meshtls migrate plan` of several namespaces: `waves` are those that can go, in order; `items` every namespace."""

    api_version: Literal["meshtls.dev/v1"] = "meshtls.dev/v1"
    kind: Literal["WavePlan"] = "WavePlan"
    notes: tuple[str, ...] = ()
    absent: dict[str, str] = {}
    waves: tuple[tuple[str, ...], ...] = ()
    items: tuple[Place, ...] = ()


def document(places: Iterable[Place], notes: tuple[str, ...] = (), absent: dict[str, str] | None = None) -> WavePlan:
    """The plan as the published document."""
    items = tuple(places)
    last = max((p.wave for p in items), default=0)
    by_wave = tuple(tuple(p.namespace for p in items if p.wave == n) for n in range(1, last + 1))
    return WavePlan(notes=notes, absent=absent or {}, waves=by_wave, items=items)
