"""Host names as Istio compares them (pkg/config/host): a wildcard is a leading `*`, the longer wildcard is the
narrower.

Overlap (`matches`) is symmetric, cover (`subset_of`) is not; the most specific rule for a host is its exact name, then
its longest wildcard, ties in the alphabet's order.
"""

from collections.abc import Collection, Mapping
from ipaddress import ip_address
from typing import TypeVar

V = TypeVar("V")


def wildcarded(name: str) -> bool:
    """Whether the name starts with `*`."""
    return name.startswith("*")


def subset_of(name: str, other: str) -> bool:
    """Whether every host that `name` stands for is one of `other`'s."""
    if wildcarded(other):
        return (not wildcarded(name) or len(name) >= len(other)) and name.removeprefix("*").endswith(other[1:])
    return name == other


def matches(name: str, other: str) -> bool:
    """Whether the two names overlap."""
    return subset_of(name, other) or subset_of(other, name)


def most_specific(name: str, rules: Mapping[str, V]) -> V | None:
    """The value whose host key fits `name` most narrowly (MostSpecificHostMatch), None where none does."""
    if name in rules:
        return rules[name]
    fitting = [h for h in rules if wildcarded(h) and name.removeprefix("*").endswith(h[1:])]
    return rules[min(fitting, key=lambda h: (-len(h), h))] if fitting else None


def is_ip(name: str) -> bool:
    """Whether the name is a literal IPv4 or IPv6 address."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def resolve(name: str, namespace: str, domain: str) -> str:
    """A short name as its service's full name in `namespace` (ResolveShortnameToFQDN)."""
    if not name or name == "*" or "." in name or is_ip(name):
        return name
    return f"{name}.{namespace}.svc.{domain}" if domain else f"{name}.{namespace}"


def alternatives(host: str, proxy_domain: str) -> list[str]:
    """The other Host headers that name a cluster service for a proxy in `proxy_domain` (GenerateAltVirtualHosts)."""
    out = [] if is_ip(host) else [host + "."]
    namespace, _, suffix = proxy_domain.partition(".svc.")
    short, found, tail = host.partition(".svc.")
    if not found or tail != suffix or short.count(".") < 1:
        return out
    if short.partition(".")[2] == namespace:
        return [*out, short.partition(".")[0], short + ".svc", short]
    return [*out, short, short + ".svc"]


def labels_match(selector: Mapping[str, str] | None, labels: Mapping[str, str] | None) -> bool:
    """Whether the labels carry every pair of the selector; an empty selector fits all."""
    return all((labels or {}).get(k) == v for k, v in (selector or {}).items())


def exported(to: Collection[str], home: str, namespace: str) -> bool:
    """Whether what `home` exports to these namespaces is seen in `namespace`: `*` all, `~` none, `.` its own."""
    return "*" in to or ("~" not in to and (namespace in to or ("." in to and home == namespace)))
