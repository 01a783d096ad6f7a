"""Istio's translation, for the lab: a cluster's objects in, Envoy's configuration out. Pure: no I/O, no clock.

Written from Istio's source at one commit; it knows nothing of meshtls.policy, so that the two can be compared.

    world = World(lists)              # resource ("pods", "destinationrules.networking.istio.io") -> list of objects
    listeners(world, pod)             # Resources(version, items): Envoy v3 Listeners (JSON), route tables inline
    clusters(world, pod)              # Resources(version, items): Envoy v3 Clusters, endpoints inline
    bootstrap(pod, world, xds_socket=..., admin_socket=...)     # the bootstrap (JSON) of the pod's Envoy
    arguments(world, pod)             # Envoy's flags (drain time, node); add `-c <bootstrap file>`
    inject(pod, namespace, world)     # the pod with its proxy, or None; at admission
    interception(pod)                 # what to redirect, from the arguments of istio-init
    installation(mesh={...})          # the objects of an Istio installation, to create first

A World is a snapshot: make a new one when objects change, and ask again for each pod with a proxy (`has_proxy(pod)`);
equal content has an equal `version`, so an unchanged pod needs no push. Within one World, what pods share is computed
once. The pod must have `status.podIP`. Raises InputError where MeshConfig cannot be read: keep the last good World, as
istiod does.

How to serve it: Envoy asks by REST, POST /v3/discovery:{listeners,clusters,secrets} on the unix socket `xds_socket`;
answer {"version_info": version, "resources": [{"@type": TYPE_LISTENER or TYPE_CLUSTER, **item}, ...]}, clusters before
listeners. Secrets are named `default` (certificate and key of the pod's service account) and `ROOTCA` (validation
context). Envoy listens on 0.0.0.0:15001 and 0.0.0.0:15006 in the pod's network; 15020, 15021 and 15090 are the node's
to serve: `istio_metrics(text, world, pod)` makes the text of 15020 and 15090 from what Envoy's admin answers to
METRICS_QUERY. All of Envoy's own sockets carry SO_MARK 1337, and connections to the pod's own ports come from
127.0.0.6.

Known differences from Istio: routes and endpoints travel inside listeners and clusters, so a new Service or a changed
VirtualService drains the client's HTTP connections of that port; no gateways, no HTTP_PROXY egress listeners, no
EnvoyFilter, no JWT, no CUSTOM authorization, no outlier detection, no locality.
"""

from meshtls.lab.istio import clusters as _clusters
from meshtls.lab.istio import inbound as _inbound
from meshtls.lab.istio import outbound as _outbound
from meshtls.lab.istio.bootstrap import arguments, bootstrap, drain_seconds, node_id
from meshtls.lab.istio.envoy import Resources, hashed
from meshtls.lab.istio.filters import Proxy
from meshtls.lab.istio.inject import inject
from meshtls.lab.istio.installation import installation
from meshtls.lab.istio.interception import Interception, interception
from meshtls.lab.istio.metrics import QUERY as METRICS_QUERY
from meshtls.lab.istio.metrics import istio_metrics
from meshtls.lab.istio.objects import Obj, has_proxy, labels, pod_ip, spec
from meshtls.lab.istio.world import World

TYPE_LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
TYPE_CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
TYPE_SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"


def listeners(world: World, pod: Obj) -> Resources:
    """The listeners of a pod's proxy."""
    proxy = Proxy(world, pod)
    key = (
        "outbound",
        id(proxy.scope),
        proxy.interception,
        repr(proxy.logs.configured("outbound")),
        _relevant(world, pod),
    )
    if key not in world.cache:
        world.cache[key] = hashed(_outbound.Builder(proxy).listeners())
    # Calls of a headless pod to itself do not go out, so it has no listener on its own address.
    others = [r for r in world.cache[key] if r[0]["address"]["socket_address"]["address"] != pod_ip(pod)]
    return Resources.of(others + hashed(_inbound.listeners(proxy, world.targets(pod))))


def clusters(world: World, pod: Obj) -> Resources:
    """The clusters of a pod's proxy."""
    proxy = Proxy(world, pod)
    key = ("clusters", id(proxy.scope), _relevant(world, pod))
    if key not in world.cache:
        world.cache[key] = hashed(_clusters.outbound(world, proxy.scope, labels(pod)))
    return Resources.of(world.cache[key] + hashed(_clusters.inbound(proxy.scope, pod, world.targets(pod))))


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
    "TYPE_SECRET",
    "Interception",
    "Resources",
    "World",
    "arguments",
    "bootstrap",
    "clusters",
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
