"""A container: what is executed and as whom, and its life of runs, probes and restarts. Back-off: at once, then 10, 20, 40 ... 300 seconds."""
import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from meshtls.lab import istio
from meshtls.lab.node import http1, images, probes
from meshtls.lab.node.environment import Problem, expand, variables
from meshtls.lab.node.logs import Log
from meshtls.lab.node.network import API_IP, DNS_IP, PodNet
from meshtls.lab.node.runtime import CAPABILITIES, PATH, Process, Root, Spec, StartFailed
from meshtls.lab.node.status import APP, INIT, SIDECAR, Record

if TYPE_CHECKING:
    from meshtls.lab.node.node import Node
    from meshtls.lab.node.pod import Worker

Obj = dict[str, Any]
PROXY_ID = 1337
RETRY_S = 1.0
_BACKOFF_S, _LONGEST_BACKOFF_S, _FORGIVEN_S = 10, 300, 600
_LISTENING_S, _CLOSING_S, _AGENT_WAITS_S = 5, 5, 60
_MARKER = "/.lab/mark"
_MARK = f"""import socket
_init = socket.socket.__init__
def __init__(self, *args, **kwargs):
    _init(self, *args, **kwargs)
    if self.family in (socket.AF_INET, socket.AF_INET6):
        self.setsockopt(socket.SOL_SOCKET, 36, {PROXY_ID})
socket.socket.__init__ = __init__
"""


def container_spec(pod: Obj, container: Obj, node: "Node", net: PodNet, status: Obj, volumes: dict[str, str]) -> Spec:
    """What to execute for an ordinary container. Raises Problem when the pod cannot be as it is."""
    whole, own = pod["spec"].get("securityContext") or {}, container.get("securityContext") or {}
    asked = {**whole, **own}
    uid, gid = int(asked.get("runAsUser") or 0), int(asked.get("runAsGroup") or 0)
    if asked.get("runAsNonRoot") and uid == 0 and (asked.get("runAsUser") == 0 or "meshtls" not in container["image"]):
        metadata = pod["metadata"]
        raise Problem(f'container has runAsNonRoot and image will run as root (pod: "{metadata["name"]}_{metadata["namespace"]}'
                      f'({metadata["uid"]})", container: {container["name"]})')
    hostname = pod["spec"].get("hostname") or pod["metadata"]["name"]
    env = variables(pod, container, node.store, status, {
        "PATH": PATH, "HOSTNAME": hostname, "HOME": "/root" if uid == 0 else "/", "KUBERNETES_SERVICE_HOST": API_IP,
        "KUBERNETES_SERVICE_PORT": "443", "KUBERNETES_SERVICE_PORT_HTTPS": "443"})
    marks = node.rootless and PROXY_ID in (uid, gid)
    files = {"/etc/resolv.conf": _resolv(pod), "/etc/hostname": hostname + "\n", "/etc/hosts": _hosts(pod, net, hostname)}
    if marks:
        files[f"{_MARKER}/sitecustomize.py"] = _MARK
        env["PYTHONPATH"] = ":".join(filter(None, (_MARKER, env.get("PYTHONPATH", ""))))
    mounts = tuple(sorted((_mount(mount, volumes, pod, env) for mount in container.get("volumeMounts") or []), key=lambda m: m[1]))
    argv = [expand(part, env) for part in [*(container.get("command") or []), *(container.get("args") or [])]] or ["python3"]
    wish = own.get("capabilities") or {}
    dropped = set(CAPABILITIES if "ALL" in (wish.get("drop") or []) else wish.get("drop") or [])
    kept = (set(CAPABILITIES) - dropped) | set(wish.get("add") or [])
    groups = [int(g) for g in (*(whole.get("supplementalGroups") or []), whole.get("fsGroup")) if g is not None]
    spec = Spec(argv=tuple(argv), env=env, cwd=container.get("workingDir") or "/", hostname=hostname[:63], uid=uid, gid=gid,
                groups=tuple(groups), capabilities=tuple(kept), marks=marks, rootless=node.rootless, interpreter=node.python[1],
                no_new_privileges=own.get("allowPrivilegeEscalation") is False,
                root=Root(python=node.python, files=files, mounts=mounts, readonly=bool(own.get("readOnlyRootFilesystem"))))
    return net.contain(spec)


def proxy_spec(pod: Obj, node: "Node", net: PodNet, home: str) -> Spec:
    """What to execute for the pod's Envoy. Writes its bootstrap."""
    admin, path = f"{home}/admin.sock", f"{home}/envoy.json"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(admin)
    world = node.plane.world
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(msgspec.json.encode(istio.bootstrap(pod, world, xds_socket="xds.sock", admin_socket=admin) | net.bootstrap))
    return Spec(argv=(node.envoy, "-c", path, *istio.arguments(world, pod)), env={"PATH": "/usr/bin:/bin"}, cwd=os.getcwd())


def _mount(mount: Obj, volumes: dict[str, str], pod: Obj, env: dict[str, str]) -> tuple[str, str, bool]:
    source = volumes.get(mount["name"])
    if source is None:
        raise Problem(f'volume "{mount["name"]}" not found')
    below = mount.get("subPath") or expand(mount.get("subPathExpr") or "", env)
    volume = next(v for v in pod["spec"].get("volumes") or [] if v["name"] == mount["name"])
    writable = "emptyDir" in volume or "persistentVolumeClaim" in volume or "ephemeral" in volume
    if below:
        if below.startswith("/") or ".." in below.split("/"):
            raise Problem(f"subPath {below!r} leaves the volume")
        source = f"{source}/{below}"
        if not os.path.exists(source) and writable:
            os.makedirs(source, 0o777)
    return source, mount["mountPath"].rstrip("/") or "/", bool(mount.get("readOnly")) or not writable


def _resolv(pod: Obj) -> str:
    namespace, policy = pod["metadata"]["namespace"], pod["spec"].get("dnsPolicy") or "ClusterFirst"
    own = pod["spec"].get("dnsConfig") or {}
    servers, search, options = [DNS_IP], [f"{namespace}.svc.cluster.local", "svc.cluster.local", "cluster.local"], ["ndots:5"]
    if policy in ("None", "Default") or (pod["spec"].get("hostNetwork") and policy == "ClusterFirst"):
        servers, search, options = ([], [], []) if policy == "None" else ([DNS_IP], [], [])
    servers += own.get("nameservers") or []
    search += own.get("searches") or []
    options += [f"{o['name']}:{o['value']}" if o.get("value") else o["name"] for o in own.get("options") or []]
    lines = [*(f"nameserver {s}" for s in servers), *([f"search {' '.join(search)}"] if search else []),
             *([f"options {' '.join(options)}"] if options else [])]
    return "\n".join(lines) + "\n"


def _hosts(pod: Obj, net: PodNet, hostname: str) -> str:
    subdomain = pod["spec"].get("subdomain")
    full = f"{hostname}.{subdomain}.{pod['metadata']['namespace']}.svc.cluster.local\t" if subdomain else ""
    aliases = "".join(f"{a['ip']}\t{' '.join(a.get('hostnames') or [])}\n" for a in pod["spec"].get("hostAliases") or [])
    return f"127.0.0.1\tlocalhost\n::1\tlocalhost\n{net.ip}\t{full}{hostname}\n{aliases}"


class Container(Record):
    """One container: its runs one after the other, each with its log, probes and hooks, as the restart policy has it.

    `placed` is set when it runs for the first time and its postStart hook is through, or when that has failed: the next container's turn;
    `begun` when it has started, as its startup probe has it.
    """

    def __init__(self, worker: "Worker", spec: Obj, kind: str) -> None:
        super().__init__(spec, kind)
        self.proxy = images.kind(self.image) == images.PROXY
        self.placed, self.begun = asyncio.Event(), asyncio.Event()
        self.logs: list[Log] = []  # of the last two runs
        self._worker = worker
        self._spec: Spec | None = None
        self._process: Process | None = None
        self._life: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> asyncio.Task[None]:
        """Live in a task of its own."""
        self._life = asyncio.get_running_loop().create_task(self.live())
        return self._life

    def event(self, kind: str, reason: str, message: str) -> None:
        """An event of the pod's that is about this container."""
        self._worker.event(kind, reason, message, self)

    async def live(self) -> None:
        """Run, again and again as the restart policy has it."""
        worker, pause = self._worker, 0
        while True:
            begun = time.monotonic()
            code = await self._run()
            self.placed.set()
            again = self.kind == SIDECAR or (worker.policy != "Never" if code else self.kind == APP and worker.policy == "Always")
            if worker.ending or not again:
                return worker.sync()
            if time.monotonic() - begun > _FORGIVEN_S:
                pause = 0
            self.last = dict(self.state)
            if pause:
                whole = f"{worker.name}_{worker.namespace}({worker.uid})"
                self.waits("CrashLoopBackOff", f"back-off {pause}s restarting failed container={self.name} pod={whole}")
                self.event("Warning", "BackOff", f"Back-off restarting failed container {self.name} in pod {whole}")
                worker.sync()
                await asyncio.sleep(pause)
            pause = min(max(_BACKOFF_S, pause * 2), _LONGEST_BACKOFF_S)
            self.restarts += 1

    async def _run(self) -> int:
        """One run; its exit code."""
        worker = self._worker
        while True:
            try:
                spec = self._spec = await worker.spec(self)
                log = self._new_log()
                break
            except (Problem, OSError) as problem:
                self.waits("CreateContainerConfigError", str(problem))
                self.event("Warning", "Failed", f"Error: {problem}")
                worker.sync()
                self.placed.set()
            await asyncio.sleep(RETRY_S)
        self.id = f"lab://{worker.number}-{self.name}-{self.restarts}"
        assert worker.net is not None
        try:
            process = self._process = await worker.node.runtime.start(spec, worker.net.netns)
        except (StartFailed, OSError) as error:
            log.close()
            self.ends(128, "StartError", worker.node.store.now(), f"failed to create containerd task: {error}")
            self.event("Warning", "Failed", f"Error: {error}")
            worker.sync()
            return 128
        log.attach(process.output)
        self.runs(worker.node.store.now())
        self.event("Normal", "Created", "Container created")
        self.event("Normal", "Started", "Container started")
        if "postStart" in (self.spec.get("lifecycle") or {}):
            self._in_task(self._post_start())
        else:
            self._settle()
        worker.sync()
        try:
            status = await asyncio.shield(process.exit)
        finally:
            for task in self._tasks:
                task.cancel()
            self._tasks.clear()
        code = status if status >= 0 else 128 - status
        self.ends(code, "Error" if code else "Completed", worker.node.store.now())
        worker.sync()
        return code

    def _new_log(self) -> Log:
        folder = f"{self._worker.home}/logs"
        os.makedirs(folder, exist_ok=True)
        for old in self.logs[:-1]:
            old.remove()
        self.logs = [*self.logs[-1:], Log(f"{folder}/{self.name}.{self.restarts}")]
        return self.logs[-1]

    def _in_task(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))

    async def _post_start(self) -> None:
        """The hook, and only then the probes; where it fails, the end of this run."""
        if not await self._hook("postStart"):
            return await self.stop(self._grace())
        self._settle()
        self._worker.sync()

    def _settle(self) -> None:
        self.placed.set()
        if self.spec.get("startupProbe"):
            self._in_task(self._probe("startupProbe"))
        else:
            self._has_started()

    def _has_started(self) -> None:
        self.started = True
        self.ready = not self.spec.get("readinessProbe") and self.kind != INIT
        self.begun.set()
        for kind in ("readinessProbe", "livenessProbe"):
            if self.spec.get(kind):
                self._in_task(self._probe(kind))

    async def _probe(self, kind: str) -> None:
        worker, probe = self._worker, self.spec[kind]
        assert worker.net is not None
        ip, label, source = worker.net.ip, kind.removesuffix("Probe").capitalize(), worker.node.network.probes_from(worker.node.index(worker.pod))
        if worker.proxy is not None and self.proxy:
            with contextlib.suppress(TimeoutError):  # asking a proxy that has no listeners yet tells nothing
                await asyncio.wait_for(worker.proxy.listening.wait(), _LISTENING_S)
        async for success, message in probes.watch(probe, lambda: probes.attempt(probe, self.spec, ip, self.execute, source)):
            if worker.ending and kind != "readinessProbe":
                return  # a pod that goes is not started again
            if not success:
                self.event("Warning", "Unhealthy", f"{label} probe {message}")
            if kind == "readinessProbe":
                if success is not None and self.ready != success:
                    self.ready = success
                    worker.sync()
            elif success and kind == "startupProbe":
                self._has_started()
                return worker.sync()
            elif success is False:
                self.event("Normal", "Killing", f"Container {self.name} failed {label.lower()} probe, will be restarted")
                return await self.stop(self._grace(probe))

    def _grace(self, probe: Obj | None = None) -> float:
        return float((probe or {}).get("terminationGracePeriodSeconds") or self._worker.pod["spec"].get("terminationGracePeriodSeconds", 30))

    async def execute(self, command: list[str], limit_s: float | None) -> tuple[int, str]:
        """Run a command inside. Raises TimeoutError, StartFailed."""
        assert self._spec is not None and self._process is not None
        spec = msgspec.structs.replace(self._spec, argv=tuple(command))
        process = await self._worker.node.runtime.start(spec, inside=self._process)
        with os.fdopen(process.output, "rb") as output:
            try:
                code = await asyncio.wait_for(asyncio.shield(process.exit), limit_s)
            except BaseException:
                process.signal(signal.SIGKILL)
                raise
            os.set_blocking(output.fileno(), False)
            return code, (output.read(4096) or b"").decode(errors="replace")

    async def _hook(self, name: str) -> bool:
        """preStop or postStart, if there is one; whether it went well. Of the proxy's own, `pilot-agent wait` alone means something here."""
        hook, worker, code = (self.spec.get("lifecycle") or {}).get(name) or {}, self._worker, 0
        try:
            if self.proxy:
                if "wait" in (hook.get("exec") or {}).get("command", []) and worker.proxy:
                    await asyncio.wait_for(worker.proxy.listening.wait(), _AGENT_WAITS_S)
            elif "exec" in hook:
                code, _ = await self.execute(hook["exec"].get("command") or [], None)
            elif "httpGet" in hook and worker.net:
                await probes.ask(hook, self.spec, hook["httpGet"].get("host") or worker.net.ip)
            elif "sleep" in hook:
                await asyncio.sleep(float(hook["sleep"].get("seconds", 0)))
        except (http1.NoAnswer, StartFailed, TimeoutError):
            code = 1
        if code:
            what = name[0].upper() + name[1:]
            self.event("Warning", f"Failed{what}Hook", f"{what}Hook failed")
        return not code

    @property
    def alive(self) -> bool:
        """Whether a process of it runs."""
        return self._process is not None and not self._process.exit.done()

    async def stop(self, grace_s: float) -> None:
        """preStop, SIGTERM, at most `grace_s` seconds, SIGKILL; returns when no process is left."""
        if self._process is None:
            return
        try:
            async with asyncio.timeout(grace_s):
                await self._hook("preStop")
                self._process.signal(signal.SIGTERM)
                await asyncio.shield(self._process.exit)
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """SIGKILL; returns when no process is left."""
        if self._process is not None:
            self._process.signal(signal.SIGKILL)
            await asyncio.shield(self._process.exit)

    async def close(self) -> None:
        """End it at once; nobody records it."""
        if self._life:
            self._life.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.kill(), _CLOSING_S)
        for log in self.logs:
            log.close()
