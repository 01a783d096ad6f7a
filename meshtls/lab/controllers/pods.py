"""Pods as their controllers see them: made from a template, judged ready or available, and chosen for removal. Pure."""

import datetime
from collections.abc import Collection, Sequence

from meshtls.lab.api.store import clone
from meshtls.lab.controllers import conditions
from meshtls.lab.controllers.objects import Obj, child, is_deleting, name_of, parse, status_of


def make(owner: Obj, template: Obj, **name: str) -> Obj:
    """A pod of this template, controlled by `owner`. `name` is its name or generateName."""
    pod = child(owner, "v1", "Pod", template, **name)
    if finalizers := (template.get("metadata") or {}).get("finalizers"):
        pod["metadata"]["finalizers"] = list(finalizers)
    return {**pod, "spec": clone(template["spec"])}


def phase(pod: Obj) -> str:
    return str(status_of(pod).get("phase", "Pending"))


def is_done(pod: Obj) -> bool:
    """Its containers have ended and will not start again."""
    return phase(pod) in ("Succeeded", "Failed")


def is_active(pod: Obj) -> bool:
    return not is_done(pod) and not is_deleting(pod)


def is_ready(pod: Obj) -> bool:
    return conditions.holds(pod, "Ready")


def available_in(pod: Obj, min_ready_s: int, now: datetime.datetime) -> float | None:
    """Seconds until the pod has been ready for long enough: 0 when it has, None when it is not ready."""
    if not is_ready(pod) or not min_ready_s:
        return 0 if is_ready(pod) else None
    written = (conditions.find(pod, "Ready") or {}).get("lastTransitionTime")
    since = parse(written) if written else now
    return max((since + datetime.timedelta(seconds=min_ready_s) - now).total_seconds(), 0)


def count(found: Collection[Obj], min_ready_s: int, now: datetime.datetime) -> tuple[dict[str, int], float | None]:
    """How many there are, are ready and available, as a status counts them; and the seconds until that changes by
    itself."""
    waits = [available_in(pod, min_ready_s, now) for pod in found]
    counts = {
        "replicas": len(found),
        "readyReplicas": sum(map(is_ready, found)),
        "availableReplicas": waits.count(0),
    }
    return counts, min((wait for wait in waits if wait), default=None)


def expendable_first(found: Sequence[Obj]) -> list[Obj]:
    """In the order in which a ReplicaSet gives pods up: unassigned, not running, not ready, youngest."""
    youngest = sorted(found, key=lambda pod: (pod["metadata"]["creationTimestamp"], name_of(pod)), reverse=True)
    return sorted(
        youngest,
        key=lambda pod: (
            bool(pod["spec"].get("nodeName")),
            phase(pod) not in ("Pending", "Unknown"),
            is_ready(pod),
        ),
    )
