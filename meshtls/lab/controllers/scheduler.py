"""Scheduler: every pod without a node gets the feasible node with the fewest pods, and its claims count as bound; one that
fits nowhere, or whose claim does not exist, says why and waits.

It also does what the pod garbage collector does: a pod that is to go and whose node does not exist is removed, since
nobody else will.
"""

from collections import Counter

from meshtls.lab.api.store import Event
from meshtls.lab.controllers.clock import text
from meshtls.lab.controllers.hands import Hands
from meshtls.lab.controllers.objects import Obj, condition, is_deleting, key_of, set_condition
from meshtls.lab.controllers.placement import why_not
from meshtls.lab.controllers.queue import Key

CLAIMS = "persistentvolumeclaims"


class Scheduler:
    name = "default-scheduler"
    watches = frozenset({"pods", "nodes", CLAIMS})

    def __init__(self, hands: Hands) -> None:
        self._hands = hands

    def keys(self, event: Event) -> list[Key]:
        if event.resource != "pods":
            return [key_of(pod) for pod in self._hands.store.list("pods") if self._is_ours(pod)]
        return [key_of(event.object)] if event.type != "DELETED" and self._is_ours(event.object) else []

    def _is_ours(self, pod: Obj) -> bool:
        if is_deleting(pod):
            return True
        spec = pod["spec"]
        return (
            not spec.get("nodeName")
            and not spec.get("schedulingGates")
            and spec.get("schedulerName", self.name) == self.name
        )

    async def reconcile(self, namespace: str, name: str) -> float | None:
        store = self._hands.store
        pod = store.get("pods", namespace, name)
        if pod is None or not self._is_ours(pod):
            return None
        nodes = store.list("nodes")
        if is_deleting(pod):
            if pod["spec"].get("nodeName") not in {node["metadata"]["name"] for node in nodes} and not pod[
                "metadata"
            ].get("finalizers"):
                store.remove("pods", namespace, name)
            return None
        claims = [volume["persistentVolumeClaim"]["claimName"] for volume in pod["spec"].get("volumes") or () if "persistentVolumeClaim" in volume]
        missing = [f'persistentvolumeclaim "{claim}" not found' for claim in claims if store.get(CLAIMS, namespace, claim) is None]
        reasons = {node["metadata"]["name"]: why_not(pod, node) for node in nodes}
        feasible = [node for node, reason in reasons.items() if not reason]
        if missing:
            self._refuse(pod, len(nodes), missing[0])
        elif feasible:
            for claim in claims:
                store.mutate(CLAIMS, namespace, claim, _bound)
            self._bind(pod, feasible[0] if len(feasible) == 1 else self._emptiest(feasible))
        else:
            counts = Counter(reasons.values())
            self._refuse(pod, len(nodes), ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items())) or "no nodes")
        return None

    def _emptiest(self, nodes: list[str]) -> str:
        load = Counter(pod["spec"].get("nodeName") for pod in self._hands.store.list("pods") if not is_deleting(pod))
        return min(nodes, key=lambda node: (load[node], node))

    def _bind(self, pod: Obj, node: str) -> None:
        now = text(self._hands.clock.now())

        def bind(obj: Obj) -> None:
            obj["spec"]["nodeName"] = node
            set_condition(obj.setdefault("status", {}), "PodScheduled", "True", "", "", now)
            for field in ("reason", "message"):
                del (condition(obj, "PodScheduled") or {})[field]

        self._hands.store.mutate("pods", *key_of(pod), bind)
        self._hands.recorder.normal(
            pod, self.name, "Scheduled", f"Successfully assigned {'/'.join(key_of(pod))} to {node}"
        )

    def _refuse(self, pod: Obj, nodes: int, why: str) -> None:
        message = f"0/{nodes} nodes are available: {why}."
        old = condition(pod, "PodScheduled")
        if old is not None and old.get("message") == message:
            return
        now = text(self._hands.clock.now())
        self._hands.store.mutate(
            "pods",
            *key_of(pod),
            lambda obj: set_condition(
                obj.setdefault("status", {}), "PodScheduled", "False", "Unschedulable", message, now
            ),
        )
        self._hands.recorder.warning(pod, self.name, "FailedScheduling", message)


def _bound(claim: Obj) -> None:
    """As a provisioner leaves it: a volume of its own of the size that was asked for."""
    spec = claim["spec"]
    spec.setdefault("volumeName", f"pvc-{claim['metadata']['uid']}")
    claim["status"] = {"phase": "Bound", "accessModes": spec.get("accessModes") or [], "capacity": (spec.get("resources") or {}).get("requests") or {}}
