"""The manifests that keep what was achieved, for each engine that can refuse a write. Pure.

Laws:
  1. The rules are the same for every engine (rules.py); an engine is an envelope around them. What an engine cannot do, its
     LIMITS say, and whoever gets manifests is told.
  2. A guard is introduced step by step: audit, warn, deny.
  3. The way out is one command, and every refusal says it: a rollback must never find itself locked out without a word.
  4. The same achievement gives the same manifests, named by namespace and target; applying them again changes nothing.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from meshtls.guard.achieved import Kept
from meshtls.guard.rules import TARGETS, Rule, Target, data, excused, of

Manifest = dict[str, Any]
LABEL, EXCEPTIONS = "meshtls.dev/guard", "meshtls.dev/exceptions"
VAP = "admissionregistration.k8s.io/v1"
KYVERNO = "policies.kyverno.io/v1"
_KUBERNETES = {"audit": ["Audit"], "warn": ["Audit", "Warn"], "deny": ["Audit", "Deny"]}
_GATEKEEPER = {"audit": "dryrun", "warn": "warn", "deny": "deny"}


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """`resource` is what the way out deletes; `limits` is what it cannot do, in sentences."""

    name: str
    needs: str
    resource: str
    make: Callable[[Sequence[Kept], str], Iterator[Manifest]]
    limits: tuple[str, ...]


def admission(kept: Sequence[Kept], engine: str = "vap", action: str = "deny") -> list[Manifest]:
    """The manifests that keep `kept`."""
    return list(ENGINES[engine].make(kept, action))


def _wanted(kept: Kept) -> Iterator[Target]:
    """Its targets: of a namespace in which nothing is in the mesh, pods and labels are not judged."""
    yield from (target for target in TARGETS if kept.scope in target.scopes and (kept.planes or "planes" not in target.data))


def _name(kept: Kept, target: Target) -> str:
    return f"meshtls-guard-{kept.namespace}-{target.name}"


def _metadata(name: str, kept: Kept, target: Target) -> Manifest:
    about = [{"rule": g.rule, "subject": g.subject, "owner": g.owner, "reason": g.reason, "until": g.until}
             for g in kept.granted if g.rule in {rule.name for rule in of(target)}]  # fmt: skip
    notes = {"annotations": {EXCEPTIONS: json.dumps(about, sort_keys=True)}} if about else {}
    return {"name": name, "labels": {"app.kubernetes.io/managed-by": "meshtls", LABEL: kept.namespace}, **notes}


def _variables(target: Target, given: dict[str, str]) -> list[dict[str, str]]:
    """What the expressions speak of: what differs between namespaces, what the target names, the flaws of each rule."""
    pairs = [*given.items(), *target.variables, *((rule.variable, rule.flaws) for rule in of(target))]
    return [{"name": name, "expression": expression} for name, expression in pairs]


def _literals(kept: Kept, target: Target) -> dict[str, str]:
    """Values as CEL: JSON's texts, lists and maps are CEL's."""
    return {name: json.dumps(value) for name, value in data(kept, target).items()}


def _validation(rule: Rule, target: Target, resource: str) -> dict[str, str]:
    same = "variables.same || " if any(name == "same" for name, _ in target.variables) else ""
    what = f"variables.{rule.variable}"
    says = f" is kept STRICT: {rule.says}"
    out = f" (rule {rule.name}; to loosen it on purpose: kubectl delete {resource} -l {LABEL}="
    return {
        "expression": f"{same}{what}.all(f, {excused()})",
        "message": f"meshtls: what it guards{says}",
        "messageExpression": f"'namespace ' + variables.home + {_text(f'{says}: ')} + {what}.join(', ') + {_text(out)} + variables.home + ')'",
    }


def _text(value: str) -> str:
    return json.dumps(value)


def _constraints(kept: Kept, target: Target) -> Manifest:
    """The requests that a policy of Kubernetes, or of Kyverno, is asked about."""
    rules = [
        {"apiGroups": [r.group], "apiVersions": ["*"], "operations": list(target.operations), "resources": [r.plural],
         "scope": "Cluster" if target.where == "itself" else "Namespaced"}
        for r in target.resources
    ]  # fmt: skip
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": kept.namespace}}} if target.where != "everywhere" else {}
    return {"resourceRules": rules, **here}


def _vap(every: Sequence[Kept], action: str) -> Iterator[Manifest]:
    for kept in every:
        for target in _wanted(kept):
            metadata = _metadata(_name(kept, target), kept, target)
            validations = [_validation(rule, target, ENGINES["vap"].resource) for rule in of(target)]
            yield {
                "apiVersion": VAP, "kind": "ValidatingAdmissionPolicy", "metadata": metadata,
                "spec": {"failurePolicy": "Fail", "matchConstraints": _constraints(kept, target),
                         "variables": _variables(target, _literals(kept, target)),
                         "validations": [{**validation, "reason": "Forbidden"} for validation in validations]},
            }  # fmt: skip
            yield {"apiVersion": VAP, "kind": "ValidatingAdmissionPolicyBinding", "metadata": metadata,
                   "spec": {"policyName": metadata["name"], "validationActions": _KUBERNETES[action]}}  # fmt: skip


def _kyverno(every: Sequence[Kept], action: str) -> Iterator[Manifest]:
    for kept in every:
        for target in _wanted(kept):
            yield {
                "apiVersion": KYVERNO, "kind": "ValidatingPolicy", "metadata": _metadata(_name(kept, target), kept, target),
                "spec": {"failurePolicy": "Fail", "validationActions": _KUBERNETES[action], "evaluation": {"background": {"enabled": False}},
                         "autogen": {"podControllers": {"controllers": []}}, "matchConstraints": _constraints(kept, target),
                         "variables": _variables(target, _literals(kept, target)),
                         "validations": [_validation(rule, target, ENGINES["kyverno"].resource) for rule in of(target)]},
            }  # fmt: skip


def _gatekeeper(every: Sequence[Kept], action: str) -> Iterator[Manifest]:
    """One template for each target, one constraint for each namespace and target."""
    targets = [target for target in TARGETS if any(target in _wanted(kept) for kept in every)]
    for target in targets:
        kind = f"MeshtlsGuard{target.name.capitalize()}"
        given = {name: f"variables.params.{name}" for name in data(Kept(namespace="", scope="namespace"), target)}
        source = {"failurePolicy": "Fail", "variables": _variables(target, given),
                  "validations": [_validation(rule, target, ENGINES["gatekeeper"].resource) for rule in of(target)]}  # fmt: skip
        schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        yield {
            "apiVersion": "templates.gatekeeper.sh/v1", "kind": "ConstraintTemplate",
            "metadata": {"name": kind.lower(), "labels": {"app.kubernetes.io/managed-by": "meshtls"}},
            "spec": {"crd": {"spec": {"names": {"kind": kind}, "validation": schema}},
                     "targets": [{"target": "admission.k8s.gatekeeper.sh", "code": [{"engine": "K8sNativeValidation", "source": source}]}]},
        }  # fmt: skip
    for kept in every:
        for target in _wanted(kept):
            kinds = [{"apiGroups": sorted({r.group for r in target.resources}), "kinds": [r.kind for r in target.resources]}]
            places: dict[str, Manifest] = {"namespace": {"namespaces": [kept.namespace]}, "everywhere": {}, "itself": {"name": kept.namespace}}
            yield {
                "apiVersion": "constraints.gatekeeper.sh/v1beta1", "kind": f"MeshtlsGuard{target.name.capitalize()}",
                "metadata": _metadata(_name(kept, target), kept, target),
                "spec": {"enforcementAction": _GATEKEEPER[action], "match": {"kinds": kinds, **places[target.where]}, "parameters": data(kept, target)},
            }  # fmt: skip


_WEBHOOK = "it is a webhook: while it cannot be reached, its own failurePolicy decides, and it must not be served behind the STRICT that it guards"
ENGINES: dict[str, Engine] = {
    "vap": Engine(
        name="ValidatingAdmissionPolicy", needs="Kubernetes 1.30", resource="validatingadmissionpolicybinding", make=_vap,
        limits=("it cannot keep itself: who may delete the binding can loosen everything, by design",),
    ),
    "kyverno": Engine(
        name="Kyverno ValidatingPolicy", needs="Kyverno 1.17 (policies.kyverno.io/v1)", resource="validatingpolicies.policies.kyverno.io", make=_kyverno,
        limits=(_WEBHOOK, "requests in namespaces and of users that Kyverno's resource filters leave out are not asked about"),
    ),
    "gatekeeper": Engine(
        name="Gatekeeper constraints in CEL", needs="Gatekeeper 3.18 (engine K8sNativeValidation)", resource="constraints", make=_gatekeeper,
        limits=(
            _WEBHOOK + "; Gatekeeper's is Ignore unless its chart says otherwise",
            "deletions reach it only with enableDeleteOperations of its chart: without, keeper-deleted is not kept",
            "exempted namespaces are not asked about",
        ),
    ),
}  # fmt: skip
