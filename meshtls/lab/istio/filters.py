"""Network and HTTP filters: connection managers, TCP proxies and what goes before them (listener_builder.go,
networkfilter.go).

Istio's own filters do not exist in a stock Envoy. istio.alpn is replaced by set_filter_state: an HTTP request offers
the ALPN that its cluster's metadata names. istio.stats is replaced by the stats access logger (telemetry.py).
"""

from functools import cached_property
from typing import Any

import msgspec

from meshtls.lab.istio import authz, envoy, telemetry
from meshtls.lab.istio import scope as scopes
from meshtls.lab.istio.envoy import Json
from meshtls.lab.istio.objects import Obj, annotations, containers, labels
from meshtls.lab.istio.world import World

ALPN_FILTER = envoy.extension(
    "envoy.filters.http.set_filter_state",
    "filters.http.set_filter_state.v3.Config",
    on_request_headers=[
        {
            "object_key": "envoy.network.application_protocols",
            "format_string": {
                "text_format_source": {"inline_string": "%METADATA(CLUSTER:istio:alpn)%"},
                "omit_empty_values": True,
            },
            "skip_if_empty": True,
        }
    ],
)
GRPC_STATS = envoy.extension(
    "envoy.filters.http.grpc_stats",
    "filters.http.grpc_stats.v3.FilterConfig",
    emit_filter_state=True,
    stats_for_all_methods=False,
)
FAULT = envoy.extension("envoy.filters.http.fault", "filters.http.fault.v3.HTTPFault")
CORS = envoy.extension("envoy.filters.http.cors", "filters.http.cors.v3.Cors")
ROUTER = envoy.extension("envoy.filters.http.router", "filters.http.router.v3.Router")
NO_TIMEOUT = "0s"


class Chain(msgspec.Struct, frozen=True):
    """What the filters of one inbound chain need to know."""

    name: str
    cluster: str
    port: int
    stat_prefix: str
    service: str = ""
    http2: bool = False
    grpc: bool = False
    mtls: bool = False


class Proxy:
    """A pod's proxy: the pod, what it sees, and the policies and logs that apply to it."""

    def __init__(self, world: World, pod: Obj) -> None:
        self.world, self.pod = world, pod
        self.scope = scopes.scope(world, pod)
        self.logs = telemetry.Logs(world, pod)
        self.authz = authz.Rules(world, pod)
        self.virtual_hosts: dict[int, list[Json]] = {}  # by port, kept while the listeners are made

    @property
    def interception(self) -> str:
        """REDIRECT, TPROXY or NONE: as the injector wrote it into the proxy, else as it would."""
        for container in containers(self.pod):
            for variable in container.get("env") or []:
                if container["name"] == "istio-proxy" and variable["name"] == "ISTIO_META_INTERCEPTION_MODE":
                    return str(variable.get("value") or "REDIRECT")
        default = (self.world.mesh.get("defaultConfig") or {}).get("interceptionMode")
        return annotations(self.pod).get("sidecar.istio.io/interceptionMode") or default or "REDIRECT"

    @cached_property
    def labels(self) -> dict[str, str]:
        """The pod's labels."""
        return labels(self.pod)


def manager(stat_prefix: str, routes: Json, http_filters: list[Json], access_log: list[Json], **fields: Any) -> Json:
    """An HTTP connection manager as Istio sets it up."""
    return envoy.extension(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=stat_prefix + ";",
        codec_type="AUTO",
        route_config=routes,
        http_filters=http_filters,
        access_log=access_log,
        normalize_path=True,
        use_remote_address=False,
        stream_idle_timeout=NO_TIMEOUT,
        server_name="istio-envoy",
        upgrade_configs=[{"upgrade_type": "websocket"}],
        **fields,
    )


def tcp_proxy(cluster: str, access_log: list[Json], clusters: list[Json] | None = None, stat_prefix: str = "") -> Json:
    """A TCP proxy to one cluster, or to weighted ones."""
    target: Json = {"weighted_clusters": {"clusters": clusters}} if clusters else {"cluster": cluster}
    return envoy.extension(
        "envoy.filters.network.tcp_proxy",
        "filters.network.tcp_proxy.v3.TcpProxy",
        stat_prefix=stat_prefix or cluster,
        access_log=access_log,
        access_log_options={"flush_access_log_on_connected": True} if access_log else None,
        **target,
    )


def blackhole() -> Json:
    """A TCP proxy into nothing."""
    return tcp_proxy(envoy.BLACKHOLE, [])


def inbound_http(proxy: Proxy, chain: Chain) -> list[Json]:
    """The filters of an inbound HTTP chain."""
    action: Json = {
        "cluster": chain.cluster,
        "timeout": NO_TIMEOUT,
        "max_stream_duration": {"max_stream_duration": NO_TIMEOUT, "grpc_timeout_header_max": NO_TIMEOUT},
    }
    if not chain.grpc:
        action["retry_policy"] = {"retry_on": "reset-before-request", "num_retries": 2}
    route = {
        "name": "default",
        "match": {"prefix": "/"},
        "route": action,
        "decorator": {"operation": f"{chain.service or chain.cluster}:{chain.port}/*"},
    }
    routes = {
        "name": chain.cluster,
        "validate_clusters": False,
        "virtual_hosts": [{"name": f"inbound|http|{chain.port}", "domains": ["*"], "routes": [route]}],
    }
    http_filters = [*proxy.authz.http(), GRPC_STATS, FAULT, CORS, ROUTER]
    return [
        manager(
            chain.stat_prefix,
            routes,
            http_filters,
            proxy.logs.http("inbound", chain.service),
            forward_client_cert_details="APPEND_FORWARD",
            set_current_client_cert_details={"subject": True, "dns": True, "uri": True},
            http2_protocol_options={} if chain.http2 else None,
        )
    ]


def inbound_tcp(proxy: Proxy, chain: Chain) -> list[Json]:
    """The filters of an inbound TCP chain."""
    return [*proxy.authz.tcp(), tcp_proxy(chain.cluster, proxy.logs.tcp("inbound", chain.service))]


def outbound_http(proxy: Proxy, name: str, routes: Json) -> list[Json]:
    """The filters of an outbound HTTP chain; `name` is the listener's."""
    http_filters = [GRPC_STATS, ALPN_FILTER, FAULT, CORS, ROUTER]
    return [manager(f"outbound_{name}", routes, http_filters, proxy.logs.http("outbound"))]


def outbound_tcp(proxy: Proxy, cluster: str, weighted: list[Json] | None = None, stat_prefix: str = "") -> list[Json]:
    """The filters of an outbound TCP chain."""
    return [tcp_proxy(cluster, proxy.logs.tcp("outbound"), weighted, stat_prefix)]
