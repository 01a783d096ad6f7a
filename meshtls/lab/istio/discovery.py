"""How a proxy's configuration travels: clusters, endpoints, listeners and routes by a discovery service each, as istiod sends them.

The translation makes listeners and clusters whole. On the way, the route table that all HTTP Services of a port share becomes a resource of
its own (RDS), and so do a Service's endpoints (EDS): a new Service or a changed VirtualService drains no listener, a new endpoint makes no
new cluster. A port whose protocol is detected keeps its one Service's routes. What proxies share is encoded once for all of them.
"""

import hashlib
from collections.abc import Iterable

import msgspec

from meshtls.lab.istio import envoy
from meshtls.lab.istio.envoy import Json

Endpoints = tuple[tuple[str, int, bool], ...]
"""(address, port, whether it takes mesh mTLS) of each."""

TYPE_LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
TYPE_CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
TYPE_ROUTE = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
_EDS: Json = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}


class Encoded(msgspec.Struct, frozen=True):
    """A resource as JSON, its hash, and a listener's address."""

    name: str
    body: bytes
    mark: bytes
    address: str = ""


class Answer(msgspec.Struct, frozen=True):
    """What one discovery request is answered with. `version` is a hash of the content: equal content, equal version."""

    version: str
    resources: tuple[bytes, ...]

    @classmethod
    def of(cls, found: Iterable[Encoded]) -> "Answer":
        """The resources in the order of their names."""
        ordered = sorted(found, key=lambda e: e.name)
        digest = hashlib.sha256(b"".join(e.mark for e in ordered))
        return cls(digest.hexdigest()[:16], tuple(e.body for e in ordered))


class Configuration(msgspec.Struct, frozen=True):
    """All that one proxy is told. `routes` by table, `endpoints` by cluster."""

    clusters: Answer
    listeners: Answer
    routes: dict[str, Answer]
    endpoints: dict[str, Endpoints]


def encoded(url: str, item: Json) -> Encoded:
    """One resource."""
    body = msgspec.json.encode({"@type": url, **item})
    where = item.get("address", {}).get("socket_address", {})
    return Encoded(str(item["name"]), body, hashlib.sha256(body).digest(), str(where.get("address", "")))


def listeners(items: Iterable[Json]) -> tuple[list[Encoded], dict[str, Answer]]:
    """Listeners that ask for their port's routes, and those tables."""
    tables: dict[str, Answer] = {}

    def lighter(chain: Json) -> Json:
        return {**chain, "filters": [_asking(f, tables) for f in chain["filters"]]}

    out = []
    for item in items:
        rest = {k: lighter(item[k]) for k in ("default_filter_chain",) if k in item}
        chains = [lighter(c) for c in item["filter_chains"]]
        out.append(encoded(TYPE_LISTENER, {**item, **rest, "filter_chains": chains}))
    return out, tables


def _asking(network_filter: Json, tables: dict[str, Answer]) -> Json:
    config = network_filter["typed_config"]
    table = config.get("route_config")
    if table is None or not table["name"].isdecimal():
        return network_filter
    if table["name"] not in tables:
        tables[table["name"]] = Answer.of([encoded(TYPE_ROUTE, table)])
    config = {k: v for k, v in config.items() if k != "route_config"}
    source = {"route_config_name": table["name"], "config_source": envoy.XDS}
    return {**network_filter, "typed_config": {**config, "rds": source}}


def clusters(items: Iterable[Json]) -> tuple[list[Encoded], dict[str, Endpoints]]:
    """Clusters that ask for their endpoints, and those."""
    out: list[Encoded] = []
    endpoints: dict[str, Endpoints] = {}
    for item in items:
        if item["type"] == "STATIC" and item["name"].startswith("outbound|"):
            endpoints[item["name"]] = tuple(_endpoint(e) for part in item["load_assignment"]["endpoints"] for e in part["lb_endpoints"])
            item = {k: v for k, v in item.items() if k != "load_assignment"} | {"type": "EDS", "eds_cluster_config": {"eds_config": _EDS}}
        out.append(encoded(TYPE_CLUSTER, item))
    return out, endpoints


def _endpoint(item: Json) -> tuple[str, int, bool]:
    where = item["endpoint"]["address"]["socket_address"]
    return where["address"], where["port_value"], "metadata" in item
