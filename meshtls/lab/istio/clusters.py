"""Where a proxy's traffic goes: one cluster per service port and subset, its transport socket, its endpoints
(pilot/pkg/networking/core cluster*.go, pilot/pkg/xds/endpoints).

TLS towards a port is what the governing DestinationRule says; if it says nothing and auto mTLS is on, each endpoint
with a sidecar gets mesh mTLS unless its own policy is DISABLE. Where the client keeps the address it called
(headless, PASSTHROUGH) there is one answer for all: mTLS only if every endpoint has a sidecar.
"""

from collections.abc import Iterable

from meshtls.lab.istio import destinationrule, envoy, hosts, policies
from meshtls.lab.istio.envoy import Json
from meshtls.lab.istio.filters import Proxy
from meshtls.lab.istio.objects import AUTO, HTTP, HTTP2, Endpoint, Obj, Port, Service, Target, at, labels, parse, pod_ip
from meshtls.lab.istio.scope import Scope
from meshtls.lab.istio.world import World

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
UNLIMITED = 4294967295
COUNTED = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
COMMON: Json = {"connect_timeout": "10s", "circuit_breakers": {"thresholds": [dict.fromkeys(COUNTED, UNLIMITED)]}}
FOREVER = "31536000s"
MAGIC = "127.0.0.6"  # what comes from here to the pod's own ports is not intercepted again
LB = {"ROUND_ROBIN": "ROUND_ROBIN", "RANDOM": "RANDOM", "LEAST_CONN": "LEAST_REQUEST", "LEAST_REQUEST": "LEAST_REQUEST"}
VERSIONS: Json = {
    "": {"explicit_http_config": {"http_protocol_options": {}}},
    "h2": {"explicit_http_config": {"http2_protocol_options": {"max_concurrent_streams": 1024}}},
    "client's": {"use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}}},
}


def outbound(world: World, scope: Scope, pod_labels: dict[str, str]) -> list[Json]:
    """The clusters of every service in scope, and those for traffic that no service claims."""
    out: list[Json | None] = [_static(envoy.BLACKHOLE), _passthrough(envoy.PASSTHROUGH)]
    for service in scope.services.values():
        if service.resolution not in ("ALIAS", "DYNAMIC_DNS"):
            rule = scope.rule(service.hostname, pod_labels)
            ports = [p for p in service.ports if p.protocol != "udp"]
            subsets = [None, *(rule.get("subsets") or [])]
            out += [_service_cluster(world, scope, service, port, rule, subset) for port in ports for subset in subsets]
    return [cluster for cluster in out if cluster is not None]


def inbound(proxy: Proxy, targets: Iterable[Target]) -> list[Json]:
    """The clusters behind the inbound listener: the called address, from 127.0.0.6, which interception lets through;
    localhost where the mesh's inboundTrafficPolicy says so; what a Sidecar's ingress says if it has any."""
    out = [_passthrough(envoy.INBOUND_PASSTHROUGH, MAGIC)]
    oldest = {t.number: t for t in reversed(list(targets))}
    for entry in proxy.scope.ingress:
        number, protocol = entry["port"]["number"], parse(entry["port"].get("protocol", ""))
        host = oldest[number].service.hostname if number in oldest else ""
        out.append(_own(proxy, number, protocol, entry.get("defaultEndpoint") or "", host, number))
    if proxy.scope.ingress or proxy.interception == "NONE":
        return out
    local = at(proxy.world.mesh, "inboundTrafficPolicy", "mode") == "LOCALHOST"
    for number, target in sorted(oldest.items()):
        where = f"127.0.0.1:{number}" if local else ""
        out.append(_own(proxy, number, target.port.protocol, where, target.service.hostname, target.port.number))
    return out


def _own(proxy: Proxy, number: int, protocol: str, where: str, host: str, port: int) -> Json:
    """The cluster of one of the pod's own ports; `host` and `port` find the rule whose connection pool counts here too
    (buildInboundCluster)."""
    rule = proxy.scope.rule(host, labels(proxy.pod)).get("trafficPolicy") if host else None
    policy = destinationrule.for_port(rule, port)
    if at(policy, "connectionPool", "http", "useClientProtocol"):
        protocol = AUTO
    name, source = envoy.inbound(number), MAGIC
    ip, _, there = where.rpartition(":")
    if not where:
        cluster = _original_dst(name) | {"cleanup_interval": FOREVER}
    else:
        if where.startswith("unix://"):
            address: Json = {"pipe": {"path": where.removeprefix("unix://")}}
        elif ip in ("127.0.0.1", "[::1]"):
            address, source = envoy.address("127.0.0.1", int(there)), ""
        else:
            address = envoy.address(pod_ip(proxy.pod) or "127.0.0.1", int(there))
        cluster = _static(name, [{"endpoint": {"address": address}}])
    return cluster | _options(_version(protocol)) | _connects(policy, source)


def _connects(policy: Obj | None, source: str = "") -> Json:
    """How a cluster's sockets are made."""
    timeout = at(policy, "connectionPool", "tcp", "connectTimeout")
    return {"upstream_bind_config": envoy.bind(source), **({"connect_timeout": timeout} if timeout else {})}


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
        cluster = _original_dst(cluster_name)
    else:
        wanted = subset.get("labels") if subset else None
        endpoints = [
            _endpoint(scope, e, rule, name, port.number)
            for e in world.behind(service, port)
            if e.ready and hosts.labels_match(wanted, e.labels) and (service.resolution != "EDS" or hosts.is_ip(e.address))
        ]
        if service.resolution != "EDS" and not endpoints:
            return None
        kind = {"DNS": "STRICT_DNS", "DNS_ROUND_ROBIN": "LOGICAL_DNS"}.get(service.resolution, "STATIC")
        balancer = LB.get(at(policy, "loadBalancer", "simple") or "", "LEAST_REQUEST")
        cluster = _static(cluster_name, endpoints, kind) | {"lb_policy": balancer}
    version = _version(port.protocol, policy, world.mesh.get("h2UpgradePolicy") == "UPGRADE")
    settings, detected = (policy or {}).get("tls"), False
    if settings is None and world.mesh.get("enableAutoMtls") and not service.external:
        detected = _inferred_mode(world, service, port, inferred) not in ("", "DISABLE")
    settings = {"mode": "ISTIO_MUTUAL"} if detected else settings or {}
    either = detected and not keeps_address
    return cluster | _connects(policy) | _secured(world, service, port, name, settings, version, rule, either)


def _secured(
    world: World, service: Service, port: Port, subset: str, settings: Obj, version: str, rule: Obj, either: bool
) -> Json:
    """The cluster's version and transport socket; `either`: where an endpoint is not marked, plaintext
    (buildUpstreamTLSSettings, applyUpstreamTLSSettings)."""
    mode, h2 = settings.get("mode") or "DISABLE", version == "h2"
    if mode in ("SIMPLE", "MUTUAL") and _given(settings, rule):
        socket = envoy.plain_tls(settings, [] if service.kubernetes else list(service.accounts), h2)
        return _options(version, auto_sni=not settings.get("sni")) | {"transport_socket": socket}
    out = _options(version)
    if mode == "ISTIO_MUTUAL":
        sni = settings.get("sni") or envoy.outbound(service.hostname, port.number, subset).replace("|", "_.")
        socket = envoy.mesh_tls(sni, settings.get("subjectAltNames") or world.accounts(service), h2)
        out["metadata"] = {"filter_metadata": {"istio": {"alpn": http_alpn(port.protocol, version)}}}
        marked = {"name": "tlsMode-istio", "match": {"tlsMode": "istio"}, "transport_socket": socket}
        others = {"name": "tlsMode-disabled", "match": {}, "transport_socket": envoy.RAW_BUFFER}
        out |= {"transport_socket_matches": [marked, others]} if either else {"transport_socket": socket}
    return out


def _given(settings: Obj, rule: Obj) -> bool:
    """Whether the proxy has the certificate: a credential is for the workloads that a rule selects, not for everybody."""
    named = settings.get("credentialName") or ""
    return not named or named.startswith("configmap://") or "workloadSelector" in rule


def _inferred_mode(world: World, service: Service, port: Port, policy: Obj | None) -> str:
    """What auto mTLS takes a service's mode to be, "" for unknown (BestEffortInferServiceMTLSMode)."""
    if service.external:
        return ""
    if service.resolution == "PASSTHROUGH" or destinationrule.passes_through(policy):
        endpoints = world.instances(service, port.number)
        if not endpoints or any(e.tls == "disabled" for e in endpoints):
            return "DISABLE"
    return policies.namespace_mode(world, service.namespace) or "PERMISSIVE"


def http_alpn(protocol: str, version: str) -> str:
    """What an HTTP request offers inside mesh mTLS. Stock Envoy has no istio.alpn filter; the listeners set this
    instead. A sniffed port leaves the plain name out: there the client's own version decides, which the list cannot
    know."""
    if version == "h2":
        return "istio-h2,istio,h2"
    return "istio-http/1.1,istio" if protocol == AUTO else "istio-http/1.1,istio,http/1.1"


def _endpoint(scope: Scope, endpoint: Endpoint, rule: Obj, subset: str, number: int) -> Json:
    """An endpoint, marked for mesh mTLS if it takes it (mtlsChecker)."""
    mode = destinationrule.tls_mode(rule, subset, number)
    mtls = endpoint.tls == "istio" and mode in ("", "ISTIO_MUTUAL")
    if mtls and not mode and endpoint.namespace in scope.policed:
        policy = policies.merge(scope.world, endpoint.namespace, endpoint.labels)
        mtls = policy.for_port(endpoint.port) != "DISABLE"
    out: Json = {"endpoint": {"address": envoy.address(endpoint.address, endpoint.port)}}
    if mtls:
        out["metadata"] = {"filter_metadata": {"envoy.transport_socket_match": {"tlsMode": "istio"}}}
    return out


def _version(protocol: str, policy: Obj | None = None, upgrade: bool = False) -> str:
    """The version that the client spoke on a sniffed port, or where the connection pool asks for it; HTTP/2 where the
    port or the pool says so, or (`upgrade`) the mesh for HTTP ports (setH2Options, shouldH2Upgrade)."""
    pool = at(policy, "connectionPool", "http") or {}
    said = pool.get("h2UpgradePolicy") or "DEFAULT"
    if pool.get("useClientProtocol") or protocol == AUTO:
        return "client's"
    asked = said == "UPGRADE" or (said == "DEFAULT" and upgrade and protocol in HTTP)
    return "h2" if protocol in HTTP2 or asked else ""


def _options(version: str, auto_sni: bool = False) -> Json:
    if not version and not auto_sni:
        return {}
    named = {"upstream_http_protocol_options": {"auto_sni": True}} if auto_sni else {}
    options = envoy.typed("upstreams.http.v3.HttpProtocolOptions", **VERSIONS[version], **named)
    return {"typed_extension_protocol_options": {HTTP_OPTIONS: options}}


def _static(name: str, endpoints: list[Json] | None = None, kind: str = "STATIC") -> Json:
    groups = [{"lb_endpoints": endpoints}] if endpoints else []
    family = {} if kind == "STATIC" else {"dns_lookup_family": "V4_ONLY"}
    return {"name": name, "type": kind, "load_assignment": {"cluster_name": name, "endpoints": groups}, **COMMON, **family}


def _original_dst(name: str) -> Json:
    return {"name": name, "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", **COMMON}


def _passthrough(name: str, source: str = "") -> Json:
    return _original_dst(name) | _options("client's") | {"upstream_bind_config": envoy.bind(source)}
