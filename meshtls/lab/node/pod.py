"""One pod's life on the node, as the kubelet leads it: network, volumes, init containers in order, sidecars, containers, end.

Restart back-off: at once, then 10, 20, 40 ... 300 seconds. On deletion: preStop, SIGTERM to the containers, the grace period, SIGKILL; then
the same for the sidecars, last started first. The store's object goes when nothing of the pod is left.
"""
import asyncio
import contextlib
import os
import shutil
import time
from typing import TYPE_CHECKING, Any

from meshtls.lab import istio
from meshtls.lab.api.store import clone
from meshtls.lab.node import images, rules, status
from meshtls.lab.node.agent import PROXY, Agent
from meshtls.lab.node.container import Running, container_spec, proxy_spec
from meshtls.lab.node.environment import Problem, materialise
from meshtls.lab.node.network import PodNet
from meshtls.lab.node.runtime import StartFailed
from meshtls.lab.node.status import APP, INIT, SIDECAR, Record
from meshtls.lab.node.xds import Proxy

if TYPE_CHECKING:
    from meshtls.lab.node.node import Node

Obj = dict[str, Any]
_BACKOFF_S, _LONGEST_BACKOFF_S, _FORGIVEN_S = 10, 300, 600
_RETRY_S = 1.0


class Worker:
    """Runs one pod. `start` and `end` are called by the node, each once."""

    def __init__(self, node: "Node", pod: Obj, number: int) -> None:
        self.node, self.pod, self.number = node, pod, number
        metadata = pod["metadata"]
        self.namespace, self.name, self.uid = metadata["namespace"], metadata["name"], metadata["uid"]
        self.home = f"pods/{number}"
        inits = [Record(c, SIDECAR if c.get("restartPolicy") == "Always" else INIT) for c in pod["spec"].get("initContainers") or []]
        self.records = [*inits, *(Record(c, APP) for c in pod["spec"]["containers"])]
        self.running: dict[str, Running] = {}
        self.net: PodNet | None = None
        self.addresses: Obj = {"hostIP": node.host_ip(pod), "hostIPs": [{"ip": node.host_ip(pod)}], "startTime": node.store.now()}
        self.volumes: dict[str, str] = {}
        self.agent: Agent | None = None
        self.proxy: Proxy | None = None
        self.failure: Obj | None = None
        self.policy: str = pod["spec"].get("restartPolicy") or "Always"
        self._life: asyncio.Task[None] | None = None
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._ending = False
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
                pod["status"] = clone(status.build(pod.get("status") or {}, self.records, self.policy, self.node.store.now(), gates,
                                                   self.addresses, self.failure))
        self.node.store.mutate("pods", self.namespace, self.name, change)

    def event(self, kind: str, reason: str, message: str) -> None:
        pod = self.node.store.get("pods", self.namespace, self.name)
        if pod is not None:
            getattr(self.node.recorder, kind)(pod, "kubelet", reason, message)

    # life

    def start(self) -> None:
        self._life = asyncio.get_running_loop().create_task(self._live())

    async def _live(self) -> None:
        try:
            os.makedirs(f"{self.home}/volumes", exist_ok=True)
            self.net = self.node.network.host(self.node.index(self.pod)) if self.pod["spec"].get("hostNetwork") else await self.node.network.add(self.pod)
            self.addresses |= {"podIP": self.net.ip, "podIPs": [{"ip": self.net.ip}]}
            for record in self.records:
                if not images.kind(record.spec.get("image", "")):
                    record.waits("ErrImagePull", images.why_not(record.spec.get("image", "")))
                    self.event("warning", "Failed", f"Failed to pull image \"{record.spec.get('image', '')}\": {record.state['waiting']['message']}")
                elif record.kind == APP and not self.pod["spec"].get("initContainers"):
                    record.waits("ContainerCreating")
            self._write()
            if any("waiting" in r.state and r.state["waiting"]["reason"] == "ErrImagePull" for r in self.records):
                return
            deadline = self.pod["spec"].get("activeDeadlineSeconds")
            if deadline:
                asyncio.get_running_loop().call_later(deadline, self._overdue)
            await self._mount()
            for record in [r for r in self.records if r.kind != APP]:
                if not await self._initialise(record):
                    await self._stop_sidecars(5)
                    return
            apps = [self._keep_in_task(r) for r in self.records if r.kind == APP]
            await asyncio.gather(*apps)
            await self._stop_sidecars(5)
            self.sync()
        except OSError as error:
            self.event("warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {error}")

    def _overdue(self) -> None:
        if not self._ending and not (self._life and self._life.done()):
            self.failure = {"phase": "Failed", "reason": "DeadlineExceeded", "message": "Pod was active on the node longer than the specified deadline"}
            self._ending = True
            asyncio.get_running_loop().create_task(self._stop_all(1))

    async def _mount(self) -> None:
        while True:
            try:
                self.volumes = {name: os.path.abspath(path) for name, path in materialise(
                    self.pod, self.node.store, self.addresses, f"{self.home}/volumes", "claims", self.node.token).items()}
                return
            except Problem as problem:
                self.event("warning", "FailedMount", str(problem))
            await asyncio.sleep(_RETRY_S)

    async def _initialise(self, record: Record) -> bool:
        """Run an init container to its end, or a sidecar until it has started. False if the pod has failed."""
        if images.kind(record.spec["image"]) == images.PROXY and record.kind == INIT:
            assert self.net is not None
            wish = istio.interception(self.pod)
            chains = rules.intercept(wish)
            if chains:
                await self.node.network.rules("istio-proxy-nat", chains, self.net)
            record.ends(0, "Completed", self.node.store.now())
            return True
        if record.kind == SIDECAR:
            self._keep_in_task(record)
            while not record.started:
                await self.running[record.name].started.wait() if record.name in self.running else await asyncio.sleep(0.005)
            return True
        await self._keep(record)
        return record.code == 0

    def _keep_in_task(self, record: Record) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._keep(record))
        self._keepers[record.name] = task
        return task

    async def _keep(self, record: Record) -> None:
        """Run a container, again and again as the restart policy has it."""
        pause = 0
        while True:
            begun = time.monotonic()
            code = await self._once(record)
            if self._ending or not self._again(record, code):
                self.sync()
                return
            if time.monotonic() - begun > _FORGIVEN_S:
                pause = 0
            if record.code is not None:
                record.last = dict(record.state)
            if pause:
                message = f"back-off {pause}s restarting failed container={record.name} pod={self.name}_{self.namespace}({self.uid})"
                record.waits("CrashLoopBackOff", message)
                self.event("warning", "BackOff", f"Back-off restarting failed container {record.name} in pod {self.name}_{self.namespace}({self.uid})")
                self.sync()
                await asyncio.sleep(pause)
            pause = min(max(_BACKOFF_S, pause * 2), _LONGEST_BACKOFF_S)
            record.restarts += 1

    def _again(self, record: Record, code: int) -> bool:
        if record.kind == SIDECAR:
            return True
        if record.kind == INIT:
            return code != 0 and self.policy != "Never"
        return self.policy == "Always" or (self.policy == "OnFailure" and code != 0)

    async def _once(self, record: Record) -> int:
        """One run of a container; its exit code."""
        assert self.net is not None
        proxy = images.kind(record.spec["image"]) == images.PROXY
        while True:
            try:
                if proxy:
                    await self._open_agent(record)
                    spec = proxy_spec(self.pod_now(), self.node, self.net, self.home)
                else:
                    spec = container_spec(self.pod, record.spec, self.node, self.net, self.addresses, self.volumes)
                break
            except Problem as problem:
                record.waits("CreateContainerConfigError", str(problem))
                self.event("warning", "Failed", f"Error: {problem}")
                self.sync()
            await asyncio.sleep(_RETRY_S)
        run = Running(self, record)
        self.running[record.name] = run
        try:
            await run.start(spec)
        except (StartFailed, OSError) as error:
            record.id = f"lab://{self.number}-{record.name}-{record.restarts}"
            record.ends(128, "StartError", self.node.store.now(), f"failed to create containerd task: {error}")
            self.event("warning", "Failed", f"Error: {error}")
            self.sync()
            return 128
        code = await run.finished()
        return code

    async def _open_agent(self, record: Record) -> None:
        assert self.net is not None
        pod = self.pod_now()
        self.proxy = self.node.plane.add(pod)
        self.proxy.restart()
        if self.agent is None:
            agent = Agent(pod, self.net, self.node.network, f"{self.home}/admin.sock", lambda text: self.node.metrics(text, self.pod_now()))
            await agent.start()
            self.agent = agent

    def pod_now(self) -> Obj:
        """The pod with its address in its status, also if its object has gone meanwhile."""
        stored = self.node.store.get("pods", self.namespace, self.name)
        pod = dict(stored if stored is not None and stored["metadata"]["uid"] == self.uid else self.pod)
        pod["status"] = {**(pod.get("status") or {}), **self.addresses}
        return pod

    # end

    async def end(self, grace_s: float) -> None:
        """Stop everything, free everything. The caller removes the object."""
        self._ending = True
        if self._life:
            self._life.cancel()
        if grace_s > 0:
            await self._stop_all(grace_s)
        for run in self.running.values():
            run.kill()
        for task in self._keepers.values():
            task.cancel()
        if self.agent:
            self.agent.close()
        self.node.plane.remove(self.pod)
        if self.net is not None:
            with contextlib.suppress(OSError):
                await self.node.network.remove(self.net)
        for run in self.running.values():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(run.over(), 5)
        shutil.rmtree(self.home, ignore_errors=True)

    async def _stop_all(self, grace_s: float) -> None:
        until = time.monotonic() + grace_s
        await asyncio.gather(*(self._stop(r, until) for r in self.records if r.kind != SIDECAR))
        await self._stop_sidecars(max(until - time.monotonic(), 0.1))
        self._write()

    async def _stop_sidecars(self, grace_s: float) -> None:
        self._ending = True
        until = time.monotonic() + grace_s
        for record in reversed([r for r in self.records if r.kind == SIDECAR]):
            await self._stop(record, until)

    async def _stop(self, record: Record, until: float) -> None:
        run = self.running.get(record.name)
        if run is None or run.gone.is_set():
            return
        self.event("normal", "Killing", f"Stopping container {record.name}")
        await run.stop(max(until - time.monotonic(), 0), hook=record.name != PROXY)

