"""What a Deployment does next with its ReplicaSets. Pure: counts in, sizes out.

Laws (Kubernetes' deployment controller, pkg/controller/deployment/{sync,rolling,recreate}.go):
  1. RollingUpdate: never more than replicas + maxSurge pods, never fewer than replicas - maxUnavailable available
     ones. Grow the new set first; then give up old pods that are unavailable, which costs nothing; then old pods that
     the available ones can spare.
  2. Recreate: no new pod until the last old pod is gone.
  3. Percentages round in favour of availability: surge up, unavailable down; both zero means one unavailable.
"""

import msgspec

from meshtls.lab.controllers.objects import Obj, share


class Set(msgspec.Struct, frozen=True):
    """A ReplicaSet as far as a rollout asks: what it wants, and how many of its pods are available."""

    name: str
    replicas: int
    available: int


def limits(spec: Obj) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) of a Deployment in pods."""
    if (spec.get("strategy") or {}).get("type", "RollingUpdate") != "RollingUpdate":
        return 0, 0
    rolling = (spec.get("strategy") or {}).get("rollingUpdate") or {}
    replicas = spec.get("replicas", 1)
    surge = share(rolling.get("maxSurge"), replicas, up=True)
    unavailable = share(rolling.get("maxUnavailable"), replicas, up=False)
    return (surge, unavailable) if surge or unavailable else (0, 1)


def next_sizes(spec: Obj, new: Set, olds: tuple[Set, ...], *, old_pods: bool) -> dict[str, int]:
    """Sizes that change now, by ReplicaSet; empty when there is nothing to do but wait. `olds`: oldest first;
    `old_pods`: a pod of an old set still exists."""
    if spec.get("paused"):
        return _resize_only_active(spec.get("replicas", 1), new, olds)
    if (spec.get("strategy") or {}).get("type") == "Recreate":
        return _recreate(spec.get("replicas", 1), new, olds, old_pods)
    return _grow(spec, new, olds) or _shrink(spec, new, olds)


def _resize_only_active(replicas: int, new: Set, olds: tuple[Set, ...]) -> dict[str, int]:
    active = [one for one in (*olds, new) if one.replicas] or [(*olds, new)[-1]]
    return {active[0].name: replicas} if len(active) == 1 and active[0].replicas != replicas else {}


def _recreate(replicas: int, new: Set, olds: tuple[Set, ...], old_pods: bool) -> dict[str, int]:
    if doomed := {old.name: 0 for old in olds if old.replicas}:
        return doomed
    return {} if old_pods or new.replicas == replicas else {new.name: replicas}


def _grow(spec: Obj, new: Set, olds: tuple[Set, ...]) -> dict[str, int]:
    replicas, (surge, _) = spec.get("replicas", 1), limits(spec)
    if new.replicas > replicas:
        return {new.name: replicas}
    room = replicas + surge - new.replicas - sum(old.replicas for old in olds)
    size = new.replicas + min(room, replicas - new.replicas)
    return {new.name: size} if size > new.replicas else {}


def _shrink(spec: Obj, new: Set, olds: tuple[Set, ...]) -> dict[str, int]:
    replicas, (_, unavailable) = spec.get("replicas", 1), limits(spec)
    least = replicas - unavailable
    total = new.replicas + sum(old.replicas for old in olds)
    spare = total - least - (new.replicas - new.available)
    sizes = {}
    for old in olds:
        useless = min(max(spare, 0), max(old.replicas - old.available, 0))
        if useless:
            sizes[old.name] = old.replicas - useless
            spare -= useless
    spare = min(spare, new.available + sum(old.available for old in olds) - least)
    for old in olds:
        size = sizes.get(old.name, old.replicas)
        given = min(max(spare, 0), size)
        if given:
            sizes[old.name] = size - given
            spare -= given
    return sizes
