"""The lab's control plane: one small module for each controller of a real cluster that the lab needs.

    clock hands objects owners queue recorder   what they share          pods placement revisions   what several use
    deployment (rollout, progress)  replicaset  statefulset  daemonset  job (jobstate)  cronjob      workloads
    addresses  endpoints (slices)               Services: cluster IPs, node ports, EndpointSlices
    scheduler  garbage  namespaces              nodes for pods; owner references; what namespaces hold, and their end

Laws:
  1. Nothing polls. A write to the store is told to every controller that watches the resource; each puts the objects
     concerned into its queue, and looks at what is there then, not at what was told. Only deadlines, schedules and
     retries have timers.
  2. Pods come into being through `create_pod`, admission and injection included. All else is written straight to the
     store.
"""

import random
from collections.abc import Callable, Sequence

from meshtls.lab.api.store import Event, Store
from meshtls.lab.controllers.addresses import Addresses
from meshtls.lab.controllers.clock import Clock, SystemClock, text
from meshtls.lab.controllers.cronjob import CronJobs
from meshtls.lab.controllers.daemonset import DaemonSets
from meshtls.lab.controllers.deployment import Deployments
from meshtls.lab.controllers.endpoints import EndpointSlices
from meshtls.lab.controllers.garbage import GarbageCollector
from meshtls.lab.controllers.hands import Controller, CreatePod, Hands, submitting
from meshtls.lab.controllers.job import Jobs
from meshtls.lab.controllers.namespaces import Namespaces
from meshtls.lab.controllers.queue import Queue
from meshtls.lab.controllers.replicaset import ReplicaSets
from meshtls.lab.controllers.scheduler import Scheduler
from meshtls.lab.controllers.statefulset import StatefulSets

__all__ = ["Clock", "Controllers", "CreatePod", "SystemClock", "submitting"]


class Controllers:
    """All controllers of one store. `root_ca_pem` is the mesh's root, `api_ca_pem` the API server's (the same if not
    given)."""

    def __init__(
        self,
        store: Store,
        create_pod: CreatePod,
        root_ca_pem: str,
        nodes: Sequence[str] = ("lab-1",),
        clock: Clock | None = None,
        *,
        api_ca_pem: str = "",
        chance: random.Random | None = None,
    ) -> None:
        self._hands = Hands(store, create_pod, clock or SystemClock(), chance or random.Random())
        self._nodes = tuple(nodes)
        hands = self._hands
        every: tuple[Controller, ...] = (
            Namespaces(hands, root_ca_pem, api_ca_pem or root_ca_pem),
            GarbageCollector(hands),
            Addresses(hands),
            Deployments(hands),
            ReplicaSets(hands),
            StatefulSets(hands),
            DaemonSets(hands),
            CronJobs(hands),
            Jobs(hands),
            Scheduler(hands),
            EndpointSlices(hands),
        )
        self._loops = tuple((one, Queue(one.name, one.reconcile, hands.clock)) for one in every)
        self._by_resource: dict[str, tuple[tuple[Controller, Queue], ...]] = {}
        self._unsubscribe: Callable[[], None] | None = None

    async def start(self) -> None:
        """Take in what the store holds, and follow it from now on."""
        store = self._hands.store
        self._hands.owners.load()
        self._unsubscribe = store.subscribe(self._hear)
        for resource in store.resources():
            for obj in store.list(resource):
                self._tell(Event("ADDED", resource, obj, None))
        for name in self._nodes:
            if store.get("nodes", "", name) is None:
                store.create("nodes", self._node(name))

    async def stop(self) -> None:
        """Hear nothing more; end timers and running work."""
        if self._unsubscribe:
            self._unsubscribe()
        for _, queue in self._loops:
            await queue.close()

    async def settle(self) -> None:
        """Return when no controller has anything left to do but wait for a timer or an event."""
        while any([await queue.idle() for _, queue in self._loops]):
            pass

    def _hear(self, event: Event) -> None:
        self._hands.owners.heard(event)
        self._tell(event)

    def _tell(self, event: Event) -> None:
        concerned = self._by_resource.get(event.resource)
        if concerned is None:
            concerned = self._by_resource[event.resource] = tuple(
                (one, queue) for one, queue in self._loops if not one.watches or event.resource in one.watches
            )
        for one, queue in concerned:
            for key in one.keys(event):
                queue.add(key)

    def _node(self, name: str) -> dict[str, object]:
        now = text(self._hands.clock.now())
        labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "message": "the lab runs pods",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": labels},
            "spec": {},
            "status": {"conditions": [ready]},
        }
