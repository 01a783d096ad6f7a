"""Which DestinationRule governs a host for a client (pilot/pkg/model destination_rule.go and
PushContext.destinationRule).

Looked up in the client's namespace (unless that is the root namespace), then among those the service's namespace
exports, then among those the root namespace exports: the first place that knows the host ends the search, and there
the most specific host. Rules for one host in one namespace merge when their exportTo agree: subsets join, the oldest
policy stays.
"""

import msgspec

from meshtls.lab.istio import hosts
from meshtls.lab.istio.objects import Obj, Service, age, namespace_of, spec
from meshtls.lab.istio.world import World

Table = dict[str, list["Rule"]]


class Rule(msgspec.Struct):
    """A rule, merged with others of its host as they come; `selector` None without workloadSelector."""

    namespace: str
    export_to: frozenset[str]
    selector: dict[str, str] | None
    body: Obj


class Index(msgspec.Struct):
    """Rules by home namespace: all that count for clients in it, those exported, and the root's private ones."""

    root: str
    local: dict[str, Table]
    exported: dict[str, Table]
    root_local: Table

    def lookup(self, client: str, service: Service) -> list[Rule]:
        """The rules for a service as a client namespace sees it."""
        near = self.root_local if client == self.root else self.local.get(client, {})
        found = hosts.most_specific(service.hostname, near)
        if found is not None:
            return found
        for home in (service.namespace, self.root):
            candidates = hosts.most_specific(service.hostname, self.exported.get(home, {})) or []
            shown = [r for r in candidates if not r.export_to or r.export_to & {"*", client}]
            if shown:
                return shown
        return []


def index(world: World) -> Index:
    """The world's rules, merged and placed (setDestinationRules)."""
    if "rules" not in world.cache:
        world.cache["rules"] = _build(world)
    found: Index = world.cache["rules"]
    return found


def _build(world: World) -> Index:
    out = Index(world.root_namespace, {}, {}, {})
    private_by_default = "." in (world.mesh.get("defaultDestinationRuleExportTo") or ())
    rules = sorted(world.kind("DestinationRule"), key=lambda r: (spec(r).get("workloadSelector") is None, age(r)))
    for obj in rules:
        home, body = namespace_of(obj), spec(obj)
        selector = body.get("workloadSelector")
        chosen = None if selector is None else selector.get("matchLabels") or {}
        export = frozenset(body.get("exportTo") or ()) if selector is None else frozenset({"."})
        rule = Rule(
            home, export, chosen, {**body, "host": hosts.resolve(body.get("host", ""), home, world.config_domain)}
        )
        if not export or export & {"*", ".", home}:
            _merge(out.local.setdefault(home, {}), rule)
        if (not export and private_by_default) or (len(export) == 1 and export & {".", home}):
            if home == out.root:
                _merge(out.root_local, rule)
        else:
            _merge(out.exported.setdefault(home, {}), rule)
    return out


def _merge(table: Table, rule: Rule) -> None:
    """Joins a rule with those of its host, or puts it beside them (mergeDestinationRule)."""
    known = table.setdefault(rule.body["host"], [])
    apart = True
    for other in known:
        if rule.export_to == other.export_to:
            apart = False
        elif other.export_to and rule.export_to >= other.export_to:
            apart = True
        else:
            apart = True
            continue
        if rule.selector is not None and other.selector is not None and rule.selector != other.selector:
            apart = True
            continue
        if (rule.selector is None) == (other.selector is None):
            apart = False
        first = other.body.get("trafficPolicy")
        names = {s["name"] for s in other.body.get("subsets") or []}
        more = [s for s in rule.body.get("subsets") or [] if s["name"] not in names]
        other.body = {
            **other.body,
            "subsets": [*(other.body.get("subsets") or []), *more],
            "trafficPolicy": rule.body.get("trafficPolicy") if first is None else first,
        }
    if apart:
        known.append(msgspec.structs.replace(rule))


def for_port(policy: Obj | None, number: int) -> Obj | None:
    """A traffic policy at a port: its port-level setting replaces all of it (GetPortLevelTrafficPolicy)."""
    for setting in (policy or {}).get("portLevelSettings") or []:
        if (setting.get("port") or {}).get("number") == number:
            return {
                k: setting[k] for k in ("connectionPool", "loadBalancer", "outlierDetection", "tls") if k in setting
            } | {"replaces": True}
    return policy


def for_subset(policy: Obj | None, subset: Obj | None, number: int) -> Obj | None:
    """A rule's policy with its subset's laid over it (MergeSubsetTrafficPolicy)."""
    over = for_port(subset, number)
    if over is None:
        return policy
    if policy is None:
        return over
    fields = ("connectionPool", "outlierDetection", "loadBalancer", "tls")
    merged = {k: v for k, v in policy.items() if k in fields or k in ("tunnel", "proxyProtocol")}
    for field in fields:
        if over.get(field) is not None or over.get("replaces"):
            merged[field] = over.get(field)
    return merged


def passes_through(policy: Obj | None) -> bool:
    """Whether the policy's load balancer is PASSTHROUGH: the client's own address is kept."""
    return ((policy or {}).get("loadBalancer") or {}).get("simple") == "PASSTHROUGH"


def tls_mode(body: Obj, subset: str, number: int) -> str:
    """The TLS mode that a rule sets for a port, "" for none (tlsModeForDestinationRule)."""

    def of(policy: Obj | None) -> str:
        mode = ((policy or {}).get("tls") or {}).get("mode") or (
            "DISABLE" if (policy or {}).get("tls") is not None else ""
        )
        for setting in (policy or {}).get("portLevelSettings") or []:
            if (setting.get("port") or {}).get("number") == number and setting.get("tls") is not None:
                return str(setting["tls"].get("mode") or "DISABLE")
        return str(mode)

    if not subset:
        return of(body.get("trafficPolicy"))
    for entry in body.get("subsets") or []:
        if entry["name"] == subset:
            return of(entry.get("trafficPolicy")) or of(body.get("trafficPolicy"))
    return ""
