"""Istio's metrics with Istio's labels, from what a stock Envoy counts (extensions of istio/proxy: istio.stats).

Envoy's stats access logger counts with addresses, certificates and cluster names as tags (telemetry.py); here
addresses become workloads. A proxy knows its peer's workload only as in life: from headers that a client's proxy adds
to HTTP, or over mesh mTLS.
"""

import re
from collections.abc import Iterator

from meshtls.lab.istio.objects import Obj, has_proxy, labels, name_of, namespace_of, proxy_variable
from meshtls.lab.istio.world import World

QUERY = "/stats/prometheus?usedonly&filter=^istio%5C."  # what to ask Envoy's admin for
LINE = re.compile(r"^envoy_(istio_\w+)\{(.*)\} (\S+)$")
TAG = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
UNKNOWN = "unknown"


def istio_metrics(text: str, world: World, pod: Obj) -> str:
    """Prometheus text of `istio_requests_total` and `istio_tcp_*_total` for a pod, from Envoy's answer to QUERY."""
    totals: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for line in text.splitlines():
        found = LINE.match(line)
        if found:
            tags = {k: re.sub(r"\\(.)", r"\1", v) for k, v in TAG.findall(found[2])}
            key = tuple(_labels(tags, world, pod).items())
            table = totals.setdefault(found[1], {})
            table[key] = table.get(key, 0.0) + float(found[3])
    return "".join(_lines(totals))


def _lines(totals: dict[str, dict[tuple[tuple[str, str], ...], float]]) -> Iterator[str]:
    for name, table in sorted(totals.items()):
        yield f"# TYPE {name} counter\n"
        for key, value in sorted(table.items()):
            body = ",".join(f'{k}="{_escaped(v)}"' for k, v in key)
            yield f"{name}{{{body}}} {value:.0f}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _labels(tags: dict[str, str], world: World, pod: Obj) -> dict[str, str]:
    http, inbound = "response_code" in tags, tags.get("side") == "inbound"
    if inbound:
        source = world.pods_by_ip.get(tags.get("client", ""))
        if source is not None and not (has_proxy(source) and (http or tags.get("peer"))):
            source = None
        target: Obj | None = pod
        principals = tags.get("peer", ""), tags.get("local", "") if tags.get("peer") else ""
        service = tags.get("service", "")
    else:
        source, target = pod, world.pods_by_ip.get(tags.get("upstream", ""))
        mutual = tags.get("upstream_peer", "").startswith("spiffe://")
        principals = (world.account(pod), tags["upstream_peer"]) if mutual else ("", "")
        service = _service(tags.get("cluster", ""))
    out = {"reporter": "destination" if inbound else "source"}
    out |= _workload("source", source) | {"source_principal": principals[0] or UNKNOWN}
    out |= _workload("destination", target) | {"destination_principal": principals[1] or UNKNOWN}
    short, _, rest = service.partition(".")
    known = rest.endswith(".svc.cluster.local")
    out |= {
        "destination_service": service or UNKNOWN,
        "destination_service_name": short if known else service or tags.get("cluster") or UNKNOWN,
        "destination_service_namespace": rest.partition(".")[0] if known else out["destination_workload_namespace"],
        "request_protocol": ("grpc" if tags.get("grpc") else "http") if http else "tcp",
        "response_flags": tags.get("response_flags") or "-",
        "connection_security_policy": ("mutual_tls" if tags.get("peer") else "none") if inbound else UNKNOWN,
    }
    if http:
        out |= {"response_code": tags["response_code"], "grpc_response_status": tags.get("grpc", "")}
    return out


def _service(cluster: str) -> str:
    parts = cluster.split("|")
    return parts[3] if len(parts) == 4 else ""


def _workload(side: str, pod: Obj | None) -> dict[str, str]:
    """What is known of one end, `unknown` throughout where nothing is."""
    marks = labels(pod) if pod else {}
    name = proxy_variable(pod, "ISTIO_META_WORKLOAD_NAME") or name_of(pod) if pod else None
    fields = {
        "workload": name,
        "workload_namespace": namespace_of(pod) if pod else None,
        "app": marks.get("app") or marks.get("app.kubernetes.io/name"),
        "version": marks.get("version") or marks.get("app.kubernetes.io/version"),
        "canonical_service": marks.get("service.istio.io/canonical-name") or name,
        "canonical_revision": marks.get("service.istio.io/canonical-revision") or ("latest" if pod else None),
        "cluster": "Kubernetes" if pod else None,
    }
    return {f"{side}_{k}": v or UNKNOWN for k, v in fields.items()}
