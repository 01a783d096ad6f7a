"""Envoy v3 resources as JSON objects: the few shapes that every part of the translation shares.

Secrets come over SDS from the cluster `xds`, as `default` (the workload's certificate) and `ROOTCA`.
"""

from typing import Any

import certifi

Json = dict[str, Any]

EXT = "type.googleapis.com/envoy.extensions."
INBOUND_PORT, OUTBOUND_PORT = 15006, 15001
PROXY_MARK = 1337  # SO_MARK of everything Envoy sends: interception leaves it alone
SOCKET_OPTIONS: list[Json] = [{"level": 1, "name": 36, "int_value": PROXY_MARK, "state": "STATE_PREBIND"}]
PASSTHROUGH, BLACKHOLE, INBOUND_PASSTHROUGH = "PassthroughCluster", "BlackHoleCluster", "InboundPassthroughCluster"

HTTP_ALPN = ["istio-http/1.0", "istio-http/1.1", "istio-h2"]
TCP_ALPN = ["istio-peer-exchange", "istio"]
ALL_ALPN = ["istio", "istio-peer-exchange", *HTTP_ALPN]
PLAIN_HTTP = ["http/1.1", "h2c"]

CIPHERS = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
]


def typed(type_name: str, **fields: Any) -> Json:
    """An Any: `typed("filters.network.tcp_proxy.v3.TcpProxy", ...)`; fields that are None are left out."""
    return {"@type": EXT + type_name, **{k: v for k, v in fields.items() if v is not None}}


def extension(type_name: str, **fields: Any) -> Json:
    """An extension, named after its typed configuration."""
    return {"name": f"envoy.{type_name.partition('.v3.')[0]}", "typed_config": typed(type_name, **fields)}


def text(form: str) -> Json:
    """A format of Envoy's, as text."""
    return {"text_format_source": {"inline_string": form}}


def address(ip: str, port: int) -> Json:
    """A socket address."""
    return {"socket_address": {"address": ip, "port_value": port}}


XDS: Json = {  # where dynamic configuration comes from: REST over the cluster `xds`, long-polled
    "resource_api_version": "V3",
    "initial_fetch_timeout": "0s",
    "api_config_source": {
        "api_type": "REST",
        "transport_api_version": "V3",
        "cluster_names": ["xds"],
        "refresh_delay": "0.002s",
        "request_timeout": "65s",
    },
}
ADS: Json = {  # endpoints: one stream for all clusters of a proxy
    "api_type": "GRPC",
    "transport_api_version": "V3",
    "set_node_on_first_message_only": True,
    "grpc_services": [{"envoy_grpc": {"cluster_name": "ads"}}],
}


VERSIONS = {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"}


def _san(matcher: Json) -> Json:
    """A name that a certificate may have: SPIFFE names are URIs."""
    kind = "URI" if matcher.get("exact", "spiffe://").startswith("spiffe://") else "DNS"
    return {"san_type": kind, "matcher": matcher}


def _tls(side: str, common: Json, **fields: Any) -> Json:
    name = f"transport_sockets.tls.v3.{side}TlsContext"
    return extension(name, common_tls_context=common, **fields)


def _mesh(alpn: list[str], names: list[Json], **params: Any) -> Json:
    """What either side of mesh mTLS shows and asks for: its own certificate, and one of the names by the mesh's CA."""
    own, ca = ({"name": name, "sds_config": XDS} for name in ("default", "ROOTCA"))
    return {
        "alpn_protocols": alpn,
        "tls_params": VERSIONS | params,
        "tls_certificate_sds_secret_configs": [own],
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": [_san(n) for n in names]},
            "validation_context_sds_secret_config": ca,
        },
    }


def downstream_tls(trust_domains: list[str], mesh: Json) -> Json:
    """The server side of mesh mTLS (BuildInboundTLS)."""
    mtls = mesh.get("meshMTLS") or {}
    params = {"cipher_suites": mtls.get("cipherSuites") or CIPHERS}
    if mtls.get("minProtocolVersion") == "TLSV1_3":
        params["tls_minimum_protocol_version"] = "TLSv1_3"
    names = [{"prefix": f"spiffe://{domain}/"} for domain in trust_domains]
    return _tls("Downstream", _mesh(["h2", "http/1.1"], names, **params), require_client_certificate=True)


def mesh_tls(sni: str, sans: list[str], h2: bool) -> Json:
    """The client side of mesh mTLS: the server must prove one of `sans`."""
    return _tls("Upstream", _mesh(["istio", "h2"] if h2 else ["istio"], [{"exact": s} for s in sans]), sni=sni)


def plain_tls(settings: Json, sans: list[str], h2: bool) -> Json:
    """TLS of the application's kind (SIMPLE, MUTUAL), from files of the pod; without a CA of its own the server must be
    one that the system's CAs vouch for."""
    common: Json = {"tls_params": VERSIONS}
    if h2:
        common["alpn_protocols"] = ["h2"]
    if settings.get("mode") == "MUTUAL":
        chain, key = ({"filename": settings.get(f)} for f in ("clientCertificate", "privateKey"))
        common["tls_certificates"] = [{"certificate_chain": chain, "private_key": key}]
    if not settings.get("insecureSkipVerify"):
        names = [_san({"exact": s}) for s in settings.get("subjectAltNames") or sans]
        trusted = {"trusted_ca": {"filename": settings.get("caCertificates") or certifi.where()}}
        common["validation_context"] = trusted | ({"match_typed_subject_alt_names": names} if names else {})
    return _tls("Upstream", common, sni=settings.get("sni") or None)


RAW_BUFFER: Json = extension("transport_sockets.raw_buffer.v3.RawBuffer")


def bind(ip: str = "") -> Json:
    """How a cluster's sockets are made: marked as the proxy's own, and bound to `ip` if given."""
    source = {"source_address": {"address": ip, "port_value": 0}} if ip else {}
    return {**source, "socket_options": SOCKET_OPTIONS}


def listener_name(ip: str, port: int) -> str:
    """0.0.0.0_8080."""
    return f"{ip}_{port}"


def cidr(value: str) -> Json:
    """An address, or a range of them."""
    ip, _, length = value.partition("/")
    return {"address_prefix": ip, "prefix_len": int(length or (128 if ":" in ip else 32))}


def outbound(host: str, port: int, subset: str = "") -> str:
    """The name of a service's cluster; with `_.` for `|` it is what mesh mTLS asks for."""
    return f"outbound|{port}|{subset}|{host}"


def inbound(port: int) -> str:
    """The name of the cluster of a port of the pod itself."""
    return f"inbound|{port}||"
