"""Scheduler: every pod without a node gets the feasible node with the fewest pods, and its claims count as bound; one
that fits nowhere, or whose claim does not exist, says why and waits.

It also does what the pod garbage collector does: a pod that is to go and whose node does not exist is removed, since
nobody else will.
"""

from collections import Counter

from meshtls.lab.api.store import Event
from meshtls.lab.controllers import conditions
from meshtls.lab.controllers.controller import Controller
from meshtls.lab.controllers.objects import Obj, is_deleting, key_of, name_of
from meshtls.lab.controllers.placement import why_not

CLAIMS = "persistentvolumeclaims"


class Scheduler(Controller):
    name, resource = "default-scheduler", "pods"
    watches = frozenset({resource, "nodes", CLAIMS})

    def keys(self, event: Event) -> list[tuple[str, str]]:
        if event.resource != "pods":
            return [key_of(pod) for pod in self.store.list("pods") if self._is_ours(pod)]
        return [key_of(event.object)] if event.type != "DELETED" and self._is_ours(event.object) else []

    def _is_ours(self, pod: Obj) -> bool:
        spec = pod["spec"]
        placed = spec.get("nodeName") or spec.get("schedulingGates")
        return is_deleting(pod) or not placed and spec.get("schedulerName", self.name) == self.name

    async def reconcile(self, namespace: str, name: str) -> float | None:
        pod = self.store.get("pods", namespace, name)
        if pod is None or not self._is_ours(pod):
            return None
        nodes = {name_of(node): node for node in self.store.list("nodes")}
        if is_deleting(pod):
            if pod["spec"].get("nodeName") not in nodes and not pod["metadata"].get("finalizers"):
                self.store.remove("pods", namespace, name)
            return None
        sources = (volume.get("persistentVolumeClaim") for volume in pod["spec"].get("volumes") or ())
        claims = [source["claimName"] for source in sources if source]
        missing = [claim for claim in claims if self.store.get(CLAIMS, namespace, claim) is None]
        reasons = {node: why_not(pod, obj) for node, obj in nodes.items()}
        feasible = [node for node, reason in reasons.items() if not reason]
        if missing or not feasible:
            told = [f"{count} {reason}" for reason, count in sorted(Counter(reasons.values()).items())]
            why = f'persistentvolumeclaim "{missing[0]}" not found' if missing else ", ".join(told) or "no nodes"
            self._refuse(pod, f"0/{len(nodes)} nodes are available: {why}.")
            return None
        for claim in claims:
            self.store.mutate(CLAIMS, namespace, claim, _bound)
        with self.changing(pod) as draft:
            node = feasible[0] if len(feasible) == 1 else self._emptiest(feasible)
            draft["spec"] = {**draft["spec"], "nodeName": node}
            conditions.put(draft["status"], "PodScheduled", "True", "", "", self.store.now())
        self.say(pod, "Scheduled", f"Successfully assigned {namespace}/{name} to {node}")
        return None

    def _emptiest(self, nodes: list[str]) -> str:
        load = Counter(pod["spec"].get("nodeName") for pod in self.store.list("pods") if not is_deleting(pod))
        return min(nodes, key=lambda node: (load[node], node))

    def _refuse(self, pod: Obj, message: str) -> None:
        if (conditions.find(pod, "PodScheduled") or {}).get("message") != message:
            with self.changing(pod) as draft:
                conditions.put(draft["status"], "PodScheduled", "False", "Unschedulable", message, self.store.now())
            self.warn(pod, "FailedScheduling", message)


def _bound(claim: Obj) -> None:
    """As a provisioner leaves it: a volume of its own of the size that was asked for."""
    spec = claim["spec"]
    spec.setdefault("volumeName", f"pvc-{claim['metadata']['uid']}")
    capacity = (spec.get("resources") or {}).get("requests") or {}
    claim["status"] = {"phase": "Bound", "accessModes": spec.get("accessModes") or [], "capacity": capacity}
