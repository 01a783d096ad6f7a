"""A ValidatingAdmissionPolicy that keeps a namespace STRICT: made from what was achieved, exceptions and all. Pure.

Laws:
  1. Only what is achieved can be kept: the namespace's own namespace-wide policy says STRICT (the keeper). A
     mesh-wide STRICT is no floor, any namespace may undercut it, so a namespace that has only that gets a policy of
     its own first.
  2. Today's exceptions stay possible, exactly: the same policy name, the same selector, the same port, the same mode.
     Nothing weaker, nothing wider, nothing new. Namespace-wide policies must say STRICT; workload policies may say
     STRICT or inherit it.
  3. The keeper cannot be deleted, nor narrowed by a selector, unless the namespace itself is going.
  4. The way out is to delete the binding, and every refusal says so: a rollback must never find itself locked out
     without a word.

PeerAuthentications only: what takes a workload out of the mesh (inject: false, excludeInboundPorts, hostNetwork) is
not covered here.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from meshtls.errors import GateError, InputError
from meshtls.model.mesh import Mesh
from meshtls.model.objects import PeerAuthentication
from meshtls.policy.authn import STRICT, UNSET, Authn, is_wide, mode_of

GROUP = "admissionregistration.k8s.io/v1"
ACTIONS = ("Audit", "Warn", "Deny")
"""In the order in which a guard is introduced."""


class Allowance(msgspec.Struct, frozen=True, order=True):
    """One exception that exists: `port` "" is the whole workload; `labels` is the policy's selector."""

    policy: str
    labels: tuple[tuple[str, str], ...]
    port: str
    mode: str


class Achieved(msgspec.Struct, frozen=True):
    """A namespace that is STRICT by the policy `keeper`, with what is excepted from it."""

    namespace: str
    keeper: str
    allowances: tuple[Allowance, ...] = ()


def achieved(mesh: Mesh, namespace: str) -> Achieved:
    """What there is to keep. Raises GateError when the namespace is not STRICT by a policy of its own."""
    keeper = Authn(mesh.peer_authentications, mesh.root).wide(namespace)
    if keeper is None or mode_of(keeper) != STRICT:
        why = "has no namespace-wide PeerAuthentication" if keeper is None else f"is {mode_of(keeper)} by {keeper.ref}"
        raise GateError(
            f"namespace {namespace} {why}: there is no STRICT to keep",
            f"migrate it first: meshtls migrate plan -n {namespace}",
        )
    found = [
        one
        for policy in mesh.peer_authentications
        if policy.namespace == namespace and not is_wide(policy)
        for one in _weaker(policy)
    ]
    return Achieved(namespace, keeper.name, tuple(sorted(found)))


def _weaker(policy: PeerAuthentication) -> Iterable[Allowance]:
    """What a workload policy excepts, written or in effect. A port without mode takes its workload's, which is listed
    itself."""
    labels = tuple(sorted(policy.spec.selector.match_labels.items())) if policy.spec.selector else ()
    said = {"": mode_of(policy), **{port: mtls.mode for port, mtls in policy.spec.port_level_mtls.items()}}
    return [Allowance(policy.name, labels, port, mode) for port, mode in said.items() if mode not in (STRICT, UNSET)]


def admission(kept: Achieved, actions: Sequence[str] = ("Deny",)) -> list[dict[str, Any]]:
    """The policy and its binding, as manifests. `actions` are Kubernetes' validationActions. Raises InputError."""
    if not actions or set(actions) - set(ACTIONS) or {"Deny", "Warn"} <= set(actions):
        raise InputError(
            f"{', '.join(actions) or 'nothing'} cannot be the actions",
            "Audit, Warn or Deny; Warn and Deny exclude each other",
        )
    name = f"meshtls-keep-strict-{kept.namespace}"
    metadata = {"name": name, "labels": {"app.kubernetes.io/managed-by": "meshtls"}}
    rule = {
        "apiGroups": ["security.istio.io"],
        "apiVersions": ["v1", "v1beta1"],
        "operations": ["CREATE", "UPDATE", "DELETE"],
        "resources": ["peerauthentications"],
        "scope": "Namespaced",
    }
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": kept.namespace}}}
    policy = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule], **here},
        "variables": [{"name": variable, "expression": expression} for variable, expression in _VARIABLES],
        "validations": _validations(kept, name),
    }
    binding = {"policyName": name, "validationActions": list(actions), "matchResources": here}
    return [
        {"apiVersion": GROUP, "kind": "ValidatingAdmissionPolicy", "metadata": metadata, "spec": policy},
        {"apiVersion": GROUP, "kind": "ValidatingAdmissionPolicyBinding", "metadata": metadata, "spec": binding},
    ]


_SELECTOR = "object.spec.selector.matchLabels"
_VARIABLES = (
    ("mode", "has(object.spec) && has(object.spec.mtls) && has(object.spec.mtls.mode) ? object.spec.mtls.mode : 'UNSET'"),
    ("labels", f"has(object.spec) && has(object.spec.selector) && has({_SELECTOR}) ? {_SELECTOR} : {{}}"),
    ("ports", "has(object.spec) && has(object.spec.portLevelMtls) ? object.spec.portLevelMtls : {}"),
)  # fmt: skip


def _validations(kept: Achieved, name: str) -> list[dict[str, Any]]:
    whole = [one for one in kept.allowances if not one.port]
    ports = [one for one in kept.allowances if one.port]
    allowed_whole = "".join(f" || ({_same(one)} && variables.mode == {_text(one.mode)})" for one in whole)
    allowed_port = "".join(
        f" || ({_same(one)} && port == {_text(one.port)} && variables.ports[port].mode == {_text(one.mode)})"
        for one in ports
    )
    keeper = _text(kept.keeper)
    out = f"to loosen it on purpose, first: kubectl delete validatingadmissionpolicybinding {name}"
    checks = (
        (
            "request.operation == 'DELETE' || variables.mode == 'STRICT' || "
            f"(size(variables.labels) > 0 && (variables.mode == 'UNSET'{allowed_whole}))",
            f"namespace {kept.namespace} is kept STRICT; a namespace-wide policy must say so, a workload's may inherit it",
        ),
        (
            "request.operation == 'DELETE' || variables.ports.all(port, !has(variables.ports[port].mode) || "
            f"variables.ports[port].mode in ['STRICT', 'UNSET']{allowed_port})",
            f"namespace {kept.namespace} is kept STRICT; this port exception is not among those it was migrated with",
        ),
        (
            f"request.operation == 'CREATE' || oldObject.metadata.name != {keeper} || (request.operation == 'DELETE' ? "
            "has(namespaceObject.metadata.deletionTimestamp) : size(variables.labels) == 0)",
            f"PeerAuthentication {kept.namespace}/{kept.keeper} is what keeps the namespace STRICT",
        ),
    )
    return [
        {"expression": expression, "message": f"{message} ({out})", "reason": "Forbidden"}
        for expression, message in checks
    ]


def _same(one: Allowance) -> str:
    """The request is about the very policy that the exception is in, with the selector that it had."""
    labels = ", ".join(f"{_text(key)}: {_text(value)}" for key, value in one.labels)
    return f"object.metadata.name == {_text(one.policy)} && variables.labels == {{{labels}}}"


def _text(value: str) -> str:
    """A CEL string: JSON's escapes are CEL's."""
    return json.dumps(value)
