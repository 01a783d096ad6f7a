"""One run of one container: what is executed and as whom, its log, its probes, its end."""
import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

import msgspec

from meshtls.lab import istio
from meshtls.lab.node import http1, images, probes
from meshtls.lab.node.environment import Problem, expand, variables
from meshtls.lab.node.logs import Log
from meshtls.lab.node.network import API_IP, DNS_IP, PodNet
from meshtls.lab.node.runtime import CAPABILITIES, PATH, Process, Root, Spec
from meshtls.lab.node.status import INIT

if TYPE_CHECKING:
    from meshtls.lab.node.node import Node
    from meshtls.lab.node.pod import Worker
    from meshtls.lab.node.status import Record

Obj = dict[str, Any]
PROXY_ID = 1337
_LISTENING_S = 5
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
    dropped, added = wish.get("drop") or [], wish.get("add") or []
    kept = [name for name in CAPABILITIES if "ALL" not in dropped and name not in dropped] + [name for name in added if name in CAPABILITIES]
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


class Running:
    """A container that runs. `gone` is set when its process has ended and its log is complete."""

    def __init__(self, worker: "Worker", record: "Record") -> None:
        self._worker, self._record = worker, record
        self._spec: Spec | None = None
        self._process: Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._reason = ""
        self.started = asyncio.Event()
        self.gone = asyncio.Event()

    async def start(self, spec: Spec) -> None:
        """Raises StartFailed or OSError."""
        worker, record = self._worker, self._record
        record.id = f"lab://{worker.number}-{record.name}-{record.restarts}"
        self._spec = spec
        assert worker.net is not None
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            log = worker.node.new_log(worker, record.name)
            log.attach(reader)
            self._process = await worker.node.runtime.start(spec, writer, worker.net.netns)
        except BaseException:
            self.gone.set()
            raise
        finally:
            os.close(writer)
        record.runs(worker.node.store.now())
        worker.event("normal", "Started", f"Container started: {record.name}")
        if not record.spec.get("startupProbe"):
            self._has_started()
        self._watch("startupProbe" if record.spec.get("startupProbe") else "readinessProbe")
        hook = (record.spec.get("lifecycle") or {}).get("postStart")
        if hook and images.kind(record.spec["image"]) != images.PROXY:
            self._tasks.append(asyncio.get_running_loop().create_task(self._hook(hook)))
        worker.sync()

    def _has_started(self) -> None:
        record = self._record
        record.started = True
        record.ready = not record.spec.get("readinessProbe") and record.kind != INIT
        self.started.set()

    def _watch(self, *kinds: str) -> None:
        wanted = [kind for kind in (*kinds, *(() if "startupProbe" in kinds else ("livenessProbe",))) if self._record.spec.get(kind)]
        for kind in wanted:
            self._tasks.append(asyncio.get_running_loop().create_task(self._probe(kind)))

    async def _probe(self, kind: str) -> None:
        worker, record = self._worker, self._record
        probe = record.spec[kind]
        assert worker.net is not None
        ip, label, failed = worker.net.ip, kind.removesuffix("Probe").capitalize(), ""
        source = worker.node.network.probes_from(worker.node.index(worker.pod))

        async def once() -> probes.Result:
            nonlocal failed
            success, message = await probes.attempt(probe, record.spec, ip, self.execute, source)
            failed = message
            return success, message

        def tell(success: bool | None, message: str) -> None:
            if not success and (kind != "startupProbe" or success is False):
                worker.event("warning", "Unhealthy", f"{label} probe failed: {message}")
            if kind == "readinessProbe" and success is not None and record.ready != success:
                record.ready = success
                worker.sync()
            elif kind == "startupProbe" and success:
                self._has_started()
                self._watch("readinessProbe")
                worker.sync()
                raise asyncio.CancelledError
            elif success is False and kind != "readinessProbe":
                worker.event("normal", "Killing", f"Container {record.name} failed {label.lower()} probe, will be restarted")
                self._reason = "Error"
                self._tasks.append(asyncio.get_running_loop().create_task(self.stop(self._grace(probe), hook=True)))
                raise asyncio.CancelledError

        if worker.proxy is not None and images.kind(record.spec["image"]) == images.PROXY:
            with contextlib.suppress(TimeoutError):  # asking a proxy that has no listeners yet tells nothing
                await asyncio.wait_for(worker.proxy.listening.wait(), _LISTENING_S)
        await probes.watch(probe, once, tell)

    def _grace(self, probe: Obj | None = None) -> float:
        return float((probe or {}).get("terminationGracePeriodSeconds") or self._worker.pod["spec"].get("terminationGracePeriodSeconds", 30))

    async def execute(self, command: list[str], limit_s: float) -> tuple[int, str]:
        """Run a command inside. Raises TimeoutError."""
        assert self._spec is not None and self._process is not None
        spec = msgspec.structs.replace(self._spec, argv=tuple(command))
        reader, writer = os.pipe2(os.O_CLOEXEC)
        with os.fdopen(reader, "rb") as output:
            try:
                process = await self._worker.node.runtime.start(spec, writer, inside=self._process)
            except Exception as error:
                return 127, str(error)
            finally:
                os.close(writer)
            try:
                code = await asyncio.wait_for(asyncio.shield(process.exit), limit_s)
            except TimeoutError:
                process.signal(signal.SIGKILL)
                raise
            os.set_blocking(reader, False)
            return code, (output.read(4096) or b"").decode(errors="replace")

    async def _hook(self, hook: Obj) -> None:
        """preStop or postStart: its failure is an event, no more."""
        try:
            if "exec" in hook:
                await self.execute(hook["exec"].get("command") or [], self._grace())
            elif "httpGet" in hook and self._worker.net:
                port = probes.port_number(self._record.spec, hook["httpGet"]["port"])
                await http1.get((hook["httpGet"].get("host") or self._worker.net.ip, port), hook["httpGet"].get("path") or "/")
            elif "sleep" in hook:
                await asyncio.sleep(float(hook["sleep"].get("seconds", 0)))
        except (http1.NoAnswer, TimeoutError) as error:
            self._worker.event("warning", "FailedLifecycleHook", f"hook failed: {error}")

    async def finished(self) -> int:
        """Wait for the end, record it, and return the exit code."""
        assert self._process is not None
        status = await asyncio.shield(self._process.exit)
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        code = status if status >= 0 else 128 - status
        self._record.ends(code, "Completed" if code == 0 else self._reason or "Error", self._worker.node.store.now())
        self._worker.sync()
        self.gone.set()
        return code

    async def over(self) -> None:
        """Wait until no process is left, whether or not anybody records its end."""
        if self._process is not None:
            await asyncio.shield(self._process.exit)

    async def stop(self, grace_s: float, hook: bool) -> None:
        """preStop, SIGTERM, at most `grace_s` seconds, SIGKILL."""
        if self._process is None:
            return
        wish = (self._record.spec.get("lifecycle") or {}).get("preStop")
        try:
            async with asyncio.timeout(grace_s):
                if hook and wish:
                    await self._hook(wish)
                self._process.signal(signal.SIGTERM)
                await asyncio.shield(self._process.exit)
        except TimeoutError:
            self.kill()
            await asyncio.shield(self._process.exit)

    def kill(self) -> None:
        if self._process is not None:
            self._process.signal(signal.SIGKILL)


def new_log(path: str) -> Log:
    """A log file in a directory that may not be there yet."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return Log(path)
