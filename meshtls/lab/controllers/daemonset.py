"""DaemonSet: one pod on every node that fits; the update replaces at most maxUnavailable (1) of them at a time."""

from meshtls.lab.api.store import Event
from meshtls.lab.controllers import pods
from meshtls.lab.controllers.objects import Obj, is_deleting, key_of, name_of, set_counts, share
from meshtls.lab.controllers.placement import why_not
from meshtls.lab.controllers.revisions import HASH, Revised, revision_of

TOLERATED = {
    "not-ready": "NoExecute",
    "unreachable": "NoExecute",
    "disk-pressure": "NoSchedule",
    "memory-pressure": "NoSchedule",
    "pid-pressure": "NoSchedule",
    "unschedulable": "NoSchedule",
}
"""Taints that every DaemonSet pod tolerates (pkg/controller/daemon/util AddOrUpdateDaemonPodTolerations)."""

SHOWN = ("desiredNumberScheduled", "currentNumberScheduled", "numberMisscheduled", "numberReady")
"""Counts that a status has even when they are zero."""


class DaemonSets(Revised):
    name, resource, kind = "daemonset-controller", "daemonsets.apps", "DaemonSet"
    watches = frozenset({resource, "pods", "nodes"})

    def keys(self, event: Event) -> list[tuple[str, str]]:
        if event.resource == "nodes":
            return [key_of(one) for one in self.store.list(self.resource)]
        return super().keys(event)

    async def sync(self, daemon: Obj) -> float | None:
        revision = self.revision(daemon)
        mark = revision.removeprefix(f"{name_of(daemon)}-")
        probe = self._pod(daemon, "", mark)
        nodes = [name_of(node) for node in self.store.list("nodes") if not why_not(probe, node, ignore_cordon=True)]
        by_node = self._by_node(daemon)
        for node, found in by_node.items():
            for number, pod in enumerate(found):
                if number or node not in nodes or pods.is_done(pod):
                    self.delete_pod(daemon, pod)
        try:
            missing = [node for node in nodes if node not in by_node]
            await self.create_pods(daemon, [self._pod(daemon, node, mark) for node in missing])
            self._update(daemon, nodes, mark)
        finally:
            again = self._write_status(daemon, nodes, mark)
        self.forget_old(daemon, {revision})
        return again

    def _by_node(self, daemon: Obj) -> dict[str, list[Obj]]:
        """Its pods that are to stay."""
        found: dict[str, list[Obj]] = {}
        for pod in self.owners.claimed(daemon, "pods"):
            if not is_deleting(pod):
                found.setdefault(_node_of(pod), []).append(pod)
        return found

    def _pod(self, daemon: Obj, node: str, mark: str) -> Obj:
        pod = pods.make(daemon, daemon["spec"]["template"], generateName=f"{name_of(daemon)}-")
        pod["metadata"]["labels"] |= {
            HASH: mark,
            "pod-template-generation": str(daemon["metadata"]["generation"]),
        }
        spec = pod["spec"]
        tolerated = [
            {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": effect}
            for key, effect in TOLERATED.items()
        ]
        spec["tolerations"] = [*(spec.get("tolerations") or ()), *tolerated]
        if node:
            term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
            affinity = spec.setdefault("affinity", {}).setdefault("nodeAffinity", {})
            affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": [term]}
        return pod

    def _update(self, daemon: Obj, nodes: list[str], mark: str) -> None:
        strategy = daemon["spec"].get("updateStrategy") or {}
        if strategy.get("type", "RollingUpdate") != "RollingUpdate":
            return
        unavailable = (strategy.get("rollingUpdate") or {}).get("maxUnavailable", 1)
        found = [pod for here in self._by_node(daemon).values() for pod in here]
        down = len(nodes) - sum(map(pods.is_ready, found))
        allowed = max(share(unavailable, len(nodes), up=True), 1) - down
        for pod in found:
            if revision_of(pod) != mark and (allowed > 0 or not pods.is_ready(pod)):
                allowed -= pods.is_ready(pod)
                self.delete_pod(daemon, pod)

    def _write_status(self, seen: Obj, nodes: list[str], mark: str) -> float | None:
        by_node = self._by_node(seen)
        here = [by_node[node][0] for node in nodes if node in by_node]
        counts, again = pods.count(here, seen["spec"].get("minReadySeconds", 0), self.clock.now())
        told = {
            "desiredNumberScheduled": len(nodes),
            "currentNumberScheduled": len(here),
            "numberMisscheduled": len(by_node.keys() - set(nodes)),
            "numberReady": counts["readyReplicas"],
            "updatedNumberScheduled": sum(revision_of(pod) == mark for pod in here),
            "numberAvailable": counts["availableReplicas"],
            "numberUnavailable": len(nodes) - counts["availableReplicas"],
            "observedGeneration": seen["metadata"]["generation"],
        }
        with self.changing(seen) as daemon:
            set_counts(daemon["status"], told, always=SHOWN)
        return again


def _node_of(pod: Obj) -> str:
    """The node that a pod has, or was made for."""
    if pod["spec"].get("nodeName"):
        return str(pod["spec"]["nodeName"])
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or ()
    fields = [need for term in terms for need in term.get("matchFields") or ()]
    return str(fields[0]["values"][0]) if fields else ""
