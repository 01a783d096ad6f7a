"""Predict: every client workload to every Service port, and what would change if a policy did.

Clients are answered for by class (see calls). `Group` is one answer for all clients of a class; `Prediction` is the same for
one client. With a mesh `before`, only what is different comes out: the break-list of a change.
"""

from collections.abc import Callable, Iterable, Iterator

import msgspec

from meshtls.model.mesh import Mesh
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


Filter = Callable[[dict[str, str]], bool]


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

    def kinds(self, key: tuple[object, ...]) -> tuple[Kind, ...]:
        return self._kinds[key]

    def outcome(self, key: tuple[object, ...], where: Where) -> Outcome:
        return join([self.calls.to_service(kind, where) for kind in self._kinds[key]])

    def direct(self, key: tuple[object, ...], workload: Workload, port: int) -> Outcome:
        faces = self.engine.faces[workload.ref]
        return join([self.calls.to_pod(kind, face.pod, port) for kind in self._kinds[key] for face in faces])

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
    namespaces: frozenset[str] | None = None,
    server_namespaces: frozenset[str] | None = None,
) -> Iterator[Group]:
    """Every answer, by class of client and port; with `before`, every answer that it would have given differently.

    `direct` adds calls by pod address; `clients` takes the labels of a client's pods; `namespaces` keeps calls that begin or
    end in one of them, `server_namespaces` those that end there. A workload whose class differs between the two meshes is compared by itself.
    """
    table = Table(mesh)
    old = Table(before) if before is not None else None
    rows = _rows(table, old, clients)
    inside = [(k, o, kept) for k, o, m in rows if (kept := tuple(r for r in m if _within(r, namespaces)))]
    known = {(w.host.ref, w.port.number): w for w in old.calls.ports()} if old else {}
    for where in table.calls.ports():
        if server_namespaces is not None and where.host.namespace not in server_namespaces:
            continue
        earlier = known.get((where.host.ref, where.port.number))
        for key, old_key, members in rows if namespaces is None or where.host.namespace in namespaces else inside:
            outcome = table.outcome(key, where)
            was = old.outcome(old_key, earlier) if old and old_key is not None and earlier else None
            if old is None or _changed(outcome, was):
                yield Group(members, where.host.ref, where.port.number, where.target, outcome, was)
    if direct:
        yield from (g for g in _direct(table, old, rows, inside, namespaces) if _within(g.server, server_namespaces))


Row = tuple[tuple[object, ...], tuple[object, ...] | None, tuple[str, ...]]


def _within(ref: str, namespaces: frozenset[str] | None) -> bool:
    return namespaces is None or ref.split("/")[1] in namespaces


def _direct(
    table: Table, old: Table | None, rows: list[Row], inside: list[Row], namespaces: frozenset[str] | None
) -> Iterator[Group]:
    earlier = {w.ref: w for w in old.mesh.workloads} if old else {}
    for workload in table.mesh.workloads:
        for port in table.ports_of(workload):
            for key, old_key, members in rows if _within(workload.ref, namespaces) else inside:
                others = tuple(m for m in members if m != workload.ref)
                if not others:
                    continue
                outcome = table.direct(key, workload, port)
                was = None
                if old and old_key is not None and workload.ref in earlier:
                    was = old.direct(old_key, earlier[workload.ref], port)
                if old is None or _changed(outcome, was):
                    yield Group(others, workload.ref, port, str(port), outcome, was)


def _changed(outcome: Outcome, was: Outcome | None) -> bool:
    return was is None or (outcome.sends, outcome.verdict) != (was.sends, was.verdict)


def _rows(table: Table, old: Table | None, clients: Filter | None) -> list[Row]:
    """(class, its class before, members): one row for all workloads that share both."""
    before = {ref: key for key in old.classes for ref in old.members(key)} if old else {}
    rows: dict[tuple[tuple[object, ...], tuple[object, ...] | None], list[str]] = {}
    for key in table.classes:
        for ref in table.members(key):
            if clients is None or any(clients(f.pod.labels) for f in table.engine.faces[ref]):
                rows.setdefault((key, before.get(ref)), []).append(ref)
    return [(key, was, tuple(members)) for (key, was), members in rows.items()]


def expand(mesh: Mesh, found: Iterable[Group]) -> Iterator[Prediction]:
    """Groups, one client at a time, as they are streamed to JSON."""
    from meshtls.policy.fix import fix_for

    for group in found:
        target: int | str = int(group.target) if group.target.isdecimal() else group.target
        fix = fix_for(mesh, group)
        for client in group.clients:
            yield Prediction(
                client, group.server, group.port, target, group.sends, group.verdict, group.outcome.because, fix
            )


def predict(
    mesh: Mesh,
    before: Mesh | None = None,
    *,
    direct: bool = False,
    clients: Filter | None = None,
    namespaces: frozenset[str] | None = None,
) -> Iterator[Prediction]:
    """Every client workload and port by itself; the arguments are those of `groups`."""
    return expand(mesh, groups(mesh, before, direct=direct, clients=clients, namespaces=namespaces))
