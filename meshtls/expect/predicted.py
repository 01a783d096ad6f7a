"""Answers from the objects alone: what the policy engine predicts, call by call and port by port."""

from collections.abc import Iterator
from functools import cached_property

import msgspec

from meshtls.expect.file import Call, Modes
from meshtls.expect.judge import OUTSIDE, Answer
from meshtls.expect.match import is_port, is_service, matches, named
from meshtls.model.mesh import Mesh
from meshtls.model.objects import Pod
from meshtls.model.workload import Workload
from meshtls.policy.calls import Kind, Outcome
from meshtls.policy.client import MTLS, PLAINTEXT, TLS
from meshtls.policy.dataplane import GATEWAY
from meshtls.policy.predict import Table
from meshtls.policy.server import BREAKS, UNKNOWN, WORKS, WorkloadMode
from meshtls.policy.server import modes as modes_of

_WORKS = {MTLS: "MTLS", PLAINTEXT: "PLAINTEXT"}


def got(outcome: Outcome) -> str:
    """What an outcome is called among expectations: refused is what arrives and breaks at every endpoint."""
    if outcome.verdict == WORKS:
        return _WORKS.get(outcome.sends, "WORKS")
    if outcome.verdict == BREAKS:
        return "REFUSED" if outcome.everywhere and outcome.sends in (MTLS, TLS, PLAINTEXT) else "BREAKS"
    return UNKNOWN


class Asked(msgspec.Struct, frozen=True):
    """A call that is meant, of one class of clients. `ends`: the pods (None: not of the input) and ports that it may end at."""

    clients: tuple[str, ...]
    kinds: tuple[Kind, ...]
    server: str
    port: int
    name: str
    ends: tuple[tuple[Pod | None, int], ...]
    outcome: Outcome
    straight: bool


class Predicted:
    """The answers of `meshtls predict`; with `inside`, what concerns none of these namespaces is OUTSIDE."""

    def __init__(self, mesh: Mesh, inside: frozenset[str] = frozenset()) -> None:
        self.mesh, self.table, self.inside = mesh, Table(mesh), inside
        self.clients = [ref for key in self.table.classes for ref in self.table.members(key)]

    def calls(self, call: Call) -> Iterator[Answer]:
        """An answer for each class of clients and each port that is meant."""
        for each in self.asked(call):
            clients = each.clients if self._meant(each.server) else tuple(ref for ref in each.clients if self._meant(ref))
            if clients:
                yield Answer(clients, each.server, str(each.port), got(each.outcome), tuple(str(b) for b in each.outcome.because), each.name)
            if others := tuple(ref for ref in each.clients if ref not in clients):
                yield Answer(others, each.server, str(each.port), OUTSIDE, (), each.name)

    def _meant(self, ref: str) -> bool:
        return not self.inside or ref.split("/")[1] in self.inside

    def asked(self, call: Call) -> Iterator[Asked]:
        """Every call that is meant, by class of clients."""
        table = self.table
        classes = [(key, some) for key in table.classes if (some := tuple(named(call.from_, table.members(key))))]
        for where in table.calls.ports() if is_service(call.to) else ():
            if matches(call.to, where.host.ref, "Service") and is_port(call.port, where.port.number, where.port.name):
                ends = tuple((e.pod, e.port) for e in table.calls.endpoints(where))
                for key, some in classes:
                    kinds = table.kinds(key)
                    straight = all(table.calls.straight(kind, where) for kind in kinds)
                    yield Asked(some, kinds, where.host.ref, where.port.number, where.port.name, ends, table.outcome(key, where), straight)
        for workload, port in self._addresses(call):
            ends = tuple((face.pod, port) for face in table.engine.faces[workload.ref])
            for key, some in classes:
                if others := tuple(ref for ref in some if ref != workload.ref):
                    outcome = table.direct(key, workload, port)
                    yield Asked(others, table.kinds(key), workload.ref, port, "", ends, outcome, outcome.sends == PLAINTEXT)

    def _addresses(self, call: Call) -> Iterator[tuple[Workload, int]]:
        """The workloads, and ports of their pods, that are called by address."""
        if not is_service(call.to):
            for workload in self.mesh.workloads:
                if matches(call.to, workload.ref) and self.table.engine.faces[workload.ref]:
                    ports = (call.port,) if isinstance(call.port, int) else self.table.ports_of(workload)
                    yield from ((workload, port) for port in ports if is_port(call.port, port))

    @cached_property
    def _modes(self) -> list[tuple[str, WorkloadMode]]:
        return [(f"{m.workload.partition('/')[0]}/{m.namespace}/{m.workload.partition('/')[2]}", m) for m in modes_of(self.mesh)]

    def modes(self, modes: Modes) -> Iterator[Answer]:
        """An answer for each port of each workload that is meant, and one for the ports that nothing declares."""
        for ref, mode in self._modes:
            if not matches(modes.workloads, ref):
                continue
            if not self._meant(ref):
                yield Answer((), ref, str(modes.port or "*"), OUTSIDE)
                continue
            ports = {str(modes.port): mode.ports.get(str(modes.port), mode.mode)} if modes.port else {**mode.ports, "*": mode.mode}
            because = tuple(str(b) for b in mode.because)
            for port, enforced in ports.items():
                if mode.dataplane == GATEWAY:
                    yield Answer((), ref, port, UNKNOWN, ("a gateway: its Gateway decides, not PeerAuthentication",))
                else:
                    yield Answer((), ref, port, enforced, because)

    def lacking(self, each: Call | Modes) -> str:
        """Which name of an expectation is not there."""
        if isinstance(each, Modes):
            return f"no workload is {each.workloads}"
        if not named(each.from_, self.clients):
            return f"no workload is {each.from_}"
        if is_service(each.to):
            ports = [w for w in self.table.calls.ports() if matches(each.to, w.host.ref, "Service")]
            numbers = ", ".join(dict.fromkeys(str(w.port.number) for w in ports[:9]))
            return f"there is no port {each.port}, but {numbers}" if ports else f"no Service with a TCP port is {each.to}"
        return f"no other workload is {each.to}, with a port {each.port or 'that anything declares'}"
