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
encoded once. The pod must have `status.podIP`. MeshConfig that cannot be read is as it was in the World before (`last`), as for istiod.

How to serve it: Envoy asks by REST, POST /v3/discovery:{listeners,clusters,routes,secrets} on the unix socket
`xds_socket`, clusters before listeners; for endpoints by one gRPC stream on the same socket. Secrets are named `default` (certificate and key of the pod's service account) and `ROOTCA` (validation
context). Envoy listens on 0.0.0.0:15001 and 0.0.0.0:15006 in the pod's network; 15020, 15021 and 15090 are the node's
to serve: `metrics.istio_metrics(text, world, pod)` makes the text of 15020 and 15090 from what Envoy's admin answers to
`metrics.QUERY`. All of Envoy's own sockets carry SO_MARK 1337, and connections to the pod's own ports come from
127.0.0.6.

Known differences from Istio: no gateways, no HTTP_PROXY egress listeners, no EnvoyFilter, no JWT, no CUSTOM
authorization, no outlier detection, no locality.
"""

from typing import Any

import msgspec

from meshtls.lab.istio import clusters as _clusters
from meshtls.lab.istio import discovery
from meshtls.lab.istio import inbound as _inbound
from meshtls.lab.istio import outbound as _outbound
from meshtls.lab.istio.bootstrap import arguments, bootstrap, node_id
from meshtls.lab.istio.discovery import TYPE_CLUSTER, TYPE_LISTENER, TYPE_ROUTE, Answer, Configuration, Encoded
from meshtls.lab.istio.envoy import Json
from meshtls.lab.istio.filters import Proxy
from meshtls.lab.istio.inject import inject
from meshtls.lab.istio.installation import installation
from meshtls.lab.istio.interception import interception
from meshtls.lab.istio.objects import Obj, at, has_proxy, labels, pod_ip, spec
from meshtls.lab.istio.virtualservice import virtual_services
from meshtls.lab.istio.world import World, remembered

TYPE_SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

Kept = dict[str, tuple[Any, list[Encoded], list[Encoded]]]


class Resources(msgspec.Struct, frozen=True):
    """Whole resources of one kind, in the order of their names."""

    items: list[Json]


def listeners(world: World, pod: Obj) -> Resources:
    """The listeners of a pod's proxy, with their routes in them."""
    proxy = Proxy(world, pod)
    # Calls of a headless pod to itself do not go out, so it has no listener on its own address.
    out = [r for r in _outbound_listeners(proxy) if r["address"]["socket_address"]["address"] != pod_ip(pod)]
    return Resources(sorted(out + _inbound.listeners(proxy, world.targets(pod)), key=lambda r: str(r["name"])))


def clusters(world: World, pod: Obj) -> Resources:
    """The clusters of a pod's proxy, with their endpoints in them."""
    proxy = Proxy(world, pod)
    found = _outbound_clusters(proxy) + _clusters.inbound(proxy, world.targets(pod))
    return Resources(sorted(found, key=lambda r: str(r["name"])))


def configuration(world: World, pod: Obj, kept: Kept) -> Configuration:
    """The same as it travels. `kept` is the caller's, for all Worlds: it holds what only the pod itself is told, until the World's
    settings or the pod's Services change."""
    proxy = Proxy(world, pod)
    far, tables = world.once(("lds", *_seen(proxy)), lambda: discovery.listeners(_outbound_listeners(proxy)))
    known, endpoints = world.once(("cds", *_seen(proxy)), lambda: discovery.clusters(_outbound_clusters(proxy)))
    targets, metadata = world.targets(pod), pod["metadata"]
    key = (world.settings, pod_ip(pod), metadata.get("labels"), metadata.get("annotations"),
           [(t.service.hostname, t.port.name, t.port.protocol, t.number) for t in targets])
    uid = metadata.get("uid", "")
    if uid not in kept or kept[uid][0] != key:
        listening = [discovery.encoded(TYPE_LISTENER, item) for item in _inbound.listeners(proxy, targets)]
        kept[uid] = key, listening, [discovery.encoded(TYPE_CLUSTER, item) for item in _clusters.inbound(proxy, targets)]
    _, near, own = kept[uid]
    far = [e for e in far if e.address != pod_ip(pod)]
    return Configuration(Answer.of([*known, *own]), Answer.of([*far, *near]), tables, endpoints)


def _outbound_listeners(proxy: Proxy) -> list[Json]:
    return proxy.world.once(("outbound", *_seen(proxy)), lambda: _outbound.Builder(proxy).listeners())


def _outbound_clusters(proxy: Proxy) -> list[Json]:
    world, scope = proxy.world, proxy.scope
    return world.once(("clusters", *_seen(proxy)), _clusters.outbound, world, scope, labels(proxy.pod))


def _seen(proxy: Proxy) -> tuple[Any, ...]:
    """What a proxy's outbound side depends on: pods that agree on it share that side. Of their labels, it is those that
    rules ask clients for."""
    marks = labels(proxy.pod)
    wanted = tuple(marks.get(k) for k in _client_labels(proxy.world))
    return id(proxy.scope), proxy.interception, repr(proxy.logs.configured("outbound")), wanted


@remembered
def _client_labels(world: World) -> list[str]:
    rules = (at(spec(r), "workloadSelector", "matchLabels") for r in world.kind("DestinationRule"))
    routes = (r for v in virtual_services(world) for kind in v.routes.values() for r in kind)
    sources = (m.get("sourceLabels") for r in routes for m in r.get("match") or [])
    return sorted({key for asked in (*rules, *sources) for key in asked or ()})


__all__ = [
    "TYPE_CLUSTER",
    "TYPE_LISTENER",
    "TYPE_ROUTE",
    "TYPE_SECRET",
    "Answer",
    "Configuration",
    "Kept",
    "Resources",
    "World",
    "arguments",
    "bootstrap",
    "clusters",
    "configuration",
    "has_proxy",
    "inject",
    "installation",
    "interception",
    "listeners",
    "node_id",
]
