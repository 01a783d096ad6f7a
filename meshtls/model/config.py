"""MeshConfig: the few mesh-wide settings that decide who speaks mTLS to whom.

Read from the ConfigMap `istio` (revision `default`) or `istio-<revision>`, key `mesh`. Defaults are Istio's
(pkg/config/mesh DefaultMeshConfig).
"""

from typing import Any

import msgspec

from meshtls.model.objects import LabelSelector, OutboundTrafficPolicy


class MeshMtls(msgspec.Struct, frozen=True, rename="camel"):
    min_protocol_version: str = ""
    cipher_suites: tuple[str, ...] = ()


class DefaultProxyConfig(msgspec.Struct, frozen=True, rename="camel"):
    """`proxyMetadata` values are environment variables of every proxy; `interceptionMode` is REDIRECT, TPROXY or NONE."""

    proxy_metadata: dict[str, str] = {}
    interception_mode: str = "REDIRECT"
    drain_duration: str = ""
    hold_application_until_proxy_starts: bool | None = None


class DefaultProviders(msgspec.Struct, frozen=True, rename="camel"):
    """Names of the providers that every proxy uses where no Telemetry says otherwise."""

    access_logging: tuple[str, ...] = ()


class MeshConfig(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """`revision` is whose istiod reads it; `ref` the ConfigMap it came from ("" where Istio's defaults are assumed)."""

    revision: str = "default"
    ref: str = ""
    root_namespace: str = "istio-system"
    trust_domain: str = "cluster.local"
    trust_domain_aliases: tuple[str, ...] = ()
    enable_auto_mtls: bool = True
    outbound_traffic_policy: OutboundTrafficPolicy = OutboundTrafficPolicy(mode="ALLOW_ANY")
    default_service_export_to: tuple[str, ...] = ()
    default_destination_rule_export_to: tuple[str, ...] = ()
    default_virtual_service_export_to: tuple[str, ...] = ()
    discovery_selectors: tuple[LabelSelector, ...] = ()
    access_log_file: str = ""
    access_log_format: str = ""
    access_log_encoding: str = ""
    disable_envoy_listener_log: bool = False
    default_providers: DefaultProviders = DefaultProviders()
    protocol_detection_timeout: str = ""
    mesh_mtls: MeshMtls = msgspec.field(name="meshMTLS", default=MeshMtls())
    default_config: DefaultProxyConfig = DefaultProxyConfig()
    extension_providers: tuple[dict[str, Any], ...] = ()
    ca_certificates: tuple[dict[str, Any], ...] = ()
