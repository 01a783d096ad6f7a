"""Selection, as Istio and Kubernetes do it: labels, host names with wildcards, and who is oldest.

1. A selector matches labels that contain it; Istio's service and ServiceEntry selectors match nothing when empty.
2. `*` in a host stands for any prefix; of several wildcards the longest wins, then the first by alphabet (host.MoreSpecific).
3. Older wins: creation time in whole seconds, then name, then namespace (configCompareByCreationTime). An object without a
   creation time counts as oldest.
"""

import re
from collections.abc import Mapping
from typing import TypeVar

from meshtls.errors import InputError
from meshtls.model.objects import LabelSelector, Object, Requirement

V = TypeVar("V")
_KEY, _VALUE = r"[A-Za-z0-9][-\w./]*", r"[-\w.]*"
# one part of kubectl's -l: key in (a,b), key notin (a,b), !key, key=value, key
_PART = re.compile(
    rf"\s*(?:(?P<of>{_KEY})\s+(?P<set>in|notin)\s*\((?P<values>[^()]*)\)|!\s*(?P<absent>{_KEY})"
    rf"|(?P<key>{_KEY})\s*(?:(?P<equals>==|=|!=)\s*(?P<value>{_VALUE}))?)\s*(?:,|$)"
)


def subset(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether `labels` contain all of `selector`."""
    for key, value in selector.items():
        if labels.get(key) != value:
            return False
    return True


def matches(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """A Kubernetes label selector with expressions; an empty one matches everything, an unknown operator nothing."""
    if not subset(selector.match_labels, labels):
        return False
    for need in selector.match_expressions:
        has = need.key in labels
        match need.operator:
            case "In":
                ok = has and labels[need.key] in need.values
            case "NotIn":
                ok = not has or labels[need.key] not in need.values
            case "Exists":
                ok = has
            case "DoesNotExist":
                ok = not has
            case _:
                ok = False
        if not ok:
            return False
    return True


def selector(text: str) -> LabelSelector:
    """The selector that `text` writes as kubectl's -l does; "" matches everything. Raises InputError."""
    needs, at = [], 0
    while at < len(text):
        part = _PART.match(text, at)
        if part is None:
            raise InputError(f"{text!r} is no label selector", "write app=shop, app!=shop, app, !app or app in (shop,cart), joined by commas")
        at = part.end()
        if part["set"]:
            values = tuple(value.strip() for value in part["values"].split(","))
            needs.append(Requirement(key=part["of"], operator="In" if part["set"] == "in" else "NotIn", values=values))
        elif part["absent"] or not part["equals"]:
            needs.append(Requirement(key=part["absent"] or part["key"], operator="DoesNotExist" if part["absent"] else "Exists"))
        else:
            operator = "NotIn" if part["equals"] == "!=" else "In"
            needs.append(Requirement(key=part["key"], operator=operator, values=(part["value"],)))
    return LabelSelector(match_expressions=tuple(needs))


def age(obj: Object) -> tuple[str, str, str]:
    """Sorts the oldest first."""
    meta = obj.metadata
    return meta.creation_timestamp or "", meta.name, meta.namespace


def is_wild(host: str) -> bool:
    return host.startswith("*")


def host_overlaps(a: str, b: str) -> bool:
    """Whether two hosts, either of which may be a wildcard, have a name in common (host.Name.Matches)."""
    if is_wild(a):
        if is_wild(b):
            return b[1:].endswith(a[1:]) if len(a) < len(b) else a[1:].endswith(b[1:])
        return b.endswith(a[1:])
    return a.endswith(b[1:]) if is_wild(b) else a == b


def host_within(a: str, b: str) -> bool:
    """Whether every name of `a` is one of `b` (host.Name.SubsetOf)."""
    if is_wild(a):
        return is_wild(b) and len(a) >= len(b) and a[1:].endswith(b[1:])
    return a.endswith(b[1:]) if is_wild(b) else a == b


def most_specific(host: str, exact: Mapping[str, V], wild: Mapping[str, V]) -> V | None:
    """The value of the most specific entry that covers `host` (model.MostSpecificHostMatch)."""
    if is_wild(host):
        if host in wild:
            return wild[host]
        needle = host[1:]
    else:
        if host in exact:
            return exact[host]
        needle = host
    best = min((h for h in wild if needle.endswith(h[1:])), key=lambda h: (-len(h), h), default=None)
    return None if best is None else wild[best]


def fqdn(host: str, namespace: str, domain: str) -> str:
    """A short name in the namespace's domain; anything with a dot, `*` or an address stays (ResolveShortnameToFQDN)."""
    if not host or host == "*" or "." in host or ":" in host:
        return host
    return f"{host}.{namespace}.svc.{domain}" if domain else f"{host}.{namespace}"
