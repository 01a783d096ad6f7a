"""Inbound mode of a port, by PeerAuthentication (pilot/pkg/security/authn ComposePeerAuthentication).

The narrowest scope that says something wins: port, workload, namespace, mesh, else PERMISSIVE; within a scope the
oldest policy is the only one. UNSET inherits. Ports count only in a policy with a selector, and a selector in the
root namespace voids its policy.
"""

from typing import Any

import msgspec

from meshtls.lab.istio.objects import at, namespace_of, spec
from meshtls.lab.istio.world import World, remembered


class Merged(msgspec.Struct, frozen=True):
    """What the policies for one workload add up to: STRICT, PERMISSIVE or DISABLE, and the ports that differ."""

    mode: str
    ports: dict[int, str]

    def for_port(self, number: int) -> str:
        """The mode of a container port."""
        return self.ports.get(number, self.mode)


def _mode(mtls: Any) -> str:
    mode = (mtls or {}).get("mode") or "UNSET"
    return "" if mode == "UNSET" else str(mode)


@remembered
def merge(world: World, namespace: str, labels: dict[str, str]) -> Merged:
    """The merged policy of a workload with these labels in this namespace."""
    levels = world.levels("PeerAuthentication", namespace, labels)
    if namespace == world.root_namespace:
        levels.pop("workload", None)
    mode = "PERMISSIVE"
    for policy in levels.values():
        mode = _mode(spec(policy).get("mtls")) or mode
    ports = spec(levels.get("workload", {})).get("portLevelMtls") or {}
    return Merged(mode, {int(number): _mode(mtls) or mode for number, mtls in ports.items()})


@remembered
def namespace_mode(world: World, namespace: str) -> str:
    """What clients assume of a namespace's services: its own or the mesh's policy, "" where there is neither
    (GetNamespaceMutualTLSMode)."""
    found: dict[str, str] = {}
    for policy in world.kind("PeerAuthentication"):
        if not at(spec(policy), "selector", "matchLabels"):
            found.setdefault(namespace_of(policy), _mode(spec(policy).get("mtls")))
    root = found.get(world.root_namespace)
    inherited = None if root is None else root or "PERMISSIVE"
    if namespace != world.root_namespace and namespace in found:
        return found[namespace] or inherited or "PERMISSIVE"
    return inherited or ""
