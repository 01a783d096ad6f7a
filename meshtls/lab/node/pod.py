"""One pod's life on the node, as the kubelet leads it: network, volumes, init containers in order, sidecars, containers, end.

On deletion: preStop, SIGTERM to the containers, the grace period, SIGKILL; then the same for the sidecars, last started first. The store's
object goes when nothing of the pod is left.
"""
import asyncio
import contextlib
import os
import shutil
import time
from typing import TYPE_CHECKING, Any

from meshtls.lab import istio
from meshtls.lab.api.store import clone
from meshtls.lab.istio.metrics import istio_metrics
from meshtls.lab.node import images, rules, status
from meshtls.lab.node.agent import Agent
from meshtls.lab.node.container import RETRY_S, Container, container_spec, proxy_spec
from meshtls.lab.node.environment import Problem, materialise
from meshtls.lab.node.network import PodNet
from meshtls.lab.node.runtime import Spec
from meshtls.lab.node.status import APP, INIT, SIDECAR
from meshtls.lab.node.xds import Proxy

if TYPE_CHECKING:
    from meshtls.lab.node.node import Node

Obj = dict[str, Any]
_SIDECARS_S = 5.0


class Worker:
    """Runs one pod. `start` and `end` are called by the node, each once."""

    def __init__(self, node: "Node", pod: Obj, number: int) -> None:
        self.node, self.pod, self.number = node, pod, number
        metadata, spec = pod["metadata"], pod["spec"]
        self.namespace, self.name, self.uid = metadata["namespace"], metadata["name"], metadata["uid"]
        self.home = f"pods/{number}"
        self.inits = [Container(self, c, SIDECAR if c.get("restartPolicy") == "Always" else INIT) for c in spec.get("initContainers") or []]
        self.apps = [Container(self, c, APP) for c in spec["containers"]]
        self.containers = [*self.inits, *self.apps]
        self.net: PodNet | None = None
        self.addresses: Obj = {"hostIP": node.host_ip(pod), "hostIPs": [{"ip": node.host_ip(pod)}], "startTime": node.store.now()}
        self.volumes: dict[str, str] = {}
        self.agent: Agent | None = None
        self.proxy: Proxy | None = None
        self.failure: Obj | None = None
        self.policy: str = spec.get("restartPolicy") or "Always"
        self.ending = False
        self._life: asyncio.Task[None] | None = None
        self._synced = False

    # status

    def sync(self) -> None:
        """Write the status once in this turn of the event loop, however often it is asked for."""
        if not self._synced:
            self._synced = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        self._synced = False
        gates = [gate["conditionType"] for gate in self.pod["spec"].get("readinessGates") or []]

        def change(pod: Obj) -> None:
            if pod["metadata"]["uid"] == self.uid:
                pod["status"] = clone(status.build(pod.get("status") or {}, self.containers, self.policy, self.node.store.now(), gates,
                                                   self.addresses, self.failure, pod["metadata"].get("generation", 1)))
        self.node.store.mutate("pods", self.namespace, self.name, change)

    def event(self, kind: str, reason: str, message: str, of: Container | None = None) -> None:
        pod = self.node.store.get("pods", self.namespace, self.name)
        field = f"spec.{'c' if of.kind == APP else 'initC'}ontainers{{{of.name}}}" if of else ""
        if pod is not None:
            self.node.recorder.record(kind, pod, "kubelet", reason, message, field)

    # life

    def start(self) -> None:
        self._life = asyncio.get_running_loop().create_task(self._live())

    async def _live(self) -> None:
        spec, network = self.pod["spec"], self.node.network
        try:
            os.makedirs(f"{self.home}/volumes", exist_ok=True)
            self.net = network.host(self.node.index(self.pod)) if spec.get("hostNetwork") else await network.add(self.pod)
            self.addresses |= {"podIP": self.net.ip, "podIPs": [{"ip": self.net.ip}]}
            strange = [container for container in self.containers if not images.kind(container.image)]
            for container in self.apps if not self.inits else []:
                container.waits("ContainerCreating")
            for container in strange:
                why = images.why_not(container.image)
                container.waits("ErrImagePull", why)
                self.event("Warning", "Failed", f'Failed to pull image "{container.image}": {why}', container)
            self._write()
            if strange:
                return
            if spec.get("activeDeadlineSeconds"):
                asyncio.get_running_loop().call_later(spec["activeDeadlineSeconds"], self._overdue)
            await self._mount()
            for container in self.inits:
                await self._initialise(container)
                if container.kind == INIT and container.code != 0:
                    break
            else:
                lives = []
                for container in self.apps:
                    lives.append(container.start())
                    await container.placed.wait()
                await asyncio.gather(*lives)
            await self._stop_sidecars(_SIDECARS_S)
            self.sync()
        except OSError as error:
            self.event("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {error}")

    def _overdue(self) -> None:
        if not self.ending and not (self._life and self._life.done()):
            self.failure = {"phase": "Failed", "reason": "DeadlineExceeded", "message": "Pod was active on the node longer than the specified deadline"}
            self.ending = True
            asyncio.get_running_loop().create_task(self._stop_all(1))

    async def _mount(self) -> None:
        while True:
            try:
                self.volumes = materialise(self.pod, self.node.store, self.addresses, f"{self.home}/volumes", "claims", self.node.token)
                return
            except Problem as problem:
                self.event("Warning", "FailedMount", str(problem))
            await asyncio.sleep(RETRY_S)

    async def _initialise(self, container: Container) -> None:
        """Run an init container to its end, or a sidecar until it has started. istio-init is done here."""
        if container.kind == SIDECAR:
            container.start()
            await container.begun.wait()
        elif container.proxy:
            chains = rules.intercept(istio.interception(self.pod))
            if chains:
                await self.node.network.rules("istio-proxy-nat", chains, self.net)
            container.ends(0, "Completed", self.node.store.now())
        else:
            await container.live()

    async def spec(self, container: Container) -> Spec:
        """What a container is to run now. Raises Problem."""
        assert self.net is not None
        if not container.proxy:
            return container_spec(self.pod, container.spec, self.node, self.net, self.addresses, self.volumes)
        pod = self.pod_now()
        self.proxy = self.node.plane.add(pod)
        if self.agent is None:
            self.agent = Agent(pod, self.net, self.node.network, f"{self.home}/admin.sock",
                               lambda text: istio_metrics(text, self.node.plane.world, self.pod_now()))
            await self.agent.start()
        return proxy_spec(pod, self.node, self.net, self.home)

    def pod_now(self) -> Obj:
        """The pod with its address in its status, also if its object has gone meanwhile."""
        stored = self.node.store.get("pods", self.namespace, self.name)
        pod = dict(stored if stored is not None and stored["metadata"]["uid"] == self.uid else self.pod)
        pod["status"] = {**(pod.get("status") or {}), **self.addresses}
        return pod

    # end

    async def end(self, grace_s: float) -> None:
        """Stop everything, free everything. The caller removes the object."""
        self.ending = True
        if self._life:
            self._life.cancel()
        if grace_s > 0:
            await self._stop_all(grace_s)
        closing = asyncio.gather(*(container.close() for container in self.containers))
        if self.agent:
            self.agent.close()
        self.node.plane.remove(self.pod_now())
        if self.net is not None:
            with contextlib.suppress(OSError):
                await self.node.network.remove(self.net)
        await closing
        shutil.rmtree(self.home, ignore_errors=True)

    async def _stop_all(self, grace_s: float) -> None:
        until = time.monotonic() + grace_s
        await asyncio.gather(*(self._stop(c, until) for c in self.containers if c.kind != SIDECAR))
        await self._stop_sidecars(max(until - time.monotonic(), 0.1))
        self._write()

    async def _stop_sidecars(self, grace_s: float) -> None:
        self.ending = True
        until = time.monotonic() + grace_s
        for container in reversed([c for c in self.inits if c.kind == SIDECAR]):
            await self._stop(container, until)

    async def _stop(self, container: Container, until: float) -> None:
        if container.alive:
            self.event("Normal", "Killing", f"Stopping container {container.name}", container)
            await container.stop(max(until - time.monotonic(), 0))
