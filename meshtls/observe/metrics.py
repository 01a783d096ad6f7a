"""Istio's metrics as a Prometheus keeps them: the questions, and its answers -> how many arrivals came how, from whom.

Only the server's own report knows how a client came: `connection_security_policy` is always `unknown` for
reporter="source". What the labels say (istio_stats.cc of istio/proxy; metrics.rs and inbound_passthrough.rs of ztunnel):

    mutual_tls                              mTLS
    none                                    sidecar: no mTLS; TLS of the application passed through counts as none too
    unknown, reporter="destination"         ztunnel: plaintext; it has no `none`
    the label is missing                    a Telemetry or a relabelling took it off: nothing is known
    response_flags="DENY", closed           ztunnel refused it; it counted it as opened before that. Sidecars count nothing
                                            that STRICT refuses
    source_workload known, no mTLS          sidecar: the client has a proxy, whose headers say who it is; ztunnel: by address
    PassthroughCluster, reporter="source"   a client's proxy sent it on as it was: in plaintext, whatever the server's mode

Series have no port and no address. A sidecar counts a plaintext TCP connection when it ends.

`increase` is the growth between samples. A series that begins within the window has grown unseen before its first
sample: a client that came once leaves a series that says 1 for ever, and grows by 0. So each family is asked twice, for
growth and for what new series began with. What is then known is at least that much; it is no exact number.
"""

import enum
import json
import math
from collections.abc import Iterable

import msgspec

from meshtls.errors import InputError

UNKNOWN = "unknown"
REQUESTS, OPENED, CLOSED = "istio_requests_total", "istio_tcp_connections_opened_total", "istio_tcp_connections_closed_total"
PASSTHROUGH = "PassthroughCluster"
# a series that had samples so long before the window is not new
_BEFORE = "1h"
# less than one arrival is rounding
_LEAST = 0.5
_ENDS = ("destination_workload_namespace", "destination_workload", "source_workload_namespace", "source_workload")
_ARRIVED = (*_ENDS, "destination_service_name", "connection_security_policy")


class Security(enum.StrEnum):
    """How arrivals came, by their labels."""

    MTLS = "MTLS"
    PLAINTEXT = "PLAINTEXT"
    REFUSED = "PLAINTEXT_REFUSED"
    UNLABELLED = "UNLABELLED"


class Flow(msgspec.Struct, frozen=True, order=True, kw_only=True):
    """About `count` arrivals at a workload. `source` is `namespace/workload`, "" where the metrics do not name it.

    `http`: requests, else connections. `service` is what the server's proxy took it for, as a name without namespace.
    """

    namespace: str
    destination: str
    source: str
    security: Security
    http: bool
    service: str = ""
    count: float


class Query(msgspec.Struct, frozen=True):
    """A question: what its answer tells, and PromQL."""

    name: str
    text: str


class _Series(msgspec.Struct, frozen=True):
    metric: dict[str, str] = {}
    value: tuple[float, str] | None = None
    values: tuple[tuple[float, str], ...] = ()


class _Data(msgspec.Struct, frozen=True):
    resultType: str = ""
    result: tuple[_Series, ...] = ()


class Answer(msgspec.Struct, frozen=True):
    """An answer of /api/v1/query or query_range. `warnings`, or `isPartial` of VictoriaMetrics: parts of it are missing."""

    status: str
    data: _Data = _Data()
    error: str = ""
    errorType: str = ""
    warnings: tuple[str, ...] = ()
    isPartial: bool = False

    @property
    def incomplete(self) -> str:
        """Why this is not the whole answer; "" where it is. Remarks about a query's style are none."""
        if said := next((text for text in self.warnings if not text.startswith("PromQL info")), ""):
            return said
        if self.isPartial:
            return "it calls its answer partial"
        odd = [series for series in self.data.result if series.value and not math.isfinite(_number(series.value[1]))]
        return f"{len(odd)} of {len(self.data.result)} values are no number" if odd else ""

    @property
    def values(self) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series of an instant query; what is no number is left out."""
        found = [(series.metric, _number(series.value[1])) for series in self.data.result if series.value]
        return [(labels, value) for labels, value in found if math.isfinite(value)]

    @property
    def first(self) -> float | None:
        """The time of the first sample of a range query, in seconds since 1970."""
        return min((series.values[0][0] for series in self.data.result if series.values), default=None)


def arrivals(namespaces: Iterable[str], window_s: int) -> tuple[Query, ...]:
    """What is asked about arrivals in these namespaces."""
    here = f'destination_workload_namespace=~"{_any(namespaces)}"'
    served = f'{{reporter=~"destination|waypoint",{here}}}'
    refused = f'{{reporter="destination",response_flags="DENY",{here}}}'
    return (
        *_counted("requests", REQUESTS + served, _ARRIVED, window_s),
        *_counted("connections", OPENED + served, _ARRIVED, window_s),
        *_counted("refused", CLOSED + refused, _ARRIVED, window_s),
    )


def passed_through(window_s: int) -> tuple[Query, ...]:
    """Who in the mesh sends in plaintext whatever the server's mode, by its own proxy's report."""
    sent = f'{{reporter="source",destination_service_name="{PASSTHROUGH}"}}'
    return (
        *_counted("requests", REQUESTS + sent, _ENDS, window_s),
        *_counted("connections", OPENED + sent, _ENDS, window_s),
    )


def scraped(addresses: Iterable[str]) -> Query:
    """Which of these addresses' proxies are scraped now."""
    return Query("scraped", f'max by (instance) (up{{instance=~"{instances(addresses)}"}})')


def instances(addresses: Iterable[str]) -> str:
    """A regular expression for these addresses' proxies: 15020 merged metrics, 15090 Envoy's own.

    Whole names, which a Prometheus looks up; for anything cleverer it would try each name that it has.
    """
    hosts = [f"[{address}]" if ":" in address else address for address in addresses]
    return _any(f"{host}:{port}" for host in hosts for port in (15020, 15090))


CLOCK = Query("clock", "vector(time())")
# since when it knows anything: as a range query over the window
KNOWS = Query("knows", "count(up)")


def _counted(name: str, series: str, by: tuple[str, ...], window_s: int) -> tuple[Query, Query]:
    """The growth of these series in the window, and what those that are new in it began with."""
    labels = ",".join(by)
    return (
        Query(name, f"sum by ({labels}) (increase({series}[{window_s}s]))"),
        Query(name, f"sum by ({labels}) (min_over_time({series}[{window_s}s]) unless last_over_time({series}[{_BEFORE}] offset {window_s}s))"),
    )


def decode(body: bytes) -> Answer:
    """An answer of the HTTP API, a refusal too. Raises InputError for what no Prometheus would say."""
    try:
        answer = msgspec.json.decode(body, type=Answer, strict=False)
        if answer.status in ("success", "error"):
            return answer
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        pass
    raise InputError("the answer is not that of a Prometheus", "is the URL that of its HTTP API, up to but without /api/v1?")


def flows(answers: Iterable[tuple[Query, Answer]]) -> tuple[Flow, ...]:
    """The arrivals in the answers to `arrivals`. What ztunnel refused is taken off what it had opened."""
    found: dict[tuple[str, str, str, str, Security, bool], float] = {}
    for query, answer in answers:
        for labels, value in answer.values:
            security = _security(labels)
            http, where = query.name == "requests", _where(labels)
            if query.name == "refused" and security is not Security.MTLS:
                _add(found, (*where, Security.REFUSED, False), value)
                value = -value
            elif query.name == "refused":
                continue
            _add(found, (*where, security, http), value)
    return tuple(sorted(
        Flow(namespace=namespace, destination=name, source=source, service=service, security=security, http=http, count=count)
        for (namespace, name, source, service, security, http), count in found.items() if count >= _LEAST
    ))  # fmt: skip


def senders_through(answers: Iterable[tuple[Query, Answer]]) -> tuple[Flow, ...]:
    """Who sends by passthrough, by the answers to `passed_through`; the destination is "" where it is not known."""
    found: dict[tuple[str, str, str, str, Security, bool], float] = {}
    for query, answer in answers:
        for labels, value in answer.values:
            _add(found, (*_where(labels), Security.PLAINTEXT, query.name == "requests"), value)
    return tuple(sorted(
        Flow(namespace=namespace if name else "", destination=name, source=source, security=security, http=http, count=count)
        for (namespace, name, source, _, security, http), count in found.items() if count >= _LEAST and source
    ))  # fmt: skip


def _add(found: dict[tuple[str, str, str, str, Security, bool], float], key: tuple[str, str, str, str, Security, bool], value: float) -> None:
    found[key] = found.get(key, 0.0) + value


def _where(labels: dict[str, str]) -> tuple[str, str, str, str]:
    """(namespace, workload, source, service), each "" where it is not known."""

    def known(name: str) -> str:
        value = labels.get(name, "")
        return "" if value == UNKNOWN else value

    source = known("source_workload")
    return (known("destination_workload_namespace"), known("destination_workload"),
            f"{known('source_workload_namespace')}/{source}" if source else "", known("destination_service_name"))  # fmt: skip


def _security(labels: dict[str, str]) -> Security:
    policy = labels.get("connection_security_policy", "")
    if not policy:
        return Security.UNLABELLED
    return Security.MTLS if policy == "mutual_tls" else Security.PLAINTEXT


def _any(names: Iterable[str]) -> str:
    """A regular expression, as text within a PromQL string, for any of these names or addresses."""
    known = {"".join(c if c.isalnum() or c in "-_:/ " or not c.isascii() else f"\\{c}" for c in name) for name in names}
    return json.dumps("|".join(sorted(known)), ensure_ascii=False)[1:-1]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
