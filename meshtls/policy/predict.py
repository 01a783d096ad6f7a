"""Predict: every client workload to every Service port, and what would change if a policy did.

Clients are answered for by class (see calls). `Group` is one answer for all clients of a class; `Prediction` is the same for
one client. With a mesh `before`, only what is different comes out: the break-list of a change.
"""

from collections.abc import Callable, Iterable, Iterator

import msgspec

from meshtls.model.mesh import Mesh
from meshtls.model.objects import Service
from meshtls.model.workload import Workload
from meshtls.policy.because import Because
from meshtls.policy.calls import Calls, Kind, Outcome, Where, join
from meshtls.policy.engine import Engine


class Group(msgspec.Struct, frozen=True):
    """One answer. `clients` and `server` are refs; `server` is a Service's, or a workload's for a call by pod address.

    `was` is the outcome before a change, None where there is none to compare with. `target` is the target port as text.
    """

    clients: tuple[str, ...]
    server: str
    port: int
    target: str
    outcome: Outcome
    was: Outcome | None = None
    namespace: str = ""

    @property
    def sends(self) -> str:
        return self.outcome.sends

    @property
    def verdict(self) -> str:
        return self.outcome.verdict


class Prediction(msgspec.Struct, frozen=True, rename="camel"):
    """One client and one port, as JSON has it; `fix` is YAML to apply, "" where nothing breaks or nothing is known to help."""

    client: str
    server: str
    port: int
    target_port: int | str
    sends: str
    verdict: str
    because: tuple[Because, ...]
    fix: str


Filter = Callable[[Workload], bool]


class Table:
    """The truth table of one mesh, answered by class of client."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.engine = Engine.of(mesh)
        self.calls = Calls(self.engine)
        self._kinds: dict[tuple[object, ...], tuple[Kind, ...]] = {}
        self._members: dict[tuple[object, ...], list[str]] = {}
        for workload in mesh.workloads:
            faces = self.engine.faces[workload.ref]
            if faces:
                kinds = self.calls.kinds(faces)
                key = tuple(k.key for k in kinds)
                self._kinds.setdefault(key, kinds)
                self._members.setdefault(key, []).append(workload.ref)

    @property
    def classes(self) -> list[tuple[object, ...]]:
        return list(self._kinds)

    def members(self, key: tuple[object, ...]) -> list[str]:
        return self._members.get(key, [])

    def outcome(self, key: tuple[object, ...], where: Where) -> Outcome:
        return join([self.calls.to_service(kind, where) for kind in self._kinds[key]])

    def direct(self, key: tuple[object, ...], workload: Workload, port: int) -> Outcome:
        faces = self.engine.faces[workload.ref]
        return join([self.calls.to_pod(kind, face.pod, port) for kind in self._kinds[key] for face in faces])

    def key_of(self, workload: Workload) -> tuple[object, ...]:
        return tuple(k.key for k in self.calls.kinds(self.engine.faces[workload.ref]))

    def ports_of(self, workload: Workload) -> tuple[int, ...]:
        found: set[int] = set()
        for face in self.engine.faces[workload.ref]:
            server = self.calls.servers.of(face.pod)
            found.update(server.ports())
        return tuple(sorted(found))


def groups(
    mesh: Mesh,
    before: Mesh | None = None,
    *,
    direct: bool = False,
    clients: Filter | None = None,
    server_namespaces: frozenset[str] | None = None,
) -> Iterator[Group]:
    """Every answer, by class of client and port; with `before`, every answer that it would have given differently.

    A workload whose class differs between the two meshes is compared by itself. `direct` adds calls by pod address.
    """
    table = Table(mesh)
    old = Table(before) if before is not None else None
    joined = _classes(table, old, clients)
    wheres = [w for w in table.calls.ports() if server_namespaces is None or w.host.namespace in server_namespaces]
    known = {(w.host.ref, w.port.number): w for w in old.calls.ports()} if old else {}
    for where in wheres:
        earlier = known.get((where.host.ref, where.port.number))
        for key, old_key, members in joined:
            outcome = table.outcome(key, where)
            was = old.outcome(old_key, earlier) if old and old_key is not None and earlier else None
            if old is None or _changed(outcome, was):
                yield Group(members, where.host.ref, where.port.number, where.target, outcome, was, where.host.namespace)
    if direct:
        yield from _direct(table, old, joined, server_namespaces)


def _direct(
    table: Table,
    old: Table | None,
    joined: list[tuple[tuple[object, ...], tuple[object, ...] | None, tuple[str, ...]]],
    namespaces: frozenset[str] | None,
) -> Iterator[Group]:
    earlier = {w.ref: w for w in old.mesh.workloads} if old else {}
    for workload in table.mesh.workloads:
        if namespaces is not None and workload.namespace not in namespaces:
            continue
        for port in table.ports_of(workload):
            for key, old_key, members in joined:
                others = tuple(m for m in members if m != workload.ref)
                if not others:
                    continue
                outcome = table.direct(key, workload, port)
                was = None
                if old and old_key is not None and workload.ref in earlier:
                    was = old.direct(old_key, earlier[workload.ref], port)
                if old is None or _changed(outcome, was):
                    yield Group(others, workload.ref, port, str(port), outcome, was, workload.namespace)


def _changed(outcome: Outcome, was: Outcome | None) -> bool:
    return was is None or (outcome.sends, outcome.verdict) != (was.sends, was.verdict)


def _classes(
    table: Table, old: Table | None, clients: Filter | None
) -> list[tuple[tuple[object, ...], tuple[object, ...] | None, tuple[str, ...]]]:
    """(class, its class before, members): one row for all workloads that share both."""
    wanted = {w.ref for w in table.mesh.workloads if clients is None or clients(w)}
    before = {ref: key for key in old.classes for ref in old.members(key)} if old else {}
    rows: dict[tuple[tuple[object, ...], tuple[object, ...] | None], list[str]] = {}
    for key in table.classes:
        for ref in table.members(key):
            if ref in wanted:
                rows.setdefault((key, before.get(ref)), []).append(ref)
    return [(key, was, tuple(members)) for (key, was), members in rows.items()]


def predict(
    mesh: Mesh,
    before: Mesh | None = None,
    *,
    direct: bool = False,
    clients: Filter | None = None,
    server_namespaces: frozenset[str] | None = None,
) -> Iterator[Prediction]:
    """The same, one client at a time, as it is streamed to JSON."""
    from meshtls.policy.fix import fix_for

    for group in groups(mesh, before, direct=direct, clients=clients, server_namespaces=server_namespaces):
        target: int | str = int(group.target) if group.target.isdigit() else group.target
        fix = fix_for(mesh, group)
        for client in group.clients:
            yield Prediction(
                client, group.server, group.port, target, group.sends, group.verdict, group.outcome.because, fix
            )


def own_services(mesh: Mesh, workload: Workload) -> tuple[Service, ...]:
    """The Services that select a workload's pods."""
    engine = Engine.of(mesh)
    registry = engine.control("").registry
    names = {host.ref for face in engine.faces[workload.ref] for host, _, _ in registry.serving(face.pod)}
    return tuple(s for s in mesh.services if s.ref in names)
