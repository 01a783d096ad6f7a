"""The hand of probing: create the pods, hear their answers, remove everything.

`collect` fills a `Collected` as it goes, so that a report can be made of what is there whenever it ends: done, failed,
interrupted or out of time.  What cannot be deployed becomes a SKIP (refused by the cluster's rules) or leaves its cases
NOT_RUN with the reason.  A pod that should have a sidecar and has none, or the other way round, is never asked.
"""

import pathlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from meshtls.cluster.client import Client as Cluster
from meshtls.cluster.owned import Owned, Run
from meshtls.cluster.pool import gather
from meshtls.errors import ClusterError, Forbidden, InputError, Invalid, MeshtlsError, NotFound
from meshtls.probe import deploy, pods
from meshtls.probe.case import Client, Server
from meshtls.probe.compare import logged_as_mtls
from meshtls.probe.deploy import Address, Settings
from meshtls.probe.plan import Plan, ports_used
from meshtls.probe.read import Observation, Reader, not_run

POLL_S = 0.1
Who = Client | Server
Pods = dict[tuple[str, str], dict[str, Any]]


class Programs(msgspec.Struct, frozen=True):
    """The text of the two programs that pods run."""

    agent: str
    echo: str


class Collected:
    """What a run has so far. `plan` is what is left of it after refusals; `live` are our pods and Services as created."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.observations: dict[str, Observation] = {}
        self.logged: frozenset[str] = frozenset()
        self.live: list[dict[str, Any]] = []
        self.addresses: dict[Server, Address] = {}
        self.sources: dict[Client, str] = {}
        self.names: dict[Who, str] = {}
        self.left: list[str] = []
        self.foreign = 0
        self.agent_s = 0.0

    def fail(self, who: Who, reason: str) -> None:
        """Every question of this client, or to this server, that has no answer yet stays without one, for `reason`."""
        for asked in self.plan.questions:
            server = getattr(asked, "server", None)
            if (asked.client == who or server == who) and asked.id not in self.observations:
                self.observations[asked.id] = not_run(asked.id, f"probe pod {who.title}: {reason}")


def collect(
    cluster: Cluster,
    run: Run,
    settings: Settings,
    programs: Programs,
    certs: Mapping[str, str],
    collected: Collected,
    *,
    keep: bool = False,
    ready_s: float = 60.0,
    progress: Callable[[str], None] = lambda text: None,
    stop: threading.Event | None = None,
) -> None:
    """Ask everything in `collected.plan`. Raises ClusterError where nothing can be asked at all.

    In a thread, where no interrupt arrives, `stop` ends it early: what was created is removed as ever. Logs that are
    followed end when `cluster` is closed.
    """
    stop = stop or threading.Event()
    _admit(cluster, settings, collected)
    plan = collected.plan
    if not plan.clients:
        return
    owned = Owned(cluster, run, keep)
    try:
        with owned:
            namespaces = sorted({who.namespace for who in plan.everyone})
            _made(gather(lambda ns: owned.create(deploy.code(settings, ns, programs.agent, programs.echo)), namespaces))
            progress(f"{len(plan.servers)} echo servers, {len(plan.clients)} clients in {', '.join(namespaces)}")
            _serve(cluster, owned, settings, collected, ready_s, stop)
            _ask(cluster, owned, settings, certs, collected, ready_s, progress, stop)
            _prove_tcp(cluster, collected)
            progress("removing the probe pods" if not keep else f"kept; remove with: {run.cleanup_command}")
    finally:
        collected.left = owned.left


def manifests(plan: Plan, settings: Settings, programs: Programs, certs: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """What a run would create, for --dry-run; the addresses that only a run knows are 0.0.0.0."""
    ports = ports_used(plan)
    for namespace in sorted({who.namespace for who in plan.everyone}):
        yield deploy.code(settings, namespace, programs.agent, programs.echo)
    for server in plan.servers:
        yield deploy.echo_pod(settings, server, ports)
        yield deploy.echo_service(settings, server, ports)
    addresses = {s: Address(pod_ip="0.0.0.0", name=deploy.name(settings, s.short)) for s in plan.servers}
    for client in plan.clients:
        for shard, document in enumerate(_documents(plan, settings, client, addresses)):
            yield from deploy.agent_objects(settings, client, shard, document, certs)


def _admit(cluster: Cluster, settings: Settings, collected: Collected) -> None:
    """Ask the API server about every pod first: Pod Security, quotas and webhooks answer a dry run as they would the real one."""
    plan, ports = collected.plan, ports_used(collected.plan)
    everyone = plan.everyone

    def ask(who: Who) -> None:
        if isinstance(who, Server):
            pod = deploy.echo_pod(settings, who, ports)
        else:
            pod = deploy.agent_objects(settings, who, 0, {"cases": []}, {})[1]
        cluster.create(pod, dry_run=True)

    refused: dict[str, list[Who]] = {}
    for who, answer in zip(everyone, gather(ask, everyone), strict=True):
        if isinstance(answer, (Forbidden, Invalid)) and "cannot create resource" not in answer.message:
            refused.setdefault(answer.message, []).append(who)
        elif isinstance(answer, ClusterError):
            raise answer
    for reason, gone in refused.items():
        collected.plan = collected.plan.without(gone, f"the cluster refuses the pod: {reason}")


def _serve(
    cluster: Cluster, owned: Owned, settings: Settings, collected: Collected, ready_s: float, stop: threading.Event
) -> None:
    """Start the echo servers, and wait until each listens."""
    servers, ports = collected.plan.servers, ports_used(collected.plan)
    collected.live += _made(gather(lambda s: owned.create(deploy.echo_service(settings, s, ports)), servers))
    _made(gather(lambda s: owned.create(deploy.echo_pod(settings, s, ports)), servers))
    waiting = {(s.namespace, deploy.name(settings, s.short)): s for s in servers}

    def listens(pod: dict[str, Any]) -> bool:
        meta = pod["metadata"]
        if not pods.ready(pod) or not pod["status"].get("podIP"):
            return False
        with suppress(ClusterError):
            return any('"ready"' in line for line in cluster.logs(meta["namespace"], meta["name"], "probe", tail=20))
        return False

    for who, pod, problem in _await(cluster, settings, collected, waiting, listens, ready_s, stop):
        if problem:
            collected.fail(who, problem)
        else:
            assert isinstance(who, Server)
            collected.names[who] = pod["metadata"]["name"]
            collected.addresses[who] = Address(pod_ip=pod["status"]["podIP"], name=pod["metadata"]["name"])
            collected.live.append(pod)


def _ask(
    cluster: Cluster,
    owned: Owned,
    settings: Settings,
    certs: Mapping[str, str],
    collected: Collected,
    ready_s: float,
    progress: Callable[[str], None],
    stop: threading.Event,
) -> None:
    """Start the agents, follow their logs to the last line."""
    if stop.is_set():
        return
    plan = collected.plan
    agents: dict[tuple[str, str], Client] = {}
    readers: dict[tuple[str, str], Reader] = {}
    objects = []
    for client in plan.clients:
        for shard, document in enumerate(_documents(plan, settings, client, collected.addresses)):
            cases, pod = deploy.agent_objects(settings, client, shard, document, certs)
            key = (client.namespace, pod["metadata"]["name"])
            agents[key], readers[key] = client, Reader(case["id"] for case in document["cases"])
            objects.append((cases, pod))

    def create(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
        for obj in pair:
            owned.create(obj)

    _made(gather(create, objects))
    lines: queue.Queue[tuple[tuple[str, str], str | None]] = queue.Queue()

    def follow(key: tuple[str, str]) -> None:
        try:
            for line in cluster.logs(*key, "probe", follow=True):
                lines.put((key, line))
        except MeshtlsError:
            pass  # what was missed is read again below
        finally:
            lines.put((key, None))

    followed: set[tuple[str, str]] = set()
    for who, pod, problem in _await(cluster, settings, collected, dict(agents), pods.started, ready_s, stop):
        assert isinstance(who, Client)
        if problem:
            collected.fail(who, problem)
            continue
        key = (who.namespace, pod["metadata"]["name"])
        collected.sources[who] = pod["status"].get("podIP", "")
        collected.names.setdefault(who, key[1])
        collected.live.append(pod)
        followed.add(key)
        threading.Thread(target=follow, args=(key,), daemon=True).start()
    progress(
        f"{sum(len(r.expected) for k, r in readers.items() if k in followed)} questions asked by {len(followed)} agents"
    )
    open_ = set(followed)
    try:
        while open_:
            key, line = lines.get()
            if line is None:
                open_.discard(key)
            else:
                seen = readers[key].take(line)
                if seen:
                    collected.observations[seen.id] = seen
    finally:
        for key in followed:
            _close(cluster, key, readers[key], collected, interrupted=bool(open_))


def _close(cluster: Cluster, key: tuple[str, str], reader: Reader, collected: Collected, interrupted: bool) -> None:
    """Settle what an agent said; a log that broke off is read once more, from its beginning."""
    why = "interrupted" if interrupted and not reader.done else ""
    if not reader.done and not interrupted:
        again = Reader(reader.expected)
        try:
            for line in cluster.logs(*key, "probe"):
                again.take(line)
            reader = again
        except MeshtlsError as error:
            why = f"the agent's log could not be read: {error}"
    reading = reader.reading(why)
    collected.foreign += reading.foreign
    collected.agent_s = max(collected.agent_s, reading.seconds)
    collected.observations.update(reading.observations)


def _prove_tcp(cluster: Cluster, collected: Collected) -> None:
    """Where a TCP answer does not tell how it travelled, look into the access log of the echo pod's proxy, if it has one."""
    open_ = {
        c.server
        for c in collected.plan.cases
        if c.id in collected.observations and collected.observations[c.id].answered
    }
    if not open_:
        return
    until = time.monotonic() + 2.5  # Istio's proxies write their log once a second
    while True:
        lines: list[str] = []
        for server in open_:
            with suppress(ClusterError):
                lines += cluster.logs(server.namespace, collected.addresses[server].name, "istio-proxy", tail=1000)
        collected.logged = logged_as_mtls(
            collected.plan,
            collected.observations,
            {s: a.pod_ip for s, a in collected.addresses.items()},
            collected.sources,
            lines,
        )
        answered = sum(seen.answered for seen in collected.observations.values())
        if len(collected.logged) >= answered or not lines or time.monotonic() > until:
            return
        time.sleep(0.25)


def _documents(
    plan: Plan, settings: Settings, client: Client, addresses: Mapping[Server, Address]
) -> Iterator[dict[str, Any]]:
    cases = [case for case in plan.cases if case.client == client]
    shakes = [shake for shake in plan.handshakes if shake.client == client]
    return deploy.documents(settings, client, cases, shakes, addresses)


def _await(
    cluster: Cluster,
    settings: Settings,
    collected: Collected,
    waiting: Mapping[tuple[str, str], Who],
    ready: Callable[[dict[str, Any]], bool],
    limit_s: float,
    stop: threading.Event,
) -> Iterator[tuple[Who, dict[str, Any], str]]:
    """Each pod as soon as it is ready, or with what is wrong with it; never waits longer than `limit_s` in all.

    Where the run ends before that, what a pod was waiting for is why its questions have no answer.
    """
    left, until = dict(waiting), time.monotonic() + limit_s
    missing: dict[tuple[str, str], int] = {}
    found: Pods = {}
    try:
        while left:
            found = _pods(cluster, settings, {namespace for namespace, _ in left})
            for key, who in list(left.items()):
                pod = found.get(key)
                if pod is None:
                    missing[key] = missing.get(key, 0) + 1
                    problem = "was deleted by somebody else" if missing[key] > 20 else ""
                else:
                    problem = pods.wrong_sidecar(pod, who.meshed) or pods.hopeless(pod, ready)
                problem = "interrupted" if stop.is_set() else problem
                if problem or (pod and ready(pod)):
                    del left[key]
                    yield who, pod or {}, problem
                elif time.monotonic() > until:
                    del left[key]
                    yield who, pod or {}, f"not ready after {limit_s:g} s: {pods.state(pod)}"
            if left:
                stop.wait(POLL_S)
    finally:
        for key, who in left.items():
            collected.fail(who, f"not ready when the run ended: {pods.state(found.get(key))}")


def _pods(cluster: Cluster, settings: Settings, namespaces: set[str]) -> Pods:
    found: Pods = {}
    for namespace in sorted(namespaces):
        for pod in cluster.list("Pod", namespace, labels=f"meshtls.dev/run={settings.run}"):
            found[namespace, pod["metadata"]["name"]] = pod
    return found


def _made(answers: list[Any]) -> list[Any]:
    """What was created; the first error of ours is raised."""
    for answer in answers:
        if isinstance(answer, NotFound):
            raise ClusterError(answer.message, "does the namespace still exist?", status=404)
        if isinstance(answer, MeshtlsError):
            raise answer
    return answers


def programs() -> Programs:
    """The two programs, from the wheel or from the checkout beside the package. Raises InputError."""
    here = pathlib.Path(__file__).resolve().parents[1]
    for folder in (here / "_probes", here.parent / "probes"):
        if (folder / "agent.py").is_file():
            return Programs(*((folder / name).read_text(encoding="utf-8") for name in ("agent.py", "echo.py")))
    raise InputError(
        "the probe's programs are not installed", "install meshtls again: agent.py and echo.py are missing"
    )
