"""What a Deployment does next with its ReplicaSets. Pure: counts in, sizes out.

Laws (Kubernetes' deployment controller, pkg/controller/deployment/{sync,rolling,recreate}.go):
  1. RollingUpdate: never more than replicas + maxSurge pods, never fewer than replicas - maxUnavailable available
     ones. Grow the new set first; then give up old pods that are unavailable, which costs nothing; then old pods that
     the available ones can spare.
  2. Recreate: no new pod until the last old pod is gone.
  3. Percentages round in favour of availability: surge up, unavailable down; both zero means one unavailable.
"""

from collections.abc import Callable

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
    surge = share(rolling.get("maxSurge", "25%"), replicas, up=True)
    unavailable = share(rolling.get("maxUnavailable", "25%"), replicas, up=False)
    return (surge, unavailable) if surge or unavailable else (0, 1)


def recreates(spec: Obj) -> bool:
    return bool((spec.get("strategy") or {}).get("type") == "Recreate")


def next_sizes(spec: Obj, new: Set | None, olds: tuple[Set, ...], *, old_pods: bool) -> dict[str, int]:
    """Sizes that change now, by ReplicaSet; empty when there is nothing to do but wait. `olds`: oldest first;
    `old_pods`: a pod of an old set still runs. `new` is missing while a rollout is paused or waits for old pods."""
    if spec.get("paused"):
        return _resize_only_active(spec.get("replicas", 1), (*olds, new) if new else olds)
    if recreates(spec):
        return _recreate(spec.get("replicas", 1), new, olds, old_pods)
    return _roll(spec, new, olds) if new else {}


def _resize_only_active(replicas: int, every: tuple[Set, ...]) -> dict[str, int]:
    active = [one for one in every if one.replicas] or every[-1:]
    return {active[0].name: replicas} if len(active) == 1 and active[0].replicas != replicas else {}


def _recreate(replicas: int, new: Set | None, olds: tuple[Set, ...], old_pods: bool) -> dict[str, int]:
    if doomed := {old.name: 0 for old in olds if old.replicas}:
        return doomed
    return {} if old_pods or new is None or new.replicas == replicas else {new.name: replicas}


def _roll(spec: Obj, new: Set, olds: tuple[Set, ...]) -> dict[str, int]:
    replicas, (surge, unavailable) = spec.get("replicas", 1), limits(spec)
    total = new.replicas + sum(old.replicas for old in olds)
    size = min(replicas, new.replicas + max(replicas + surge - total, 0))
    if size != new.replicas:
        return {new.name: size}
    least, sizes = replicas - unavailable, {old.name: old.replicas for old in olds}

    def give(spare: int, most: Callable[[Set], int]) -> int:
        for old in olds:
            given = max(min(spare, most(old)), 0)
            sizes[old.name] -= given
            spare -= given
        return spare

    spare = give(total - least - (new.replicas - new.available), lambda old: old.replicas - old.available)
    available = new.available + sum(old.available for old in olds)
    give(min(spare, available - least), lambda old: sizes[old.name])
    return {old.name: sizes[old.name] for old in olds if sizes[old.name] != old.replicas}
