"""Envoy v3 resources as JSON objects: the few shapes that every part of the translation shares.

Secrets come over SDS from the cluster `xds`, as `default` (the workload's certificate) and `ROOTCA`.
"""

from typing import Any

import certifi
import msgspec

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


class Resources(msgspec.Struct, frozen=True):
    """Whole resources of one kind, by name."""

    items: tuple[Json, ...]

    @classmethod
    def of(cls, items: list[Json]) -> "Resources":
        """In the order of their names."""
        return cls(tuple(sorted(items, key=lambda item: str(item["name"]))))


def typed(type_name: str, **fields: Any) -> Json:
    """An Any: `typed("filters.network.tcp_proxy.v3.TcpProxy", ...)`; fields that are None are left out."""
    return {"@type": EXT + type_name, **{k: v for k, v in fields.items() if v is not None}}


def extension(name: str, type_name: str, **fields: Any) -> Json:
    """A named extension with its typed configuration."""
    return {"name": name, "typed_config": typed(type_name, **fields)}


def address(ip: str, port: int) -> Json:
    """A socket address."""
    return {"socket_address": {"address": ip, "port_value": port}}


def xds_source(api: bool = True) -> Json:
    """Where dynamic configuration comes from: REST over the cluster `xds`, long-polled."""
    return {
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


def _secret(name: str) -> Json:
    return {"name": name, "sds_config": xds_source()}


def _san(matcher: Json) -> Json:
    """A name in a certificate: SPIFFE names are URIs."""
    exact = matcher.get("exact", "spiffe://")
    return {"san_type": "URI" if exact.startswith("spiffe://") else "DNS", "matcher": matcher}


def downstream_tls(trust_domains: list[str], mesh: Json) -> Json:
    """The server side of mesh mTLS (BuildInboundTLS)."""
    mtls = mesh.get("meshMTLS") or {}
    oldest = "TLSv1_3" if mtls.get("minProtocolVersion") == "TLSV1_3" else "TLSv1_2"
    sans = [_san({"prefix": f"spiffe://{domain}/"}) for domain in trust_domains]
    return extension(
        "envoy.transport_sockets.tls",
        "transport_sockets.tls.v3.DownstreamTlsContext",
        require_client_certificate=True,
        common_tls_context={
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_params": {
                "tls_minimum_protocol_version": oldest,
                "tls_maximum_protocol_version": "TLSv1_3",
                "cipher_suites": mtls.get("cipherSuites") or CIPHERS,
            },
            "tls_certificate_sds_secret_configs": [_secret("default")],
            "combined_validation_context": {
                "default_validation_context": {"match_typed_subject_alt_names": sans},
                "validation_context_sds_secret_config": _secret("ROOTCA"),
            },
        },
    )


def mesh_tls(sni: str, sans: list[str], h2: bool) -> Json:
    """The client side of mesh mTLS: the server must prove one of `sans`."""
    return extension(
        "envoy.transport_sockets.tls",
        "transport_sockets.tls.v3.UpstreamTlsContext",
        sni=sni,
        common_tls_context={
            "alpn_protocols": ["istio", "h2"] if h2 else ["istio"],
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificate_sds_secret_configs": [_secret("default")],
            "combined_validation_context": {
                "default_validation_context": {"match_typed_subject_alt_names": [_san({"exact": s}) for s in sans]},
                "validation_context_sds_secret_config": _secret("ROOTCA"),
            },
        },
    )


def plain_tls(settings: Json, sans: list[str], h2: bool) -> Json:
    """TLS of the application's kind (SIMPLE, MUTUAL), from files of the pod; without a CA of its own the server must be
    one that the system's CAs vouch for."""
    files: list[Json] = []
    verify: Json = {}
    if settings.get("mode") == "MUTUAL":
        chain, key = settings.get("clientCertificate"), settings.get("privateKey")
        files = [{"certificate_chain": {"filename": chain}, "private_key": {"filename": key}}]
    if not settings.get("insecureSkipVerify"):
        names = [_san({"exact": s}) for s in settings.get("subjectAltNames") or sans]
        verify = {"trusted_ca": {"filename": settings.get("caCertificates") or certifi.where()}}
        verify |= {"match_typed_subject_alt_names": names} if names else {}
    return extension(
        "envoy.transport_sockets.tls",
        "transport_sockets.tls.v3.UpstreamTlsContext",
        sni=settings.get("sni") or None,
        common_tls_context={
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
            **({"alpn_protocols": ["h2"]} if h2 else {}),
            **({"tls_certificates": files} if files else {}),
            **({"validation_context": verify} if verify else {}),
        },
    )


RAW_BUFFER: Json = extension("envoy.transport_sockets.raw_buffer", "transport_sockets.raw_buffer.v3.RawBuffer")


def bind(ip: str = "") -> Json:
    """How a cluster's sockets are made: marked as the proxy's own, and bound to `ip` if given."""
    source = {"source_address": {"address": ip, "port_value": 0}} if ip else {}
    return {**source, "socket_options": SOCKET_OPTIONS}


def listener_name(ip: str, port: int) -> str:
    """0.0.0.0_8080."""
    return f"{ip}_{port}"


def outbound(host: str, port: int, subset: str = "") -> str:
    """The name of a service's cluster."""
    return f"outbound|{port}|{subset}|{host}"


def outbound_sni(host: str, port: int, subset: str = "") -> str:
    """What mesh mTLS asks for."""
    return f"outbound_.{port}_.{subset}_.{host}"


def inbound(port: int) -> str:
    """The name of the cluster of a port of the pod itself."""
    return f"inbound|{port}||"
