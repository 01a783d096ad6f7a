"""Answers from the wire: what a probe saw of the ports that a call ends at, and of mTLS between the two namespaces.

No byte of payload goes to an application, so an answer is put together from what was seen, and says of what:

1. What a port takes was seen in two handshakes without payload, from the client's own namespace, with every pod behind it.
2. A client without sidecar sends plaintext: STRICT at every pod refuses it, anything else than STRICT at every pod lets it in. Whether
   the application behind answers was not asked; where it speaks TLS of its own, plaintext is UNKNOWN.
3. What a client's proxy sends to this Service is predicted. Where that is mTLS, a client of ours with sidecar in its namespace must have
   reached a server of ours with sidecar in the other by mTLS, and every pod must have shown a mesh certificate to Istio's handshake.
4. What a probe cannot stand in for (ambient clients, routes to elsewhere, TLS of the client's own, pods that could not be asked) is UNKNOWN.
"""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from meshtls.expect.file import Call, Expected, Modes
from meshtls.expect.judge import OUTSIDE, Answer
from meshtls.expect.match import matches
from meshtls.expect.predicted import Asked, Predicted
from meshtls.model.objects import Pod
from meshtls.policy.client import MTLS, PLAINTEXT
from meshtls.policy.dataplane import BARE, GATEWAY
from meshtls.policy.server import UNKNOWN

STRICT, PERMISSIVE, UNENFORCED = "STRICT", "PERMISSIVE", "NOT ENFORCED"
Question = tuple[str, str, str, int]  # client's namespace, pod's namespace, pod, port


class PortSeen(msgspec.Struct, frozen=True):
    """What a port enforces, as seen from a namespace; `own_tls`: the application answered a handshake with a certificate of its own."""

    mode: str
    because: str
    own_tls: bool = False


class Seen(msgspec.Struct, frozen=True):
    """All that a probe saw. `mutual`: (client's namespace, server's) -> whether mTLS by a Service's name worked (None: not told), and how."""

    ports: Mapping[Question, PortSeen]
    mutual: Mapping[tuple[str, str], tuple[bool | None, str]]


def questions(predicted: Predicted, expected: Iterable[Expected]) -> tuple[frozenset[Question], frozenset[str]]:
    """(which ports have to be seen from where, in which namespaces probe pods are needed)."""
    asked: set[Question] = set()
    spaces: set[str] = set()
    for file in expected:
        for call in file.document.calls:
            for each in predicted.asked(call):
                origins = {ref.split("/")[1] for ref in each.clients}
                asked |= {(origin, pod.namespace, pod.name, port) for origin in origins for pod, port in each.ends if pod is not None}
        for modes in file.document.modes:
            spaces |= {w.namespace for w in predicted.mesh.workloads if matches(modes.workloads, w.ref)}
    return frozenset(asked), frozenset(spaces | {q[0] for q in asked} | {q[1] for q in asked})


class Observed:
    """The answers of `meshtls probe`; `namespaces` are those that were probed, what concerns others is OUTSIDE.

    `missing`: why it is not known what proxies send, as where policies may not be read.
    """

    def __init__(self, predicted: Predicted, seen: Seen, namespaces: Iterable[str], missing: str = "") -> None:
        self.predicted, self.seen, self.inside, self.missing = predicted, seen, frozenset(namespaces), missing
        self._asked: dict[tuple[str, str], list[int]] = {}
        for origin, namespace, pod, port in sorted(seen.ports):
            if origin == namespace:
                self._asked.setdefault((namespace, pod), []).append(port)

    def calls(self, call: Call) -> Iterator[Answer]:
        """An answer for each class of clients of one namespace, and each port."""
        for each in self.predicted.asked(call):
            by_namespace: dict[str, list[str]] = {}
            for ref in each.clients:
                by_namespace.setdefault(ref.split("/")[1], []).append(ref)
            for origin, clients in by_namespace.items():
                inside = {origin, each.server.split("/")[1]} <= self.inside
                got, because = self._call(origin, each) if inside else (OUTSIDE, ())
                yield Answer(tuple(clients), each.server, str(each.port), got, because, each.name)

    def _call(self, origin: str, each: Asked) -> tuple[str, tuple[str, ...]]:
        """What becomes of a call from a namespace, and what that rests on."""
        sends = each.outcome.sends
        said = f"predicted: the client sends {sends}"
        if self.missing and any(k.face.plane.kind != BARE for k in each.kinds):
            return UNKNOWN, (f"what its proxy sends is not known: {self.missing}",)
        if not each.straight:
            return UNKNOWN, (said, "a route leads the call elsewhere, or to a part of the pods: a probe cannot follow it")
        if not each.ends:
            return UNKNOWN, (said, "no pod answers")
        ports = [self._port(origin, pod, port) for pod, port in each.ends]
        because = (said, *dict.fromkeys(f"observed from {origin}: {pod.name if pod else 'an address'} port {number} is {p.mode}: {p.because}"
                                        for p, (pod, number) in zip(ports, each.ends, strict=True)))  # fmt: skip
        modes = {p.mode for p in ports}
        if sends == PLAINTEXT and not modes & {UNKNOWN}:
            if modes == {STRICT}:
                return "REFUSED", because
            if STRICT in modes:
                return "BREAKS", because
            return (UNKNOWN, (*because, "the application speaks TLS of its own")) if any(p.own_tls for p in ports) else ("PLAINTEXT", because)
        if sends == MTLS and not modes & {UNKNOWN}:
            if UNENFORCED in modes:
                return "BREAKS", because
            worked, how = self._mutual(origin, each)
            return "MTLS" if worked else UNKNOWN, (*because, how)
        return UNKNOWN, because

    def _port(self, origin: str, pod: Pod | None, port: int) -> PortSeen:
        if pod is None:
            return PortSeen(UNKNOWN, "it is no pod of the cluster")
        return self.seen.ports.get((origin, pod.namespace, pod.name, port)) or PortSeen(UNKNOWN, "it was not asked")

    def _mutual(self, origin: str, each: Asked) -> tuple[bool | None, str]:
        """Whether a client of ours could stand in for these, and its mTLS worked."""
        if any(not k.face.plane.sidecar and k.face.plane.kind != GATEWAY for k in each.kinds):
            return None, "no probe pod can stand in for a client that sends mTLS without a sidecar"
        spaces = {pod.namespace for pod, _ in each.ends if pod is not None}
        found = [self.seen.mutual.get((origin, space), (None, f"mTLS from {origin} to {space} was not tried")) for space in sorted(spaces)]
        bad = next((entry for entry in found if not entry[0]), None)
        return bad or (True, "; ".join(how for _, how in found))

    def modes(self, modes: Modes) -> Iterator[Answer]:
        """An answer for each port of each pod that was asked; a pod without ports has nothing to ask."""
        for workload in self.predicted.mesh.workloads:
            ports = (modes.port,) if modes.port else self.predicted.table.ports_of(workload)
            if not ports or not matches(modes.workloads, workload.ref):
                continue
            if workload.namespace not in self.inside:
                yield Answer((), workload.ref, str(modes.port or "*"), OUTSIDE)
            elif not workload.pods:
                yield Answer((), workload.ref, str(modes.port or "*"), UNKNOWN, ("no pod of it runs",))
            else:
                for pod in workload.pods:
                    yield from self._pod(modes, workload.ref, pod)

    def _pod(self, modes: Modes, ref: str, pod: Pod) -> Iterator[Answer]:
        asked = self._asked.get((pod.namespace, pod.name), ())
        for port in (modes.port,) if modes.port else asked:
            seen = self._port(pod.namespace, pod, port)
            got = (modes.mode if modes.mode in ("DISABLE", "NONE") else "NONE") if seen.mode == UNENFORCED else seen.mode
            yield Answer((), ref, str(port), got, (f"observed at {pod.name}: {seen.because}",))
        if not asked and not modes.port:
            yield Answer((), ref, "*", UNKNOWN, (f"pod {pod.name} was not asked",))

    def lacking(self, each: Call | Modes) -> str:
        """Which name of an expectation is not there."""
        if isinstance(each, Modes) and any(matches(each.workloads, w.ref) for w in self.predicted.mesh.workloads):
            return "its workloads have no port that a probe could ask"
        return self.predicted.lacking(each)
