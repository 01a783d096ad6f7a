"""What there is to keep: the namespaces and workloads that are STRICT, and what is excepted from it today. Pure.

Laws:
  1. A namespace is kept as a whole where its own policy says STRICT, or where the mesh's does and its own does not
     weaken it; then the mesh's policy is kept too, for it decides. Else those of its workload policies that say
     STRICT, for the workload or for a port, are kept one by one, with the workloads that they select.
  2. Today's exceptions stay possible, exactly: the same policy with the same selector, the same port and mode; the
     same workload with the same annotation; the same DestinationRule with the same host and tls. Nothing wider, nothing new.
  3. An exception is a regular expression over `FLAW WHO`, the words in which the rules speak (see rules.py). One that is
     granted beyond today's carries the moment at which it ends.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from meshtls.errors import GateError
from meshtls.guard import today
from meshtls.model.mesh import Mesh
from meshtls.model.objects import PeerAuthentication, PodSpec
from meshtls.model.workload import Workload
from meshtls.policy.authn import DISABLE, PERMISSIVE, STRICT, UNSET, is_wide, mode_of
from meshtls.policy.dataplane import AMBIENT, MODE, NATIVE, SIDECAR, UNCAPTURED
from meshtls.policy.engine import Engine
from meshtls.policy.select import subset

WEAK = (PERMISSIVE, DISABLE)
LABELS = ("istio-injection", "istio.io/rev", "istio.io/dataplane-mode")


class Granted(msgspec.Struct, frozen=True, kw_only=True):
    """An exception that somebody answers for: `pattern` as in law 3, `until` RFC 3339, the first moment at which it is over."""

    rule: str
    namespace: str
    subject: str
    owner: str
    reason: str
    pattern: str
    until: str


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """One namespace and what is kept of it.

    `scope` is "namespace", "workloads" (some of them) or "mesh" (the root namespace, for the policy that decides for all).
    `inherits`: a policy of the namespace may leave the mode to the mesh's. `keepers`: policy -> its selector; `strict`: those
    of them that must say STRICT for a workload; `ports`: `policy port` that must stay STRICT. `workloads`: the selectors of the
    workloads that are kept, an empty one for all. `planes`: sidecar, ambient or both. `hosts` and `suffixes` are those of its
    Services. `labels` are the keys by which the mesh chooses the namespace.
    """

    namespace: str
    scope: str
    inherits: bool = False
    keepers: dict[str, dict[str, str]] = {}
    strict: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    selectors: dict[str, dict[str, str]] = {}
    workloads: tuple[dict[str, str], ...] = ()
    planes: tuple[str, ...] = ()
    domain: str = "cluster.local"
    hosts: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    uncaptured: tuple[str, ...] = ()
    labels: tuple[str, ...] = LABELS
    excepted: tuple[str, ...] = ()
    granted: tuple[Granted, ...] = ()


def achieved(mesh: Mesh, namespaces: Iterable[str] | None = None) -> tuple[list[Kept], dict[str, str]]:
    """(what is kept, namespace -> why there is nothing to keep); the mesh's policy last. `namespaces` None: all."""
    wanted = sorted(namespaces if namespaces is not None else _candidates(mesh))
    kept: list[Kept] = []
    nothing: dict[str, str] = {}
    for namespace in wanted:
        try:
            kept.append(_kept(mesh, namespace))
        except GateError as error:
            nothing[namespace] = error.message
    if any(each.inherits for each in kept) and not any(each.namespace == mesh.root for each in kept):
        kept.append(_kept(mesh, mesh.root))
    kept.sort(key=lambda each: (each.scope == "mesh", each.namespace))
    return kept, nothing


def _candidates(mesh: Mesh) -> set[str]:
    """The namespaces that have a policy of their own, or something in the mesh."""
    engine = Engine.of(mesh)
    found = {p.namespace for p in mesh.peer_authentications} | {ns.name for ns in mesh.namespaces if _planes(engine, ns.name, ())}
    return found | {w.namespace for w in mesh.workloads if w.namespace not in found and _planes(engine, w.namespace, [w])}


def _kept(mesh: Mesh, namespace: str) -> Kept:
    engine = Engine.of(mesh)
    authn = engine.control("").authn
    own, root = authn.wide(namespace), authn.wide(mesh.root)
    mine = [p for p in engine.control("").mesh.peer_authentications if p.namespace == namespace]
    if namespace == mesh.root:
        if own is None or mode_of(own) != STRICT:
            raise GateError(_why(namespace, own))
        return Kept(namespace=namespace, scope="mesh", keepers={own.name: {}})
    inherits = root is not None and mode_of(root) == STRICT and (own is None or mode_of(own) == UNSET)
    domain = engine.domain
    common = Kept(
        namespace=namespace, scope="namespace", inherits=inherits, domain=domain, uncaptured=_uncaptured(mesh),
        labels=_labels(mesh), selectors={p.name: _selector(p) for p in mine if not is_wide(p)},
        suffixes=(f".{namespace}.svc.{domain}",),
    )  # fmt: skip
    if inherits or (own is not None and mode_of(own) == STRICT):
        workloads = [w for w in mesh.workloads if w.namespace == namespace]
        planes = _planes(engine, namespace, workloads)
        if inherits and not planes:
            raise GateError(f"namespace {namespace} has nothing in the mesh, and no policy of its own")
        whole = msgspec.structs.replace(common, keepers={} if inherits or own is None else {own.name: {}}, workloads=({},), planes=planes)
        return msgspec.structs.replace(whole, excepted=_excepted(mesh, whole, workloads, [p for p in mine if not is_wide(p)]))
    parts = [p for p in mine if not is_wide(p) and (mode_of(p) == STRICT or _strict_ports(p))]
    if not parts:
        raise GateError(_why(namespace, own))
    selectors = tuple(_selector(p) for p in parts)
    workloads = [w for w in mesh.workloads if w.namespace == namespace and any(subset(s, f.labels) for s in selectors for f in w.faces)]
    hosts = sorted({f"{s.name}.{namespace}.svc.{domain}" for s in mesh.services_in.get(namespace, ())
                    if s.spec.selector and any(subset(s.spec.selector, f.labels) for w in workloads for f in w.faces)})  # fmt: skip
    some = msgspec.structs.replace(
        common, scope="workloads", keepers={p.name: _selector(p) for p in parts}, workloads=selectors, hosts=tuple(hosts), suffixes=(),
        strict=tuple(p.name for p in parts if mode_of(p) == STRICT),
        ports=tuple(f"{p.name} {port}" for p in parts for port in _strict_ports(p)), planes=_planes(engine, namespace, workloads),
    )  # fmt: skip
    return msgspec.structs.replace(some, excepted=_excepted(mesh, some, workloads, ()))


def _why(namespace: str, own: PeerAuthentication | None) -> str:
    said = "has no namespace-wide PeerAuthentication" if own is None else f"is {mode_of(own)} by {own.ref}"
    return f"namespace {namespace} {said}"


def _selector(policy: PeerAuthentication) -> dict[str, str]:
    return dict(policy.spec.selector.match_labels) if policy.spec.selector else {}


def _strict_ports(policy: PeerAuthentication) -> list[str]:
    return sorted(port for port, mtls in policy.spec.port_level_mtls.items() if mtls.mode == STRICT)


def _planes(engine: Engine, namespace: str, workloads: Sequence[Workload]) -> tuple[str, ...]:
    """The data planes in use; where nothing runs, what the namespace's labels would bring its pods into."""
    kinds = {face.plane.kind for w in workloads for face in engine.faces_of(w)}
    found = {"ambient" if kind == AMBIENT else "sidecar" for kind in kinds if kind in (AMBIENT, SIDECAR, NATIVE)}
    labels = engine.mesh.namespace_labels.get(namespace, {})
    if not found and engine.injector.decide(namespace, labels, {}, {}, PodSpec()).injected:
        found = {"sidecar"}
    if not found and labels.get(MODE) == "ambient":
        found = {"ambient"}
    return tuple(sorted(found))


def _uncaptured(mesh: Mesh) -> tuple[str, ...]:
    """Ports that are past the proxy of every pod: the proxy's own, and those of the injectors' values."""
    return tuple(sorted({str(port) for port in UNCAPTURED} | set(today.excluded_everywhere(mesh))))


def _labels(mesh: Mesh) -> tuple[str, ...]:
    chosen = {
        key for config in mesh.configs.values() for s in config.discovery_selectors
        for key in (*s.match_labels, *(need.key for need in s.match_expressions))
    }  # fmt: skip
    return (*LABELS, *sorted(chosen - set(LABELS) - {"kubernetes.io/metadata.name"}))


def _excepted(mesh: Mesh, kept: Kept, workloads: Sequence[Workload], policies: Sequence[PeerAuthentication]) -> tuple[str, ...]:
    """Every exception that stands today, as a pattern."""
    found = [pattern(flaw, [re.escape(f"PeerAuthentication/{p.name}")]) for p in policies for flaw in _weaker(p)]
    for w in workloads:
        found += [pattern(flaw, owners(w)) for flaw in sorted(today.flaws(mesh, w, kept.planes, kept.uncaptured))]
    for rule in mesh.destination_rules:
        if toward(kept, rule.namespace, rule.spec.host):
            found += [pattern(flaw, [re.escape(f"DestinationRule/{rule.namespace}/{rule.name} {rule.spec.host}")]) for flaw in today.tls(rule)]
    return tuple(dict.fromkeys(sorted(found)))


def _weaker(policy: PeerAuthentication) -> Iterator[str]:
    if mode_of(policy) in WEAK:
        yield f"workload-mode {mode_of(policy)}"
    yield from (f"port-mode {port} {m.mode}" for port, m in sorted(policy.spec.port_level_mtls.items()) if m.mode in WEAK)


def pattern(flaw: str, who: Sequence[str]) -> str:
    """The expression that a flaw of one of `who` matches; those are expressions themselves."""
    return f"^{re.escape(flaw)} ({'|'.join(who)})$"


def owners(w: Workload) -> list[str]:
    """How a workload and its pods call themselves, as expressions: `Kind/name` of the object, or of what owns the pod."""
    name = re.escape(w.name)
    made = {"Deployment": [f"ReplicaSet/{name}-[a-z0-9]+"], "CronJob": [f"Job/{name}-[0-9]+"]}.get(w.kind, [])
    return [f"{w.kind}/{name}", *made]


def toward(kept: Kept, namespace: str, host: str) -> bool:
    """Does a host in a DestinationRule of `namespace` name a Service that is kept?"""
    full = host if "." in host or host.startswith("*") else f"{host}.{namespace}.svc.{kept.domain}"
    return full in kept.hosts or full.endswith(kept.suffixes or ("\0",)) or full in wild(kept)


def wild(kept: Kept) -> tuple[str, ...]:
    """The wildcards that name its Services among others."""
    parts = kept.domain.split(".")
    wider = tuple(f"*.{'.'.join(parts[at:])}" for at in range(len(parts)))
    return ("*", *wider, f"*.svc.{kept.domain}", f"*.{kept.namespace}.svc.{kept.domain}")

