"""Which DestinationRule governs a host for a client (pilot/pkg/model destination_rule.go and
PushContext.destinationRule).

Looked up in the client's namespace (unless that is the root namespace), then among those the service's namespace
exports, then among those the root namespace exports: the first place that knows the host ends the search, and there
the most specific host. Rules for one host in one namespace merge when their exportTo agree: subsets join, the oldest
policy stays.
"""

import msgspec

from meshtls.lab.istio import hosts
from meshtls.lab.istio.objects import Obj, Service, at, namespace_of, spec
from meshtls.lab.istio.world import World, remembered

Table = dict[str, list["Rule"]]
FIELDS = ("connectionPool", "outlierDetection", "loadBalancer", "tls")


class Rule(msgspec.Struct):
    """A rule, merged with others of its host as they come; `selector` None without workloadSelector."""

    namespace: str
    export_to: frozenset[str]
    selector: dict[str, str] | None
    body: Obj


def lookup(world: World, client: str, service: Service) -> list[Rule]:
    """The rules for a service as a client namespace sees it."""
    local, exported = index(world)
    found = hosts.most_specific(service.hostname, local.get(client, {}))
    if found is not None:
        return found
    for home in (service.namespace, world.root_namespace):
        candidates = hosts.most_specific(service.hostname, exported.get(home, {})) or []
        shown = [r for r in candidates if not r.export_to or r.export_to & {"*", client}]
        if shown:
            return shown
    return []


@remembered
def index(world: World) -> tuple[dict[str, Table], dict[str, Table]]:
    """The world's rules, merged, by home namespace: those that count for clients in it (of the root namespace, its
    private ones), and those exported (setDestinationRules)."""
    local: dict[str, Table] = {}
    exported: dict[str, Table] = {}
    private_by_default = "." in (world.mesh.get("defaultDestinationRuleExportTo") or ())
    for obj in sorted(world.kind("DestinationRule"), key=lambda r: spec(r).get("workloadSelector") is None):
        home, body = namespace_of(obj), spec(obj)
        selector = body.get("workloadSelector")
        chosen = None if selector is None else selector.get("matchLabels") or {}
        export = frozenset(body.get("exportTo") or () if selector is None else ".")
        host = hosts.resolve(body.get("host", ""), home, world.config_domain)
        rule = Rule(home, export, chosen, {**body, "host": host})
        private = export in ({"."}, {home}) or (not export and private_by_default)
        if private if home == world.root_namespace else not export or export & {"*", ".", home}:
            _merge(local.setdefault(home, {}), rule)
        if not private:
            _merge(exported.setdefault(home, {}), rule)
    return local, exported


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
        first, subsets = other.body.get("trafficPolicy"), other.body.get("subsets") or []
        names = {s["name"] for s in subsets}
        more = [s for s in rule.body.get("subsets") or [] if s["name"] not in names]
        policy = rule.body.get("trafficPolicy") if first is None else first
        other.body = {**other.body, "subsets": [*subsets, *more], "trafficPolicy": policy}
    if apart:
        known.append(msgspec.structs.replace(rule))


def _of_port(policy: Obj | None, number: int) -> list[Obj]:
    settings = (policy or {}).get("portLevelSettings") or []
    return [s for s in settings if at(s, "port", "number") == number]


def for_port(policy: Obj | None, number: int) -> Obj | None:
    """A traffic policy at a port: its port-level setting replaces all of it (GetPortLevelTrafficPolicy)."""
    for setting in _of_port(policy, number):
        return {k: setting[k] for k in FIELDS if k in setting} | {"replaces": True}
    return policy


def for_subset(policy: Obj | None, subset: Obj | None, number: int) -> Obj | None:
    """A rule's policy with its subset's laid over it (MergeSubsetTrafficPolicy)."""
    over = for_port(subset, number)
    if over is None or policy is None:
        return policy if over is None else over
    merged = {k: v for k, v in policy.items() if k in (*FIELDS, "tunnel", "proxyProtocol")}
    return merged | {f: over.get(f) for f in FIELDS if over.get(f) is not None or over.get("replaces")}


def passes_through(policy: Obj | None) -> bool:
    """Whether the policy's load balancer is PASSTHROUGH: the client's own address is kept."""
    return bool(at(policy, "loadBalancer", "simple") == "PASSTHROUGH")


def tls_mode(body: Obj, subset: str, number: int) -> str:
    """The TLS mode that a rule sets for a port, "" for none (tlsModeForDestinationRule)."""
    parts = [s for s in body.get("subsets") or [] if s["name"] == subset][:1]
    if subset and not parts:
        return ""
    policies = [part.get("trafficPolicy") for part in (*parts, body)]
    levels = [level for policy in policies for level in (*_of_port(policy, number), policy or {})]
    said = (level["tls"].get("mode") or "DISABLE" for level in levels if level.get("tls") is not None)
    return str(next(said, ""))
