"""Where a proxy's traffic goes: one cluster per service port and subset, its transport socket, its endpoints
(pilot/pkg/networking/core cluster*.go, pilot/pkg/xds/endpoints).

TLS towards a port is what the governing DestinationRule says; if it says nothing and auto mTLS is on, each endpoint
with a sidecar gets mesh mTLS unless its own policy is DISABLE. Where the client keeps the address it called
(headless, PASSTHROUGH) there is one answer for all: mTLS only if every endpoint has a sidecar.
"""

from collections.abc import Iterable
from typing import Any

from meshtls.lab.istio import destinationrule, envoy, hosts, policies
from meshtls.lab.istio.envoy import Json
from meshtls.lab.istio.filters import Proxy
from meshtls.lab.istio.objects import AUTO, HTTP, HTTP2, Endpoint, Obj, Port, Service, Target, labels, parse, pod_ip
from meshtls.lab.istio.scope import Scope
from meshtls.lab.istio.world import World

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
UNLIMITED = 4294967295
LIMITS: Json = {
    "thresholds": [
        {
            "max_connections": UNLIMITED,
            "max_pending_requests": UNLIMITED,
            "max_requests": UNLIMITED,
            "max_retries": UNLIMITED,
        }
    ]
}
FOREVER = "31536000s"
MAGIC = "127.0.0.6"  # what comes from here to the pod's own ports is not intercepted again
LB = {"ROUND_ROBIN": "ROUND_ROBIN", "RANDOM": "RANDOM", "LEAST_CONN": "LEAST_REQUEST", "LEAST_REQUEST": "LEAST_REQUEST"}
PROTOCOLS: Json = {"http_protocol_options": {}, "http2_protocol_options": {}}


def outbound(world: World, scope: Scope, pod_labels: dict[str, str]) -> list[Json]:
    """The clusters of every service in scope, and those for traffic that no service claims."""
    out = [_static(envoy.BLACKHOLE), _passthrough(envoy.PASSTHROUGH, envoy.bind())]
    for service in scope.services.values():
        if service.resolution in ("ALIAS", "DYNAMIC_DNS"):
            continue
        rule = scope.rule(service.hostname, pod_labels)
        for port in service.ports:
            if port.protocol == "udp":
                continue
            out += filter(
                None,
                (
                    _service_cluster(world, scope, service, port, rule, subset)
                    for subset in [None, *(rule.get("subsets") or [])]
                ),
            )
    return out


def inbound(proxy: Proxy, targets: Iterable[Target]) -> list[Json]:
    """The clusters behind the inbound listener: the called address, from 127.0.0.6, which interception lets through;
    localhost where the mesh's inboundTrafficPolicy says so; what a Sidecar's ingress says if it has any."""
    out = [_passthrough(envoy.INBOUND_PASSTHROUGH, envoy.bind(MAGIC))]
    oldest = {t.number: t for t in reversed(list(targets))}
    if proxy.scope.ingress:
        for entry in proxy.scope.ingress:
            number, protocol = entry["port"]["number"], parse(entry["port"].get("protocol", ""))
            found = oldest.get(number)
            host = found.service.hostname if found else ""
            out.append(_own(proxy, number, protocol, entry.get("defaultEndpoint") or "", host, number))
        return out
    if proxy.interception == "NONE":
        return out
    local = (proxy.world.mesh.get("inboundTrafficPolicy") or {}).get("mode") == "LOCALHOST"
    for number, target in sorted(oldest.items()):
        where = f"127.0.0.1:{number}" if local else ""
        out.append(_own(proxy, number, target.port.protocol, where, target.service.hostname, target.port.number))
    return out


def _own(proxy: Proxy, number: int, protocol: str, where: str, host: str, port: int) -> Json:
    """The cluster of one of the pod's own ports; `host` and `port` find the rule whose connection pool counts here too
    (buildInboundCluster)."""
    rule = proxy.scope.rule(host, labels(proxy.pod)).get("trafficPolicy") if host else None
    policy = destinationrule.for_port(rule, port)
    follows = (((policy or {}).get("connectionPool") or {}).get("http") or {}).get("useClientProtocol")
    protocol = AUTO if follows else protocol
    name, source = envoy.inbound(number), MAGIC
    ip, _, there = where.rpartition(":")
    if not where:
        cluster = _original_dst(name, protocol) | {"cleanup_interval": FOREVER}
    else:
        if where.startswith("unix://"):
            address: Json = {"pipe": {"path": where.removeprefix("unix://")}}
        elif ip in ("127.0.0.1", "[::1]"):
            address, source = envoy.address("127.0.0.1", int(there)), ""
        else:
            address = envoy.address(pod_ip(proxy.pod) or "127.0.0.1", int(there))
        cluster = _static(name, [{"endpoint": {"address": address}}]) | _protocol(protocol)
    return _pooled(cluster | {"upstream_bind_config": envoy.bind(source)}, policy)


def _pooled(cluster: Json, policy: Obj | None) -> Json:
    pool = ((policy or {}).get("connectionPool") or {}).get("tcp") or {}
    return cluster | ({"connect_timeout": pool["connectTimeout"]} if pool.get("connectTimeout") else {})


def _service_cluster(world: World, scope: Scope, service: Service, port: Port, rule: Obj, subset: Obj | None) -> Json | None:
    """applyDestinationRule and buildSubsetCluster."""
    top = rule.get("trafficPolicy")
    policy, inferred, name = destinationrule.for_port(top, port.number), top, ""
    keeps_address = service.resolution == "PASSTHROUGH" or destinationrule.passes_through(policy)
    if subset is not None:
        name, inferred = subset["name"], subset.get("trafficPolicy")
        policy = destinationrule.for_subset(policy, inferred, port.number)
        keeps_address |= destinationrule.passes_through(policy) or destinationrule.passes_through(inferred)
    cluster_name = envoy.outbound(service.hostname, port.number, name)
    if keeps_address:
        cluster = _original_dst(cluster_name, port.protocol)
    else:
        chosen = [
            e
            for e in world.behind(service, port)
            if e.ready
            if subset is None or hosts.labels_match(subset.get("labels"), e.labels)
        ]
        endpoints = [
            _endpoint(scope, e, rule, name, port.number)
            for e in chosen
            if service.resolution != "EDS" or hosts.is_ip(e.address)
        ]
        if service.resolution != "EDS" and not endpoints:
            return None
        kind = {"DNS": "STRICT_DNS", "DNS_ROUND_ROBIN": "LOGICAL_DNS"}.get(service.resolution, "STATIC")
        wanted = ((policy or {}).get("loadBalancer") or {}).get("simple")
        cluster = _static(cluster_name, endpoints, kind) | {"lb_policy": LB.get(wanted or "", "LEAST_REQUEST")}
    cluster |= _protocol(port.protocol, policy, world.mesh.get("h2UpgradePolicy") == "UPGRADE")
    cluster["upstream_bind_config"] = envoy.bind()
    cluster = _pooled(cluster, policy)
    mode = _inferred_mode(world, service, port, inferred)
    _apply_tls(world, cluster, service, port, name, (policy or {}).get("tls"), mode, keeps_address, "workloadSelector" in rule)
    return cluster


def _inferred_mode(world: World, service: Service, port: Port, policy: Obj | None) -> str:
    """What auto mTLS takes a service's mode to be, "" for unknown (BestEffortInferServiceMTLSMode)."""
    if service.external:
        return ""
    if service.resolution == "PASSTHROUGH" or destinationrule.passes_through(policy):
        endpoints = world.instances(service, port.number)
        if not endpoints or any(e.tls == "disabled" for e in endpoints):
            return "DISABLE"
    return policies.namespace_mode(world, service.namespace) or "PERMISSIVE"


def _apply_tls(
    world: World,
    cluster: Json,
    service: Service,
    port: Port,
    subset: str,
    settings: Obj | None,
    mode: str,
    keeps_address: bool,
    for_selected: bool,
) -> None:
    """buildUpstreamTLSSettings and applyUpstreamTLSSettings."""
    h2, detected = _speaks_h2(cluster), False
    chosen = (settings or {}).get("mode") or "DISABLE" if settings is not None else ""
    if settings is None:
        detected = bool(world.mesh.get("enableAutoMtls")) and not service.external and mode not in ("", "DISABLE")
        chosen = "ISTIO_MUTUAL" if detected else "DISABLE"
    settings = settings or {}
    if chosen in ("SIMPLE", "MUTUAL"):
        named = settings.get("credentialName") or ""
        if named and not named.startswith("configmap://") and not for_selected:
            return  # a credential is given to workloads that a rule selects, not to everybody
        cluster["transport_socket"] = envoy.plain_tls(
            settings, [] if service.kubernetes else list(service.accounts), h2
        )
        if not settings.get("sni"):
            options = cluster.setdefault("typed_extension_protocol_options", {}).setdefault(HTTP_OPTIONS, _options())
            options["upstream_http_protocol_options"] = {"auto_sni": True}
        return
    if chosen != "ISTIO_MUTUAL":
        return
    sni = settings.get("sni") or envoy.outbound_sni(service.hostname, port.number, subset)
    sans = settings.get("subjectAltNames") or world.accounts(service)
    socket = envoy.mesh_tls(sni, sans, h2)
    cluster["metadata"] = {"filter_metadata": {"istio": {"alpn": http_alpn(port.protocol, h2)}}}
    if detected and not keeps_address:
        cluster["transport_socket_matches"] = [
            {"name": "tlsMode-istio", "match": {"tlsMode": "istio"}, "transport_socket": socket},
            {"name": "tlsMode-disabled", "match": {}, "transport_socket": envoy.RAW_BUFFER},
        ]
    else:
        cluster["transport_socket"] = socket


def http_alpn(protocol: str, h2: bool) -> str:
    """What an HTTP request offers inside mesh mTLS. Stock Envoy has no istio.alpn filter; the listeners set this
    instead. A sniffed port leaves the plain name out: there the client's own version decides, which the list cannot
    know."""
    if h2:
        return "istio-h2,istio,h2"
    return "istio-http/1.1,istio" if protocol == AUTO else "istio-http/1.1,istio,http/1.1"


def _endpoint(scope: Scope, endpoint: Endpoint, rule: Obj, subset: str, number: int) -> Json:
    """An endpoint, marked for mesh mTLS if it takes it (mtlsChecker)."""
    mode = destinationrule.tls_mode(rule, subset, number)
    if mode:
        mtls = mode == "ISTIO_MUTUAL" and endpoint.tls == "istio"
    else:
        mtls = (
            endpoint.tls == "istio"
            and (
                endpoint.namespace not in scope.policed
                or policies.merge(scope.world, endpoint.namespace, endpoint.labels).for_port(endpoint.port) != "DISABLE"
            )
        )
    out: Json = {"endpoint": {"address": envoy.address(endpoint.address, endpoint.port)}}
    if mtls:
        out["metadata"] = {"filter_metadata": {"envoy.transport_socket_match": {"tlsMode": "istio"}}}
    return out


def _options(**fields: Any) -> Json:
    return envoy.typed(
        "upstreams.http.v3.HttpProtocolOptions", **(fields or {"explicit_http_config": {"http_protocol_options": {}}})
    )


def _protocol(protocol: str, policy: Obj | None = None, upgrade: bool = False) -> Json:
    """The version that the client spoke on a sniffed port, or where the connection pool asks for it; HTTP/2 where the
    port or the pool says so, or (`upgrade`) the mesh for HTTP ports (setH2Options, shouldH2Upgrade)."""
    pool = ((policy or {}).get("connectionPool") or {}).get("http") or {}
    said = pool.get("h2UpgradePolicy") or "DEFAULT"
    if pool.get("useClientProtocol") or protocol == AUTO:
        options = _options(use_downstream_protocol_config=PROTOCOLS)
    elif protocol in HTTP2 or said == "UPGRADE" or (said == "DEFAULT" and upgrade and protocol in HTTP):
        options = _options(explicit_http_config={"http2_protocol_options": {"max_concurrent_streams": 1024}})
    else:
        return {}
    return {"typed_extension_protocol_options": {HTTP_OPTIONS: options}}


def _speaks_h2(cluster: Json) -> bool:
    options = cluster.get("typed_extension_protocol_options", {}).get(HTTP_OPTIONS, {})
    return "http2_protocol_options" in options.get("explicit_http_config", {})


def _static(name: str, endpoints: list[Json] | None = None, kind: str = "STATIC") -> Json:
    locality = [{"lb_endpoints": endpoints}] if endpoints else []
    out: Json = {
        "name": name,
        "type": kind,
        "connect_timeout": "10s",
        "circuit_breakers": LIMITS,
        "load_assignment": {"cluster_name": name, "endpoints": locality},
    }
    return out | ({"dns_lookup_family": "V4_ONLY"} if kind != "STATIC" else {})


def _original_dst(name: str, protocol: str) -> Json:
    return {
        "name": name,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "10s",
        "circuit_breakers": LIMITS,
    } | _protocol(protocol)


def _passthrough(name: str, source: Json) -> Json:
    return _original_dst(name, AUTO) | {"upstream_bind_config": source}
