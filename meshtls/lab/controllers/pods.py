"""Pods as their controllers see them: made from a template, judged ready or available, and chosen for removal.

Creation starts with one pod and doubles while the API accepts (as Kubernetes' slowStartBatch), so that a refusal is
met once and not a hundred times.
"""

import asyncio
import datetime
from collections.abc import Sequence

from meshtls.lab.api.store import Exists, clone
from meshtls.lab.controllers.clock import parse
from meshtls.lab.controllers.hands import Hands
from meshtls.lab.controllers.objects import Obj, annotations_of, condition, is_deleting, key_of, owner_reference
from meshtls.lab.controllers.queue import Retry


def make(owner: Obj, template: Obj, name: str) -> Obj:
    """A pod of this template, controlled by `owner`."""
    metadata = template.get("metadata") or {}
    about = {
        "name": name,
        "namespace": owner["metadata"]["namespace"],
        "labels": dict(metadata.get("labels") or {}),
        "annotations": dict(metadata.get("annotations") or {}),
        "ownerReferences": [owner_reference(owner)],
    }
    if metadata.get("finalizers"):
        about["finalizers"] = list(metadata["finalizers"])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": clone(template["spec"])}


def phase(pod: Obj) -> str:
    return (pod.get("status") or {}).get("phase", "Pending")


def is_done(pod: Obj) -> bool:
    """Its containers have ended and will not start again."""
    return phase(pod) in ("Succeeded", "Failed")


def is_active(pod: Obj) -> bool:
    return not is_done(pod) and not is_deleting(pod)


def is_ready(pod: Obj) -> bool:
    found = condition(pod, "Ready")
    return found is not None and found["status"] == "True"


def available_in(pod: Obj, min_ready_s: int, now: datetime.datetime) -> float | None:
    """Seconds until the pod has been ready for long enough: 0 when it has, None when it is not ready."""
    found = condition(pod, "Ready")
    if found is None or found["status"] != "True":
        return None
    since = parse(found["lastTransitionTime"]) if found.get("lastTransitionTime") else now
    return max((since + datetime.timedelta(seconds=min_ready_s) - now).total_seconds(), 0) if min_ready_s else 0


def expendable_first(found: Sequence[Obj]) -> list[Obj]:
    """In the order in which a ReplicaSet gives pods up: unassigned, not running, not ready, cheapest, youngest."""

    def cost(pod: Obj) -> int:
        try:
            return int(annotations_of(pod).get("controller.kubernetes.io/pod-deletion-cost", "0"))
        except ValueError:
            return 0

    youngest = sorted(
        found, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]), reverse=True
    )
    return sorted(
        youngest,
        key=lambda pod: (
            bool(pod["spec"].get("nodeName")),
            ["Pending", "Unknown"].count(phase(pod)) == 0,
            is_ready(pod),
            cost(pod),
        ),
    )


async def create(hands: Hands, owner: Obj, source: str, wanted: Sequence[Obj]) -> None:
    """Create all of them, and say so in events on the owner. Raises Retry at the first refusal, with the API's own
    words."""
    home = hands.store.get("namespaces", "", owner["metadata"]["namespace"])
    if home is not None and is_deleting(home):
        return
    done, batch = 0, 1
    while done < len(wanted):
        some = wanted[done : done + batch]
        answers = await asyncio.gather(*(hands.create_pod(pod) for pod in some), return_exceptions=True)
        refusals = [answer for answer in answers if isinstance(answer, Exception)]
        for answer in answers:
            if isinstance(answer, dict):
                hands.recorder.normal(owner, source, "SuccessfulCreate", f"Created pod: {answer['metadata']['name']}")
        if refusals:
            if isinstance(refusals[0], Exists):
                raise Retry(str(refusals[0]))
            hands.recorder.warning(owner, source, "FailedCreate", f"Error creating: {refusals[0]}")
            raise Retry(str(refusals[0]))
        done, batch = done + len(some), batch * 2


def delete(hands: Hands, owner: Obj, source: str, pod: Obj) -> None:
    """Delete one pod with its own grace period, and say so."""
    hands.store.delete("pods", *key_of(pod))
    hands.recorder.normal(owner, source, "SuccessfulDelete", f"Deleted pod: {pod['metadata']['name']}")
