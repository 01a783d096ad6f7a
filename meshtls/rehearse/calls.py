"""Who calls whom in a rehearsal, and how that is known. Pure.

A mesh declares who could call, never who does. So calls come from the best source that there is, and the report says from which:

    the file given            what `observe` heard (its report), or a list of calls
    the proxies' logs         of a cluster that is read now: who arrived, over mTLS or not; and the names below
    names of Services         that workloads have in their environment and arguments: hints, no proofs
    everybody in reach        each client that is predicted to reach a port of the namespace now; many of these calls are never made

Only calls that end or begin in the namespace are rehearsed: others do not change with it.
"""

import re
from collections.abc import Iterable, Iterator

import msgspec

from meshtls.errors import InputError
from meshtls.model.hosts import named
from meshtls.model.mesh import Mesh
from meshtls.model.objects import Service
from meshtls.model.workload import Workload
from meshtls.policy.engine import Engine
from meshtls.policy.predict import groups
from meshtls.policy.select import subset
from meshtls.policy.service import protocol_of, target_port

GIVEN, LOGGED = "the file of calls", "the proxies' logs"
NAMED, PREDICTED = "names of Services in environments and arguments", "prediction: everybody in reach"
_OURS = ("istio-proxy", "istio-init", "istio-validation")
# where observe says which port of which workload was called
_WHERE = re.compile(r"access log of (\S+) port (\d+)")


class Call(msgspec.Struct, frozen=True, order=True):
    """A client workload's ref, a Service's ref and one of its ports."""

    client: str
    server: str
    port: int

    def __str__(self) -> str:
        return f"{self.client} -> {self.server}:{self.port}"

    @property
    def home(self) -> str:
        """The client's namespace."""
        return self.client.split("/")[1]

    @property
    def service(self) -> tuple[str, str]:
        """(namespace, name) of the Service."""
        _, namespace, name = self.server.split("/")
        return namespace, name


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """The calls, where they come from, and what of that source could not be used."""

    source: str
    calls: tuple[Call, ...]
    notes: tuple[str, ...] = ()


class Item(msgspec.Struct, frozen=True):
    """One entry of a list of calls: `namespace/workload` (or with its kind), `namespace/service`, and a port (all of them without)."""

    client: str
    server: str
    port: int = 0


class List(msgspec.Struct, frozen=True):
    calls: tuple[Item, ...]


class Heard(msgspec.Struct, frozen=True):
    """What is read of a finding of `observe`."""

    code: str
    subject: str
    because: tuple[str, ...] = ()


class Report(msgspec.Struct, frozen=True):
    kind: str
    findings: tuple[Heard, ...]


class Arrival(msgspec.Struct, frozen=True, order=True):
    """Who was heard at which port of which workload: refs."""

    client: str
    server: str
    port: int


def best(mesh: Mesh, namespace: str, document: object = None, everybody: bool = False, heard: Iterable[Arrival] = ()) -> Known:
    """The calls of the best source. `document` is what --calls holds, decoded, `heard` what logs told. Raises InputError where that cannot be read."""
    if document is not None:
        return given(mesh, namespace, document)
    if not everybody:
        found, notes = _arrived(mesh, heard)
        if found:
            return Known(source=f"{LOGGED} and {NAMED}", calls=_of(namespace, (*found, *from_names(mesh))), notes=notes)
        hints = Known(source=NAMED, calls=_of(namespace, from_names(mesh)))
        if any(call.service[0] == namespace for call in hints.calls):
            return hints
    return Known(source=PREDICTED, calls=_of(namespace, predicted(mesh, namespace)))


def _of(namespace: str, found: Iterable[Call]) -> tuple[Call, ...]:
    return tuple(sorted({c for c in found if namespace in (c.home, c.service[0])}))


# --- the file ------------------------------------------------------------------------------------------------------------


def given(mesh: Mesh, namespace: str, document: object) -> Known:
    """The calls of a document: an ObserveReport, or {"calls": [{"client", "server", "port"}]}. Raises InputError."""
    hint = "give a report of `meshtls observe -o json`, or calls: [{client: NS/NAME, server: NS/SERVICE, port: 80}]"
    try:
        if isinstance(document, dict) and "findings" in document:
            return _observed(mesh, namespace, msgspec.convert(document, Report))
        items = msgspec.convert(document, List).calls
    except msgspec.ValidationError as error:
        raise InputError(f"--calls cannot be read: {error}", hint) from error
    found = [Call(_workload(mesh, item.client).ref, service.ref, port)
             for item in items for service in (_service(mesh, item.server),)
             for port in ([item.port] if item.port else _tcp(service))]  # fmt: skip
    for call in found:
        if call.port not in _tcp(mesh.services_by_name[call.service]):
            raise InputError(f"--calls: {call.server} has no TCP port {call.port}", "give the Service's port, or none for all of them")
    calls = _of(namespace, found)
    notes = (f"{len(set(found)) - len(calls)} calls neither begin nor end in {namespace}",) if len(calls) < len(set(found)) else ()
    return Known(source=GIVEN, calls=calls, notes=notes)


def _workload(mesh: Mesh, name: str) -> Workload:
    found = [w for w in mesh.workloads if name in (f"{w.namespace}/{w.name}", w.ref)]
    if len(found) != 1:
        raise InputError(f"--calls: client {name} names {len(found)} workloads", "write NAMESPACE/NAME or Kind/NAMESPACE/NAME as meshtls modes -A lists them")
    return found[0]


def _service(mesh: Mesh, name: str) -> Service:
    namespace, _, short = name.removeprefix("Service/").partition("/")
    found = mesh.services_by_name.get((namespace, short))
    if found is None:
        raise InputError(f"--calls: no Service {name}", "write NAMESPACE/NAME of a Service")
    return found


def _observed(mesh: Mesh, namespace: str, report: Report) -> Known:
    """Who was heard sending what STRICT refuses. That report names nobody who already sends mTLS: those calls come from names."""
    places = [(each.subject, _WHERE.match(each.because[0])) for each in report.findings if each.because]
    found, notes = _arrived(mesh, [Arrival(client, place[1], int(place[2])) for client, place in places if place])
    told = "the report names who sends plaintext; who calls over mTLS was taken from names of Services"
    return Known(source=f"{GIVEN} ({report.kind})", calls=_of(namespace, (*found, *from_names(mesh))), notes=(told, *notes))


def _arrived(mesh: Mesh, heard: Iterable[Arrival]) -> tuple[list[Call], tuple[str, ...]]:
    """Arrivals as calls to the Services that lead there, and a note on those that cannot be."""
    by_ref = {w.ref: w for w in mesh.workloads}
    found, lost = [], []
    for each in sorted(set(heard)):
        server = by_ref.get(each.server)
        calls = [Call(each.client, service.ref, port) for service, port in _leading(mesh, server, each.port)] if server else []
        found += calls if each.client in by_ref else []
        if each.client not in by_ref or not calls:
            lost.append(f"{each.client} to {each.server} port {each.port}")
    why = "heard, and not rehearsed, for the client is no workload of the source or no Service leads there"
    return found, (f"{why}: {'; '.join(lost[:5])}{f' and {len(lost) - 5} more' if len(lost) > 5 else ''}",) if lost else ()


def _leading(mesh: Mesh, server: Workload, number: int) -> Iterator[tuple[Service, int]]:
    """Services whose port leads to this port of the workload."""
    for service in mesh.services_in.get(server.namespace, ()):
        pods = [pod for pod in server.faces if service.spec.selector and subset(service.spec.selector, pod.labels)]
        for port in service.spec.ports if pods else ():
            if port.protocol == "TCP" and target_port(pods[0], port) == number:
                yield service, port.port


# --- names ---------------------------------------------------------------------------------------------------------------


def from_names(mesh: Mesh) -> Iterator[Call]:
    """Calls to Services that a workload's environment, command or arguments name; to every port where none is said."""
    for workload in mesh.workloads:
        faces = Engine.of(mesh).faces[workload.ref]
        if not faces:
            continue
        spec, labels = faces[0].pod.spec, faces[0].pod.labels
        for container in (*spec.containers, *spec.init_containers):
            if container.name in _OURS:
                continue
            texts = [(env.value, False) for env in container.env if env.value]
            texts += [(text, True) for text in (*container.command, *container.args)]
            for text, arguments in texts:
                for key in named(text, workload.namespace, arguments):
                    service = mesh.services_by_name.get(key)
                    own = service is not None and service.spec.selector and service.namespace == workload.namespace and subset(service.spec.selector, labels)
                    if service is not None and not own:
                        yield from (Call(workload.ref, service.ref, port) for port in _said(service, text))


def _said(service: Service, text: str) -> list[int]:
    """The ports of a Service that a text says, else the one of its scheme, else all."""
    ports = _tcp(service)
    said = {int(number) for number in re.findall(rf"{re.escape(service.name)}[-.a-z0-9]*:(\d+)", text)}
    if found := [port for port in ports if port in said]:
        return found
    schemes = {"http": 80, "https": 443}
    said = {schemes[s] for s in re.findall(rf"(https?)://(?:[^@/\s]*@)?{re.escape(service.name)}(?![-\w])", text)}
    return [port for port in ports if port in said] or ports


def _tcp(service: Service) -> list[int]:
    return [port.port for port in service.spec.ports if port.protocol == "TCP" and protocol_of(port) != "UDP"]


# --- prediction ----------------------------------------------------------------------------------------------------------


def predicted(mesh: Mesh, namespace: str) -> Iterator[Call]:
    """Everybody who is predicted to reach a port of the namespace now, and all calls out of it that names tell."""
    for group in groups(mesh, server_namespaces=frozenset({namespace})):
        if group.verdict == "WORKS" and group.server.startswith("Service/"):
            yield from (Call(client, group.server, group.port) for client in group.clients)
    yield from from_names(mesh)
