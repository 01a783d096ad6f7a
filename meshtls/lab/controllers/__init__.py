"""The lab's control plane: one small module for each controller of a real cluster that the lab needs.

    objects conditions owners queue recorder controller what they share
    pods placement revisions                            what several use
    deployment (rollout, progress)  replicaset  statefulset  daemonset  job (jobstate)  cronjob
    endpoints (slices)                                  the EndpointSlices of Services
    scheduler  garbage  namespaces                      nodes for pods; owner references; namespaces from first to last

Laws:
  1. Nothing polls. A write to the store is told to every controller that watches the resource; each puts the objects
     concerned into its queue, and looks at what is there then, not at what was told. Only deadlines, schedules and
     retries have timers.
  2. Pods and Jobs come into being through the API, defaults, admission and injection included. All else is written
     straight to the store.
"""

from meshtls.lab.api.store import Event, Store
from meshtls.lab.controllers.controller import Controller, Hands
from meshtls.lab.controllers.cronjob import CronJobs
from meshtls.lab.controllers.daemonset import DaemonSets
from meshtls.lab.controllers.deployment import Deployments
from meshtls.lab.controllers.endpoints import EndpointSlices
from meshtls.lab.controllers.garbage import GarbageCollector
from meshtls.lab.controllers.job import Jobs
from meshtls.lab.controllers.namespaces import Namespaces
from meshtls.lab.controllers.queue import Clock, Queue
from meshtls.lab.controllers.replicaset import ReplicaSets
from meshtls.lab.controllers.scheduler import Scheduler
from meshtls.lab.controllers.statefulset import StatefulSets

__all__ = ["Controllers"]

LOOPS = (
    GarbageCollector,
    Deployments,
    ReplicaSets,
    StatefulSets,
    DaemonSets,
    CronJobs,
    Jobs,
    Scheduler,
    EndpointSlices,
)


class Controllers:
    """All controllers of one store. `root_ca_pem` is the mesh's root, `api_ca_pem` the API server's (the same if not
    given)."""

    def __init__(self, store: Store, root_ca_pem: str, *, api_ca_pem: str = "", clock: Clock | None = None) -> None:
        self._store = store
        hands = Hands(store, clock or Clock())
        self._owners = hands.owners
        namespaces = Namespaces(hands, root_ca_pem, api_ca_pem or root_ca_pem)
        self._every: dict[str, Controller] = {one.name: one for one in (namespaces, *(kind(hands) for kind in LOOPS))}
        self._queue = Queue(lambda who, namespace, name: self._every[who].reconcile(namespace, name), hands.clock)

    async def start(self) -> None:
        """Take in what the store holds, and follow it from now on."""
        store = self._store
        there = [Event("ADDED", resource, obj, None) for resource in store.resources() for obj in store.list(resource)]
        for event in there:
            self._owners.heard(event)
        self._unsubscribe = store.subscribe(self._hear)
        for event in there:
            self._hear(event)

    async def stop(self) -> None:
        """Hear nothing more; end timers and running work."""
        self._unsubscribe()
        await self._queue.close()

    def _hear(self, event: Event) -> None:
        self._owners.heard(event)
        for one in self._every.values():
            if not one.watches or event.resource in one.watches:
                for key in one.keys(event):
                    self._queue.add((one.name, *key))
