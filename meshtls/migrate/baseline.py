"""The gate before anything is changed: facts -> checks, and which of them hold the run.

    never waived      permissions, the rollback's dry run, a webhook that would lock out the rollback, GitOps ownership
                      (which has a flag of its own), a namespace in which nothing is in the mesh
    waived by --force kinds that could not be read, observed or counted plaintext, no access log, no answer of a Prometheus that was named, open plaintext
                      connections (ambient), prediction, audit

A SKIP is no hold: a workload without arrivals, or a question that does not arise. An ERROR is one: no data holds a gate.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from meshtls.migrate.plan import Plan, injected
from meshtls.model.check import Check, Confidence, Finding, Severity, Status
from meshtls.model.mesh import Mesh
from meshtls.model.objects import RuleWithOperations
from meshtls.policy.change import strict
from meshtls.policy.dataplane import BARE
from meshtls.policy.engine import Engine
from meshtls.policy.ownership import left_alone, owned_by
from meshtls.policy.predict import groups
from meshtls.policy.select import matches
from meshtls.policy.server import BREAKS

GROUP = "gate before anything"
# audit findings that say that STRICT in their own namespace breaks or does not hold; clients are judged by prediction and logs
OWN_CODES = ("MT1", "MT3")
# what the API server calls inside the mesh: it has no identity there, is in no prediction, and may be rare in the logs
API_SERVER_CODES = ("MT230", "MT231", "MT232", "MT233")
# who owns a policy is a question of its own (baseline/gitops), with a flag of its own
ASKED_APART = ("MT134",)
_MANAGERS = {"argocd-controller": "Argo CD", "argocd-application-controller": "Argo CD", "kustomize-controller": "Flux",
             "helm-controller": "Flux"}  # fmt: skip


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked of the world before the run. `observed` and `audited` (for this namespace) are checks of those parts, `unobserved` why there
    is no observation; `counted` those of a Prometheus, none where none was asked; `denied` what the API server would not allow;
    `refused` what a dry run of the rollback said; `owners` are (policy, owner) of objects that another tool writes. `opened` are
    (client, server, how many) of plaintext connections that ztunnels hold open, clients as `namespace/workload`, `unopened` why
    that is not known ("" also where nothing is in ambient). `unread` says which kinds that decide could not be read.
    """

    observed: tuple[Check, ...] = ()
    unobserved: str = ""
    counted: tuple[Check, ...] = ()
    audited: tuple[Check, ...] = ()
    denied: tuple[str, ...] = ()
    refused: str = ""
    owners: tuple[tuple[str, str], ...] = ()
    opened: tuple[tuple[str, str, int], ...] = ()
    unopened: str = ""
    unread: tuple[str, ...] = ()


class Waiver(msgspec.Struct, frozen=True, kw_only=True):
    """What the user takes upon themselves. `accepted` are clients (`namespace/workload`) that may lose plaintext."""

    force: bool = False
    gitops: bool = False
    accepted: tuple[str, ...] = ()


NEVER_WAIVED = frozenset({"baseline/permissions", "baseline/rollback", "baseline/webhook", "baseline/gitops", "baseline/mesh"})


def checks(mesh: Mesh, plan: Plan, facts: Facts, waiver: Waiver) -> tuple[Check, ...]:
    """Every question of the baseline, in the order in which they are shown."""
    return (
        _mesh(mesh, plan),
        _read(facts),
        *_observed(facts, waiver),
        *_counted(facts, waiver),
        *_opened(mesh, plan, facts, waiver),
        _prediction(mesh, plan),
        _audited(facts, plan),
        _check("permissions", "the API server allows every step, and the way back", facts.denied),
        _check("rollback", "a dry run of the rollback is accepted", (facts.refused,) if facts.refused else ()),
        _check("webhook", "no admission webhook that STRICT would cut off decides about PeerAuthentications", _webhooks(mesh, plan)),
        _gitops(facts, plan, waiver),
    )


def holding(found: Iterable[Check], waiver: Waiver) -> tuple[Check, ...]:
    """The checks that hold the run: failed or unknown, and not waived."""
    return tuple(
        check for check in found
        if check.status in (Status.FAIL, Status.ERROR) and (check.id in NEVER_WAIVED or not waiver.force)
    )


def gitops_owner(obj: dict[str, Any] | None) -> str:
    """The GitOps tool that writes an object, by its labels, annotations or managed fields; "" for none."""
    meta = (obj or {}).get("metadata") or {}
    labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
    if left_alone(labels, annotations):
        return ""
    owner, _ = owned_by(labels, annotations)
    managers = [entry.get("manager", "") for entry in meta.get("managedFields") or []]
    return owner or next((_MANAGERS[name] for name in managers if name in _MANAGERS), "")


def _read(facts: Facts) -> Check:
    """What could not be read breaks nobody in a prediction, and locks nobody out: that is no answer."""
    return Check(id="baseline/read", title="every kind that decides could be read", group=GROUP,
                 status=Status.ERROR if facts.unread else Status.PASS, reason="; ".join(facts.unread[:3]))  # fmt: skip


def _mesh(mesh: Mesh, plan: Plan) -> Check:
    """A namespace without any proxy has nothing to enforce, and no log that would tell of a refusal."""
    found = [w.ref for w in mesh.workloads if w.namespace == plan.namespace and injected(w)]
    without = [w.ref for w in mesh.workloads
               if w.namespace == plan.namespace and any(p.status.phase == "Running" for p in w.pods) and not injected(w)]  # fmt: skip
    if not found:
        return _check("mesh", "workloads are in the mesh", ("no running workload has a sidecar: STRICT would enforce nothing",))
    reason = f"{len(found)} workloads" + (f"; not enforced, without sidecar: {', '.join(without[:5])}" if without else "")
    return Check(id="baseline/mesh", title="workloads are in the mesh", status=Status.PASS, reason=reason, group=GROUP)


def _observed(facts: Facts, waiver: Waiver) -> tuple[Check, ...]:
    if facts.unobserved:
        return (Check(id="baseline/observed", title="the logs show who sends plaintext", status=Status.ERROR,
                      reason=facts.unobserved, group=GROUP),)  # fmt: skip
    if facts.observed and all(check.status is Status.SKIP for check in facts.observed):
        return (Check(id="baseline/observed", title="the logs show who sends plaintext", status=Status.ERROR,
                      reason="no arrival at any workload was logged: is there traffic, and is access logging on?", group=GROUP),)  # fmt: skip
    return tuple(
        msgspec.structs.replace(check, group=GROUP, status=_without_accepted(check, waiver)) for check in facts.observed
    )


def _counted(facts: Facts, waiver: Waiver) -> tuple[Check, ...]:
    if facts.counted and all(check.status is Status.SKIP for check in facts.counted):
        return (Check(id="baseline/counted", title="the metrics show whether plaintext comes", status=Status.ERROR,
                      reason="no arrival at any workload was counted: is there traffic, and are the proxies scraped?", group=GROUP),)  # fmt: skip
    return tuple(
        msgspec.structs.replace(check, group=GROUP, status=_without_accepted(check, waiver)) for check in facts.counted
    )


def _opened(mesh: Mesh, plan: Plan, facts: Facts, waiver: Waiver) -> tuple[Check, ...]:
    """In ambient a plaintext connection that is open outlives STRICT, and breaks when its client connects again: in no log until then."""
    if not any(pod.captured for pod in mesh.pods if pod.namespace == plan.namespace):
        return ()
    title = "no plaintext connection is held open into ambient workloads"
    if facts.unopened:
        return (Check(id="baseline/open", title=title, group=GROUP, status=Status.SKIP,
                      reason=f"{facts.unopened}; ask the ztunnels yourself: istioctl ztunnel-config connections"),)  # fmt: skip
    findings = tuple(
        Finding(code="MT709", severity=Severity.ERROR, subject=f"Workload/{client}", confidence=Confidence.MEASURED,
                message=f"{client} holds {count} plaintext connection{'s' if count > 1 else ''} to {server} open: they would outlive STRICT, "
                        "and be refused when it connects again",
                fix=f"bring {client} into the mesh and restart it, or accept its loss with --accept-plaintext-from {client}")
        for client, server, count in facts.opened if not accepted(f"Workload/{client}", waiver.accepted)
    )  # fmt: skip
    return (Check(id="baseline/open", title=title, group=GROUP, status=Status.FAIL if findings else Status.PASS, findings=findings),)


def _without_accepted(check: Check, waiver: Waiver) -> Status:
    """A failed check passes when each of its clients was accepted by name."""
    bad = [f for f in check.findings if f.severity.rank <= Severity.ERROR.rank]
    if check.status is Status.FAIL and bad and all(accepted(f.subject, waiver.accepted) for f in bad):
        return Status.PASS
    return check.status


def accepted(ref: str, names: Iterable[str]) -> bool:
    """Whether a client (`Kind/namespace/name` or `Kind/name`) is among the names given (with or without kind)."""
    return bool(ref) and any(name in (ref, ref.partition("/")[2]) for name in names)


def _prediction(mesh: Mesh, plan: Plan) -> Check:
    """Clients that have a proxy and would break are certain; what clients without one call, only the logs know."""
    engine = Engine.of(mesh)
    meshed = {ref for ref, faces in engine.faces.items() if any(face.plane.kind != BARE for face in faces)}
    lost = groups(strict(mesh, [plan.namespace]), mesh, server_namespaces=frozenset({plan.namespace}))
    findings = tuple(
        Finding(code="MT703", severity=Severity.ERROR, subject=client, message=f"would no longer reach {g.server} port {g.port}",
                because=tuple(str(step) for step in g.outcome.because))
        for g in lost if g.verdict == BREAKS and g.was is not None and g.was.verdict != BREAKS
        for client in g.clients if client in meshed
    )  # fmt: skip
    return Check(id="baseline/prediction", title="no client with a sidecar is predicted to break", group=GROUP,
                 status=Status.FAIL if findings else Status.PASS, findings=findings,
                 reason="clients without sidecar are judged by the logs")  # fmt: skip


def _audited(facts: Facts, plan: Plan) -> Check:
    findings = tuple(
        f for check in facts.audited for f in check.findings
        if f.severity.rank <= Severity.ERROR.rank and f.code not in ASKED_APART
        and (f.code in API_SERVER_CODES or f.code.startswith(OWN_CODES) and f.subject.split("/")[1:2] == [plan.namespace])
    )
    return Check(id="baseline/audit", title="the audit finds nothing that breaks here", group=GROUP, findings=findings,
                 status=Status.FAIL if findings else Status.PASS)  # fmt: skip


def _webhooks(mesh: Mesh, plan: Plan) -> tuple[str, ...]:
    """Webhooks that the API server asks about PeerAuthentications of this namespace, served from inside of it.

    The API server has no mesh identity: once STRICT refuses it, every patch that would go back is refused with it, although
    a dry run passes before.
    """
    labels = mesh.namespace_labels.get(plan.namespace, {})
    return tuple(
        f"{config.ref} ({hook.name}) is served by {plan.namespace}/{hook.client_config.service.name}: "
        "STRICT would cut it off, and then it would refuse the way back"
        for configs in (mesh.validating_webhooks, mesh.mutating_webhooks)
        for config in configs
        for hook in config.webhooks
        if hook.client_config.service and hook.client_config.service.namespace == plan.namespace
        and hook.failure_policy != "Ignore" and matches(hook.namespace_selector, labels)
        and any(_asks(rule) for rule in hook.rules)
    )


def _asks(rule: RuleWithOperations) -> bool:
    return bool(
        {"*", "security.istio.io"} & set(rule.api_groups) and {"*", "*/*", "peerauthentications"} & set(rule.resources)
        and {"*", "UPDATE", "CREATE", "DELETE"} & set(rule.operations)
    )


def _gitops(facts: Facts, plan: Plan, waiver: Waiver) -> Check:
    title = "no other tool writes these policies"
    if not facts.owners or waiver.gitops:
        return Check(id="baseline/gitops", title=title, status=Status.PASS, group=GROUP,
                     reason=f"overridden: {', '.join(owner for _, owner in facts.owners)}" if facts.owners else "")  # fmt: skip
    findings = tuple(
        Finding(
            code="MT707", severity=Severity.ERROR, subject=f"PeerAuthentication/{plan.namespace}/{name}",
            message=f"{owner} writes this policy: it would take the change back, or the rollback",
            fix="commit the stages instead, and let meshtls judge each:\n"
                f"meshtls migrate plan -n {plan.namespace} --emit DIR; meshtls migrate verify -n {plan.namespace}\n"
                f"or suspend {owner} there and give --gitops-override",
        )
        for name, owner in facts.owners
    )  # fmt: skip
    return Check(id="baseline/gitops", title=title, status=Status.FAIL, group=GROUP, findings=findings,
                 reason=f"{facts.owners[0][1]} owns {facts.owners[0][0]}")  # fmt: skip


def _check(name: str, title: str, problems: tuple[str, ...]) -> Check:
    return Check(id=f"baseline/{name}", title=title, status=Status.FAIL if problems else Status.PASS, group=GROUP,
                 reason="; ".join(problems[:5]))  # fmt: skip
