"""What Gateway API objects of the mesh refer to: Services and ServiceEntries, and what istiod says when it cannot use one.

1. A route is the mesh's where its parent is a Service (group "") or a ServiceEntry (group networking.istio.io); the group of
   a parent that does not say so is the Gateway API's own, which has neither.
2. A parent that does not exist, or whose waypoint is another implementation's, counts for nothing.
3. What is ignored is kept with its reason and the hosts that it would have spoken for.

(pilot/pkg/config/kube/gateway conversion.go toInternalParentReference, referenceAllowed, waypointManagedByAnotherController.)
"""

from functools import cached_property

import msgspec

from meshtls.model.mesh import Mesh
from meshtls.model.objects import K8sGateway, ParentRef, Route, Service, ServiceEntry
from meshtls.policy.because import Because
from meshtls.policy.service import Port, host_of, parse_protocol

ENTRIES = "networking.istio.io"
_WAYPOINT = "istio.io/use-waypoint"
_OURS = frozenset({"istio.io/gateway-controller", "istio.io/mesh-controller"})


class Ignored(msgspec.Struct, frozen=True):
    """An object, or a part of it, that istiod does not use, and why; `hosts` are those it would have spoken for."""

    because: Because
    hosts: tuple[str, ...] = ()


class Parent(msgspec.Struct, frozen=True):
    """One parentRef that counts: the hosts it stands for; `port` 0 is every port."""

    index: int
    ref: ParentRef
    owner: Service | ServiceEntry
    hosts: tuple[str, ...]

    @property
    def port(self) -> int:
        return self.ref.port


class Attached:
    """Looks up what routes and policies name."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._entries = {(e.namespace, e.name): e for e in mesh.service_entries}
        self._gateways = {(g.namespace, g.name): g for g in mesh.k8s_gateways}
        self._classes = {c.name: c.spec.controller_name for c in mesh.gateway_classes}

    @cached_property
    def hosts(self) -> frozenset[str]:
        """Every host name that there is a Service or ServiceEntry of."""
        owners: tuple[Service | ServiceEntry, ...] = (*self._mesh.services, *self._mesh.service_entries)
        return frozenset(h for owner in owners for h in hosts_of(owner))

    def find(self, group: str, kind: str, namespace: str, name: str) -> Service | ServiceEntry | None:
        """The Service or ServiceEntry of that name."""
        if (group, kind) == ("", "Service"):
            return self._mesh.services_by_name.get((namespace, name))
        return self._entries.get((namespace, name)) if (group, kind) == (ENTRIES, "ServiceEntry") else None

    def parents(self, route: Route, ignored: list[Ignored]) -> list[Parent]:
        """The route's parents in the mesh, in istiod's order; adds to `ignored` those that do not count."""
        found = []
        for index, ref in enumerate(route.spec.parent_refs):
            if ref.kind not in ("Service", "ServiceEntry"):
                continue
            path, namespace = f"spec.parentRefs[{index}]", ref.namespace or route.namespace
            wanted = "" if ref.kind == "Service" else ENTRIES
            owner = self.find(wanted, ref.kind, namespace, ref.name)
            hosts = hosts_of(owner) if owner else ()
            says = ""
            if ref.group != wanted:
                says = f'group {ref.group or chr(34) * 2} has no {ref.kind}: istiod passes the parent over, it wants group "{wanted}"'
            elif owner is None:
                says = f"there is no {ref.kind} {namespace}/{ref.name}: istiod refuses the parent"
            elif (other := self._other_waypoint(owner)) is not None:
                says = f"{other.ref} is its waypoint, and is not Istio's: istiod leaves the route to it"
            if says or owner is None:
                ignored.append(Ignored(Because(route.ref, path, says), hosts))
            else:
                found.append(Parent(index, ref, owner, hosts))
        return sorted(found, key=lambda p: _text(p.ref, route.namespace))

    def _other_waypoint(self, owner: Service | ServiceEntry) -> K8sGateway | None:
        """The waypoint of a Service, or of its namespace, where another implementation runs it."""
        labels = owner.labels
        if _WAYPOINT not in labels:
            labels = self._mesh.namespace_labels.get(owner.namespace, {})
        name = labels.get(_WAYPOINT, "")
        if not name or name.lower() == "none":
            return None
        gateway = self._gateways.get((labels.get(f"{_WAYPOINT}-namespace") or owner.namespace, name))
        controller = self._classes.get(gateway.spec.gateway_class_name) if gateway else None
        return gateway if controller is not None and controller not in _OURS else None


def hosts_of(owner: Service | ServiceEntry) -> tuple[str, ...]:
    """The host names that a Service or ServiceEntry has."""
    return owner.spec.hosts if isinstance(owner, ServiceEntry) else (host_of(owner).hostname,)


def ports_of(owner: Service | ServiceEntry) -> tuple[Port, ...]:
    """Its ports."""
    if isinstance(owner, ServiceEntry):
        return tuple(Port(p.name, p.number, parse_protocol(p.protocol)) for p in owner.spec.ports)
    return host_of(owner).ports


def _text(ref: ParentRef, namespace: str) -> str:
    return f"{ref.group}/{ref.kind}/{ref.name}/{ref.section_name}/{ref.port}.{ref.namespace or namespace}"
