"""Calls: what every class of clients sends to every Service port, and what becomes of it.

1. Clients that see the same services and routes, find the same DestinationRules and leave through the same data plane are one
   class; a question is answered once for a class, not once for each workload. Classes that differ only in the
   DestinationRules of their own namespaces are one family: about hosts that none of those rules names they share an answer.
2. What a call sends is the set over all endpoints that it may end at; it BREAKS if it breaks at one of them, WORKS if it works
   at all of them, and is UNKNOWN where the application decides or nothing answers.
3. A port declared HTTP is called with HTTP, every other one with bytes that its proxy does not understand; a pod's own address
   is called for what its container's port is.
4. A client without sidecar sends plaintext, whatever is configured. A client of ambient sends mTLS to whatever is captured.
"""

from collections.abc import Iterable, Iterator

import msgspec

from meshtls.model.mesh import pod_addresses
from meshtls.model.objects import Pod
from meshtls.policy.because import Because
from meshtls.policy.client import MTLS, NONE, PLAINTEXT, Client, Sent
from meshtls.policy.dataplane import AMBIENT, BARE, GATEWAY, PROXYLESS, takes_outbound
from meshtls.policy.engine import Engine, Face
from meshtls.policy.outbound import Cluster, Outbound, Path
from meshtls.policy.routes import consumers
from meshtls.policy.scope import Scope
from meshtls.policy.server import BREAKS, UNKNOWN, WORKS, Servers
from meshtls.policy.service import ALIAS, HTTP, PASSTHROUGH, Endpoint, Host, Port, answering
from meshtls.policy.service import TLS as TLS_PORTS

MIXED = "mixed"


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What a class of clients meets on one port: `sends` is mtls, tls, plaintext, none or mixed.

    `everywhere`: a call that BREAKS does so at every endpoint that it may end at.
    """

    sends: str
    verdict: str
    because: tuple[Because, ...]
    everywhere: bool = False


class Kind(msgspec.Struct, frozen=True):
    """A class of clients. `face` stands for all of it; `key` tells classes apart.

    `family` is shared by the classes that would be one if the clients' own namespaces had no DestinationRules.
    """

    key: tuple[object, ...]
    face: Face
    family: tuple[object, ...]


class Where(msgspec.Struct, frozen=True, gc=False):
    """A port of a Service: what is called, and where its endpoints listen ("" as text where they differ)."""

    host: Host
    port: Port
    target: str


class Way(msgspec.Struct, frozen=True):
    """How a family calls a port: each path with the endpoints that are called so. `ruled`: the namespaces whose own
    DestinationRules name a host that the call may go to, so that clients there have an answer of their own."""

    paths: tuple[tuple[Path, tuple[Endpoint, ...]], ...]
    ruled: frozenset[str]


class Calls:
    """Every question about who reaches whom in one mesh."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.servers = Servers(engine)
        self._scopes: dict[tuple[object, ...], Scope] = {}
        self._outbound: dict[tuple[object, ...], Outbound] = {}
        self._clients: dict[tuple[object, ...], Client] = {}
        self._ways: dict[tuple[object, ...], Way] = {}
        self._answers: dict[tuple[object, ...], Outcome] = {}
        self._labels: dict[str, set[str]] = {}
        self._named: dict[str, set[str]] = {}
        self._declared: dict[int, dict[int, str]] = {}

    # --- classes of clients

    def kind(self, face: Face) -> Kind:
        """The class that a pod belongs to as a client."""
        pod, plane = face.pod, face.plane
        if plane.kind in (BARE, AMBIENT):
            key: tuple[object, ...] = (BARE,) if plane.kind == BARE else (AMBIENT, plane.revision)
            return Kind(key, face, key)
        control = self.engine.control(plane.revision)
        namespace = pod.namespace
        keys = set(control.rules.selector_keys.get(namespace, ())) | control.sidecars.keys(namespace) | self._source_labels(plane.revision)
        labels = tuple(sorted((k, pod.labels[k]) for k in keys if k in pod.labels))
        notes = tuple(
            sorted(i for i in pod.annotations.items() if "OutboundPorts" in i[0] or "OutboundIPRanges" in i[0] or "interceptionMode" in i[0])
        )
        group = plane.kind if plane.kind in (GATEWAY, PROXYLESS) else "sidecar"
        alone = namespace if self._special(plane.revision, namespace) else ""
        ruled = namespace if control.rules.local(namespace) else alone
        key = (group, plane.revision, ruled, labels, notes)
        # what an annotation decides is told of the pod that has it
        return Kind(key, face, key if notes or ruled == alone else (group, plane.revision, alone, labels, notes))

    def _source_labels(self, revision: str) -> set[str]:
        found = self._labels.get(revision)
        if found is None:
            control = self.engine.control(revision)
            found = self._labels[revision] = {
                k
                for vs in control.virtual
                for layer in (vs.http, vs.tcp, vs.tls)
                for route in layer
                for m in route.match
                for k in m.source_labels
            }
        return found

    def _special(self, revision: str, namespace: str) -> bool:
        """Whether being in a namespace makes a difference to a client, whatever DestinationRules are there."""
        control = self.engine.control(revision)
        named = self._named.get(revision)
        if named is None:
            named = {control.root} | control.rules.named | set(control.registry.private)
            for vs in control.virtual:
                named |= vs.export_to
                named |= {m.source_namespace for layer in (vs.http, vs.tcp, vs.tls) for r in layer for m in r.match}
            named |= consumers(control.virtual, control.registry)
            named |= {h.namespace for h in control.registry.hosts if not h.kubernetes or not control.registry.is_public(h)}
            # elsewhere, policies reach every client together with the services there
            named |= control.authn.namespaces - {h.namespace for h in control.registry.public}
            self._named[revision] = named
        return namespace in named or control.sidecars.any_in(namespace) or control.sidecars.of("", {}) is not None

    def _out(self, kind: Kind) -> Outbound:
        """The listeners and routes of a family."""
        found = self._outbound.get(kind.family)
        if found is None:
            face = kind.face
            control = self.engine.control(face.plane.revision)
            namespace, labels = face.pod.namespace, face.pod.labels
            sidecar = control.sidecars.of(namespace, labels) if face.plane.sidecar else None
            scope_key = (face.plane.revision, kind.family[2], sidecar.ref if sidecar else "")
            scope = self._scopes.get(scope_key)
            if scope is None:
                scope = self._scopes[scope_key] = Scope(
                    control.registry, control.virtual, namespace, sidecar, control.config.outbound_traffic_policy
                )
            found = self._outbound[kind.family] = Outbound(scope, labels)
        return found

    def _client(self, kind: Kind) -> Client:
        found = self._clients.get(kind.key)
        if found is None:
            control, pod = self.engine.control(kind.face.plane.revision), kind.face.pod
            scope = self._out(kind).scope
            found = self._clients[kind.key] = Client(control.registry, control.rules, control.authn, scope, pod.namespace, pod.labels)
        return found

    def kinds(self, faces: Iterable[Face]) -> tuple[Kind, ...]:
        """The classes that a workload's pods belong to."""
        found: dict[tuple[object, ...], Kind] = {}
        for face in faces:
            kind = self.kind(face)
            found.setdefault(kind.key, kind)
        return tuple(found[key] for key in sorted(found, key=repr))

    # --- questions

    def ports(self) -> Iterator[Where]:
        """Every port of every Service that TCP can call."""
        registry = self.engine.control("").registry
        for host in registry.hosts:
            if not host.kubernetes or host.resolution == ALIAS:
                continue
            for port in host.ports:
                if not port.tcp:
                    continue
                targets = {e.port for e in registry.endpoints(host).get(port.number, ())}
                yield Where(host, port, str(targets.pop()) if len(targets) == 1 else "")

    def to_service(self, kind: Kind, where: Where) -> Outcome:
        """What becomes of a call to a Service's port."""
        alone = kind.family is not kind.key and kind.face.pod.namespace in self._way(kind, where).ruled
        key = (kind.key if alone else kind.family, where.host.ref, where.port.number)
        found = self._answers.get(key)
        if found is None:
            found = self._answers[key] = self._to_service(kind, where)
        return found

    def _to_service(self, kind: Kind, where: Where) -> Outcome:
        host, port = where.host, where.port
        endpoints = self.endpoints(where)
        http = port.protocol in HTTP
        plane = kind.face.plane
        if plane.kind in (BARE, AMBIENT):
            return self._plain(kind, endpoints, http, host)
        headless = host.resolution == PASSTHROUGH
        if not headless and (skipped := takes_outbound(kind.face.pod, host.address, port.number)) is not None:
            return self._fold([(e, PLAINTEXT) for e in endpoints], http, (skipped,), host)
        if plane.kind == PROXYLESS:
            return self._proxyless(kind, host, endpoints, http)
        paths = self._way(kind, where).paths
        if not paths:
            return _nobody(host)
        client = self._client(kind)
        return join([self._through(client, path, called, http, host) for path, called in paths])

    def endpoints(self, where: Where) -> tuple[Endpoint, ...]:
        """Where a call to a Service's port may end, if no route leads it elsewhere."""
        host, number = where.host, where.port.number
        endpoints = answering(self.engine.cluster.endpoints(host, machines=False).get(number, ()))
        if host.resolution != PASSTHROUGH:
            return endpoints
        # a headless service's name leads to its pods, its port is called there as it is
        return tuple(e if e.port == number else msgspec.structs.replace(e, port=number) for e in endpoints)

    def straight(self, kind: Kind, where: Where) -> bool:
        """Whether a call ends at the Service's own endpoints, all of them: no route leads it elsewhere, or to a subset."""
        if kind.face.plane.kind in (BARE, AMBIENT, PROXYLESS):
            return True
        own = (where.host.hostname, "")
        paths = [path for path, _ in self._way(kind, where).paths]
        return bool(paths) and all(p.passthrough or [(c.host, c.subset) for c in p.clusters] == [own] for p in paths)

    def _way(self, kind: Kind, where: Where) -> Way:
        key = (kind.family, where.host.ref, where.port.number)
        found = self._ways.get(key)
        if found is None:
            rules = self.engine.control(kind.face.plane.revision).rules
            paths = self._paths(kind, where)
            hosts = {where.host.hostname, *(c.host for path, _ in paths for c in path.clusters)}
            found = self._ways[key] = Way(paths, frozenset().union(*map(rules.homes, hosts)))
        return found

    def _paths(self, kind: Kind, where: Where) -> tuple[tuple[Path, tuple[Endpoint, ...]], ...]:
        host, port, plane = where.host, where.port, kind.face.plane
        if plane.kind == PROXYLESS:
            return ()
        endpoints = self.endpoints(where)
        if plane.kind == GATEWAY:
            return ((Path(clusters=(Cluster(host.hostname, "", port.number),)), endpoints),)
        outbound = self._out(kind)
        speaks = "http" if port.protocol in HTTP else "tls" if port.protocol in TLS_PORTS else "tcp"
        if host.resolution != PASSTHROUGH:
            return ((outbound.call(host.address, port.number, host.hostname, speaks), endpoints),)
        by_path: dict[Path, list[Endpoint]] = {}
        for endpoint in endpoints:
            why = takes_outbound(kind.face.pod, endpoint.address, port.number)
            path = Path(passthrough=True, because=(why,)) if why else outbound.call(endpoint.address, port.number, host.hostname, speaks)
            by_path.setdefault(path, []).append(endpoint)
        return tuple((path, tuple(called)) for path, called in by_path.items())

    def to_pod(self, kind: Kind, pod: Pod, port: int) -> Outcome:
        """What becomes of a call to a pod's own address."""
        key = (kind.key, "pod", pod.namespace, pod.name, port)
        found = self._answers.get(key)
        if found is not None:
            return found
        addresses = pod_addresses(pod)
        address = addresses[0] if addresses else f"{pod.namespace}/{pod.name}"
        endpoint = Endpoint(address, port, "", pod.labels, pod.namespace, "", pod)
        http = self._first_declared(pod).get(port) in HTTP or _named_http((endpoint,))
        plane = kind.face.plane
        if plane.kind in (BARE, AMBIENT):
            found = self._plain(kind, (endpoint,), http, None)
        elif plane.kind in (PROXYLESS, GATEWAY):
            found = self._fold([(endpoint, PLAINTEXT)], http, (), None)
        elif (skipped := takes_outbound(kind.face.pod, address, port)) is not None:
            found = self._fold([(endpoint, PLAINTEXT)], http, (skipped,), None)
        else:
            path = self._out(kind).call(address, port, address, "http" if http else "tcp")
            found = self._through(self._client(kind), path, (endpoint,), http, None)
        self._answers[key] = found
        return found

    def _first_declared(self, pod: Pod) -> dict[int, str]:
        found = self._declared.get(id(pod))
        if found is None:
            found = self._declared[id(pod)] = {}
            registry = self.servers.of(pod).control.registry
            for _, port, target in registry.serving(pod, machines_too=False):
                found.setdefault(target, port.protocol)
        return found

    # --- the ways a call goes

    def _plain(self, kind: Kind, endpoints: tuple[Endpoint, ...], http: bool, host: Host | None) -> Outcome:
        plane = kind.face.plane
        offers, unsure = [], False
        for endpoint in endpoints:
            server = self.servers.of(endpoint.pod) if endpoint.pod is not None else None
            captured = plane.kind == AMBIENT and server is not None and server.face.plane.kind == AMBIENT
            unsure = unsure or (plane.kind == AMBIENT and server is not None and server.face.plane.sidecar)
            offers.append((endpoint, MTLS if captured else PLAINTEXT))
        first = Because("", "", "the client is in ambient: mTLS to whatever ztunnel captures") if plane.kind == AMBIENT else Because(
            "", "", "the client has no sidecar: plaintext"
        )
        found = self._fold(offers, http, (first,), host)
        if unsure and found.verdict == BREAKS:
            says = "an ambient client may reach a sidecar by HBONE: depends on how the mesh is set up"
            return Outcome(found.sends, UNKNOWN, (*found.because, Because("", "", says)))
        return found

    def _through(
        self, client: Client, path: Path, endpoints: tuple[Endpoint, ...], http: bool, host: Host | None
    ) -> Outcome:
        if path.passthrough:
            return self._fold([(e, PLAINTEXT) for e in endpoints], http, path.because, host)
        if not path.clusters:
            return Outcome(NONE, BREAKS, path.because)
        return join([self._cluster(client, c, path, endpoints, http, host) for c in path.clusters])

    def _cluster(
        self, client: Client, cluster: Cluster, path: Path, endpoints: tuple[Endpoint, ...], http: bool, host: Host | None
    ) -> Outcome:
        sent: Sent = client.send(cluster)
        if sent.missing:
            return Outcome(NONE, BREAKS, (*path.because, Because("", "", f"{sent.missing}: the client's own proxy drops the call")))
        if sent.dialled:
            offers = [(e, sent.sends) for e in endpoints]
        else:
            offers = [(o.endpoint, o.sends) for o in sent.offers]
            if not offers and endpoints:
                says = f"subset {cluster.subset} selects no endpoint" if cluster.subset else f"{cluster.host} has no endpoint"
                return Outcome(NONE, BREAKS, (*path.because, Because("", "", f"{says}: the client's own proxy answers 503")))
        found = self._fold(offers, http, (*path.because, *sent.because), host)
        if sent.doubt and found.verdict == WORKS:
            return Outcome(found.sends, UNKNOWN, (*found.because, Because("", "", sent.doubt)))
        return found

    def _proxyless(self, kind: Kind, host: Host, endpoints: tuple[Endpoint, ...], http: bool) -> Outcome:
        control = self.engine.control(kind.face.plane.revision)
        pod = kind.face.pod
        rule = control.rules.find(pod.namespace, pod.labels, host.hostname, host.namespace)
        tls = rule.policy.tls if rule and rule.policy else None
        if rule is not None and tls is not None and tls.mode == "ISTIO_MUTUAL":
            why = Because(rule.policy_from.ref, "spec.trafficPolicy.tls.mode", "ISTIO_MUTUAL: proxyless gRPC sends mTLS")
            return self._fold([(e, MTLS) for e in endpoints], http, (why,), host)
        why = Because("", "", "proxyless gRPC has no automatic mTLS: plaintext without a DestinationRule")
        return self._fold([(e, PLAINTEXT) for e in endpoints], http, (why,), host)

    def _fold(
        self, offers: Iterable[tuple[Endpoint, str]], http: bool, because: tuple[Because, ...], host: Host | None
    ) -> Outcome:
        sends: set[str] = set()
        verdicts: set[str] = set()
        why: dict[Because, None] = dict.fromkeys(because)
        breaks: dict[Because, None] = {}
        for endpoint, each in offers:
            sends.add(each)
            if endpoint.pod is None:
                verdicts.add(UNKNOWN if each != PLAINTEXT else WORKS)
                if each != PLAINTEXT:
                    why[Because("", "", f"{endpoint.address} is no pod of the input")] = None
                continue
            verdict, reason = self.servers.of(endpoint.pod).takes(endpoint.port, each, http)
            verdicts.add(verdict)
            if reason is not None:
                (breaks if verdict == BREAKS else why)[reason] = None
        if not sends:
            return _nobody(host)
        sent = sends.pop() if len(sends) == 1 else MIXED
        verdict = BREAKS if BREAKS in verdicts else WORKS if verdicts == {WORKS} else UNKNOWN
        return Outcome(sent, verdict, (*why, *breaks), verdicts == {BREAKS})


def _named_http(endpoints: Iterable[Endpoint]) -> bool:
    """Whether what is called by address is a container's HTTP port, by its name or by the usual numbers."""
    return any(
        p.container_port == e.port and (p.container_port in (80, 8080) or p.name.partition("-")[0] in ("http", "http2", "grpc"))
        for e in endpoints
        if e.pod is not None
        for c in e.pod.spec.containers
        for p in c.ports
    )


def _nobody(host: Host | None) -> Outcome:
    ref = host.ref if host else ""
    return Outcome(NONE, UNKNOWN, (Because(ref, "", "has no endpoints: nothing answers"),))


def join(outcomes: list[Outcome]) -> Outcome:
    """What several outcomes of one call add up to: the worst verdict, and what is sent if it is always the same."""
    if len(outcomes) == 1:
        return outcomes[0]
    sends = {o.sends for o in outcomes}
    verdicts = {o.verdict for o in outcomes}
    verdict = BREAKS if BREAKS in verdicts else WORKS if verdicts == {WORKS} else UNKNOWN
    because = dict.fromkeys(b for o in outcomes for b in o.because)
    return Outcome(sends.pop() if len(sends) == 1 else MIXED, verdict, tuple(because), all(o.everywhere for o in outcomes))


