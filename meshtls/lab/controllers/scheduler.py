"""Scheduler: every pod without a node gets the feasible node with the fewest pods; one that fits nowhere says why,
and waits.

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


class Scheduler:
    name = "default-scheduler"
    watches = frozenset({"pods", "nodes"})

    def __init__(self, hands: Hands) -> None:
        self._hands = hands

    def keys(self, event: Event) -> list[Key]:
        if event.resource == "nodes":
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
        reasons = {node["metadata"]["name"]: why_not(pod, node) for node in nodes}
        feasible = [node for node, reason in reasons.items() if not reason]
        if feasible:
            self._bind(pod, feasible[0] if len(feasible) == 1 else self._emptiest(feasible))
        else:
            self._refuse(pod, reasons)
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

    def _refuse(self, pod: Obj, reasons: dict[str, str]) -> None:
        counts = Counter(reasons.values())
        said = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items())) or "no nodes"
        message = f"0/{len(reasons)} nodes are available: {said}."
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
