"""DaemonSet: one pod on every node that fits; the update replaces at most maxUnavailable (1) of them at a time."""

from meshtls.lab.api.store import Event
from meshtls.lab.controllers import pods, revisions
from meshtls.lab.controllers.hands import Hands
from meshtls.lab.controllers.objects import Obj, is_deleting, key_of, labels_of, says_new, share
from meshtls.lab.controllers.placement import why_not
from meshtls.lab.controllers.queue import Key
from meshtls.lab.controllers.replicaset import owner_keys

RESOURCE = "daemonsets.apps"

TOLERATED = tuple(
    (f"node.kubernetes.io/{key}", effect)
    for key, effect in (
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    )
)
"""Taints that every DaemonSet pod tolerates (pkg/controller/daemon/util AddOrUpdateDaemonPodTolerations)."""


class DaemonSets:
    name = "daemonset-controller"
    watches = frozenset({RESOURCE, "pods", "nodes"})

    def __init__(self, hands: Hands) -> None:
        self._hands = hands

    def keys(self, event: Event) -> list[Key]:
        if event.resource == "nodes":
            return [key_of(one) for one in self._hands.store.list(RESOURCE)]
        if event.resource == RESOURCE:
            return [key_of(event.object)] if says_new(event.object, event.old) else []
        return owner_keys(event, "DaemonSet")

    async def reconcile(self, namespace: str, name: str) -> float | None:
        hands = self._hands
        daemon = hands.store.get(RESOURCE, namespace, name)
        if daemon is None or is_deleting(daemon):
            return None
        revision = revisions.current(hands, daemon)
        mark = revision.removeprefix(f"{name}-")
        probe = self._pod(daemon, "", mark)
        nodes = [
            node["metadata"]["name"]
            for node in hands.store.list("nodes")
            if not why_not(probe, node, ignore_cordon=True)
        ]
        by_node = self._by_node(daemon)
        for node, found in by_node.items():
            for pod in found if node not in nodes else found[1:] + [one for one in found[:1] if pods.is_done(one)]:
                if not is_deleting(pod):
                    pods.delete(hands, daemon, self.name, pod)
        try:
            await pods.create(
                hands, daemon, self.name, [self._pod(daemon, node, mark) for node in nodes if node not in by_node]
            )
            self._update(daemon, nodes, mark)
        finally:
            again = self._write_status(daemon, nodes, mark)
        revisions.forget_old(hands, daemon, {revision})
        return again

    def _by_node(self, daemon: Obj) -> dict[str, list[Obj]]:
        found: dict[str, list[Obj]] = {}
        for pod in self._hands.owners.claimed(daemon, "pods", daemon["spec"].get("selector")):
            if not is_deleting(pod):
                found.setdefault(_node_of(pod), []).append(pod)
        return found

    def _pod(self, daemon: Obj, node: str, mark: str) -> Obj:
        pod = pods.make(
            daemon, daemon["spec"]["template"], f"{daemon['metadata']['name']}-{self._hands.suffix()}" if node else ""
        )
        pod["metadata"]["generateName"] = f"{daemon['metadata']['name']}-"
        pod["metadata"]["labels"][revisions.HASH] = mark
        pod["metadata"]["labels"]["pod-template-generation"] = str(daemon["metadata"]["generation"])
        spec = pod["spec"]
        spec["tolerations"] = [
            *(spec.get("tolerations") or ()),
            *({"key": key, "operator": "Exists", "effect": effect} for key, effect in TOLERATED),
        ]
        if node:
            affinity = spec.setdefault("affinity", {}).setdefault("nodeAffinity", {})
            affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {
                "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]
            }
        return pod

    def _update(self, daemon: Obj, nodes: list[str], mark: str) -> None:
        strategy = daemon["spec"].get("updateStrategy") or {}
        if strategy.get("type", "RollingUpdate") != "RollingUpdate":
            return
        allowed = max(
            share((strategy.get("rollingUpdate") or {}).get("maxUnavailable"), len(nodes), up=True, default=1), 1
        )
        found = [pod for pods_here in self._by_node(daemon).values() for pod in pods_here]
        allowed -= len(nodes) - sum(map(pods.is_ready, found))
        old = [pod for pod in found if labels_of(pod).get(revisions.HASH) != mark]
        for pod in old:
            if not pods.is_ready(pod):
                pods.delete(self._hands, daemon, self.name, pod)
            elif allowed > 0:
                pods.delete(self._hands, daemon, self.name, pod)
                allowed -= 1

    def _write_status(self, seen: Obj, nodes: list[str], mark: str) -> float | None:
        now = self._hands.clock.now()
        by_node = self._by_node(seen)
        here = [by_node[node][0] for node in nodes if node in by_node]
        waits = [pods.available_in(pod, seen["spec"].get("minReadySeconds", 0), now) for pod in here]
        counts = {
            "desiredNumberScheduled": len(nodes),
            "currentNumberScheduled": len(here),
            "numberMisscheduled": len(by_node.keys() - set(nodes)),
            "numberReady": sum(map(pods.is_ready, here)),
            "updatedNumberScheduled": sum(labels_of(pod).get(revisions.HASH) == mark for pod in here),
            "numberAvailable": waits.count(0),
            "numberUnavailable": len(nodes) - waits.count(0),
            "observedGeneration": seen["metadata"]["generation"],
        }
        optional = ("updatedNumberScheduled", "numberAvailable", "numberUnavailable")
        status = {field: count for field, count in counts.items() if count or field not in optional}

        def write(obj: Obj) -> None:
            kept = {key: value for key, value in (obj.get("status") or {}).items() if key not in counts}
            obj["status"] = {**kept, **status}

        self._hands.store.mutate(RESOURCE, *key_of(seen), write)
        return min((wait for wait in waits if wait), default=None)


def _node_of(pod: Obj) -> str:
    """The node that a pod has, or was made for."""
    if pod["spec"].get("nodeName"):
        return str(pod["spec"]["nodeName"])
    affinity = ((pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or {}
    fields = [need for term in affinity.get("nodeSelectorTerms") or () for need in term.get("matchFields") or ()]
    return str(fields[0]["values"][0]) if fields else ""
