"""Virtual services as proxies get them: short names resolved, each delegate's routes in place of the root's
(pilot/pkg/model virtualservice_controller.go, virtualservice.go).

A delegate is a virtual service without hosts; it counts where it is exported to the root's namespace. Each of its
matches must lie within one of the root's, otherwise its route is left out.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from meshtls.lab.istio import hosts
from meshtls.lab.istio.objects import Obj, name_of, namespace_of, spec
from meshtls.lab.istio.world import World, remembered

STRINGS = ("uri", "scheme", "method", "authority")
TABLES = ("headers", "withoutHeaders", "queryParams")


class VirtualService(msgspec.Struct, frozen=True, eq=False):
    """Where `hosts` lead, by kind of route (http, tcp, tls); `export_to` names the namespaces that see it."""

    namespace: str
    name: str
    hosts: list[str]
    export_to: list[str]
    routes: dict[str, list[Obj]]


@remembered
def virtual_services(world: World) -> list[VirtualService]:
    """The virtual services of the mesh gateway, oldest first, delegates merged and short names resolved."""
    found = [v for v in world.kind("VirtualService") if spec(v).get("hosts")]
    return [_resolved(world, v) for v in found if "mesh" in (spec(v).get("gateways") or ["mesh"])]


def _exported_to(world: World, obj: Obj) -> list[str]:
    return spec(obj).get("exportTo") or world.mesh.get("defaultVirtualServiceExportTo") or ["*"]


def _resolved(world: World, obj: Obj) -> VirtualService:
    home, domain = namespace_of(obj), world.config_domain
    routes: dict[str, list[Obj]] = {"http": [], "tcp": [], "tls": []}
    for kind, found in routes.items():
        for entry in spec(obj).get(kind) or []:
            if not entry.get("delegate"):
                found.append(_named(entry, home, domain))
                continue
            child = _delegate(world, entry["delegate"], home)
            if child is not None:
                merged = _merged(entry, spec(child).get("http") or [])
                found += [_named(r, namespace_of(child), domain) for r in merged]
    names = [hosts.resolve(h, home, domain) for h in spec(obj)["hosts"]]
    return VirtualService(home, name_of(obj), names, _exported_to(world, obj), routes)


def _delegate(world: World, reference: Obj, home: str) -> Obj | None:
    wanted = (reference.get("namespace") or home, reference["name"])
    for child in world.kind("VirtualService"):
        if (namespace_of(child), name_of(child)) == wanted and not spec(child).get("hosts"):
            return child if hosts.exported(_exported_to(world, child), wanted[0], home) else None
    return None


def _named(entry: Obj, namespace: str, domain: str) -> Obj:
    """A copy with full host names in its destinations."""

    def named(destination: Obj) -> Obj:
        return {**destination, "host": hosts.resolve(destination.get("host", ""), namespace, domain)}

    out = dict(entry)
    for field in ("route", "mirrors"):
        if entry.get(field):
            out[field] = [{**r, "destination": named(r.get("destination") or {})} for r in entry[field]]
    if entry.get("mirror"):
        out["mirror"] = named(entry["mirror"])
    return out


def _merged(root: Obj, routes: Iterable[Obj]) -> Iterable[Obj]:
    """MergeHTTPRoutes."""
    rest = {k: v for k, v in root.items() if k not in ("delegate", "match", "name", "route")}
    above = root.get("match") or []
    for route in routes:
        below = route.get("match") or []
        match = above or below
        if above and below:
            within = [[_both(a, b) for a in above if _within(a, b)] for b in below]
            if not all(within):
                continue
            match = [m for found in within for m in found]
        yield {**rest, **route, "match": match}


def _within(root: Obj, leaf: Obj) -> bool:
    """Whether a delegate's match asks for nothing that its root's forbids (hasConflict)."""
    pairs: list[tuple[Any, Any]] = [(root.get(k), leaf.get(k)) for k in STRINGS]
    for table in TABLES:
        pairs += [((root.get(table) or {}).get(k), v) for k, v in (leaf.get(table) or {}).items()]
    gates, own = root.get("gateways") or [], leaf.get("gateways") or []
    source = root.get("sourceLabels") or {}
    return (
        all(_narrower(a, b) for a, b in pairs)
        and bool(root.get("ignoreUriCase")) == bool(leaf.get("ignoreUriCase"))
        and (not root.get("port") or not leaf.get("port") or root["port"] == leaf["port"])
        and root.get("sourceNamespace", "") in ("", leaf.get("sourceNamespace", ""))
        and all(source.get(k, v) == v for k, v in (leaf.get("sourceLabels") or {}).items())
        and (not gates or set(own) <= set(gates))
    )


def _narrower(root: Obj | None, leaf: Obj | None) -> bool:
    """stringMatchConflict: equal strings, or a longer prefix; regular expressions never fit."""
    if root is None or leaf is None:
        return True
    if root.get("regex") or leaf.get("regex"):
        return False
    if root.get("exact"):
        return bool(leaf.get("exact") == root["exact"])
    wanted = leaf.get("prefix") or leaf.get("exact") or ""
    return bool(root.get("prefix")) and wanted.startswith(root["prefix"])


def _both(root: Obj, leaf: Obj) -> Obj:
    out = {**root, **{k: v for k, v in leaf.items() if v}}
    for table in (*TABLES, "sourceLabels"):
        both = {**(root.get(table) or {}), **(leaf.get(table) or {})}
        if both:
            out[table] = both
    return out
