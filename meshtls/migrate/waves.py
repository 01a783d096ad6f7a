"""In which order namespaces can go STRICT, which cannot yet, by whom, and the smallest exceptions that would let them. Pure.

    SAFE      nobody would break: by the prediction, by what the proxies' logs tell, and by the audit
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

from meshtls.migrate.baseline import API_SERVER_CODES, ASKED_APART, OWN_CODES
from meshtls.migrate.exceptions import Doors, exception, manifest, modes_in, ports_in, proposed
from meshtls.migrate.plan import injected
from meshtls.model.check import Check, Finding, Severity
from meshtls.model.mesh import Mesh
from meshtls.model.objects import PeerAuthentication
from meshtls.model.workload import Workload
from meshtls.policy import dataplane
from meshtls.policy.authn import PERMISSIVE, STRICT, Authn
from meshtls.policy.change import strict
from meshtls.policy.engine import Engine
from meshtls.policy.predict import groups
from meshtls.policy.select import subset
from meshtls.policy.server import BREAKS

# clients without proxy that objects name, and scrapers, are no hold: whether they call, the logs know; but a nightly one may be missed
ADVICE = ("MT24", "MT250")


class State(enum.StrEnum):
    """What a namespace can do."""

    SAFE = "SAFE"
    AFTER = "AFTER"
    BLOCKED = "BLOCKED"
    UNKNOWN = "UNKNOWN"
    STRICT = "STRICT"
    OUTSIDE = "OUTSIDE"


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """An arrival in the logs that STRICT would refuse: `client` as people read it, `ref` of it ("" unknown), the workload and port.

    Of what arrives at a port that stays PERMISSIVE, there is none.
    """

    client: str
    ref: str
    server: str
    port: int
    says: str


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What the logs of one namespace said; `unknown` is why they said nothing. `callers` are namespaces that call it."""

    seen: tuple[Seen, ...] = ()
    callers: frozenset[str] = frozenset()
    unknown: str = ""


class Blocker(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Somebody who would break. `by` is `predicted`, `observed` or `audit`; `holds` False is advice; `port` 0 where none is known.

    `moves`: a restart would give the client a sidecar.
    """

    by: str
    client: str
    server: str
    port: int
    says: str
    code: str = ""
    holds: bool = True
    moves: bool = False


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
    findings = _findings(audit(mesh))
    mended = {
        (o["metadata"]["namespace"], o["metadata"]["name"]): modes_in(o)
        for f in findings if f.code.startswith(OWN_CODES) and (o := proposed(f.fix))
    }  # fmt: skip
    names_accepted = frozenset(accepted)
    moving = _moving(mesh)
    predicted = _predicted(strict(mesh, sorted(ahead)), mesh, ahead)
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
            (*predicted.get(name, ()), *_observed(heard), *_audited(mesh, name, findings))
            if not names_accepted & {b.client, b.client.partition("/")[2]}
        )  # fmt: skip
        places.append(_judged(name, was, workloads[name], heard, blockers, ahead))
        openings = _openings(mesh, authn, workloads[name], blockers, mended)
        places[-1] = msgspec.structs.replace(places[-1], openings=openings)
    return _ordered(_enough(mesh, places, audit))


def _judged(
    name: str, was: str, workloads: tuple[Workload, ...], heard: Observed, blockers: tuple[Blocker, ...], ahead: set[str]
) -> Place:
    holding = [b for b in blockers if b.holds]
    elsewhere = {b.client.split("/")[1] for b in holding if b.moves} - {name}
    if holding and all(b.moves for b in holding) and elsewhere and elsewhere <= ahead:
        state, why = State.AFTER, f"{_some(holding)} would get a sidecar by a restart, when {', '.join(sorted(elsewhere))} moves"
    elif holding:
        state, why = State.BLOCKED, f"by {_some(holding)}"
    elif heard.unknown:
        state, why = State.UNKNOWN, heard.unknown
    else:
        state, why = State.SAFE, "nobody would break"
    callers = tuple(sorted(heard.callers - {name}))
    return Place(namespace=name, state=state, was=was, workloads=len(workloads), callers=callers, because=why, blockers=blockers,
                 after=tuple(sorted(elsewhere)) if state is State.AFTER else ())  # fmt: skip


def _some(blockers: list[Blocker]) -> str:
    said = list(dict.fromkeys(b.client for b in blockers))
    return ", ".join(said[:3]) + (f" and {len(said) - 3} more" if len(said) > 3 else "")


def _moving(mesh: Mesh) -> frozenset[str]:
    """Refs of workloads that run without a proxy and would have one if their pods were made anew."""
    injector = Engine.of(mesh).injector
    found = set()
    for w in mesh.workloads:
        if w.template is None or not w.pods or any(pod.has_sidecar or pod.captured for pod in w.pods):
            continue
        face = msgspec.structs.replace(w, pods=()).faces[0]
        if dataplane.is_manifest(face) and dataplane.to_be(face, w.ref, injector, mesh)[0].kind != dataplane.BARE:
            found.add(w.ref)
    return frozenset(found)


def _predicted(after: Mesh, before: Mesh, namespaces: Iterable[str]) -> dict[str, list[Blocker]]:
    """Clients with a proxy that would break, by the server's namespace. What clients without one call, only the logs know."""
    engine = Engine.of(before)
    meshed = {ref for ref, faces in engine.faces.items() if any(face.plane.kind != dataplane.BARE for face in faces)}
    found: dict[str, list[Blocker]] = {}
    for g in groups(after, before, server_namespaces=frozenset(namespaces)):
        if g.verdict != BREAKS or g.was is None or g.was.verdict == BREAKS:
            continue
        says = str(g.outcome.because[-1]) if g.outcome.because else ""
        for client in g.clients:
            if client in meshed:
                target = int(g.target) if g.target.isdigit() else 0
                found.setdefault(g.server.split("/")[1], []).append(
                    Blocker(by="predicted", client=client, server=g.server, port=target, says=f"would no longer reach {g.server} port {g.port}: {says}")
                )
    return found


def _observed(heard: Observed) -> list[Blocker]:
    return [Blocker(by="observed", client=one.ref or one.client, server=one.server, port=one.port, says=one.says) for one in heard.seen]


def _audited(mesh: Mesh, namespace: str, findings: Iterable[Finding]) -> list[Blocker]:
    """What the audit says about the namespace: callers that no prediction knows, and what breaks in itself."""
    found = []
    for f in findings:
        opened = [(w, port) for w, port in ports_in(mesh, f.fix) if w.namespace == namespace]
        of_api = f.code in API_SERVER_CODES and f.severity.rank <= Severity.ERROR.rank or f.code.startswith(ADVICE)
        own = f.code.startswith(OWN_CODES) and f.code not in ASKED_APART and f.severity.rank <= Severity.ERROR.rank
        if of_api and opened or own and f.subject.split("/")[1:2] == [namespace]:
            for server, port in [(w.ref, port) for w, port in opened] or [(f.subject, 0)]:
                found.append(Blocker(by="audit", client=f.subject, server=server, port=port, says=f.message, code=f.code, holds=not f.code.startswith(ADVICE)))
    return found


def _findings(checks: Iterable[Check]) -> list[Finding]:
    return [f for check in checks for f in check.findings if not f.accepted]


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


def _enough(mesh: Mesh, places: list[Place], audit: Callable[[Mesh], Iterable[Check]]) -> list[Place]:
    """Whether the openings would be enough: what was observed has one, and prediction and audit, with all in it, find nobody."""
    made = [opening.manifest for place in places for opening in place.openings if opening.manifest]
    if not made:
        return places
    opened = _with(mesh, made)
    names = sorted(place.namespace for place in places if place.openings)
    after = strict(opened, names)
    predicted, findings, doors = _predicted(after, opened, names), _findings(audit(opened)), Doors(after)
    result = []
    for place in places:
        covered = all(b.port and doors.open(b.server, b.port) for b in place.blockers if b.by == "observed")
        left = predicted.get(place.namespace) or any(b.holds for b in _audited(opened, place.namespace, findings))
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
