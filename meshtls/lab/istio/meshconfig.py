"""MeshConfig and ProxyConfig as they are written: YAML whose known fields have their types, over the defaults (pkg/config/mesh)."""

from functools import lru_cache
from typing import Any, Literal, TypedDict

import msgspec
import yaml

from meshtls.errors import InputError
from meshtls.lab.api.istio_rules import duration_s
from meshtls.lab.istio.objects import DOMAIN, ROOT, Obj

DEFAULTS: Obj = {"rootNamespace": ROOT, "trustDomain": DOMAIN, "enableAutoMtls": True, "accessLogFile": ""}


class ProxyConfig(TypedDict, total=False):
    """What the lab reads of the settings of one proxy."""

    drainDuration: str | None
    holdApplicationUntilProxyStarts: bool | None
    interceptionMode: Literal["REDIRECT", "TPROXY", "NONE"] | None
    proxyMetadata: dict[str, str] | None


class MeshConfig(TypedDict, total=False):
    """What the lab reads of the mesh's."""

    accessLogEncoding: Literal["TEXT", "JSON"] | None
    accessLogFile: str | None
    accessLogFormat: str | None
    caCertificates: list[dict[str, Any]] | None
    defaultConfig: ProxyConfig | None
    defaultDestinationRuleExportTo: list[str] | None
    defaultProviders: dict[str, list[str]] | None
    defaultServiceExportTo: list[str] | None
    defaultVirtualServiceExportTo: list[str] | None
    disableEnvoyListenerLog: bool | None
    discoverySelectors: list[dict[str, Any]] | None
    enableAutoMtls: bool | None
    enablePrometheusMerge: bool | None
    extensionProviders: list[dict[str, Any]] | None
    h2UpgradePolicy: Literal["DO_NOT_UPGRADE", "UPGRADE"] | None
    inboundTrafficPolicy: dict[str, str] | None
    meshMTLS: dict[str, Any] | None
    outboundTrafficPolicy: dict[str, str] | None
    protocolDetectionTimeout: str | None
    rootNamespace: str | None
    trustDomain: str | None
    trustDomainAliases: list[str] | None


@lru_cache(maxsize=64)
def read(text: str, kind: Any) -> Obj:
    """The settings in YAML text; a null is nothing said. Raises InputError."""
    try:
        given = yaml.safe_load(text) or {}
        msgspec.convert(given, kind)
        drain = (given.get("defaultConfig") or {} if kind is MeshConfig else given).get("drainDuration") or "0s"
        if duration_s(drain) is None:
            raise InputError(f"drainDuration is no duration: {drain}")
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise InputError(" ".join(str(error).split())) from error
    return {key: value for key, value in given.items() if value is not None}


def mesh(text: str, last: Obj | None = None) -> Obj:
    """The mesh's settings, or the last that could be read: so istiod does. Raises InputError where there are none."""
    try:
        return DEFAULTS | read(text, MeshConfig)
    except InputError as error:
        if last is not None:
            return last
        raise InputError(f"ConfigMap {ROOT}/istio, key mesh: {error.message}", "write MeshConfig fields, as YAML") from error


def proxy(text: str, mesh: Obj) -> Obj:
    """One proxy's settings over the mesh's defaults for all. Raises InputError."""
    base = mesh.get("defaultConfig") or {}
    try:
        given = read(text, ProxyConfig)
    except InputError as error:
        raise InputError(f"could not parse proxy config: {error.message}") from error
    both = {"proxyMetadata": (base.get("proxyMetadata") or {}) | (given.get("proxyMetadata") or {})}
    return base | given | {k: v for k, v in both.items() if v}
