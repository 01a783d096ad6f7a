"""VirtualServices as a sidecar reads them: in order of age, short names resolved, delegates put in place of their roots.

1. Only those bound to `mesh` count; exportTo decides in which namespaces; `.` is the own one.
2. Of an HTTP service the first route that takes the request decides; source labels, source namespace, port and gateways are
   known beforehand. The request asked about is a plain `GET /` without special headers.
3. A route without a destination (redirect, direct response) is answered by the client's own proxy.

(pilot/pkg/networking/core/route BuildHTTPRoutesForVirtualService, pilot/pkg/model/virtualservice.go.)
"""

import re
from collections.abc import Iterable, Mapping

import msgspec

from meshtls.model.objects import HttpMatch, HttpRoute, L4Match, L4Route, RouteDestination, StringMatch, VirtualService
from meshtls.policy.registry import Registry
from meshtls.policy.select import age, fqdn, is_wild, subset


class Target(msgspec.Struct, frozen=True, gc=False):
    """A destination of a route. `port` 0: not written."""

    host: str
    subset: str
    port: int
    weight: int


class Virtual(msgspec.Struct, frozen=True, gc=False):
    """One VirtualService, names resolved.

    `gateway_semantics`: made from Gateway API routes of the mesh; `written` then says the object and field of each HTTP route.
    """

    ref: str
    namespace: str
    hosts: tuple[str, ...]
    export_to: frozenset[str]
    http: tuple[HttpRoute, ...]
    tls: tuple[L4Route, ...]
    tcp: tuple[L4Route, ...]
    domain: str = "cluster.local"
    gateway_semantics: bool = False
    written: tuple[tuple[str, str], ...] = ()

    def destinations(self, client: str) -> dict[str, set[int]]:
        """host -> ports of everything it may route to for clients in a namespace; port 0 is every port."""
        found: dict[str, set[int]] = {}
        for route in self.http:
            namespaces = [m.source_namespace for m in route.match if m.source_namespace]
            if namespaces and client not in namespaces:
                continue
            mirrors = (m for m in (route.mirror, *(m.destination for m in route.mirrors)) if m is not None)
            for t in self.targets((*route.route, *(RouteDestination(destination=m) for m in mirrors))):
                found.setdefault(t.host, set()).add(t.port)
        for layer in (self.tcp, self.tls):
            for l4 in layer:
                for t in self.targets(l4.route):
                    found.setdefault(t.host, set()).add(t.port)
        return found

    def targets(self, routes: Iterable[RouteDestination]) -> tuple[Target, ...]:
        return tuple(
            Target(
                r.destination.host if self.gateway_semantics else fqdn(r.destination.host, self.namespace, self.domain),
                r.destination.subset,
                r.destination.port.number if r.destination.port else 0,
                r.weight,
            )
            for r in routes
        )


class Aged(msgspec.Struct, frozen=True):
    """A VirtualService with what it is sorted by among all others: time, name, namespace."""

    age: tuple[str, str, str]
    virtual: Virtual


def read(
    services: Iterable[VirtualService], default_export_to: tuple[str, ...], domain: str, derived: Iterable[Aged] = ()
) -> tuple[Virtual, ...]:
    """The mesh's VirtualServices, oldest first; `derived` are those that Gateway API routes become."""
    ordered = sorted(services, key=age)
    delegates = {(vs.namespace, vs.name): vs for vs in ordered if not vs.spec.hosts}
    found = list(derived)
    for vs in ordered:
        spec = vs.spec
        if not spec.hosts or (spec.gateways and "mesh" not in spec.gateways):
            continue
        virtual = Virtual(
            ref=vs.ref,
            namespace=vs.namespace,
            hosts=tuple(fqdn(h, vs.namespace, domain) for h in spec.hosts),
            export_to=_exports(vs, default_export_to),
            http=tuple(_delegated(vs, delegates, default_export_to, domain)),
            tls=spec.tls,
            tcp=spec.tcp,
            domain=domain,
        )
        found.append(Aged(age(vs), virtual))
    return tuple(each.virtual for each in sorted(found, key=lambda each: each.age))


def _exports(virtual: VirtualService, default: tuple[str, ...]) -> frozenset[str]:
    exports = virtual.spec.export_to or default or ("*",)
    return frozenset(virtual.namespace if to == "." else to for to in exports)


def _delegated(
    root: VirtualService,
    delegates: Mapping[tuple[str, str], VirtualService],
    default_export_to: tuple[str, ...],
    domain: str,
) -> Iterable[HttpRoute]:
    """HTTP routes, with each delegating one replaced by those of its delegate that it lets through (MergeHTTPRoutes)."""
    for route in root.spec.http:
        if route.delegate is None:
            yield route
            continue
        other = delegates.get((route.delegate.namespace or root.namespace, route.delegate.name))
        if other is None or not {"*", root.namespace} & _exports(other, default_export_to):
            continue
        for inner in other.spec.http:
            merged = _merge(route.match, inner.match)
            if merged is not None:
                resolved = tuple(
                    msgspec.structs.replace(
                        d,
                        destination=msgspec.structs.replace(
                            d.destination, host=fqdn(d.destination.host, other.namespace, domain)
                        ),
                    )
                    for d in inner.route
                )
                yield msgspec.structs.replace(inner, match=merged, route=resolved)


def _merge(outer: tuple[HttpMatch, ...], inner: tuple[HttpMatch, ...]) -> tuple[HttpMatch, ...] | None:
    """Both sets of conditions together; None where they exclude each other."""
    if not outer or not inner:
        return outer or inner
    merged: list[HttpMatch] = []
    for sub in inner:
        pairs = [_both(top, sub) for top in outer]
        found = [m for m in pairs if m is not None]
        if not found:
            return None
        merged.extend(found)
    return tuple(merged)


def _both(top: HttpMatch, sub: HttpMatch) -> HttpMatch | None:
    """One condition of a root with one of its delegate; None where the delegate's is not within the root's (hasConflict)."""
    pairs = [(top.uri, sub.uri), (top.scheme, sub.scheme), (top.method, sub.method), (top.authority, sub.authority)]
    for outer, inner in ((top.headers, sub.headers), (top.without_headers, sub.without_headers), (top.query_params, sub.query_params)):
        pairs.extend((outer.get(name), value) for name, value in inner.items())
    if not all(_narrows(outer, inner) for outer, inner in pairs):
        return None
    if top.ignore_uri_case != sub.ignore_uri_case or (top.port and sub.port and top.port != sub.port):
        return None
    if top.source_namespace and sub.source_namespace != top.source_namespace:
        return None
    if any(top.source_labels.get(k, v) != v for k, v in sub.source_labels.items()):
        return None
    if top.gateways and not set(sub.gateways) <= set(top.gateways):
        return None
    return msgspec.structs.replace(
        sub,
        uri=sub.uri or top.uri,
        method=sub.method or top.method,
        authority=sub.authority or top.authority,
        scheme=sub.scheme or top.scheme,
        port=sub.port or top.port,
        headers={**top.headers, **sub.headers},
        without_headers={**top.without_headers, **sub.without_headers},
        query_params={**top.query_params, **sub.query_params},
        source_labels={**top.source_labels, **sub.source_labels},
        source_namespace=sub.source_namespace or top.source_namespace,
        gateways=sub.gateways or top.gateways,
    )


def _narrows(top: StringMatch | None, sub: StringMatch | None) -> bool:
    """Whether what a delegate asks for is within what its root asks for (stringMatchConflict); regular expressions never are."""
    if top is None or sub is None:
        return True
    if top.regex or sub.regex:
        return False
    if top.exact:
        return sub.exact == top.exact
    inner = sub.prefix or sub.exact
    return bool(top.prefix and inner and inner.startswith(top.prefix))


def applies(match: HttpMatch, port: int, labels: Mapping[str, str], namespace: str) -> bool:
    """What is known of a match before any request: port, gateways, source (sourceMatchHTTP)."""
    if match.port and match.port != port:
        return False
    if match.gateways:
        return "mesh" in match.gateways
    return subset(match.source_labels, labels) and match.source_namespace in ("", namespace)


def applies_l4(match: L4Match, port: int, labels: Mapping[str, str], namespace: str) -> bool:
    return (
        (not match.gateways or "mesh" in match.gateways)
        and subset(match.source_labels, labels)
        and match.port in (0, port)
        and match.source_namespace in ("", namespace)
    )


def consumers(virtual: Iterable[Virtual], registry: Registry) -> set[str]:
    """The namespaces whose clients see Gateway API routes otherwise than everybody: theirs come first there.

    Not so where all that speaks of the host are such routes in the host's own namespace.
    """
    speaking: dict[str, set[str]] = {}
    wild: set[str] = set()
    derived = []
    for vs in virtual:
        if vs.gateway_semantics:
            derived.append(vs)
        for host in vs.hosts:
            (wild if is_wild(host) else speaking.setdefault(host, set())).add(vs.namespace if vs.gateway_semantics else "")
    return {
        vs.namespace
        for vs in derived
        for host in vs.hosts
        if wild or speaking.get(host) != {vs.namespace} or set(registry.by_name.get(host, ())) != {vs.namespace}
    }


def _says(want: StringMatch | None, value: str) -> bool:
    if want is None:
        return True
    if want.exact is not None:
        return value == want.exact
    if want.prefix is not None:
        return value.startswith(want.prefix)
    if want.regex is not None:
        try:
            return re.fullmatch(want.regex, value) is not None
        except re.error:
            return False
    return True


def takes(match: HttpMatch, host: str) -> bool:
    """Whether a plain `GET /` to `host` satisfies a match."""
    return (
        _says(match.uri, "/")
        and _says(match.method, "GET")
        and _says(match.scheme, "http")
        and _says(match.authority, host)
        and not match.headers
        and not match.query_params
        and not any(_says(want, "") for want in match.without_headers.values() if not _any(want))
    )


def _any(match: StringMatch) -> bool:
    """Whether a condition asks for a header's presence only."""
    return match.regex == "*" or not (match.exact or match.prefix or match.regex)


def first_route(
    virtual: Virtual, host: str, port: int, labels: Mapping[str, str], namespace: str
) -> tuple[bool, HttpRoute | None]:
    """(whether any route exists for this client on this port, the one that takes the request)."""
    some = False
    for route in virtual.http:
        if not route.match:
            return True, route
        for match in route.match:
            if not applies(match, port, labels, namespace):
                continue
            some = True
            if takes(match, host):
                return True, route
    return some, None
