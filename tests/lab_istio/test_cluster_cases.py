"""Protocols, TLS and addresses of the lab's clusters and chains, one small case for each rule of istiod's generator."""

from pathlib import Path

import certifi
import pytest
import yaml

from meshtls.lab import istio
from meshtls.lab.istio.world import World

SECTIONS = yaml.safe_load((Path(__file__).parent / "cluster_cases.yaml").read_text())
CASES = [case for section in SECTIONS.values() for case in section]
HOST = "web.my.svc.cluster.local"
OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def objects(case):
    yield {"kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"},
           "data": {"mesh": yaml.safe_dump(case.get("mesh", {}))}}  # fmt: skip
    home = {"namespace": "my", "creationTimestamp": "2026-01-01T00:00:00Z"}
    marks = {"app": "web", "security.istio.io/tlsMode": "istio"}
    notes = {"sidecar.istio.io/interceptionMode": case.get("interception", "REDIRECT")}
    containers = [{"name": "app"}, {"name": "istio-proxy"}]
    yield {"kind": "Pod", "metadata": {**home, "name": "web", "labels": marks, "annotations": notes},
           "spec": {"serviceAccountName": "web", "containers": containers}, "status": {"podIP": "10.1.0.1"}}  # fmt: skip
    ports = [
        {"name": n, "port": p, "targetPort": t, "protocol": "TCP", **({"appProtocol": more[0]} if more else {})}
        for n, p, t, *more in case["ports"]
    ]
    yield {"kind": "Service", "metadata": {**home, "name": "web"},
           "spec": {"clusterIP": "10.96.0.1", "selector": {"app": "web"}, "ports": ports}}  # fmt: skip
    yield {"kind": "EndpointSlice", "metadata": {**home, "name": "web", "labels": {"kubernetes.io/service-name": "web"}},
           "ports": [{"name": p["name"], "port": p["targetPort"]} for p in ports],
           "endpoints": [{"addresses": ["10.1.0.1"], "targetRef": {"kind": "Pod", "name": "web", "namespace": "my"}}]}  # fmt: skip
    later = {**home, "name": "x", "creationTimestamp": "2026-01-02T00:00:00Z"}
    if "rule" in case:
        yield {"kind": "DestinationRule", "metadata": later, "spec": {"host": HOST, "trafficPolicy": case["rule"]}}
    if "ingress" in case or "egress" in case:
        listeners = {"ingress": case.get("ingress", []), "egress": [*case.get("egress", []), {"hosts": ["*/*"]}]}
        yield {"kind": "Sidecar", "metadata": later, "spec": listeners}
    if "entry" in case:
        yield {"kind": "ServiceEntry", "metadata": later, "spec": {"hosts": [HOST], **case["entry"]}}


def where(endpoint):
    address = endpoint["endpoint"]["address"]
    if "pipe" in address:
        return address["pipe"]["path"]
    return f"{address['socket_address']['address']}:{address['socket_address']['port_value']}"


def said(cluster):
    options = cluster.get("typed_extension_protocol_options", {}).get(OPTIONS, {})
    sockets = [m["transport_socket"] for m in cluster.get("transport_socket_matches", [])]
    tls = cluster.get("transport_socket", sockets[0] if sockets else {}).get("typed_config", {}).get("common_tls_context", {})
    checks = tls.get("validation_context", tls.get("combined_validation_context", {}).get("default_validation_context", {}))
    ca = checks.get("trusted_ca", {}).get("filename", "none")
    return {
        "http": "auto" if "use_downstream_protocol_config" in options
        else "h2" if "http2_protocol_options" in options.get("explicit_http_config", {}) else "h1",
        "ca": "system" if ca == certifi.where() else ca,
        "alpn": tls.get("alpn_protocols"),
        "names": [n["matcher"]["exact"] for n in checks.get("match_typed_subject_alt_names", [])],
        "timeout": cluster["connect_timeout"],
        "to": [where(e) for locality in cluster.get("load_assignment", {}).get("endpoints", []) for e in locality["lb_endpoints"]],
        "from": cluster["upstream_bind_config"].get("source_address", {}).get("address", ""),
    }  # fmt: skip


def listens(listener):
    """How each declared port is handled."""
    found = set()
    for chain in listener["filter_chains"]:
        port = chain["filter_chain_match"].get("destination_port")
        if port and port != 15006:
            found.add(f"{'http' if 'http' in chain['filters'][-1]['name'] else 'tcp'} {port}")
    return sorted(found)


def leads(listener):
    """How each connection out is handled, and whether the listener has a socket of its own."""
    chains = [*listener["filter_chains"], *([listener["default_filter_chain"]] if "default_filter_chain" in listener else [])]
    kinds = ["http" if "http" in c["filters"][-1]["name"] else "tcp" for c in chains]
    sniffed = ["sniffed"] * any(c.get("filter_chain_match") for c in chains)
    return " ".join([*kinds, *sniffed, *["bound"] * listener.get("bind_to_port", True)])


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_the_configuration_is_istiods(case):
    world = World.of(objects(case))
    pod = world.pods_by_name["my", "web"]
    found = {c["name"].replace(HOST, "web"): c for c in istio.clusters(world, pod).items}
    for name, wanted in case.get("clusters", {}).items():
        got = said(found[name]) if name in found else None
        assert (got and {k: got[k] for k in wanted or ()}) == wanted, name
    if "listens" in case:
        got = {r["name"]: listens(r) for r in istio.listeners(world, pod).items if r["traffic_direction"] == "INBOUND"}
        assert got == case["listens"]
    if "leads" in case:
        found = {r["name"]: r for r in istio.listeners(world, pod).items if r["traffic_direction"] == "OUTBOUND"}
        assert {name: leads(found[name]) if name in found else None for name in case["leads"]} == case["leads"]
    if "domains" in case:
        assert world.trust_domains == case["domains"]
    assert {"clusters", "listens", "leads", "domains"} & case.keys()
