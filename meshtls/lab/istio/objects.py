"""Objects as the translation reads them: plain dicts, and the services, ports and endpoints made of them.

A port's protocol is what its appProtocol or its name's prefix declares (pkg/config/kube); without either the proxy
looks at the first bytes, except on ports of protocols where the server speaks first.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

Obj = dict[str, Any]

ROOT = "istio-system"
DOMAIN = "cluster.local"

HTTP = frozenset({"http", "http2", "http_proxy", "grpc", "grpc-web"})
HTTP2 = frozenset({"http2", "grpc", "grpc-web"})
TLS = frozenset({"https", "tls"})
TCP = frozenset({"tcp", "https", "tls", "mongo", "redis", "mysql"})
AUTO = ""  # protocol.Unsupported: the proxy looks at the first bytes
APP_PROTOCOLS = {"kubernetes.io/h2c": "http2", "kubernetes.io/ws": "http", "kubernetes.io/wss": "https"}
SNIFFED_BREAKS = frozenset({25, 53, 3306, 27017})  # ports of server-first protocols are never sniffed


class Port(msgspec.Struct, frozen=True):
    """A service port; `protocol` is one of HTTP, TCP, "udp" or AUTO."""

    name: str
    number: int
    protocol: str


class Endpoint(msgspec.Struct, frozen=True):
    """One address behind a service port; `tls` is the pod's tlsMode label ("disabled" without), `account` its SPIFFE
    name. Only what is `ready` is balanced to; what is not counts all the same where TLS is inferred."""

    address: str
    port: int
    labels: dict[str, str]
    namespace: str
    account: str
    tls: str
    ready: bool = True


class Service(msgspec.Struct, frozen=True):
    """A service of either registry. `resolution`: EDS, DNS, DNS_ROUND_ROBIN, PASSTHROUGH or ALIAS; `addresses[0]` may
    be 0.0.0.0 (none) or a CIDR."""

    source: Obj
    hostname: str
    namespace: str
    kubernetes: bool
    resolution: str
    ports: tuple[Port, ...]
    addresses: tuple[str, ...]
    export_to: frozenset[str]
    selector: dict[str, str]
    accounts: tuple[str, ...]
    external: bool
    alias_for: str = ""

    @property
    def created(self) -> str:
        """When the object was."""
        return age(self.source)[0]

    def port(self, number: int) -> Port | None:
        """The port with that number."""
        return next((p for p in self.ports if p.number == number), None)


class Target(msgspec.Struct, frozen=True):
    """A port of a pod that a service names."""

    service: Service
    port: Port
    number: int


def labels(obj: Obj) -> dict[str, str]:
    """The object's labels."""
    return obj["metadata"].get("labels") or {}


def annotations(obj: Obj) -> dict[str, str]:
    """The object's annotations."""
    return obj["metadata"].get("annotations") or {}


def namespace_of(obj: Obj) -> str:
    """The object's namespace."""
    return str(obj["metadata"].get("namespace", ""))


def name_of(obj: Obj) -> str:
    """The object's name."""
    return str(obj["metadata"]["name"])


def age(obj: Obj) -> tuple[str, str, str]:
    """Sorts configuration oldest first, then by name and namespace (configCompareByCreationTime)."""
    return str(obj["metadata"].get("creationTimestamp") or ""), name_of(obj), namespace_of(obj)


def spec(obj: Obj) -> Obj:
    """The object's spec."""
    return obj.get("spec") or {}


def at(obj: Obj | None, *path: str) -> Any:
    """What stands at the end of a path of fields, None where a part of it is missing."""
    for field in path:
        obj = (obj or {}).get(field)
    return obj


def overlaid(base: Any, over: Any, keys: Mapping[str, str] | None = None, key: str = "") -> Any:
    """One object laid over another. Lists in fields of `keys` are merged by the key there, as a strategic merge patch does;
    others are replaced."""
    if isinstance(base, dict) and isinstance(over, dict):
        both = {k: overlaid(base[k], v, keys, (keys or {}).get(k, "")) for k, v in over.items() if k in base}
        return base | over | both
    if key and isinstance(base, list) and isinstance(over, list):
        theirs = {item.get(key): item for item in over}
        mine = {item.get(key) for item in base}
        merged = [{**item, **theirs.get(item.get(key), {})} for item in base]
        return merged + [item for item in over if item.get(key) not in mine]
    return over


def protocol_of(number: int, name: str, transport: str = "TCP", app_protocol: str | None = None) -> str:
    """The protocol that a port's name or appProtocol declares (pkg/config/kube ConvertProtocol)."""
    if transport == "UDP":
        return "udp"
    text = (name if app_protocol is None else APP_PROTOCOLS.get(app_protocol, app_protocol)).lower()
    prefix = "grpc-web" if text.startswith("grpc-web") else text.partition("-")[0]
    found = parse(prefix)
    return "tcp" if found == AUTO and number in SNIFFED_BREAKS else found


def parse(name: str) -> str:
    """The protocol of that name, AUTO where it is none. A TCP port may be called `udp`: then the proxy does not have it."""
    lowered = name.lower()
    return lowered if lowered in HTTP | TCP | {"udp"} else AUTO


def pod_ip(pod: Obj) -> str:
    """The pod's first address, "" while it has none."""
    return str(at(pod, "status", "podIP") or "")


def is_ready(pod: Obj) -> bool:
    """Whether the pod does not say that it is not ready."""
    return all(c.get("status") == "True" for c in at(pod, "status", "conditions") or [] if c.get("type") == "Ready")


def containers(pod: Obj) -> list[Obj]:
    """The pod's containers, then its native sidecars (init containers that are restarted always)."""
    body = spec(pod)
    return [
        *(body.get("containers") or []),
        *(c for c in body.get("initContainers") or [] if c.get("restartPolicy") == "Always"),
    ]


def has_proxy(pod: Obj) -> bool:
    """Whether an Istio sidecar runs in the pod, classic or native."""
    return any(c["name"] == "istio-proxy" for c in containers(pod))


def proxy_variable(pod: Obj, name: str) -> str | None:
    """A variable that the injector wrote into the pod's proxy, None where it did not."""
    given = (v for c in containers(pod) if c["name"] == "istio-proxy" for v in c.get("env") or [])
    return next((str(v.get("value") or "") for v in given if v["name"] == name), None)


def target_port(pod: Obj, port: Obj) -> int | None:
    """The number that a Service port means in this pod, None where the pod has no such named port (FindPort).

    A named port must agree in its protocol too, compared as written: the API server writes TCP where nothing was
    said."""
    target = port.get("targetPort") or port["port"]
    if isinstance(target, int):
        return target
    wanted = (target, port.get("protocol"))
    declared = (p for c in containers(pod) for p in c.get("ports") or [])
    return next((int(p["containerPort"]) for p in declared if (p.get("name"), p.get("protocol")) == wanted), None)
