"""What Istio states of its resources in CEL, in Python: RULES names the rules of a type, of a field ("Type.field"), of the
items of a list or the values of a map ("Type.field.*").
"""
import re
from collections.abc import Callable
from typing import Any

Rule = tuple[Callable[[Any], bool], str]


def _labels_plain(labels: dict[str, str]) -> bool:
    return not any("*" in key for key in labels)


def _count(spec: dict[str, Any], *names: str) -> int:
    return sum(name in spec for name in names)


def _selected(spec: dict[str, Any]) -> bool:
    return bool(((spec.get("selector") or {}).get("matchLabels")) or {})


def duration_s(text: str) -> float | None:
    """Seconds of a Go duration ("1h2m", "100ms"), None when it is none."""
    units = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
    if not re.fullmatch(r"([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+", text):
        return None
    return sum(float(number) * units[unit] for number, _,
               unit in re.findall(r"([0-9]+(\.[0-9]*)?)(ns|us|µs|ms|s|m|h)", text))


_PORT = "port must be between 1-65535"
_ONE_TARGET = ("selector", "targetRef", "targetRefs")
_TARGETS: Rule = (lambda spec: _count(spec, *_ONE_TARGET) <= 1, "only one of targetRefs or selector can be set")
_KEY_EMPTY: Rule = (lambda labels: all(labels), "key must not be empty")
_UDS: list[Rule] = [
    (lambda text: not text.startswith("unix://") or text[7:8] in ("/", "@"),
     "UDS must be an absolute path or abstract socket"),
    (lambda text: not (text.startswith("unix://") and text.endswith("/")), "UDS may not be a dir")]

_UDS_PORTS: Rule = (lambda end: not end.get("address", "").startswith("unix://") or "ports" not in end,
                    "UDS may not include ports")
ENDPOINTS = ("Endpoint", "WorkloadEntry", "WorkloadGroup.template")
"""Types that are an endpoint."""


def _port_names(ports: dict[str, int]) -> bool:
    return all(len(key) < 63 and re.match("^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$", key) for key in ports)


def _scheme_of(*known: str) -> Callable[[str], bool]:
    def holds(text: str) -> bool:
        found = re.match(r"([a-zA-Z][-+.a-zA-Z0-9]*):", text)
        return found is None or found[1] in known
    return holds


RULES: dict[str, list[Rule]] = {
    "PeerAuthentication": [(lambda spec: "portLevelMtls" not in spec or _selected(spec),
                            "portLevelMtls requires selector")],
    "PeerAuthentication.portLevelMtls": [(lambda ports: all(re.fullmatch(r"[-+]?\d+", key) and 0 < int(key) <= 65535
                                                            for key in ports), _PORT)],
    "Selector.matchLabels": [(_labels_plain, "wildcard not allowed in label key match"), _KEY_EMPTY],
    "Selector.matchLabels.*": [(lambda value: "*" not in value, "wildcard not allowed in label value match")],
    "Workload.labels.*": [(lambda value: "*" not in value, "wildcard is not supported in selector")],
    "TargetRef.namespace": [(lambda value: not value, "cross namespace referencing is not currently supported")],
    "AuthorizationPolicy": [_TARGETS], "RequestAuthentication": [_TARGETS], "Telemetry": [_TARGETS],
    "WasmPlugin": [_TARGETS], "WasmPlugin.url": [(_scheme_of("http", "https", "file", "oci"),
                                                  "url must have schema one of [http, https, file, oci]")],
    "WasmPlugin.vmConfig.env.*": [(lambda env: env.get("valueFrom") != "HOST" or "value" not in env,
                                   "value may only be set when valueFrom is INLINE")],
    "Telemetry.metrics.*.overrides.*.tagOverrides.*": [
        (lambda tag: tag.get("operation") != "UPSERT" or "value" in tag,
         "no such key: value evaluating rule: value must be set when operation is UPSERT"),
        (lambda tag: tag.get("operation") != "UPSERT" or tag.get("value") != "",
         "value must be set when operation is UPSERT"),
        (lambda tag: tag.get("operation") != "REMOVE" or "value" not in tag,
         "value must not be set when operation is REMOVE")],
    "ServerTls": [(lambda tls: _count(tls, "tlsCertificates", "credentialNames") <= 1,
                   "only one of credentialNames or tlsCertificates can be set"),
                  (lambda tls: _count(tls, "credentialName", "credentialNames") <= 1,
                   "only one of credentialName or credentialNames can be set"),
                  (lambda tls: _count(tls, "credentialNames", "tlsCertificates") <= 1,
                   "only one of credentialName or tlsCertificates can be set")],
    "EnvoyMatch": [(lambda match: (match.get("context") == "WAYPOINT") == ("waypoint" in match),
                    "only support waypointMatch when context is WAYPOINT")],
    **{f"WorkloadGroup.probe.{kind}.port": [(lambda port: 0 < port <= 65535, _PORT)]
       for kind in ("grpc", "httpGet", "tcpSocket")}, "EnvoyMatch.waypoint.portNumber": [
        (lambda port: 0 < port <= 65535, _PORT)],
    "WorkloadGroup.probe.httpGet.scheme": [(lambda text: text in ("", "HTTP", "HTTPS"),
                                            "scheme must be one of [HTTP, HTTPS]")],
    "EnvoyFilter": [(lambda spec: _count(spec, "workloadSelector", "targetRefs") <= 1,
                     "only one of targetRefs or workloadSelector can be set")],
    "Source": [(lambda source: not _count(source, "serviceAccounts", "notServiceAccounts") or not _count(
        source, "principals", "notPrincipals", "namespaces", "notNamespaces"),
                "Cannot set serviceAccounts with namespaces or principals")],
    "JwtRule": [(lambda rule: _count(rule, "jwksUri", "jwks_uri", "jwks") <= 1,
                 "only one of jwks or jwksUri can be set")],
    **dict.fromkeys(("JwtRule.jwksUri", "JwtRule.jwks_uri"), [
        (lambda text: text.startswith(("http://", "https://")), "url must have scheme http:// or https://")]),
    "ServiceEntry": [
        (lambda spec: _count(spec, "workloadSelector", "endpoints") <= 1,
         "only one of WorkloadSelector or Endpoints can be set"),
        (lambda spec: not any("/" in text for text in spec.get("addresses", []))
         or spec.get("resolution", "NONE") in ("STATIC", "NONE"),
         "CIDR addresses are allowed only for NONE/STATIC resolution types"),
        (lambda spec: spec.get("resolution", "NONE") != "NONE" or "endpoints" not in spec,
         "NONE mode cannot set endpoints"),
        (lambda spec: spec.get("resolution") != "DNS_ROUND_ROBIN" or len(spec.get("endpoints", [])) <= 1,
         "DNS_ROUND_ROBIN mode cannot have multiple endpoints")],
    "ServiceEntry.hosts.*": [(lambda host: host != "*", "hostname cannot be wildcard")],
    "ServiceEntry.ports": [(lambda ports: len({port.get("number") for port in ports}) == len(ports),
                            "port number cannot be duplicated")],
    "ServiceEntry.ports.*.number": [(lambda port: 0 < port <= 65535, _PORT)],
    "ServiceEntry.ports.*.targetPort": [(lambda port: 0 < port <= 65535, _PORT)],
    **dict.fromkeys(("Endpoint", "WorkloadEntry"), [
        (lambda end: "address" in end or "network" in end, "Address is required"), _UDS_PORTS]),
    "WorkloadGroup.template": [_UDS_PORTS],
    **{f"{owner}.address": _UDS for owner in ENDPOINTS},
    **{f"{owner}.ports": [(_port_names, "port name must be valid")] for owner in ENDPOINTS},
    **{f"{owner}.ports.*": [(lambda port: 0 < port <= 65535, _PORT)] for owner in ENDPOINTS},
    "d": [(lambda text: (duration_s(text) or 0) >= 0.001, "must be a valid duration greater than 1ms")]}
