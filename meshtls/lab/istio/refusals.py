"""Annotations that the injector does not take: the pod is refused with them (pkg/kube/inject validate.go)."""

import ipaddress
import re
from collections.abc import Callable

from meshtls.errors import InputError

BOOLEANS = {**dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True), **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False)}
QUANTITY = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+|[numkMGTPE]|[KMGTPE]i)?")
SIDECAR, STATUS, TRAFFIC = "sidecar.istio.io/", "status.sidecar.istio.io/", "traffic.sidecar.istio.io/"


def number(limit: int, text: str) -> bool:
    """Whether Go's ParseUint takes it."""
    return text.isascii() and text.isdecimal() and int(text) < limit


def _ports(text: str) -> bool:
    return not text.strip() or all(number(1 << 16, part.strip()) for part in text.split(","))


def _ranges(text: str) -> bool:
    def fine(part: str) -> bool:
        try:
            ipaddress.ip_network(part, strict=False)
        except ValueError:
            return False
        return "/" in part

    return not text or all(fine(part) for part in text.split(","))


READINESS = [f"readiness.{STATUS}{n}" for n in ("initialDelaySeconds", "periodSeconds", "failureThreshold")]
RESOURCES = [SIDECAR + n for n in ("proxyCPU", "proxyMemory", "proxyCPULimit", "proxyMemoryLimit")]
CHECKS: dict[str, Callable[[str], object]] = {
    SIDECAR + "interceptionMode": lambda v: v in ("REDIRECT", "TPROXY", "NONE"),
    STATUS + "port": lambda v: number(1 << 16, v.strip()),
    TRAFFIC + "includeOutboundIPRanges": lambda v: v == "*" or _ranges(v),
    TRAFFIC + "excludeOutboundIPRanges": _ranges,
    TRAFFIC + "includeInboundPorts": lambda v: v == "*" or _ports(v),
    TRAFFIC + "excludeInboundPorts": _ports,
    TRAFFIC + "excludeOutboundPorts": _ports,
    "prometheus.istio.io/merge-metrics": lambda v: v in BOOLEANS,
    **dict.fromkeys(READINESS, lambda v: number(1 << 32, v)),
    **dict.fromkeys(RESOURCES, QUANTITY.fullmatch),
}


def check(notes: dict[str, str]) -> None:
    """Raises InputError for a value that the injector cannot use."""
    bad = sorted(name for name, value in notes.items() if name in CHECKS and not CHECKS[name](value))
    if bad:
        found = "".join(f"\n\t* invalid value '{notes[name]}' for annotation '{name}'" for name in bad)
        raise InputError(f"failed to run injection template: {len(bad)} error{'s' * (len(bad) > 1)} occurred:{found}")
