"""Access logs and Istio's metrics (pilot/pkg/networking/core accesslog.go, pilot/pkg/model telemetry.go).

Logs go to the mesh's accessLogFile in Istio's default text format; a Telemetry object that speaks of access logging
for the workload replaces that: workload over namespace over root, provider by provider. A listener logs only
connections that no filter chain took (NR). Metrics come from stock Envoy's stats access logger; metrics.py gives them
Istio's labels.
"""

import re

import yaml

from meshtls.lab.istio import envoy
from meshtls.lab.istio.envoy import Json
from meshtls.lab.istio.objects import Obj, at, labels, namespace_of, spec
from meshtls.lab.istio.world import World, remembered

TEXT_FORMAT = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% '
    '%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% '
    '%BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" '
    '"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% '
    "%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
)
# A field of the JSON format is called like what it shows, or like its header.
JSON_FORMAT = {name.lower(): f"%{name}%" for name in re.findall(r"%(\w+)%", TEXT_FORMAT)} | {
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    "x_forwarded_for": "%REQ(X-FORWARDED-FOR)%",
    "user_agent": "%REQ(USER-AGENT)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "authority": "%REQ(:AUTHORITY)%",
}
JSON_FORMAT["upstream_cluster"] = JSON_FORMAT.pop("upstream_cluster_raw")
NO_ROUTE: Json = {"response_flag_filter": {"flags": ["NR"]}}
ENDED: Json = {"log_type_filter": {"types": ["TcpConnectionEnd"]}}
CONNECTED: Json = {"log_type_filter": {"types": ["TcpUpstreamConnected"]}}
MODES = {"inbound": "SERVER", "outbound": "CLIENT"}

TAGS = {
    "peer": "%DOWNSTREAM_PEER_URI_SAN%",
    "local": "%DOWNSTREAM_LOCAL_URI_SAN%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "tls": "%DOWNSTREAM_TLS_VERSION%",
    "upstream_peer": "%UPSTREAM_PEER_URI_SAN%",
    "upstream": "%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "cluster": "%UPSTREAM_CLUSTER_RAW%",
    "response_flags": "%RESPONSE_FLAGS%",
}
HTTP_TAGS = {"response_code": "%RESPONSE_CODE%", "grpc": "%GRPC_STATUS_NUMBER%", "protocol": "%PROTOCOL%"}
Chosen = tuple[str, str | None, str]
"""(path, format, CEL expression)"""


class Logs:
    """The access logs of one pod's proxy. `side` is "inbound" or "outbound"."""

    def __init__(self, world: World, pod: Obj) -> None:
        self.world, self.pod = world, pod

    def http(self, side: str, service: str = "") -> list[Json]:
        """For a connection manager."""
        return self._files(side) + [_stats(side, service, TAGS | HTTP_TAGS, {"requests_total": 1})]

    def tcp(self, side: str, service: str = "") -> list[Json]:
        """For a TCP proxy. Connections are logged when they end, and counted when they begin and end."""
        opened: dict[str, int | str] = {"tcp_connections_opened_total": 1}
        closed: dict[str, int | str] = {
            "tcp_connections_closed_total": 1,
            "tcp_received_bytes_total": "%BYTES_RECEIVED%",
            "tcp_sent_bytes_total": "%BYTES_SENT%",
        }
        return [
            *self._files(side, ENDED),
            _stats(side, service, TAGS, opened) | {"filter": CONNECTED},
            _stats(side, service, TAGS, closed) | {"filter": ENDED},
        ]

    def listener(self, side: str) -> list[Json]:
        """For a listener: only what no filter chain took."""
        return [] if self.world.mesh.get("disableEnvoyListenerLog") else self._files(side, NO_ROUTE)

    def _files(self, side: str, *conditions: Json) -> list[Json]:
        chosen, path = self.configured(side), self.world.mesh.get("accessLogFile")
        if chosen is None:
            chosen = [(path, None, "")] if path else []
        return [_file(self.world.mesh, *one, conditions) for one in chosen]

    def configured(self, side: str) -> list[Chosen] | None:
        """What Telemetry objects ask for; None where none speaks of logging."""
        return _configured(self.world, side, namespace_of(self.pod), labels(self.pod))


def _file(mesh: Obj, path: str, text: str | None, expression: str, conditions: tuple[Json, ...]) -> Json:
    given = mesh.get("accessLogFormat")
    if text is None and mesh.get("accessLogEncoding") == "JSON":
        own = yaml.safe_load(given) if given else None
        form: Json = {"json_format": own if isinstance(own, dict) else JSON_FORMAT}
    else:
        form = envoy.text((text or given or TEXT_FORMAT).removesuffix("\n") + "\n")
    out = envoy.extension("access_loggers.file.v3.FileAccessLog", path=path, log_format=form)
    if expression:
        cel = envoy.extension("access_loggers.filters.cel.v3.ExpressionFilter", expression=expression)
        conditions += ({"extension_filter": cel},)
    if conditions:
        out["filter"] = conditions[0] if len(conditions) == 1 else {"and_filter": {"filters": conditions}}
    return out


@remembered
def _configured(world: World, side: str, namespace: str, marks: dict[str, str]) -> list[Chosen] | None:
    """mergeLogs: a level that names providers for this side replaces the ones above; a Telemetry that says nothing of
    this side leaves it to the mesh's accessLogFile."""
    found = world.levels("Telemetry", namespace, marks).values()
    levels = [spec(t)["accessLogging"] for t in found if spec(t).get("accessLogging")]
    defaults: list[str] = at(world.mesh, "defaultProviders", "accessLogging") or []
    chosen, filters = defaults, dict[str, str]()
    wanted: dict[str, str | None] = {} if levels else dict.fromkeys(defaults, "")
    for level in levels:
        named: list[str] = []
        for entry in (e for e in level if _concerns(e, side)):
            filters |= dict.fromkeys(_providers(entry), at(entry, "filter", "expression") or "")
            named += _providers(entry)
        chosen = named or chosen
    parents = defaults
    for entry in (e for level in levels for e in level):
        parents = _providers(entry) or parents
        for name in parents:
            if name in chosen and _concerns(entry, side):
                wanted[name] = None if entry.get("disabled") else filters.get(name, "")
    known = [(_writer(world, name), expression) for name, expression in sorted(wanted.items())]
    if not any(writer for writer, _ in known):
        return None
    return [(*writer, expression) for writer, expression in known if writer and expression is not None]


def _concerns(entry: Obj, side: str) -> bool:
    return (at(entry, "match", "mode") or "CLIENT_AND_SERVER") in ("CLIENT_AND_SERVER", MODES[side])


def _providers(entry: Obj) -> list[str]:
    return [p["name"] for p in entry.get("providers") or []]


def _writer(world: World, name: str) -> tuple[str, str | None] | None:
    """A provider's file and format; None where nothing of that name writes files."""
    for provider in world.mesh.get("extensionProviders") or []:
        if provider.get("name", "").lower() == name.lower() and "envoyFileAccessLog" in provider:
            body = provider["envoyFileAccessLog"]
            return at(body, "path") or "/dev/stdout", at(body, "logFormat", "text")
    return ("/dev/stdout", None) if name.lower() == "envoy" else None


def _stats(side: str, service: str, tags: dict[str, str], counters: dict[str, int | str]) -> Json:
    """The stats access logger: counters with the tags that metrics.py turns into Istio's labels."""
    own = {"side": side, **({"service": service} if service else {})}
    marks = [{"name": n, "value_format": v} for n, v in (tags | own).items()]
    counted = [
        {"stat": {"name": n, "tags": marks}, "value_fixed" if isinstance(v, int) else "value_format": v}
        for n, v in counters.items()
    ]
    return envoy.extension("access_loggers.stats.v3.Config", stats_scope={"prefix": "istio"}, counters=counted)
