"""Access logs and Istio's metrics (pilot/pkg/networking/core accesslog.go, pilot/pkg/model telemetry.go).

Logs go to the mesh's accessLogFile in Istio's default text format; a Telemetry object that speaks of access logging
for the workload replaces that: workload over namespace over root, provider by provider. A listener logs only
connections that no filter chain took (NR). Metrics come from stock Envoy's stats access logger; metrics.py gives them
Istio's labels.
"""

from typing import Any

import yaml

from meshtls.lab.istio import envoy, hosts
from meshtls.lab.istio.envoy import Json
from meshtls.lab.istio.objects import Obj, labels, namespace_of, spec
from meshtls.lab.istio.world import World

TEXT_FORMAT = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% '
    '%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% '
    '%BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" '
    '"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% '
    "%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
)
NO_ROUTE: Json = {"response_flag_filter": {"flags": ["NR"]}}
ENDED: Json = {"log_type_filter": {"types": ["TcpConnectionEnd"]}}
CONNECTED: Json = {"log_type_filter": {"types": ["TcpUpstreamConnected"]}}
MODES = {"inbound": "SERVER", "outbound": "CLIENT"}

TAGS: list[tuple[str, str]] = [
    ("peer", "%DOWNSTREAM_PEER_URI_SAN%"),
    ("local", "%DOWNSTREAM_LOCAL_URI_SAN%"),
    ("client", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
    ("tls", "%DOWNSTREAM_TLS_VERSION%"),
    ("upstream_peer", "%UPSTREAM_PEER_URI_SAN%"),
    ("upstream", "%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
    ("cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
]
HTTP_TAGS = [("response_code", "%RESPONSE_CODE%"), ("grpc", "%GRPC_STATUS_NUMBER%"), ("protocol", "%PROTOCOL%")]


class Logs:
    """The access logs of one pod's proxy. `side` is "inbound" or "outbound"."""

    def __init__(self, world: World, pod: Obj) -> None:
        self.world, self.pod = world, pod

    def http(self, side: str, service: str = "") -> list[Json]:
        """For a connection manager."""
        counters = [_counter("requests_total", 1)]
        return self._files(side, []) + [_stats(side, service, [*TAGS, *HTTP_TAGS], counters)]

    def tcp(self, side: str, service: str = "") -> list[Json]:
        """For a TCP proxy. Connections are logged when they end, and counted when they begin and end."""
        opened = [_counter("tcp_connections_opened_total", 1)]
        closed = [
            _counter("tcp_connections_closed_total", 1),
            _counter("tcp_received_bytes_total", "%BYTES_RECEIVED%"),
            _counter("tcp_sent_bytes_total", "%BYTES_SENT%"),
        ]
        return [
            *self._files(side, [ENDED]),
            _stats(side, service, TAGS, opened) | {"filter": CONNECTED},
            _stats(side, service, TAGS, closed) | {"filter": ENDED},
        ]

    def listener(self, side: str) -> list[Json]:
        """For a listener: only what no filter chain took."""
        return [] if self.world.mesh.get("disableEnvoyListenerLog") else self._files(side, [NO_ROUTE])

    def _files(self, side: str, conditions: list[Json]) -> list[Json]:
        chosen = self.configured(side)
        if chosen is None:
            path = self.world.mesh.get("accessLogFile")
            return [self._file(path, None, conditions)] if path else []
        return [
            self._file(path, text, [*conditions, *([_cel(expression)] if expression else [])])
            for path, text, expression in chosen
        ]

    def _file(self, path: str, text: Any, conditions: list[Json]) -> Json:
        mesh = self.world.mesh
        if text is None and mesh.get("accessLogEncoding") == "JSON":
            form: Json = {"json_format": _json_format(mesh.get("accessLogFormat"))}
        else:
            body = text or mesh.get("accessLogFormat") or TEXT_FORMAT
            form = {"text_format_source": {"inline_string": body if body.endswith("\n") else body + "\n"}}
        out = envoy.extension(
            "envoy.access_loggers.file", "access_loggers.file.v3.FileAccessLog", path=path, log_format=form
        )
        if conditions:
            out["filter"] = conditions[0] if len(conditions) == 1 else {"and_filter": {"filters": conditions}}
        return out

    def configured(self, side: str) -> list[tuple[str, Any, str]] | None:
        """What Telemetry objects ask for, as (path, format, CEL expression); None where none speaks of logging."""
        key = ("telemetry", side, namespace_of(self.pod), *sorted(labels(self.pod).items()))
        if key not in self.world.cache:
            self.world.cache[key] = self._configured(side)
        found: list[tuple[str, Any, str]] | None = self.world.cache[key]
        return found

    def _configured(self, side: str) -> list[tuple[str, Any, str]] | None:
        """mergeLogs: a level that names providers for this side replaces the ones above; a Telemetry that says
        nothing of this side leaves it to the mesh's accessLogFile."""
        levels = [spec(t)["accessLogging"] for t in self._objects() if spec(t).get("accessLogging")]
        defaults: list[str] = (self.world.mesh.get("defaultProviders") or {}).get("accessLogging") or []
        chosen, filters = defaults, dict[str, str]()
        wanted: dict[str, str | None] = {} if levels else dict.fromkeys(defaults, "")
        for level in levels:
            named: list[str] = []
            for entry in (e for e in level if self._concerns(e, side)):
                names = [p["name"] for p in entry.get("providers") or []]
                filters |= {n: (entry.get("filter") or {}).get("expression") or "" for n in names}
                named += names
            chosen = named or chosen
        parents = defaults
        for entry in (e for level in levels for e in level):
            parents = [p["name"] for p in entry.get("providers") or []] or parents
            for name in parents:
                if name in chosen and self._concerns(entry, side):
                    wanted[name] = None if entry.get("disabled") else filters.get(name, "")
        known = [(self._provider(name), expression) for name, expression in sorted(wanted.items())]
        if not any(provider for provider, _ in known):
            return None
        return [(*provider, expression) for provider, expression in known if provider and expression is not None]

    def _concerns(self, entry: Obj, side: str) -> bool:
        return ((entry.get("match") or {}).get("mode") or "CLIENT_AND_SERVER") in ("CLIENT_AND_SERVER", MODES[side])

    def _objects(self) -> list[Obj]:
        """Root, namespace, workload: each at most one, the oldest."""
        found: dict[str, Obj] = {}
        own = namespace_of(self.pod)
        for telemetry in self.world.kind("Telemetry"):
            home = namespace_of(telemetry)
            selector = (spec(telemetry).get("selector") or {}).get("matchLabels")
            if not selector and home in (self.world.root_namespace, own):
                found.setdefault("root" if home == self.world.root_namespace else "namespace", telemetry)
            elif selector and home == own and hosts.labels_match(selector, labels(self.pod)):
                found.setdefault("workload", telemetry)
        return [found[scope] for scope in ("root", "namespace", "workload") if scope in found]

    def _provider(self, name: str) -> tuple[str, Any] | None:
        """A provider's file and format; None where nothing of that name writes files."""
        for provider in self.world.mesh.get("extensionProviders") or []:
            if provider.get("name", "").lower() == name.lower() and "envoyFileAccessLog" in provider:
                body = provider["envoyFileAccessLog"] or {}
                return body.get("path") or "/dev/stdout", (body.get("logFormat") or {}).get("text")
        return ("/dev/stdout", None) if name.lower() == "envoy" else None


def _json_format(raw: Any) -> Json:
    given = yaml.safe_load(raw) if raw else None
    if isinstance(given, dict):
        return given
    return {
        "start_time": "%START_TIME%",
        "method": "%REQ(:METHOD)%",
        "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
        "protocol": "%PROTOCOL%",
        "response_code": "%RESPONSE_CODE%",
        "response_flags": "%RESPONSE_FLAGS%",
        "response_code_details": "%RESPONSE_CODE_DETAILS%",
        "connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%",
        "bytes_received": "%BYTES_RECEIVED%",
        "bytes_sent": "%BYTES_SENT%",
        "duration": "%DURATION%",
        "upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
        "x_forwarded_for": "%REQ(X-FORWARDED-FOR)%",
        "user_agent": "%REQ(USER-AGENT)%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "authority": "%REQ(:AUTHORITY)%",
        "upstream_host": "%UPSTREAM_HOST%",
        "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%",
        "upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%",
        "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
        "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
        "requested_server_name": "%REQUESTED_SERVER_NAME%",
        "route_name": "%ROUTE_NAME%",
        "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    }


def _cel(expression: str) -> Json:
    return {
        "extension_filter": envoy.extension(
            "cel", "access_loggers.filters.cel.v3.ExpressionFilter", expression=expression
        )
    }


def _counter(name: str, value: int | str) -> Json:
    return {"stat": {"name": name}, **({"value_fixed": value} if isinstance(value, int) else {"value_format": value})}


def _stats(side: str, service: str, tags: list[tuple[str, str]], counters: list[Json]) -> Json:
    """The stats access logger: counters with the tags that metrics.py turns into Istio's labels."""
    marks = [{"name": n, "value_format": v} for n, v in tags]
    marks.append({"name": "side", "value_format": side})
    if service:
        marks.append({"name": "service", "value_format": service})
    return envoy.extension(
        "envoy.access_loggers.stats",
        "access_loggers.stats.v3.Config",
        stats_scope={"prefix": "istio"},
        counters=[{**c, "stat": {**c["stat"], "tags": marks}} for c in counters],
    )
