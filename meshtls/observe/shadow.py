"""STRICT rehearsed on live traffic: a dry-run AuthorizationPolicy, what its counters say, and where it must not be tried.

    action: DENY, from.source.notPrincipals: ["*"], annotation istio.io/dry-run: "true"

`*` becomes the expression `.+` on the client's principal (StringMatcherWithPrefix), so the rule matches who has none:
plaintext, and TLS that is not the mesh's. It has no HTTP field, so it holds on TCP ports too. With the annotation the
rules are an RBAC filter's shadow rules: evaluated, counted, and not enforced (builder.go). Envoy counts from 0:

    envoy_http_rbac{authz_dry_run_action="deny", authz_dry_run_result="denied", http_conn_manager_prefix="inbound_0.0.0.0_8080"}
    envoy_tcp{authz_dry_run_action="deny", authz_dry_run_result="denied", tcp_prefix="rbac.istio_dry_run_deny_"}

for each HTTP port, and for all TCP ports together; `allowed` is who has a principal. A proxy that shows these has heard of
the policy and is scraped, whatever came; one that does not is unknown, never quiet.

Everything hangs on the annotation, so it is not tried where one thing between us and the proxy may not know it: without
it, the same policy refuses.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from meshtls.model.check import Check, Confidence, Finding, Severity, Status
from meshtls.model.mesh import Mesh
from meshtls.model.objects import Pod
from meshtls.observe.counted import Proxied
from meshtls.observe.metrics import Query, instances
from meshtls.policy.select import subset

ANNOTATION, KIND = "istio.io/dry-run", "AuthorizationPolicy"
GROUP = "shadow of STRICT"
# the first ztunnel that knows a dry run; older ones enforce
_ZTUNNEL = (1, 29)
_RULES = [{"from": [{"source": {"notPrincipals": ["*"]}}]}]
_VERSION = re.compile(r":v?(\d+)\.(\d+)\b")
_PORT = re.compile(r"inbound_.*_(\d+)$")


def policy(name: str, namespace: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """The policy; without labels for the whole namespace."""
    spec = {"action": "DENY", "rules": _RULES, **({"selector": {"matchLabels": dict(labels)}} if labels else {})}
    return {"apiVersion": "security.istio.io/v1", "kind": KIND,
            "metadata": {"name": name, "namespace": namespace, "annotations": {ANNOTATION: "true"}}, "spec": spec}  # fmt: skip


def altered(answer: Mapping[str, Any]) -> str:
    """What the server made of the policy that makes it dangerous; "" where it is a dry run still."""
    annotations, spec = (answer.get("metadata") or {}).get("annotations") or {}, answer.get("spec") or {}
    if annotations.get(ANNOTATION) != "true":
        return f"an admission webhook, or somebody, takes the annotation {ANNOTATION} off: without it the policy refuses in earnest"
    return "" if (spec.get("action"), spec.get("rules")) == ("DENY", _RULES) else "an admission webhook, or somebody, changes its rules"


def refusals(mesh: Mesh, namespace: str, labels: Mapping[str, str]) -> tuple[str, ...]:
    """Why it must not be tried here; none where it may be."""
    found = []
    if namespace == mesh.root:
        found.append(f"{namespace} is the mesh's root namespace: the policy would concern every namespace")
    captured = [pod for pod in _selected(mesh, namespace, labels) if pod.captured]
    old = [pod for pod in mesh.pods if _is_ztunnel(pod) and not _knows_dry_runs(pod)]
    unread = [kind for kind in ("Namespace", "Pod", "ConfigMap", KIND) if kind in mesh.absent]
    if unread:
        found.append(f"{unread[0]}s could not be read, so whether it is safe is not known: {mesh.absent[unread[0]]}")
    if captured and not any(_is_ztunnel(pod) for pod in mesh.pods):
        found.append(f"{captured[0].ref} is ambient, and no ztunnel is seen: one that is older than 1.29 would refuse in earnest")
    if captured and old:
        found.append(f"{captured[0].ref} is ambient, and {old[0].ref} is older than 1.29 or does not say: such a ztunnel would refuse in earnest")
    others = [
        one for one in mesh.authorization_policies
        if one.namespace in (namespace, mesh.root) and ANNOTATION in one.metadata.annotations and one.spec.action == "DENY"
        and one.labels.get("app.kubernetes.io/managed-by") != "meshtls"
    ]  # fmt: skip
    found += [f"{one.ref} is a dry run that denies too: both would count in the same counters" for one in others]
    return tuple(found)


def subjects(workloads: Iterable[Proxied], mesh: Mesh, namespace: str, labels: Mapping[str, str]) -> tuple[Proxied, ...]:
    """The workloads that the policy selects and whose Envoys can count: no gateways, whose callers have no principal anyway."""
    refs = {
        workload.ref for pod in _selected(mesh, namespace, labels)
        if pod.has_sidecar and any(c.name != "istio-proxy" for c in pod.spec.containers)
        and (workload := mesh.workload_of_pod.get((pod.namespace, pod.name))) is not None
    }  # fmt: skip
    return tuple(workload for workload in workloads if workload.ref in refs)


def queries(workloads: Iterable[Proxied]) -> tuple[Query, ...]:
    """What their counters say."""
    these = f'authz_dry_run_action="deny",instance=~"{instances(a for w in workloads for a in w.proxies)}"'
    return tuple(Query("shadow", f"{name}{{{these}}}") for name in ("envoy_http_rbac", "envoy_tcp"))


class Seen(msgspec.Struct, frozen=True, order=True):
    """One counter: the proxy's address, its HTTP port (0: its TCP ports, -1: HTTP on a port that no Service names), and what it counts."""

    address: str
    port: int
    denied: bool


class Tally:
    """Adds up counters from reading to reading; one that says less than before has begun again. `counts` are those since the
    first reading, `begun` whether there was one, `heard` whose counters the last reading showed."""

    def __init__(self) -> None:
        self._last: dict[Seen, float] = {}
        self.counts: dict[Seen, float] = {}
        self.begun = False
        self.heard: frozenset[str] = frozenset()

    def take(self, values: Iterable[tuple[dict[str, str], float]], first: bool = False) -> None:
        """One reading of everything; what the `first` one shows is from before the policy."""
        self.begun, heard = True, set()
        for labels, value in values:
            seen = _seen(labels)
            if seen is None:
                continue
            heard.add(seen.address)
            last = self._last.get(seen, 0.0)
            if not first:
                self.counts[seen] = self.counts.get(seen, 0.0) + (value - last if value >= last else value)
            self._last[seen] = value
        self.heard = frozenset(heard)


def checks(tally: Tally, workloads: Iterable[Proxied]) -> tuple[Check, ...]:
    """One check a workload."""
    return tuple(_check(tally, workload) for workload in workloads)


def _check(tally: Tally, workload: Proxied) -> Check:
    its = {seen: count for seen, count in tally.counts.items() if seen.address in workload.proxies}
    silent = [address for address in workload.proxies if address not in {seen.address for seen in its} & tally.heard]
    denied: dict[int, float] = {}
    for seen, count in its.items():
        if seen.denied and count > 0:
            denied[seen.port] = denied.get(seen.port, 0.0) + count
    findings = tuple(_finding(workload.ref, port, count) for port, count in sorted(denied.items()))
    allowed = sum(count for seen, count in its.items() if not seen.denied)
    if findings:
        return _made(workload, Status.FAIL, f"{allowed:.0f} arrivals with a principal of the mesh", findings)
    if silent or not workload.proxies:
        return _made(workload, Status.ERROR, f"{len(silent)} of its {len(workload.proxies)} proxies were not seen counting to the end: "
                                             "not scraped, their Envoy statistics dropped, gone, or without the policy yet")  # fmt: skip
    if not allowed:
        return _made(workload, Status.SKIP, "nothing arrived in this time: that proves nothing")
    return _made(workload, Status.PASS, f"{allowed:.0f} arrivals, all with a principal of the mesh")


def _finding(ref: str, port: int, count: float) -> Finding:
    what = "connection" if port == 0 else "request"
    where = {0: "its TCP ports (the counter does not say which)", -1: "a port that no Service names"}.get(port, f"port {port}")
    return Finding(
        code="MT608", severity=Severity.ERROR, subject=ref, confidence=Confidence.MEASURED,
        message=f"STRICT would refuse what {ref} takes on {where}: {count:.0f} {what}{'' if count == 1 else 's'} without a principal of the mesh",
        because=("shadow_denied of a dry-run AuthorizationPolicy",),
        fix=f"meshtls observe -n {ref.split('/')[1]} names the clients; give them a sidecar, or except the port with portLevelMtls",
    )  # fmt: skip


def _made(workload: Proxied, status: Status, reason: str, findings: tuple[Finding, ...] = ()) -> Check:
    return Check(id=f"shadow/{workload.ref}", title=f"STRICT would refuse nothing at {workload.ref}", group=GROUP, status=status, reason=reason,
                 findings=findings)  # fmt: skip


def _seen(labels: Mapping[str, str]) -> Seen | None:
    """The counter that a series is; None for those of callers (outbound) and of other filters."""
    address = labels.get("instance", "").rpartition(":")[0].strip("[]")
    result, prefix = labels.get("authz_dry_run_result", ""), labels.get("http_conn_manager_prefix", "")
    if result not in ("allowed", "denied"):
        return None
    if labels.get("tcp_prefix", "").startswith("rbac"):
        return Seen(address, 0, result == "denied")
    if prefix.startswith("InboundPassthrough"):
        return Seen(address, -1, result == "denied")
    found = _PORT.match(prefix)
    return Seen(address, int(found[1]), result == "denied") if found else None


def _selected(mesh: Mesh, namespace: str, labels: Mapping[str, str]) -> list[Pod]:
    return [pod for pod in mesh.pods if pod.namespace == namespace and subset(labels, pod.labels)]


def _is_ztunnel(pod: Pod) -> bool:
    return pod.labels.get("app") == "ztunnel"


def _knows_dry_runs(ztunnel: Pod) -> bool:
    found = [_VERSION.search(c.image) for c in ztunnel.spec.containers]
    return bool(found) and all(one is not None and (int(one[1]), int(one[2])) >= _ZTUNNEL for one in found)
