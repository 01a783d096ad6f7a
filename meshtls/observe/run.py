"""The hand of observing: read or follow the logs of all proxies of some namespaces, and count who arrives how.

What a log cannot say is said instead of it: a namespace whose proxies wrote no access line while access logging is off
is NoData, never "no plaintext"; a proxy that could not be read is an ERROR; a workload without arrivals is a SKIP; and
connections that are open are not in any log until they end.
"""

import time
from collections.abc import Callable, Iterable

import msgspec

from meshtls.cluster.client import Client
from meshtls.cluster.pool import gather
from meshtls.errors import MeshtlsError, NoData
from meshtls.model.check import Check, Status
from meshtls.model.mesh import Mesh
from meshtls.model.objects import Pod
from meshtls.observe import accesslog, opened
from meshtls.observe.ears import Ears, Proxy
from meshtls.observe.senders import Group, Sender, check
from meshtls.observe.who import Directory

LINES_PER_PROXY = 500_000
OPEN_CONNECTIONS = "a TCP connection is logged when it ends: one that is open now is not in this answer"


class Heard(msgspec.Struct, kw_only=True):
    """What the logs held. `talkers` are proxies that wrote any access line; `deaf` those that could not be read, and why."""

    proxies: tuple[Proxy, ...]
    workload: dict[Proxy, str]
    group: Group
    talkers: set[Proxy] = msgspec.field(default_factory=set)
    deaf: dict[Proxy, str] = msgspec.field(default_factory=dict)
    lines: int = 0

    def take(self, proxy: Proxy, line: str, strict: bool | None = None) -> Sender | None:
        """Count one line; the sender if it told of an arrival."""
        self.lines += 1
        usage = accesslog.parse(line, strict)
        if usage is not None or (proxy not in self.talkers and accesslog.is_access(line)):
            self.talkers.add(proxy)
        return self.group.add(usage) if usage is not None else None


def proxies_of(pods: Iterable[Pod], namespaces: Iterable[str]) -> tuple[Proxy, ...]:
    """The sidecars, classic and native, of the running pods of `namespaces`; meshtls' own probes have none to hear."""
    wanted = set(namespaces)
    return tuple(sorted(
        Proxy(pod.namespace, pod.name)
        for pod in pods
        if pod.namespace in wanted and pod.status.phase == "Running" and not pod.metadata.deletion_timestamp
        and pod.labels.get("app.kubernetes.io/managed-by") != "meshtls"
        and pod.has_sidecar
    ))


def start(mesh: Mesh, namespaces: Iterable[str]) -> Heard:
    """Nothing heard yet, of all proxies of `namespaces`. Raises NoData where there is none."""
    namespaces = tuple(namespaces)
    proxies = proxies_of(mesh.pods, namespaces)
    of_pod = mesh.workload_of_pod
    workload = {p: w.ref for p in proxies if (w := of_pod.get((p.namespace, p.pod)))}
    captured = [pod for pod in mesh.pods if pod.namespace in namespaces and pod.captured]
    if captured:
        ztunnels = [pod for pod in mesh.pods if pod.labels.get("app") == "ztunnel" and pod.status.phase == "Running"]
        proxies += tuple(Proxy(pod.namespace, pod.name, "istio-proxy") for pod in ztunnels)
    if not proxies:
        raise NoData(
            f"no proxy runs in {', '.join(namespaces) or 'these namespaces'}, so there is no log to read",
            "are the workloads injected? meshtls audit tells",
        )
    return Heard(proxies=proxies, workload=workload, group=Group(Directory(mesh)))


def read(client: Client, heard: Heard, since_time: str) -> None:
    """Read what the proxies have written since a time (RFC 3339), 16 logs at once."""

    def one(proxy: Proxy) -> list[str]:
        lines = []
        for line in client.logs(proxy.namespace, proxy.pod, proxy.container, since_time=since_time):
            lines.append(line)
            if len(lines) >= LINES_PER_PROXY:
                heard.deaf[proxy] = f"only its first {LINES_PER_PROXY} lines were read; give a shorter --since"
                break
        return lines

    for first in range(0, len(heard.proxies), 64):
        some = heard.proxies[first : first + 64]
        for proxy, answer in zip(some, gather(one, some), strict=True):
            if isinstance(answer, MeshtlsError):
                heard.deaf[proxy] = answer.message
                continue
            for line in answer:
                heard.take(proxy, line)


def follow(
    client: Client, heard: Heard, since_time: str, for_s: float | None, told: Callable[[Sender], None] = lambda sender: None
) -> None:
    """Listen for `for_s` seconds (None: until interrupted); `told` hears each arrival's sender as it is counted."""
    deadline = None if for_s is None else time.monotonic() + for_s
    with Ears(client, since_time) as ears:
        ears.follow(heard.proxies)
        try:
            while deadline is None or time.monotonic() < deadline:
                left = 1.0 if deadline is None else min(1.0, deadline - time.monotonic())
                for proxy, line in ears.heard(left):
                    if sender := heard.take(proxy, line):
                        told(sender)
        finally:
            heard.deaf.update(ears.deaf)


def open_plaintext(client: Client, mesh: Mesh, namespace: str) -> tuple[tuple[opened.Open, ...], str]:
    """The plaintext connections into an ambient namespace that are open now, by its ztunnels' metrics; or why that is not known."""
    nodes = {pod.spec.node_name for pod in mesh.pods if pod.namespace == namespace and pod.captured}
    found: list[opened.Open] = []
    missing = set(nodes)
    for pod in mesh.pods:
        if pod.labels.get("app") != "ztunnel" or pod.status.phase != "Running" or pod.spec.node_name not in nodes:
            continue
        try:
            text = client.raw("GET", f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}:15020/proxy/metrics").text
        except MeshtlsError as error:
            return (), error.message
        if (said := opened.plaintext(text.splitlines(), namespace)) is None:
            return (), f"{pod.namespace}/{pod.name} has no metrics of connections"
        missing.discard(pod.spec.node_name)
        found += said
    if missing:
        return (), f"no ztunnel runs on node {', '.join(sorted(missing))}"
    return tuple(sorted(found)), ""


def checks(heard: Heard, mesh: Mesh, namespaces: Iterable[str]) -> tuple[Check, ...]:
    """One check a workload that has proxies. Raises NoData where no access line was read and logging seems to be off."""
    if not heard.talkers and not heard.deaf and not logging_on(mesh, namespaces):
        raise NoData(
            "access logging is off: no proxy wrote a line, and neither meshConfig.accessLogFile nor a Telemetry turns it on",
            "set accessLogFile: /dev/stdout in the mesh's configuration; note that adding a Telemetry drains connections",
        )
    by_workload: dict[str, list[Sender]] = {ref: [] for ref in sorted(set(heard.workload.values()))}
    wanted = set(namespaces)
    for sender in heard.group.senders:
        if sender.server.split("/")[1:2] and sender.server.split("/")[1] in wanted:
            by_workload.setdefault(sender.server, []).append(sender)
    found = []
    for ref, senders in by_workload.items():
        deaf = {proxy: why for proxy, why in heard.deaf.items() if heard.workload.get(proxy) == ref}
        if deaf and not any(check(ref, senders).findings):
            proxy, why = next(iter(deaf.items()))
            found.append(_untold(ref, Status.ERROR, f"{len(deaf)} proxies could not be read: {proxy}: {why}"))
        elif not senders:
            found.append(_untold(ref, Status.SKIP, "no arrival was logged in this time: that proves nothing"))
        else:
            found.append(check(ref, senders))
    return tuple(found)


def logging_on(mesh: Mesh, namespaces: Iterable[str]) -> bool:
    """Whether the mesh's configuration, or a Telemetry of the root or these namespaces, turns access logs on."""
    places = {*namespaces, mesh.root}
    return any(config.access_log_file for config in (*mesh.configs.values(), mesh.config)) or any(
        telemetry.spec.access_logging for telemetry in mesh.telemetries if telemetry.namespace in places
    )


def _untold(ref: str, status: Status, reason: str) -> Check:
    return Check(id=f"observe/{ref}", title=f"plaintext to {ref}", group="observed plaintext", status=status, reason=reason)
