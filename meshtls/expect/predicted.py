"""Answers from the objects alone: what the policy engine predicts, call by call and port by port."""

from collections.abc import Iterator
from functools import cached_property

from meshtls.expect.file import Call, Modes
from meshtls.expect.judge import Answer
from meshtls.expect.match import is_port, is_service, matches, named
from meshtls.model.mesh import Mesh
from meshtls.model.workload import Workload
from meshtls.policy.calls import Outcome, Where
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


class Predicted:
    """The answers of `meshtls predict`."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh, self.table = mesh, Table(mesh)
        self.clients = [ref for key in self.table.classes for ref in self.table.members(key)]

    def calls(self, call: Call) -> Iterator[Answer]:
        """An answer for each class of clients and each port that is meant."""
        classes = [(key, some) for key in self.table.classes if (some := tuple(named(call.from_, self.table.members(key))))]
        for where in self.services(call):
            for key, some in classes:
                yield self._answer(some, where.host.ref, where.port.number, self.table.outcome(key, where), where.port.name)
        for workload, port in self.addresses(call):
            for key, some in classes:
                if others := tuple(ref for ref in some if ref != workload.ref):
                    yield self._answer(others, workload.ref, port, self.table.direct(key, workload, port))

    def services(self, call: Call) -> Iterator[Where]:
        """The ports of Services that are called."""
        if is_service(call.to):
            for where in self.table.calls.ports():
                if matches(call.to, where.host.ref, "Service") and is_port(call.port, where.port.number, where.port.name):
                    yield where

    def addresses(self, call: Call) -> Iterator[tuple[Workload, int]]:
        """The workloads, and ports of their pods, that are called by address."""
        if not is_service(call.to):
            for workload in self.mesh.workloads:
                if matches(call.to, workload.ref) and self.table.engine.faces[workload.ref]:
                    ports = (call.port,) if isinstance(call.port, int) else self.table.ports_of(workload)
                    yield from ((workload, port) for port in ports if is_port(call.port, port))

    def _answer(self, clients: tuple[str, ...], server: str, port: int, outcome: Outcome, name: str = "") -> Answer:
        return Answer(clients, server, str(port), got(outcome), tuple(str(b) for b in outcome.because), name)

    @cached_property
    def _modes(self) -> list[tuple[str, WorkloadMode]]:
        return [(f"{m.workload.partition('/')[0]}/{m.namespace}/{m.workload.partition('/')[2]}", m) for m in modes_of(self.mesh)]

    def modes(self, modes: Modes) -> Iterator[Answer]:
        """An answer for each port of each workload that is meant, and one for the ports that nothing declares."""
        for ref, mode in self._modes:
            if not matches(modes.workloads, ref):
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
