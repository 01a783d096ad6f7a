"""Inbound mode of a port, by PeerAuthentication (pilot/pkg/security/authn ComposePeerAuthentication).

The narrowest scope that says something wins: port, workload, namespace, mesh, else PERMISSIVE; within a scope the
oldest policy is the only one. UNSET inherits. Ports count only in a policy with a selector, and a selector in the
root namespace voids its policy.
"""

from typing import Any

import msgspec

from meshtls.lab.istio import hosts
from meshtls.lab.istio.objects import Obj, namespace_of, spec
from meshtls.lab.istio.world import World


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


def _selector(policy: Obj) -> dict[str, str]:
    return (spec(policy).get("selector") or {}).get("matchLabels") or {}


def merge(world: World, namespace: str, labels: dict[str, str]) -> Merged:
    """The merged policy of a workload with these labels in this namespace."""
    key = ("peer", namespace, *sorted(labels.items()))
    if key not in world.cache:
        world.cache[key] = _merge(world, namespace, labels)
    found: Merged = world.cache[key]
    return found


def _merge(world: World, namespace: str, labels: dict[str, str]) -> Merged:
    scopes: dict[str, Obj] = {}
    for policy in world.kind("PeerAuthentication"):
        home, selector = namespace_of(policy), _selector(policy)
        if home not in (namespace, world.root_namespace) or not hosts.labels_match(selector, labels):
            continue
        if not selector:
            scopes.setdefault("mesh" if home == world.root_namespace else "namespace", policy)
        elif home != world.root_namespace:
            scopes.setdefault("workload", policy)
    mode = "PERMISSIVE"
    for scope in ("mesh", "namespace", "workload"):
        mode = _mode(spec(scopes[scope]).get("mtls")) or mode if scope in scopes else mode
    ports = spec(scopes["workload"]).get("portLevelMtls") or {} if "workload" in scopes else {}
    return Merged(mode, {int(number): _mode(mtls) or mode for number, mtls in ports.items()})


def namespace_mode(world: World, namespace: str) -> str:
    """What clients assume of a namespace's services: its own or the mesh's policy, "" where there is neither
    (GetNamespaceMutualTLSMode)."""
    found: dict[str, str] = {}
    for policy in world.kind("PeerAuthentication"):
        if not _selector(policy):
            found.setdefault(namespace_of(policy), _mode(spec(policy).get("mtls")))
    root = found.get(world.root_namespace)
    inherited = None if root is None else root or "PERMISSIVE"
    if namespace != world.root_namespace and namespace in found:
        return found[namespace] or inherited or "PERMISSIVE"
    return inherited or ""
