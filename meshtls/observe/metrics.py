"""Prometheus' answers about a namespace -> how many requests and connections came without mTLS, and from which workloads.

Only the destination's report knows: `connection_security_policy` is always `unknown` for reporter="source". Series have
no port and no address, refused connections are never counted, and an absent series is no zero: each query has its
control, and a control without series means that nothing is known.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from meshtls.errors import InputError

_BY = "destination_workload,source_workload,source_workload_namespace,connection_security_policy"
FAMILIES = ("istio_requests_total", "istio_tcp_connections_opened_total")


class Flow(msgspec.Struct, frozen=True, order=True):
    """`count` arrivals at a workload from a source. `source` is `namespace/workload`, "unknown" without proxy."""

    destination: str
    source: str
    mtls: bool
    count: float


class _Series(msgspec.Struct, frozen=True):
    metric: dict[str, str]
    value: tuple[float, str]


class _Data(msgspec.Struct, frozen=True):
    resultType: str = ""
    result: tuple[_Series, ...] = ()


class _Answer(msgspec.Struct, frozen=True):
    status: str
    data: _Data = _Data()
    error: str = ""


def query(family: str, namespace: str, window_s: int) -> str:
    """The instant query for all arrivals of a family in a namespace; its sum is its own control."""
    labels = f'reporter=~"destination|waypoint",destination_workload_namespace="{namespace}"'
    return f"sum by ({_BY}) (increase({family}{{{labels}}}[{window_s}s])) > 0"


def flows(body: bytes) -> tuple[Flow, ...]:
    """The arrivals in an answer of /api/v1/query. No series give none: that is no proof. Raises InputError."""
    try:
        answer = msgspec.json.decode(body, type=_Answer, strict=False)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise InputError("the answer is not that of a Prometheus query", "is the address that of Prometheus?") from error
    if answer.status != "success" or answer.data.resultType != "vector":
        raise InputError(f"Prometheus answers {answer.error or answer.data.resultType or answer.status!r}"[:300])
    return tuple(sorted(_flow(series.metric, float(series.value[1])) for series in answer.data.result))


def _flow(labels: Mapping[str, Any], count: float) -> Flow:
    workload = labels.get("source_workload") or "unknown"
    namespace = labels.get("source_workload_namespace") or "unknown"
    return Flow(
        destination=labels.get("destination_workload") or "unknown",
        source="unknown" if workload == "unknown" else f"{namespace}/{workload}",
        mtls=labels.get("connection_security_policy") == "mutual_tls",
        count=count,
    )
