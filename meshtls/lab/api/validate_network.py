"""What Services, endpoints, network policies and Ingresses demand beyond their schema, as rules on their structures."""
import ipaddress
from collections.abc import Iterator

from meshtls.lab.api import field
from meshtls.lab.api.field import FieldError
from meshtls.lab.api.parts import Part, Rule, bad, each, fixed, labels, needs, never, unique

_OUTSIDE = ("NodePort", "LoadBalancer")
_BALANCED = "may only be used when `type` is 'LoadBalancer'"


def _load_balancer_ranges(part: Part) -> Iterator[FieldError]:
    if part["loadBalancerSourceRanges"] and part["type"] != "LoadBalancer":
        yield field.forbidden("spec.LoadBalancerSourceRanges", _BALANCED)
    for place, text in enumerate(part["loadBalancerSourceRanges"] or ()):
        yield from field.told(f"spec.LoadBalancerSourceRanges[{place}]", text, field.cidr)


def _addresses_kept(part: Part) -> bool:
    before = part.old or {}
    inside = "ExternalName" not in (before.get("type"), part["type"])
    return bool(part.old and inside and before.get("clusterIP") != part["clusterIP"])


def _node_port(part: Part) -> Iterator[FieldError]:
    kind = part.above["type"] if part.above else None
    if part["nodePort"] and kind not in _OUTSIDE:
        yield field.forbidden(part.at("nodePort"), f"may not be used when `type` is '{kind}'")


def _several(part: Part) -> bool:
    return part.above is not None and len(part.above["ports"]) > 1


def _endpoint(part: Part) -> Iterator[FieldError]:
    kind = part.above["addressType"] if part.above else None

    def of_family(text: str) -> list[str]:
        version = 6 if kind == "IPv6" else 4
        wrong = field.address(text)
        other = not wrong and ipaddress.ip_address(text).version != version
        return wrong or [*([f"must be an IPv{version} address"] if other else []), *field.outside(text)]
    if kind in ("FQDN", "IPv4", "IPv6"):
        yield from each("addresses", field.subdomain_1123 if kind == "FQDN" else of_family)(part)


def _host(name: str) -> list[str]:
    """A host of an Ingress, which may begin with a wildcard."""
    return field.wildcard(name) if "*" in name else field.subdomain_1123(name)


def _within(part: Part) -> Iterator[FieldError]:
    outer = ipaddress.ip_network(part["cidr"], strict=False) if not field.cidr(part["cidr"] or "") else None

    def strictly(text: str) -> list[str]:
        if (wrong := field.cidr(text)) or outer is None:
            return wrong
        inner = ipaddress.ip_network(text, strict=False)
        fine = inner.version == outer.version and inner != outer and inner.subnet_of(outer)  # type: ignore[arg-type]
        return [] if fine else ["must be a strict subset of `cidr`"]
    if outer:
        yield from each("except", strictly)(part)


RULES: dict[str, tuple[Rule, ...]] = {
    "V1ServiceSpec": (
        never("clusterIPs", "may not be set for ExternalName services",
              lambda one: one["type"] == "ExternalName" and (one["clusterIP"] or one["clusterIPs"])),
        bad("clusterIPs", "must be empty when `clusterIP` is not specified",
            lambda one: one["type"] != "ExternalName" and one["clusterIPs"] and not one["clusterIP"]),
        bad("clusterIPs", "first value must match `clusterIP`", lambda one: (
            one["type"] != "ExternalName" and one["clusterIP"] and one["clusterIPs"]
            and one["clusterIPs"][0] != one["clusterIP"])),
        lambda one: [field.invalid("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {one['type']} services")]
        if one["clusterIP"] == "None" and one["type"] in _OUTSIDE else [],
        never("loadBalancerClass", _BALANCED, lambda one: one["loadBalancerClass"] and one["type"] != "LoadBalancer"),
        bad("healthCheckNodePort", "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
            lambda one: one["healthCheckNodePort"] and (one["type"], one["externalTrafficPolicy"]) != ("LoadBalancer", "Local")),
        unique("ipFamilies", lambda family: family),
        each("ipFamilies", lambda family: [] if family == "IPv4" else ["not configured on this cluster"]),
        bad("ipFamilyPolicy", "this cluster is not configured for dual-stack services",
            lambda one: one["ipFamilyPolicy"] == "RequireDualStack"),
        bad("externalTrafficPolicy", "may only be set for externally-accessible services", lambda one: (
            one["externalTrafficPolicy"] and one["type"] not in _OUTSIDE and not one["externalIPs"])),
        each("externalIPs", field.outside), _load_balancer_ranges,
        needs("ports", when=lambda one: (
            not one["ports"] and one["clusterIP"] != "None" and one["type"] != "ExternalName")),
        needs("externalName", when=lambda one: one["type"] == "ExternalName" and not one["externalName"]),
        unique("ports", lambda port: {key: port[key] for key in ("port", "protocol") if key in port}),
        labels("selector"),
        bad("clusterIPs[0]", "may not change once set", _addresses_kept,
            value=lambda one: [one["clusterIP"]] if one["clusterIP"] else None)),
    "V1ServicePort": (
        bad("port", "must be between 1 and 65535, inclusive", lambda port: port["port"] is None, value=lambda port: 0),
        needs("name", when=lambda port: _several(port) and not port["name"]), _node_port, each("targetPort", field.port)),
    "V1EndpointSlice": (fixed("addressType"),),
    "V1Endpoint": (needs("addresses", "must contain at least 1 address"), _endpoint),
    "V1EndpointSubset": (needs("", "must specify `addresses` or `notReadyAddresses`",
                               lambda one: not one["addresses"] and not one["notReadyAddresses"]),),
    "V1EndpointAddress": (each("ip", lambda text: field.address(text) + field.outside(text), blank=True),),
    "CoreV1EndpointPort": (needs("name", when=lambda port: _several(port) and not port["name"]),
                           each("port", field.port_number)),
    "V1NetworkPolicySpec": (
        bad("policyTypes", "may not specify more than two policyTypes", lambda one: len(one["policyTypes"] or ()) > 2),),
    "V1NetworkPolicyPeer": (
        needs("", "must specify a peer", lambda peer: not peer.value),
        never("", "may not specify both ipBlock and another peer",
              lambda peer: peer["ipBlock"] is not None and len(peer.value) > 1)),
    "V1IPBlock": (each("cidr", field.cidr, blank=True), _within),
    "V1NetworkPolicyPort": (
        each("port", field.port, blank=True),
        bad("endPort", "may not be specified when `port` is not specified",
            lambda one: one["endPort"] is not None and one["port"] is None),
        bad("endPort", "may not be specified when `port` is non-numeric",
            lambda one: one["endPort"] is not None and isinstance(one["port"], str)),
        bad("endPort", "must be greater than or equal to `port`",
            lambda one: one["endPort"] is not None and isinstance(one["port"], int) and one["endPort"] < one["port"],
            value=lambda one: one["port"])),
    "V1IngressSpec": (bad("", "either `defaultBackend` or `rules` must be specified",
                          lambda one: not one["rules"] and not one["defaultBackend"], value=lambda one: None),),
    "V1IngressRule": (bad("host", "must be a DNS name, not an IP address",
                          lambda rule: rule["host"] and not field.address(rule["host"])), each("host", _host)),
    "V1IngressTLS": (each("hosts", _host),),
    "V1HTTPIngressPath": (
        needs("pathType", "pathType must be specified", lambda one: one["pathType"] is None),
        bad("path", "must be an absolute path",
            lambda one: one["pathType"] in ("Exact", "Prefix") and not (one["path"] or "").startswith("/"),
            value=lambda one: one["path"] or ""))}
