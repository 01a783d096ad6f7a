"""DestinationRules as rules read them: each TLS setting with the place it has and what it is for.

Which DestinationRule a client uses is decided by `meshtls.policy`; here it is only said what each one would do.
"""

from collections.abc import Iterator

import msgspec

from meshtls.audit.facts import Facts
from meshtls.model import objects as o
from meshtls.model.workload import Workload


class Setting(msgspec.Struct, frozen=True):
    """One `tls` block: its path, its mode and whether that is written, the subset and the port it is for ("" and 0: all)."""

    path: tuple[str, ...]
    mode: str
    written: bool = True
    subset: str = ""
    port: int = 0


def settings(rule: o.DestinationRule) -> Iterator[Setting]:
    """Every TLS block of a DestinationRule."""
    yield from _of(rule.spec.traffic_policy, ("spec", "trafficPolicy"), "")
    for index, subset in enumerate(rule.spec.subsets):
        yield from _of(subset.traffic_policy, ("spec", "subsets", str(index), "trafficPolicy"), subset.name)


def _of(policy: o.TrafficPolicy | None, path: tuple[str, ...], subset: str) -> Iterator[Setting]:
    if policy is None:
        return
    if policy.tls:
        yield Setting((*path, "tls"), policy.tls.mode, policy.tls.said is not None, subset)
    for index, entry in enumerate(policy.port_level_settings):
        if entry.tls:
            number = entry.port.number if entry.port else 0
            yield Setting((*path, "portLevelSettings", str(index), "tls"), entry.tls.mode, entry.tls.said is not None, subset, number)


def counts(facts: Facts, rule: o.DestinationRule, setting: Setting, service: o.Service) -> bool:
    """Is there a namespace whose clients would find this setting for the Service, if they called it?

    Not so where another rule comes first for everybody, or an older one of the same host has settings already.
    """
    wanted = rule.spec.workload_selector
    host = f"{service.name}.{service.namespace}.svc.cluster.local"
    rules = facts.engine.control("").rules
    for namespace in dict.fromkeys((rule.namespace, service.namespace, *facts.workloads_in)):
        found = rules.find(namespace, wanted.match_labels if wanted else {}, host, service.namespace)
        if found is not None:
            owner = found.subsets[setting.subset][1] if setting.subset in found.subsets else found.policy_from
            if owner is rule:
                return True
    return False


def routed(facts: Facts, service: o.Service, subset: str) -> bool:
    """Does a VirtualService send calls to this subset? True where VirtualServices could not be read."""
    memo = facts.memo("routed")
    if not memo:
        memo[""] = True
        for virtual in facts.mesh.virtual_services:
            destinations = [r.route for r in virtual.spec.http] + [r.route for r in (*virtual.spec.tcp, *virtual.spec.tls)]
            for route in destinations:
                for each in route:
                    target = facts.service(each.destination.host, virtual.namespace)
                    if target and each.destination.subset:
                        memo[f"{target.ref} {each.destination.subset}"] = True
    return "VirtualService" in facts.mesh.absent or f"{service.ref} {subset}" in memo


def told(facts: Facts, service: o.Service, port: int, mode: str) -> bool:
    """Does a DestinationRule of the Service's own namespace say `mode` for this port (or for all)?"""
    for rule in facts.mesh.destination_rules:
        if rule.namespace == service.namespace and facts.service(rule.spec.host, rule.namespace) is service:
            said = {s.port: s.mode for s in settings(rule) if not s.subset}
            if said.get(port, said.get(0)) == mode:
                return True
    return False


def servers(facts: Facts, rule: o.DestinationRule) -> list[o.Service]:
    """The Services that its host means; a wildcard means every one that fits."""
    host = rule.spec.host
    if not host.startswith("*"):
        service = facts.service(host, rule.namespace)
        return [service] if service else []
    suffix = host[1:]
    return [s for s in facts.mesh.services if f"{s.name}.{s.namespace}.svc.cluster.local".endswith(suffix)]


def refusing(facts: Facts, service: o.Service, port: int = 0) -> list[tuple[Workload, int]]:
    """(workload, target port) behind a Service (one port, or all) that would refuse plaintext under STRICT."""
    found = []
    for w in facts.behind(service):
        for entry in service.spec.ports:
            if entry.protocol in ("TCP", "") and (not port or entry.port == port):
                target = facts.target(entry, w)
                if target and facts.refuses(w, target):
                    found.append((w, target))
    return found


def without(rule: o.DestinationRule, path: tuple[str, ...]) -> str:
    """The command that takes the block at `path` away."""
    pointer = "/" + "/".join(path)
    return (f"  kubectl -n {rule.namespace} patch destinationrule {rule.name} --type=json "
            f"-p '[{{\"op\":\"remove\",\"path\":\"{pointer}\"}}]'")
