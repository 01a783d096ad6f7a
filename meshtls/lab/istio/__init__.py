"""Istio's translation, for the lab: a cluster's objects in, Envoy's configuration out. Pure: no I/O, no clock.

Written from Istio's source at one commit; it knows nothing of meshtls.policy, so that the two can be compared.

    world = World(lists)              # resource ("pods", "destinationrules.networking.istio.io") -> list of objects
    listeners(world, pod)             # Resources: whole Envoy v3 Listeners (JSON), with their routes
    clusters(world, pod)              # Resources: whole Envoy v3 Clusters, with their endpoints
    configuration(world, pod, kept)   # both as they travel: clusters, endpoints, listeners and routes, encoded
    bootstrap(pod, world, xds_socket=..., admin_socket=...)     # the bootstrap (JSON) of the pod's Envoy
    arguments(world, pod)             # Envoy's flags (drain time, node); add `-c <bootstrap file>`
    inject(pod, namespace, world)     # the pod with its proxy, or None; at admission
    interception(pod)                 # what to redirect, from the arguments of istio-init
    installation(mesh={...})          # the objects of an Istio installation, to create first

A World is a snapshot: make a new one when objects change, and ask again for each pod with a proxy (`has_proxy(pod)`);
equal content has an equal `version`, so an unchanged pod needs no push. Within one World, what pods share is made and
encoded once. The pod must have `status.podIP`. Raises InputError where MeshConfig cannot be read: keep the last good World, as
istiod does.

How to serve it: Envoy asks by REST, POST /v3/discovery:{listeners,clusters,routes,secrets} on the unix socket
`xds_socket`, clusters before listeners; for endpoints by one gRPC stream on the same socket. Secrets are named `default` (certificate and key of the pod's service account) and `ROOTCA` (validation
context). Envoy listens on 0.0.0.0:15001 and 0.0.0.0:15006 in the pod's network; 15020, 15021 and 15090 are the node's
to serve: `istio_metrics(text, world, pod)` makes the text of 15020 and 15090 from what Envoy's admin answers to
METRICS_QUERY. All of Envoy's own sockets carry SO_MARK 1337, and connections to the pod's own ports come from
127.0.0.6.

Known differences from Istio: no gateways, no HTTP_PROXY egress listeners, no EnvoyFilter, no JWT, no CUSTOM
authorization, no outlier detection, no locality.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from meshtls.lab.istio import clusters as _clusters
from meshtls.lab.istio import discovery
from meshtls.lab.istio import inbound as _inbound
from meshtls.lab.istio import outbound as _outbound
from meshtls.lab.istio.bootstrap import arguments, bootstrap, drain_seconds, node_id
from meshtls.lab.istio.discovery import TYPE_CLUSTER, TYPE_LISTENER, TYPE_ROUTE, Answer, Configuration, Encoded
from meshtls.lab.istio.envoy import Json, Resources
from meshtls.lab.istio.filters import Proxy
from meshtls.lab.istio.inject import inject
from meshtls.lab.istio.installation import installation
from meshtls.lab.istio.interception import Interception, interception
from meshtls.lab.istio.metrics import QUERY as METRICS_QUERY
from meshtls.lab.istio.metrics import istio_metrics
from meshtls.lab.istio.objects import Obj, has_proxy, labels, pod_ip, spec
from meshtls.lab.istio.world import World

TYPE_SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

T = TypeVar("T")
Kept = dict[str, tuple[Any, list[Encoded], list[Encoded]]]


def listeners(world: World, pod: Obj) -> Resources:
    """The listeners of a pod's proxy, with their routes in them."""
    proxy = Proxy(world, pod)
    # Calls of a headless pod to itself do not go out, so it has no listener on its own address.
    out = [r for r in _outbound_listeners(proxy) if r["address"]["socket_address"]["address"] != pod_ip(pod)]
    return Resources.of(out + _inbound.listeners(proxy, world.targets(pod)))


def clusters(world: World, pod: Obj) -> Resources:
    """The clusters of a pod's proxy, with their endpoints in them."""
    proxy = Proxy(world, pod)
    return Resources.of(_outbound_clusters(proxy) + _clusters.inbound(proxy, world.targets(pod)))


def configuration(world: World, pod: Obj, kept: Kept) -> Configuration:
    """The same as it travels. `kept` is the caller's, for all Worlds: it holds what only the pod itself is told, until the World's
    settings or the pod's Services change."""
    proxy = Proxy(world, pod)
    far, tables = _once(world, ("lds", *_listeners_key(proxy)), lambda: discovery.listeners(_outbound_listeners(proxy)))
    known, endpoints = _once(world, ("cds", *_clusters_key(proxy)), lambda: discovery.clusters(_outbound_clusters(proxy)))
    targets = world.targets(pod)
    metadata = pod["metadata"]
    key = (world.settings, pod_ip(pod), metadata.get("labels"), metadata.get("annotations"),
           [(t.service.hostname, t.port.name, t.port.protocol, t.number) for t in targets])
    own = kept.get(metadata.get("uid", ""))
    if own is None or own[0] != key:
        own = kept[metadata.get("uid", "")] = (
            key,
            [discovery.encoded(TYPE_LISTENER, item) for item in _inbound.listeners(proxy, targets)],
            [discovery.encoded(TYPE_CLUSTER, item) for item in _clusters.inbound(proxy, targets)],
        )
    return Configuration(
        Answer.of([*known, *own[2]]), Answer.of([*(e for e in far if e.address != pod_ip(pod)), *own[1]]), tables, endpoints
    )


def _outbound_listeners(proxy: Proxy) -> list[Json]:
    return _once(proxy.world, ("outbound", *_listeners_key(proxy)), lambda: _outbound.Builder(proxy).listeners())


def _outbound_clusters(proxy: Proxy) -> list[Json]:
    return _once(proxy.world, ("clusters", *_clusters_key(proxy)), lambda: _clusters.outbound(proxy.world, proxy.scope, labels(proxy.pod)))


def _listeners_key(proxy: Proxy) -> tuple[Any, ...]:
    return id(proxy.scope), proxy.interception, repr(proxy.logs.configured("outbound")), _relevant(proxy.world, proxy.pod)


def _clusters_key(proxy: Proxy) -> tuple[Any, ...]:
    return id(proxy.scope), _relevant(proxy.world, proxy.pod)


def _once(world: World, key: Any, make: Callable[[], T]) -> T:
    """What pods share is made once in a World."""
    if key not in world.cache:
        world.cache[key] = make()
    found: T = world.cache[key]
    return found


def _relevant(world: World, pod: Obj) -> tuple[tuple[str, str | None], ...]:
    """The pod's values of the labels that rules ask clients for: pods that agree on them share their outbound side."""
    if "client-labels" not in world.cache:
        keys: set[str] = set()
        for rule in world.kind("DestinationRule"):
            keys |= set((spec(rule).get("workloadSelector") or {}).get("matchLabels") or {})
        for virtual in world.kind("VirtualService"):
            for kind in ("http", "tcp", "tls"):
                for entry in spec(virtual).get(kind) or []:
                    for match in entry.get("match") or []:
                        keys |= set(match.get("sourceLabels") or {})
        world.cache["client-labels"] = sorted(keys)
    return tuple((k, labels(pod).get(k)) for k in world.cache["client-labels"])


__all__ = [
    "METRICS_QUERY",
    "TYPE_CLUSTER",
    "TYPE_LISTENER",
    "TYPE_ROUTE",
    "TYPE_SECRET",
    "Answer",
    "Configuration",
    "Interception",
    "Kept",
    "Resources",
    "World",
    "arguments",
    "bootstrap",
    "clusters",
    "configuration",
    "drain_seconds",
    "has_proxy",
    "inject",
    "installation",
    "interception",
    "istio_metrics",
    "listeners",
    "node_id",
    "pod_ip",
]
