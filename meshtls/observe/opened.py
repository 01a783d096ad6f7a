"""A ztunnel's own metrics -> the plaintext connections that are open through it now, by client and server.

No log tells of a connection that is open, and in ambient such a one outlives STRICT. But a ztunnel counts for each pair how many
it has opened and how many have ended, denied ones among these: the difference is open now. (src/proxy/metrics.rs: connection_opens
and connection_close, whose labels differ in `response_flags` only.)
"""

import re
from collections import Counter
from collections.abc import Iterable

import msgspec

_COUNTED = ("istio_tcp_connections_opened_total{", "istio_tcp_connections_closed_total{")
_LINE = re.compile(r"istio_tcp_connections_(opened|closed)_total\{(.*)\} (\d{1,18}(?:\.\d+)?(?:e\+\d{1,2})?)(?: [0-9.]+)?$", re.ASCII)
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


class Open(msgspec.Struct, frozen=True, order=True):
    """`count` plaintext connections from a client to a workload (`namespace/workload` each) that are open."""

    client: str
    server: str
    count: int


def plaintext(lines: Iterable[str], namespace: str) -> tuple[Open, ...] | None:
    """What is open into a namespace without mTLS; None where the text has no such metrics at all, or one that cannot be read: that says nothing."""
    found: Counter[tuple[str, str]] = Counter()
    known = False
    for line in lines:
        match = _LINE.match(line)
        if match is None and line.startswith(_COUNTED):
            return None
        if match is None:
            known = known or line.startswith("# TYPE istio_tcp_connections_opened")
            continue
        known = True
        labels = dict(_LABEL.findall(match[2]))
        if labels.get("reporter") != "destination" or labels.get("connection_security_policy") == "mutual_tls":
            continue
        if labels.get("destination_workload_namespace") != namespace:
            continue
        client = f"{labels.get('source_workload_namespace', 'unknown')}/{labels.get('source_workload', 'unknown')}"
        server = f"{namespace}/{labels.get('destination_workload', 'unknown')}"
        found[client, server] += int(float(match[3])) * (1 if match[1] == "opened" else -1)
    return tuple(sorted(Open(client, server, count) for (client, server), count in found.items() if count > 0)) if known else None
