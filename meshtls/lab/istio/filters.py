"""Network and HTTP filters: connection managers and TCP proxies (listener_builder.go, networkfilter.go).

Istio's own filters do not exist in a stock Envoy. istio.alpn is replaced by set_filter_state: an HTTP request offers
the ALPN that its cluster's metadata names. istio.stats is replaced by the stats access logger (telemetry.py).
"""

from functools import cached_property
from typing import Any

from meshtls.lab.istio import authz, envoy, hosts, telemetry
from meshtls.lab.istio import scope as scopes
from meshtls.lab.istio.envoy import Json
from meshtls.lab.istio.objects import Obj, annotations, at, labels, namespace_of, proxy_variable
from meshtls.lab.istio.world import World

_ALPN = envoy.text("%METADATA(CLUSTER:istio:alpn)%") | {"omit_empty_values": True}
ALPN_FILTER = envoy.extension(
    "filters.http.set_filter_state.v3.Config",
    on_request_headers=[
        {"object_key": "envoy.network.application_protocols", "format_string": _ALPN, "skip_if_empty": True}
    ],
)
GRPC_STATS = envoy.extension(
    "filters.http.grpc_stats.v3.FilterConfig", emit_filter_state=True, stats_for_all_methods=False
)
FAULT = envoy.extension("filters.http.fault.v3.HTTPFault")
CORS = envoy.extension("filters.http.cors.v3.Cors")
ROUTER = envoy.extension("filters.http.router.v3.Router")


class Proxy:
    """A pod's proxy: the pod, what it sees, and the policies and logs that apply to it."""

    def __init__(self, world: World, pod: Obj) -> None:
        self.world, self.pod = world, pod
        self.scope = scopes.scope(world, pod)
        self.logs = telemetry.Logs(world, pod)
        self.virtual_hosts: dict[int, list[Json]] = {}  # by port, kept while the listeners are made

    @cached_property
    def interception(self) -> str:
        """REDIRECT, TPROXY or NONE: as the injector wrote it into the proxy, else as it would."""
        wish = annotations(self.pod).get("sidecar.istio.io/interceptionMode")
        wish = wish or at(self.world.mesh, "defaultConfig", "interceptionMode")
        written = proxy_variable(self.pod, "ISTIO_META_INTERCEPTION_MODE")
        return (wish if written is None else written) or "REDIRECT"

    def authorization(self, tcp: bool = False) -> list[Json]:
        """The filters that its authorization policies ask for."""
        return authz.filters(self.world, namespace_of(self.pod), labels(self.pod), tcp)

    def meets(self, match: Obj, port: int, http: bool = False) -> bool:
        """The conditions of a virtual service's match that a proxy can check before any byte; in an HTTP match,
        gateways stand for the others (sourceMatchHTTP, matchTLS, matchTCP)."""
        gateways, home = match.get("gateways"), namespace_of(self.pod)
        if (match.get("port") or port) != port or (gateways and "mesh" not in gateways):
            return False
        if gateways and http:
            return True
        marks = labels(self.pod)
        return hosts.labels_match(match.get("sourceLabels"), marks) and (match.get("sourceNamespace") or home) == home


def manager(stat_prefix: str, routes: Json, http_filters: list[Json], access_log: list[Json], **fields: Any) -> Json:
    """An HTTP connection manager as Istio sets it up."""
    return envoy.extension(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=stat_prefix + ";",
        codec_type="AUTO",
        route_config=routes,
        http_filters=[*http_filters, FAULT, CORS, ROUTER],
        access_log=access_log,
        normalize_path=True,
        use_remote_address=False,
        stream_idle_timeout="0s",
        server_name="istio-envoy",
        upgrade_configs=[{"upgrade_type": "websocket"}],
        **fields,
    )


def default_route(cluster: str, operation: str, retries: Json | None) -> Json:
    """Everything to one cluster."""
    action: Json = {
        "cluster": cluster,
        "timeout": "0s",
        "max_stream_duration": {"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"},
    }
    action |= {"retry_policy": retries} if retries else {}
    return {"name": "default", "match": {"prefix": "/"}, "route": action, "decorator": {"operation": operation}}


def tcp_proxy(stat_prefix: str, access_log: list[Json], target: Json | None = None) -> Json:
    """A TCP proxy to the cluster that it is named after, or to `target`."""
    return envoy.extension(
        "filters.network.tcp_proxy.v3.TcpProxy",
        stat_prefix=stat_prefix,
        access_log=access_log,
        access_log_options={"flush_access_log_on_connected": True} if access_log else None,
        **(target or {"cluster": stat_prefix}),
    )


def blackhole(name: str, port: int) -> Json:
    """A chain into nothing, against loops: what names the proxy's own port."""
    match = {"destination_port": port}
    return {"name": name, "filter_chain_match": match, "filters": [tcp_proxy(envoy.BLACKHOLE, [])]}
