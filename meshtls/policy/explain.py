"""Explain: one call in full sentences, from the client's pod to the server's, each with the object that decided.

The answer is the same that `predict` gives; here every step is said, with what was passed over on the way.
"""

import msgspec

from meshtls.errors import InputError
from meshtls.model.mesh import Mesh
from meshtls.model.objects import Pod
from meshtls.model.workload import Workload
from meshtls.policy.because import Because
from meshtls.policy.calls import Outcome, Where
from meshtls.policy.dataplane import is_manifest
from meshtls.policy.predict import Group, Table
from meshtls.policy.server import BREAKS, UNKNOWN, WORKS
from meshtls.policy.unused import unused


class Step(msgspec.Struct, frozen=True):
    """One sentence. `shadowed` marks what would have counted, had something else not won."""

    says: str
    because: Because | None = None
    shadowed: bool = False


class Answer(msgspec.Struct, frozen=True):
    """One client and one port, explained."""

    client: str
    server: str
    port: int
    sends: str
    verdict: str
    steps: tuple[Step, ...]
    fix: str


def workload(mesh: Mesh, text: str, namespace: str) -> Workload:
    """The workload that `text` names: `Kind/ns/name`, `Kind/name`, `ns/name`, `name`, or a pod's name. Raises InputError."""
    parts = text.split("/")
    found = [w for w in mesh.workloads if w.ref == text]
    if not found:
        name = parts[-1]
        kinds = {parts[0].lower()} if len(parts) == 3 or (len(parts) == 2 and parts[0][:1].isupper()) else set()
        spaces = {parts[-2]} if len(parts) == 3 or (len(parts) == 2 and not kinds) else {namespace} if namespace else set()
        found = [
            w
            for w in mesh.workloads
            if (w.name == name or any(p.name == name for p in w.pods))
            and (not kinds or w.kind.lower() in kinds or (kinds == {"pod"} and any(p.name == name for p in w.pods)))
            and (not spaces or w.namespace in spaces)
        ]
    if len(found) != 1:
        some = ", ".join(w.ref for w in found[:5])
        raise InputError(
            f"{text!r} names {len(found)} workloads" + (f": {some}" if some else ""), "write Kind/namespace/name, see: meshtls modes -A"
        )
    return found[0]


def explain(mesh: Mesh, client: str, server: str, namespace: str = "") -> list[Answer]:
    """The call from `client` to `server`, `Service/ns/name:port` or shorter; every port where none is named."""
    table = Table(mesh)
    source = workload(mesh, client, namespace)
    name, _, port = server.partition(":")
    if port and not port.isdigit():
        raise InputError(f"{server!r}: {port!r} is no port", "write SERVER:PORT with a number")
    wheres = _service(table, name, namespace or source.namespace)
    if wheres:
        chosen = [w for w in wheres if not port or w.port.number == int(port)]
        if not chosen:
            ports = ", ".join(str(w.port.number) for w in wheres)
            raise InputError(f"{wheres[0].host.ref} has no port {port}", f"its ports are {ports}")
        return [_explained(mesh, table, source, where) for where in chosen]
    target = workload(mesh, name, namespace)
    ports_ = [int(port)] if port else list(table.ports_of(target))
    return [_direct(mesh, table, source, target, each) for each in ports_]


def _service(table: Table, name: str, namespace: str) -> list[Where]:
    bare = name.removesuffix(".svc.cluster.local").removesuffix(".svc")
    found = [w for w in table.calls.ports() if w.host.ref == name or w.host.hostname == name]
    if found:
        return found
    parts = bare.removeprefix("Service/").split("/")
    if len(parts) == 1 and "." in bare:
        short, _, space = bare.partition(".")
    elif len(parts) == 2:
        space, short = parts
    elif len(parts) == 1:
        space, short = namespace, parts[0]
    else:
        return []
    return [w for w in table.calls.ports() if w.host.name == short and w.host.namespace == space]


def _explained(mesh: Mesh, table: Table, source: Workload, where: Where) -> Answer:
    from meshtls.policy.fix import fix_for

    key = tuple(k.key for k in table.calls.kinds(table.engine.faces[source.ref]))
    outcome = table.outcome(key, where)
    group = Group((source.ref,), where.host.ref, where.port.number, where.target, outcome)
    steps = [*_client(table, source), _service_step(where), *_decided(outcome), *_unused(table, source, where, outcome)]
    endpoints = table.engine.control("").registry.endpoints(where.host).get(where.port.number, ())
    pods = {(e.pod.namespace, e.pod.name): (e.pod, e.port) for e in endpoints if e.pod is not None}
    for pod, port in pods.values():
        steps.extend(_server(table, pod, port))
    steps.append(Step(_verdict(outcome)))
    return Answer(
        source.ref, where.host.ref, where.port.number, outcome.sends, outcome.verdict, tuple(dict.fromkeys(steps)), fix_for(mesh, group)
    )


def _direct(mesh: Mesh, table: Table, source: Workload, target: Workload, port: int) -> Answer:
    from meshtls.policy.fix import fix_for

    key = tuple(k.key for k in table.calls.kinds(table.engine.faces[source.ref]))
    if not table.engine.faces[target.ref]:
        raise InputError(f"{target.ref} has no pods and no template in the input")
    outcome = table.direct(key, target, port)
    steps = [*_client(table, source), Step(f"It calls the address of a pod of {target.ref}, port {port}."), *_decided(outcome)]
    for face in table.engine.faces[target.ref]:
        steps.extend(_server(table, face.pod, port))
    steps.append(Step(_verdict(outcome)))
    group = Group((source.ref,), target.ref, port, str(port), outcome)
    return Answer(source.ref, target.ref, port, outcome.sends, outcome.verdict, tuple(dict.fromkeys(steps)), fix_for(mesh, group))


_PLANES = {
    "sidecar": "has a sidecar",
    "native-sidecar": "has a sidecar (a native one)",
    "ambient": "is in ambient",
    "none": "has no proxy",
    "gateway": "is a gateway",
    "proxyless": "is proxyless gRPC",
}


def _client(table: Table, source: Workload) -> list[Step]:
    faces = table.engine.faces[source.ref]
    if not faces:
        raise InputError(f"{source.ref} has no pods and no template in the input")
    kinds = {f.plane.kind: f.plane.because for f in faces}
    return [Step(f"The client {source.ref} {_PLANES[kind]}.", because) for kind, because in kinds.items()]


def _service_step(where: Where) -> Step:
    target = f", port {where.target} of the pods" if where.target else ""
    return Step(f"It calls {where.host.hostname}:{where.port.number} ({where.port.protocol}{target}).", Because(where.host.ref, "spec.ports", where.port.name))


def _decided(outcome: Outcome) -> list[Step]:
    return [Step(_sentence(b.says), b if b.object else None) for b in outcome.because]


def _unused(table: Table, source: Workload, where: Where, outcome: Outcome) -> list[Step]:
    """Gateway API objects that name the Service and did not decide."""
    decided = frozenset(b.object for b in outcome.because)
    found: dict[Because, None] = {}
    for face in table.engine.faces[source.ref]:
        found.update(dict.fromkeys(unused(table.engine.control(face.plane.revision), face, where, decided)))
    return [Step(_sentence(b.says), b, True) for b in found]


def _server(table: Table, pod: Pod, port: int) -> list[Step]:
    server = table.calls.servers.of(pod)
    inbound = server.inbound(port)
    steps = [Step(f"{_named(table, server.pod)} {_PLANES[server.face.plane.kind]} and enforces {inbound.mode} on port {port}.", server.face.plane.because)]
    steps += [Step(_sentence(b.says), b) for b in inbound.because if not b.path.startswith("spec.portLevelMtls.") or b.path.endswith(f".{port}")]
    if server.effective is not None:
        steps += [Step(_sentence(b.says), b, True) for b in server.effective.shadowed]
    return steps


def _named(table: Table, pod: Pod) -> str:
    """The pod, or the workload that would make it."""
    if not is_manifest(pod):
        return pod.ref
    refs = (ref for ref, faces in table.engine.faces.items() if any(f.pod is pod for f in faces))
    ref = next(refs, pod.ref)
    return ref if ref.startswith("Pod/") else f"A pod of {ref}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _verdict(outcome: Outcome) -> str:
    sends = {
        "mtls": "mTLS leaves the client's pod",
        "tls": "TLS that is not Istio's leaves the client's pod",
        "plaintext": "plaintext leaves the client's pod",
        "none": "nothing leaves the client's pod",
        "mixed": "what leaves the client's pod depends on the endpoint",
    }[outcome.sends]
    ends = {WORKS: "the call works", BREAKS: "the call breaks", UNKNOWN: "whether the call works cannot be told from the objects"}
    return f"So {sends}, and {ends[outcome.verdict]}."
