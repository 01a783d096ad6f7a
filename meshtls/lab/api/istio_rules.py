"""What Istio states of its resources in CEL, in Python (which is some hundred times faster than CEL here): each rule with
the types and fields that it is for. `Type.field` is a field, `Type.field.*` the items of a list or the values of a map.
"""
import re
from collections.abc import Callable
from typing import Any

Rule = tuple[Callable[[Any], bool], str]


class CannotConvert(ValueError):
    """A value that a rule cannot even judge."""


def _duration(text: str) -> float:
    found = duration_s(text)
    if found is None:
        raise CannotConvert("type conversion error from 'string' to 'google.protobuf.Duration'")
    return found


def duration_s(text: str) -> float | None:
    """Seconds of a Go duration ("1h2m", "100ms"), None when it is none."""
    units = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
    if not re.fullmatch(r"([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+", text):
        return None
    return sum(float(number) * units[unit] for number, _,
               unit in re.findall(r"([0-9]+(\.[0-9]*)?)(ns|us|µs|ms|s|m|h)", text))


def _port_key(text: str) -> bool:
    if not re.fullmatch(r"[-+]?\d+", text):
        raise CannotConvert("type conversion error from 'string' to 'int'")
    return 0 < int(text) <= 65535


def _url(text: str) -> bool:
    if not text.startswith("/") and not re.match("[a-zA-Z][-+.a-zA-Z0-9]*:", text):
        raise CannotConvert(f'URL parse error during conversion from string: parse "{text}": invalid URI for request')
    return text.startswith(("http://", "https://"))


def _upsert(tag: dict[str, Any]) -> bool:
    if tag.get("operation") == "UPSERT" and "value" not in tag:
        raise CannotConvert("no such key: value")
    return tag.get("operation") != "UPSERT" or tag["value"] != ""


def _count(spec: dict[str, Any], *names: str) -> int:
    return sum(name in spec for name in names)


def _at_most_one(*names: str) -> Callable[[Any], bool]:
    return lambda spec: _count(spec, *names) <= 1


def _no_star(text: str) -> bool:
    return "*" not in text


def _unix(text: str) -> bool:
    return text.startswith("unix://")


def _oci(url: str) -> bool:
    scheme = re.match(r"([a-zA-Z][-+.a-zA-Z0-9]*):", url)
    return scheme is None or scheme[1] in ("http", "https", "file", "oci")


_PORT = "port must be between 1-65535"
_TABLE: tuple[tuple[str, Callable[[Any], Any], str], ...] = (
    ("PeerAuthentication",
     lambda spec: "portLevelMtls" not in spec or (spec.get("selector") or {}).get("matchLabels"),
     "portLevelMtls requires selector"),
    ("PeerAuthentication.portLevelMtls",
     lambda ports: all(map(_port_key, ports)), _PORT),
    ("Selector.matchLabels", lambda labels: all(map(_no_star, labels)), "wildcard not allowed in label key match"),
    ("Selector.matchLabels", all, "key must not be empty"),
    ("Selector.matchLabels.*", _no_star, "wildcard not allowed in label value match"),
    ("Workload.labels.*", _no_star, "wildcard is not supported in selector"),
    ("TargetRef.namespace", lambda value: not value, "cross namespace referencing is not currently supported"),
    ("AuthorizationPolicy RequestAuthentication Telemetry WasmPlugin",
     _at_most_one("selector", "targetRef", "targetRefs"), "only one of targetRefs or selector can be set"),
    ("TrafficExtension", _at_most_one("selector", "targetRefs"), "only one of targetRefs or selector can be set"),
    ("TrafficExtension", lambda spec: ("wasm" in spec) != ("lua" in spec), "exactly one of wasm or lua must be set"),
    ("WasmPlugin.url TrafficExtension.wasm.url", _oci, "url must have schema one of [http, https, file, oci]"),
    ("VmConfig.env.*", lambda env: env.get("valueFrom") != "HOST" or "value" not in env,
     "value may only be set when valueFrom is INLINE"),
    ("Telemetry.metrics.*.overrides.*.tagOverrides.*", _upsert, "value must be set when operation is UPSERT"),
    ("Telemetry.metrics.*.overrides.*.tagOverrides.*",
     lambda tag: tag.get("operation") != "REMOVE" or "value" not in tag,
     "value must not be set when operation is REMOVE"),
    ("ServerTls", _at_most_one("tlsCertificates", "credentialNames"),
     "only one of credentialNames or tlsCertificates can be set"),
    ("ServerTls", _at_most_one("credentialName", "credentialNames"),
     "only one of credentialName or credentialNames can be set"),
    ("ServerTls", _at_most_one("credentialNames", "tlsCertificates"),
     "only one of credentialName or tlsCertificates can be set"),
    ("EnvoyMatch", lambda match: (match.get("context") == "WAYPOINT") == ("waypoint" in match),
     "only support waypointMatch when context is WAYPOINT"),
    ("WorkloadGroup.probe.grpc.port WorkloadGroup.probe.httpGet.port WorkloadGroup.probe.tcpSocket.port Endpoint.ports.* "
     "EnvoyMatch.waypoint.portNumber ServiceEntry.ports.*.number ServiceEntry.ports.*.targetPort",
     lambda port: 0 < port <= 65535, _PORT),
    ("WorkloadGroup.probe.httpGet.scheme", lambda text: text in ("", "HTTP", "HTTPS"),
     "scheme must be one of [HTTP, HTTPS]"),
    ("EnvoyFilter", _at_most_one("workloadSelector", "targetRefs"),
     "only one of targetRefs or workloadSelector can be set"),
    ("Source", lambda source: not _count(source, "serviceAccounts", "notServiceAccounts") or not _count(
        source, "principals", "notPrincipals", "namespaces", "notNamespaces"),
     "Cannot set serviceAccounts with namespaces or principals"),
    ("JwtRule", _at_most_one("jwksUri", "jwks_uri", "jwks"), "only one of jwks or jwksUri can be set"),
    ("JwtRule.jwksUri JwtRule.jwks_uri", _url, "url must have scheme http:// or https://"),
    ("ServiceEntry", _at_most_one("workloadSelector", "endpoints"),
     "only one of WorkloadSelector or Endpoints can be set"),
    ("ServiceEntry", lambda spec: not any("/" in text for text in spec.get("addresses", []))
     or spec.get("resolution", "NONE") in ("STATIC", "NONE"),
     "CIDR addresses are allowed only for NONE/STATIC resolution types"),
    ("ServiceEntry", lambda spec: spec.get("resolution", "NONE") != "NONE" or "endpoints" not in spec,
     "NONE mode cannot set endpoints"),
    ("ServiceEntry", lambda spec: spec.get("resolution") != "DNS_ROUND_ROBIN" or len(spec.get("endpoints", [])) <= 1,
     "DNS_ROUND_ROBIN mode cannot have multiple endpoints"),
    ("ServiceEntry.hosts.*", lambda host: host != "*", "hostname cannot be wildcard"),
    ("ServiceEntry.ports", lambda ports: len({port.get("number") for port in ports}) == len(ports),
     "port number cannot be duplicated"),
    ("ServiceEntry.endpoints.* WorkloadEntry", lambda end: "address" in end or "network" in end, "Address is required"),
    ("Endpoint", lambda end: not _unix(end.get("address", "")) or "ports" not in end, "UDS may not include ports"),
    ("Endpoint.address", lambda text: not _unix(text) or text[7:8] in ("/", "@"),
     "UDS must be an absolute path or abstract socket"),
    ("Endpoint.address", lambda text: not (_unix(text) and text.endswith("/")), "UDS may not be a dir"),
    ("Endpoint.ports", lambda ports: all(len(key) < 63 and re.match("^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$", key)
                                         for key in ports), "port name must be valid"),
    ("d", lambda text: _duration(text) >= 0.001, "must be a valid duration greater than 1ms"))
RULES: dict[str, list[Rule]] = {}
for _owners, _holds, _message in _TABLE:
    for _owner in _owners.split():
        RULES.setdefault(_owner, []).append((_holds, _message))
