"""What a Prometheus counted, beside what the logs name -> one check a workload.

Metrics know that plaintext came, rarely from whom; logs know from whom, if they are on and were kept. So:

    plaintext from a workload that the metrics name     MT601, of that workload
    from nobody they name, and the logs name as many    MT601, of each client that the logs name
    and the logs name fewer, or nobody                  MT601 of the server: "a client that the metrics do not name"
    refused (ztunnel counts these)                      MT602
    nothing but mTLS                                    PASS, if every proxy of the workload is scraped
    no arrival                                          SKIP, if its proxies are scraped: that proves nothing
    no arrival and not scraped; no policy label;
    answers with parts missing; pods that were gone
    before the Prometheus began to know                 ERROR: no data is not no plaintext

`increase` is an estimate, so what logs leave over counts from a tenth of it on.
"""

import datetime
from collections.abc import Iterable, Mapping

import msgspec

from meshtls.model.check import Check, Confidence, Finding, Severity, Status
from meshtls.model.mesh import Mesh, pod_addresses
from meshtls.model.objects import Pod
from meshtls.observe.accesslog import Verdict
from meshtls.observe.metrics import Flow, Security
from meshtls.observe.senders import FIX, SAID, Sender
from meshtls.observe.who import has_proxy

GROUP = "counted plaintext"
_SLACK = datetime.timedelta(minutes=5)
_ACCEPTED = (Verdict.PLAINTEXT, Verdict.APP_TLS)
_THROUGH = "its own proxy sends it on as it is (PassthroughCluster): it calls an address, or a host that its proxy does not know"


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What was answered. `asked` and `since` are times in UTC, between which arrivals are counted.

    `knows` is the first time of which the Prometheus knows anything in between (None: of none); `scraped` are proxies'
    addresses -> whether they are scraped now; `through` are senders by passthrough; `incomplete` says why parts are missing.
    """

    name: str
    asked: datetime.datetime
    since: datetime.datetime
    flows: tuple[Flow, ...] = ()
    through: tuple[Flow, ...] = ()
    scraped: Mapping[str, bool] = {}
    knows: datetime.datetime | None = None
    incomplete: str = ""


class Proxied(msgspec.Struct, frozen=True, kw_only=True):
    """A workload in the mesh: the addresses of its proxies, whose metrics tell of it; when it was made, and its oldest pod
    of today (RFC 3339, "" where that is not known)."""

    ref: str
    proxies: tuple[str, ...]
    made: str
    began: str


def proxied(mesh: Mesh, namespaces: Iterable[str]) -> tuple[Proxied, ...]:
    """The workloads of these namespaces that have running pods with a sidecar, or captured by ztunnel; meshtls' probes are none."""
    wanted = set(namespaces)
    pods: dict[str, list[Pod]] = {}
    made: dict[str, str] = {}
    for pod in mesh.pods:
        if (pod.namespace in wanted and pod.status.phase == "Running" and not pod.metadata.deletion_timestamp and has_proxy(pod)
                and pod.labels.get("app.kubernetes.io/managed-by") != "meshtls"):  # fmt: skip
            workload = mesh.workload_of_pod.get((pod.namespace, pod.name))
            ref = workload.ref if workload else pod.ref
            pods.setdefault(ref, []).append(pod)
            made[ref] = ((workload.owner if workload else None) or pod).metadata.creation_timestamp or ""
    ztunnels = {pod.spec.node_name: pod for pod in mesh.pods if pod.labels.get("app") == "ztunnel" and pod.status.phase == "Running"}

    def proxy(pod: Pod) -> str:
        its = ztunnels.get(pod.spec.node_name) if pod.captured else pod
        return next(iter(pod_addresses(its)), "") if its else ""

    return tuple(
        Proxied(ref=ref, proxies=tuple(sorted({proxy(pod) for pod in found} - {""})), made=made[ref],
                began=min((pod.metadata.creation_timestamp or "" for pod in found), default=""))
        for ref, found in sorted(pods.items())
    )  # fmt: skip


def reach(counted: Counted, workloads: Iterable[Proxied]) -> str:
    """How far the metrics reach: since when, and how many proxies are scraped."""
    proxies = {address for workload in workloads for address in workload.proxies}
    if counted.scraped:
        heard = f"{sum(counted.scraped.get(address, False) for address in proxies)} of {len(proxies)} proxies scraped"
    else:
        heard = f"whether the {len(proxies)} proxies are scraped is not known: no target of it has their addresses"
    known = f"since {_text(max(counted.since, counted.knows))}" if counted.knows else "no data at all"
    return f"{counted.name}: {known}, {heard}"


def checks(counted: Counted, workloads: Iterable[Proxied], mesh: Mesh, senders: Iterable[Sender] = ()) -> tuple[Check, ...]:
    """One check a workload. `senders` are those that the logs name, of the same time."""
    workloads, senders = tuple(workloads), tuple(senders)
    known = {workload.ref for workload in workloads}
    of: dict[str, list[Flow]] = {ref: [] for ref in known}
    for flow in counted.flows:
        named = [ref for ref in known if ref.partition("/")[2] == f"{flow.namespace}/{flow.destination}"]
        for ref in named or [f"Workload/{flow.namespace}/{flow.destination or 'unknown'}"]:
            of.setdefault(ref, []).append(flow)
    by_ref = {workload.ref: workload for workload in workloads}
    found = [
        _check(counted, by_ref.get(ref), ref, flows, mesh, [s for s in senders if s.server == ref]) for ref, flows in sorted(of.items())
    ]
    through = _elsewhere(counted, mesh)
    return (*found, *([through] if through else []))


def _check(
    counted: Counted, workload: Proxied | None, ref: str, flows: list[Flow], mesh: Mesh, senders: list[Sender]
) -> Check:  # fmt: skip
    findings = tuple(_findings(counted, ref, flows, mesh, senders))
    bad = [f for f in findings if f.severity.rank <= Severity.ERROR.rank]
    if bad:
        return _made(ref, Status.FAIL, _mtls(counted, flows), findings)
    if gap := _gap(counted, workload, flows):
        return _made(ref, Status.ERROR, gap, findings)
    if not flows:
        return _made(ref, Status.SKIP, "no arrival was counted in this time: that proves nothing")
    return _made(ref, Status.PASS, _mtls(counted, flows), findings)


def _gap(counted: Counted, workload: Proxied | None, flows: list[Flow]) -> str:
    """Why these counts, without plaintext, are no answer; "" where they are one."""
    if counted.incomplete:
        return f"the answer is incomplete: {counted.incomplete}"
    if any(flow.security is Security.UNLABELLED for flow in flows):
        return "its series have no connection_security_policy: a Telemetry, a relabelling or a recording rule takes it off"
    if workload is None:
        return ""
    missing = [address for address in workload.proxies if not counted.scraped.get(address)]
    if not flows and len(missing) == len(workload.proxies):
        return "no proxy of it is known to be scraped and no series of it exists: no data is not no plaintext"
    if counted.scraped and missing:
        return f"{len(missing)} of its {len(workload.proxies)} proxies are not scraped, {missing[0]} for one: what they count is not known"
    lost = _moment(workload.began, counted.asked), counted.knows or counted.asked
    if min(lost) - max(counted.since, _moment(workload.made, counted.since)) > max((counted.asked - counted.since) / 60, _SLACK):
        known = f"before {_text(counted.knows)}" if counted.knows else "of this time"
        return f"the Prometheus knows nothing {known}, and pods that were here then are gone: give a shorter --since"
    return ""


def _moment(text: str, otherwise: datetime.datetime) -> datetime.datetime:
    """The time in RFC 3339, `otherwise` where it says none."""
    try:
        return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return otherwise


def _findings(counted: Counted, ref: str, flows: list[Flow], mesh: Mesh, senders: list[Sender]) -> Iterable[Finding]:
    for flow in _merged(flow for flow in flows if flow.source and flow.security in (Security.PLAINTEXT, Security.REFUSED)):
        through = any(one.source == flow.source and (one.namespace, one.destination) == (flow.namespace, flow.destination)
                      for one in counted.through)  # fmt: skip
        yield _named(counted, ref, flow, mesh, through)
    for refused in (False, True):
        for http in (True, False):
            security = Security.REFUSED if refused else Security.PLAINTEXT
            unnamed = [flow for flow in flows if not flow.source and flow.security is security and flow.http is http]
            if unnamed:
                yield from _unnamed(counted, ref, unnamed, senders)


def _named(counted: Counted, ref: str, flow: Flow, mesh: Mesh, through: bool) -> Finding:
    """Of a client that the metrics name themselves."""
    found = [w for w in mesh.workloads if (w.namespace, w.name) == tuple(flow.source.split("/", 1))]
    subject = found[0].ref if found else f"Workload/{flow.source}"
    meshed = any(has_proxy(pod) for w in found for pod in w.pods)
    said = SAID[Verdict.REFUSED if flow.security is Security.REFUSED else Verdict.PLAINTEXT]
    return _finding(said.code, subject, f"{subject} {said.words} to {ref}: {_about(counted, [flow])}", counted, ref, [flow],
                    fix=FIX[meshed], more=(_THROUGH,) if through else ())  # fmt: skip


def _unnamed(counted: Counted, ref: str, flows: list[Flow], senders: list[Sender]) -> Iterable[Finding]:
    """Of plaintext without a name: whom the logs name, and what they leave over."""
    refused, http = flows[0].security is Security.REFUSED, flows[0].http
    said = SAID[Verdict.REFUSED if refused else Verdict.PLAINTEXT]
    wanted = (Verdict.REFUSED, Verdict.TLS_REFUSED) if refused else _ACCEPTED
    named = [s for s in senders if s.verdict in wanted and (bool(s.example) is http or refused)]
    for sender in named:
        if sender.client.own:
            continue
        client = sender.client
        yield _finding(
            said.code, client.ref or ref, f"{client}, by the logs, is a client that {said.words} to {ref} port {sender.port}", counted, ref,
            flows, fix=FIX[client.meshed] if client.known else "",
        )  # fmt: skip
    total = sum(flow.count for flow in flows)
    rest = total - sum(s.count for s in named)
    if rest > max(total / 10, 0.5 if not named else 1.0):
        some = f"; the logs name {_clients(named)}, and fewer arrivals," if named else ", nor do the logs,"
        yield _finding(
            said.code, ref, f"a client that the metrics do not name{some} {said.words} to {ref}: {_about(counted, flows)}", counted, ref, flows,
            fix="turn access logs on at this workload, or read them from further back, to learn who it is",
        )  # fmt: skip


def _clients(senders: list[Sender]) -> str:
    names = sorted({s.client.name if s.client.known else s.client.address for s in senders})
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")


def _finding(
    code: str, subject: str, message: str, counted: Counted, ref: str, flows: list[Flow], fix: str, more: tuple[str, ...] = ()
) -> Finding:
    families = {"istio_requests_total" if flow.http else "istio_tcp_connections_opened_total" for flow in flows}
    services = sorted({flow.service for flow in flows} - {""})
    because = f"{' and '.join(sorted(families))} of {ref} by {counted.name}" + (f", as {', '.join(services[:3])}" if services else "")
    unsure = "TLS of the application that is passed through counts as plaintext here"
    return Finding(code=code, severity=Severity.ERROR, subject=subject, message=message, fix=fix, confidence=Confidence.SOURCE,
                   because=(because, *more, *(() if flows[0].http else (unsure,))))  # fmt: skip


def _elsewhere(counted: Counted, mesh: Mesh) -> Check | None:
    """Senders by passthrough whose destination nobody knows: mentioned, for they may mean these workloads."""
    found = [flow for flow in _merged(counted.through) if not flow.destination]
    if not found:
        return None
    findings = tuple(
        Finding(code="MT607", severity=Severity.INFO, subject=f"Workload/{flow.source}",
                message=f"{flow.source} sends past what its proxy knows: {_about(counted, [flow])}; where to, the metrics do not say",
                because=(_THROUGH,), confidence=Confidence.SOURCE)
        for flow in found
    )  # fmt: skip
    return Check(id="metrics/passthrough", title="who sends past what their proxies know", group=GROUP, status=Status.SKIP,
                 findings=findings, reason=f"where {len(findings)} workloads send to, the metrics do not say; most of it leaves the mesh")  # fmt: skip


def _merged(flows: Iterable[Flow]) -> list[Flow]:
    """The same flows with those of several services as one."""
    found: dict[Flow, float] = {}
    for flow in flows:
        key = msgspec.structs.replace(flow, service="", count=0.0)
        found[key] = found.get(key, 0.0) + flow.count
    return [msgspec.structs.replace(key, count=count) for key, count in sorted(found.items())]


def _about(counted: Counted, flows: list[Flow]) -> str:
    number, http = round(sum(flow.count for flow in flows)), flows[0].http
    what = ("request" if http else "connection") + ("" if number == 1 else "s")
    return f"about {number} {what} since {_text(counted.since)}{_older(counted)}"


def _older(counted: Counted) -> str:
    """A proxy's counter that is seen for the first time has what it counted before in it."""
    late = counted.knows is None or counted.knows - counted.since > datetime.timedelta(seconds=1)
    return ", or before that, for the Prometheus is younger" if late else ""


def _mtls(counted: Counted, flows: list[Flow]) -> str:
    return f"about {round(sum(f.count for f in flows if f.security is Security.MTLS))} arrivals over mTLS since {_text(counted.since)}{_older(counted)}"


def _text(when: datetime.datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _made(ref: str, status: Status, reason: str, findings: tuple[Finding, ...] = ()) -> Check:
    return Check(id=f"metrics/{ref}", title=f"plaintext to {ref}, counted", group=GROUP, status=status, reason=reason, findings=findings)
