"""DestinationRules: which one a client finds for a service, after those of one host are merged.

1. The client's namespace first (public and private rules), then the service's (exported ones), then the root's (exported ones).
   The first namespace with a rule for the most specific host wins entirely; clients in the root namespace begin with its
   private rules only.
2. If that rule is not exported to the client, less specific ones of the same namespace are not tried.
3. Rules of one namespace and host merge where their exportTo is equal, oldest first: subsets add up, the first trafficPolicy
   stays. Rules with a workloadSelector come first and count only in their namespace, for clients that they select.
4. What BackendTLSPolicies become comes before all others without selector; a DestinationRule of a user that merges with it takes
   precedence, setting by setting and port by port, the youngest first.

(PushContext.destinationRule, setDestinationRules, mergeDestinationRule, mergeBackendPolicyTrafficPolicy, SidecarScope.DestinationRule.)
"""

from collections.abc import Iterable, Mapping
from functools import cached_property

import msgspec

from meshtls.model.objects import DestinationRule, PortPolicy, Subset, TrafficPolicy
from meshtls.policy.backend_tls import BackendRule
from meshtls.policy.select import age, fqdn, host_within, is_wild, most_specific, subset


class Rule(msgspec.Struct):
    """Rules of one host, merged. `policy_from` and each subset's owner say which object a setting came from."""

    namespace: str
    host: str
    export_to: frozenset[str]
    selector: dict[str, str] | None
    policy: TrafficPolicy | None
    policy_from: DestinationRule
    subsets: dict[str, tuple[Subset, DestinationRule]]
    sources: list[DestinationRule]
    backend: dict[int, str] = {}

    def said_by(self, port: int) -> tuple[str, str]:
        """(the BackendTLSPolicy whose TLS is in force on a port, its field); ("", "") where a DestinationRule's is. 0: the top."""
        ref = self.backend.get(port, "")
        return (ref, "spec.validation") if ref else ("", "")

    def merge(self, rule: DestinationRule) -> None:
        """Take in a younger rule of the same host."""
        self.sources.append(rule)
        for part in rule.spec.subsets:
            self.subsets.setdefault(part.name, (part, rule))
        policy = rule.spec.traffic_policy
        if policy is None:
            return
        if self.policy is None:
            self.policy, self.policy_from = policy, rule
        elif isinstance(self.sources[0], BackendRule) and not isinstance(rule, BackendRule):
            said = {entry.port.number for entry in policy.port_level_settings if entry.port and entry.tls} | ({0} if policy.tls else set())
            self.backend = {port: ref for port, ref in self.backend.items() if port not in said}
            self.policy, self.policy_from = _over(policy, self.policy), rule


class _Table:
    def __init__(self) -> None:
        self.exact: dict[str, list[Rule]] = {}
        self.wild: dict[str, list[Rule]] = {}

    def find(self, host: str) -> list[Rule] | None:
        return most_specific(host, self.exact, self.wild)

    def add(self, rule: DestinationRule, host: str, export_to: frozenset[str]) -> None:
        """Merge into what is there, or stand alone (mergeDestinationRule)."""
        found = (self.wild if is_wild(host) else self.exact).setdefault(host, [])
        mine = rule.spec.workload_selector
        alone = True
        for merged in found:
            if export_to == merged.export_to:
                alone = False
            elif merged.export_to and export_to >= merged.export_to:
                alone = True
            else:
                alone = True
                continue
            if mine is not None and merged.selector is not None and mine.match_labels != merged.selector:
                alone = True
                continue
            if (mine is None) == (merged.selector is None):
                alone = False
            merged.merge(rule)
        if alone or not found:
            found.append(
                Rule(
                    namespace=rule.namespace,
                    host=host,
                    export_to=export_to,
                    selector=mine.match_labels if mine is not None else None,
                    policy=rule.spec.traffic_policy,
                    policy_from=rule,
                    subsets=_first(rule),
                    sources=[rule],
                    backend=rule.policies if isinstance(rule, BackendRule) else {},
                )
            )


def _over(user: TrafficPolicy, below: TrafficPolicy) -> TrafficPolicy:
    """What a user says, and where nothing is said what is below it (mergeBackendPolicyPortLevelSettings)."""
    ports = {p.port.number if p.port else 0: p for p in below.port_level_settings}
    settings = []
    for said in user.port_level_settings:
        other = ports.pop(said.port.number if said.port else 0, None)
        settings.append(said if other is None else PortPolicy(port=said.port, tls=said.tls or other.tls, load_balancer=said.load_balancer or other.load_balancer))
    return TrafficPolicy(
        tls=user.tls or below.tls, load_balancer=user.load_balancer or below.load_balancer, port_level_settings=(*settings, *ports.values())
    )


def _first(rule: DestinationRule) -> dict[str, tuple[Subset, DestinationRule]]:
    found: dict[str, tuple[Subset, DestinationRule]] = {}
    for part in rule.spec.subsets:
        found.setdefault(part.name, (part, rule))
    return found


class Rules:
    """Every DestinationRule that one control plane reads. `default_export_to` is the mesh's, `()` where it sets none."""

    def __init__(
        self, rules: Iterable[DestinationRule], root: str, default_export_to: tuple[str, ...], domain: str
    ) -> None:
        self.root = root
        self._local: dict[str, _Table] = {}
        self._exported: dict[str, _Table] = {}
        self._root_private = _Table()
        self.selector_keys: dict[str, frozenset[str]] = {}
        self.named: set[str] = set()
        self._homes: dict[str, frozenset[str]] = {}
        for rule in sorted(rules, key=lambda r: (r.spec.workload_selector is None, not isinstance(r, BackendRule), *age(r))):
            selector, namespace = rule.spec.workload_selector, rule.namespace
            host = fqdn(rule.spec.host, namespace, domain)
            export_to = frozenset(rule.spec.export_to) if selector is None else frozenset((".",))
            if selector is not None:
                keys = frozenset(selector.match_labels)
                self.selector_keys[namespace] = self.selector_keys.get(namespace, frozenset()) | keys
            self.named.update(export_to - {"*", ".", "~"})
            if not export_to or export_to & {"*", ".", namespace}:
                self._local.setdefault(namespace, _Table()).add(rule, host, export_to)
            private = (not export_to and "." in default_export_to) or export_to in ({"."}, {namespace})
            if not private:
                self._exported.setdefault(namespace, _Table()).add(rule, host, export_to)
            elif namespace == root:
                self._root_private.add(rule, host, export_to)

    def local(self, namespace: str) -> bool:
        """Whether a namespace has rules of its own."""
        return namespace in self._local

    def homes(self, host: str) -> frozenset[str]:
        """The namespaces with a rule of their own that names `host`."""
        found = self._homes.get(host)
        if found is None:
            exact, wild = self._named_in
            covering = (spaces for name, spaces in wild.items() if host_within(host, name))
            found = self._homes[host] = frozenset(exact.get(host, ())).union(*covering)
        return found

    @cached_property
    def _named_in(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """Host, exact or wild -> the namespaces whose own rules name it."""
        exact: dict[str, list[str]] = {}
        wild: dict[str, list[str]] = {}
        for namespace, table in self._local.items():
            for host in table.exact:
                exact.setdefault(host, []).append(namespace)
            for host in table.wild:
                wild.setdefault(host, []).append(namespace)
        return exact, wild

    def find(self, client: str, labels: Mapping[str, str], host: str, service_namespace: str) -> Rule | None:
        """The rule that a client with `labels` in namespace `client` applies to a service."""
        chosen: Rule | None = None
        for rule in self._candidates(client, host, service_namespace):
            if rule.selector is None:
                chosen = rule
            elif rule.namespace == client and subset(rule.selector, labels):
                return rule
        return chosen

    def _candidates(self, client: str, host: str, service_namespace: str) -> list[Rule]:
        own = self._root_private if client == self.root else self._local.get(client)
        found = own.find(host) if own else None
        if found:
            return found
        for owner in (service_namespace, self.root):
            table = self._exported.get(owner)
            found = table.find(host) if table else None
            visible = [r for r in found or () if not r.export_to or r.export_to & {"*", client}]
            if visible:
                return visible
        return []
