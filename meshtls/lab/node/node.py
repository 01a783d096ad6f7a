"""The node: runs the pods that the scheduler gave it, keeps the kernel's rules in step with Services and policies, and has the logs.

One Node plays every node of the lab: they differ in name and address only. All of it lives in the event loop's thread; what must happen
in another network namespace is done by `network`, what must become a process by `runtime`.
"""
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from meshtls.lab.api.identity import Tokens
from meshtls.lab.api.store import Event, Store
from meshtls.lab.controllers.recorder import Recorder
from meshtls.lab.node import logs, nft, register, rules
from meshtls.lab.node.dns import SLICES
from meshtls.lab.node.loopback import Loopback
from meshtls.lab.node.network import Network
from meshtls.lab.node.plane import Plane
from meshtls.lab.node.pod import Worker
from meshtls.lab.node.runtime import Runtime, host_python

Obj = dict[str, Any]
POLICIES = "networkpolicies.networking.k8s.io"
_SERVICES, _NETWORK_POLICIES = frozenset({"services", SLICES}), frozenset({POLICIES, "pods", "namespaces"})
_SETTLE_S = 0.03


class Coalesced:
    """Does an asynchronous piece of work soon after it was asked for; asked again meanwhile, once more afterwards. At most a fifth of
    the time goes into it."""

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        self._work = work
        self._again = False
        self._task: asyncio.Task[None] | None = None

    def ask(self) -> None:
        self._again = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        loop, took = asyncio.get_running_loop(), 0.0
        while self._again:
            await asyncio.sleep(max(_SETTLE_S, 4 * took))
            self._again, begun = False, loop.time()
            await self._work()
            took = loop.time() - begun

    def cancel(self) -> None:
        if self._task:
            self._task.cancel()


class Node:
    """`names` are the nodes it plays; `rootless` says that there is one real user only."""

    def __init__(self, store: Store, network: Network | Loopback, runtime: Runtime, plane: Plane, tokens: Tokens, envoy: str, *,
                 names: Sequence[str], rootless: bool) -> None:
        self.store, self.network, self.runtime, self.plane, self.envoy = store, network, runtime, plane, envoy
        self.rootless, self.python = rootless, host_python()
        self.recorder = Recorder(store)
        self._names, self._tokens = list(names), tokens
        self._workers: dict[str, Worker] = {}
        self._ends: set[asyncio.Task[None]] = set()
        self._next = 0
        self._services = Coalesced(self._write_services)
        self._policies = Coalesced(self._write_policies)
        self._unsubscribe: Callable[[], None] = lambda: None
        self._renewing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Say which nodes there are; take in what the store holds, and follow it."""
        await self.network.serve(self.store)
        for name, ip in zip(self._names, self.network.node_ips, strict=True):
            node = self.store.create("nodes", register.node(name, ip, self.store.now()))
            self.store.create(register.LEASES, register.lease(node))
        self._unsubscribe = self.store.subscribe(self._hear)
        for pod in self.store.list("pods"):
            self._hear(Event("ADDED", "pods", pod, None))
        self._services.ask()
        self._policies.ask()
        self._renewing = asyncio.get_running_loop().create_task(self._renew())

    async def stop(self) -> None:
        self._unsubscribe()
        if self._renewing:
            self._renewing.cancel()
        self._services.cancel()
        self._policies.cancel()
        for worker in self._workers.values():
            self._end(worker, 0)
        await asyncio.gather(*self._ends, return_exceptions=True)

    # what a pod asks of its node

    def index(self, pod: Obj) -> int:
        return self._names.index(pod["spec"]["nodeName"])

    def host_ip(self, pod: Obj) -> str:
        return self.network.node_ips[self.index(pod)]

    def token(self, pod: Obj, audience: str, seconds: int) -> str:
        metadata = pod["metadata"]
        try:
            return self._tokens.mint(metadata["namespace"], pod["spec"].get("serviceAccountName") or "default", ttl_s=seconds,
                                     audiences=[audience] if audience else None,
                                     bound={"kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]})
        except LookupError:
            return ""

    # events

    def _hear(self, event: Event) -> None:
        if event.resource in _SERVICES:
            self._services.ask()
        if event.resource == POLICIES or (event.resource in _NETWORK_POLICIES and self.store.list(POLICIES) and _moved(event)):
            self._policies.ask()
        if event.resource == "pods":
            self._pod(event)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(register.RENEWAL_S)
            for name in self._names:
                self.store.mutate(register.LEASES, register.LEASED_IN, name, lambda lease: lease["spec"].update(renewTime=register.precisely()))

    def _pod(self, event: Event) -> None:
        pod, metadata = event.object, event.object["metadata"]
        worker, leaving = self._workers.get(metadata["uid"]), "deletionTimestamp" in metadata
        if worker is not None:
            if event.type == "DELETED":
                self._end(worker, 0)
            elif leaving and "deletionTimestamp" not in (event.old or {"metadata": {}})["metadata"]:
                self._end(worker, metadata.get("deletionGracePeriodSeconds", 30))
        elif event.type == "DELETED" or pod["spec"].get("nodeName") not in self._names:
            return
        elif leaving:
            self.store.remove("pods", metadata["namespace"], metadata["name"])
        elif (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
            self._next += 1
            worker = self._workers[metadata["uid"]] = Worker(self, pod, self._next)
            worker.start()

    def _end(self, worker: Worker, grace_s: float) -> None:
        task = asyncio.get_running_loop().create_task(self._ended(worker, grace_s))
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)

    async def _ended(self, worker: Worker, grace_s: float) -> None:
        await worker.end(grace_s)
        self._workers.pop(worker.uid, None)
        stored = self.store.get("pods", worker.namespace, worker.name)
        if stored is None or stored["metadata"]["uid"] != worker.uid:
            return
        if stored["metadata"].get("finalizers"):
            self.store.mutate("pods", worker.namespace, worker.name, lambda pod: pod["metadata"].update(deletionGracePeriodSeconds=0))
        else:
            self.store.remove("pods", worker.namespace, worker.name)

    # the kernel's rules

    async def _write_services(self) -> None:
        translate, refuse = rules.services(self.store.list("services"), self.store.list(SLICES))
        await self.network.rules("lab-services", translate)
        await self.network.rules("lab-refused", refuse)

    async def _write_policies(self) -> None:
        chains: list[nft.Chain] = rules.Policies(self.store.list(POLICIES), self.store.list("pods"), self.store.list("namespaces")).chains()
        await self.network.rules("lab-policies", chains)

    # LogSource of the API

    async def lines(self, namespace: str, pod: str, container: str, *, previous: bool, **wish: Any) -> AsyncIterator[bytes]:
        """A container's output, as `logs.read` has it. Raises LookupError in the kubelet's words."""
        stored = self.store.get("pods", namespace, pod)
        worker = self._workers.get(stored["metadata"]["uid"]) if stored else None
        runs = next((c.logs for c in worker.containers if c.name == container), []) if worker else []
        if previous and len(runs) < 2:
            raise LookupError(f'previous terminated container "{container}" in pod "{pod}" not found')
        if runs:
            async for line in logs.read(runs[-2] if previous else runs[-1], **wish):
                yield line


def _moved(event: Event) -> bool:
    """Whether a pod's address or labels, or a namespace's labels, changed."""
    if event.old is None or event.type == "DELETED":
        return True
    return (event.old["metadata"].get("labels") != event.object["metadata"].get("labels")
            or (event.old.get("status") or {}).get("podIP") != (event.object.get("status") or {}).get("podIP"))
