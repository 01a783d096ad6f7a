"""DestinationRules as rules read them: each TLS setting with the place it has and what it is for.

Which DestinationRule a client uses is decided by `meshtls.policy`; here it is only said what each one would do.
"""

from collections.abc import Iterator

import msgspec

from meshtls.audit.facts import Facts
from meshtls.model import objects as o
from meshtls.model.workload import Workload


class Setting(msgspec.Struct, frozen=True):
    """One `tls` block: its path, its mode, the subset and the port it is for ("" and 0: all)."""

    path: tuple[str, ...]
    mode: str
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
        yield Setting((*path, "tls"), policy.tls.mode, subset)
    for index, entry in enumerate(policy.port_level_settings):
        if entry.tls:
            yield Setting((*path, "portLevelSettings", str(index), "tls"), entry.tls.mode, subset, entry.port.number if entry.port else 0)


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
