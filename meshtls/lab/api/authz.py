"""May they: RBAC over the stored roles and bindings, and the reviews that ask it.

Group system:masters may do everything. A request is allowed when one rule of one role bound to the user (or one of its
groups) covers verb, group, resource[/subresource] and name; a RoleBinding counts in its own namespace only.
"""
import itertools
from collections.abc import Iterator
from typing import Any

import msgspec

from meshtls.lab.api import status
from meshtls.lab.api.field import FieldError, invalid, quote
from meshtls.lab.api.identity import User
from meshtls.lab.api.store import Store

Object = dict[str, Any]
RBAC = "rbac.authorization.k8s.io"


class Attributes(msgspec.Struct, frozen=True):
    """What is asked for. `path` is set for requests that are for no resource."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    @property
    def whole(self) -> str:
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


class Verdict(msgspec.Struct, frozen=True):
    allowed: bool
    reason: str = ""


class Rbac:
    def __init__(self, store: Store) -> None:
        self._store = store

    def allowed(self, user: User, wanted: Attributes) -> Verdict:
        if "system:masters" in user.groups:
            return Verdict(True)
        missing = []
        for binding, subject, role in self._bound(user, wanted.namespace):
            if role is None:
                ref = binding["roleRef"]
                missing.append(f'{ref["kind"].lower()}.{RBAC} {quote(ref["name"])} not found')
                continue
            if any(covers(rule, wanted) for rule in role.get("rules") or ()):
                return Verdict(True,
                               f"RBAC: allowed by {_told(binding)} of {role['kind']} {quote(role['metadata']['name'])} "
                               f"to {subject}")
        told = missing[0] if len(missing) == 1 else "[" + ", ".join(missing) + "]"
        return Verdict(False, f"RBAC: {told}" if missing else "")

    def permit(self, user: User, wanted: Attributes) -> None:
        """Raises ApiError 403 when it is not allowed, in the API server's words."""
        verdict = self.allowed(user, wanted)
        if verdict.allowed:
            return
        tail, told = f": {verdict.reason}" if verdict.reason else "", f"User {quote(user.name)} cannot {wanted.verb}"
        if wanted.path:
            raise status.ApiError(403, "Forbidden", f"forbidden: {told} path {quote(wanted.path)}{tail}")
        where = f"in the namespace {quote(wanted.namespace)}" if wanted.namespace else "at the cluster scope"
        qualified = f"{wanted.resource}.{wanted.group}" if wanted.group else wanted.resource
        raise status.forbidden(qualified, wanted.name, f"{told} resource {quote(wanted.whole)} in API group "
                               f"{quote(wanted.group)} {where}{tail}")

    def rules(self, user: User, namespace: str) -> list[Object]:
        """Every rule that holds for the user in a namespace."""
        return [rule for _, _, role in self._bound(user, namespace) if role for rule in role.get("rules") or ()]

    def role(self, ref: Object, namespace: str) -> Object | None:
        if ref.get("kind") == "ClusterRole":
            return self._store.get(f"clusterroles.{RBAC}", "", ref.get("name", ""))
        return self._store.get(f"roles.{RBAC}", namespace, ref.get("name", ""))

    def _bound(self, user: User, namespace: str) -> Iterator[tuple[Object, str, Object | None]]:
        for binding in self._store.list(f"clusterrolebindings.{RBAC}"):
            if subject := _subject(binding, user):
                yield binding, subject, self.role(binding["roleRef"], "")
        for binding in self._store.list(f"rolebindings.{RBAC}", namespace) if namespace else ():
            if subject := _subject(binding, user):
                yield binding, subject, self.role(binding["roleRef"], namespace)


def _told(binding: Object) -> str:
    metadata = binding["metadata"]
    name = f"{metadata['name']}/{metadata['namespace']}" if metadata.get("namespace") else metadata["name"]
    return f"{binding['kind']} {quote(name)}"


def _subject(binding: Object, user: User) -> str:
    for subject in binding.get("subjects") or ():
        kind, name = subject.get("kind"), subject.get("name", "")
        if kind == "User" and name == user.name:
            return f"User {quote(name)}"
        if kind == "Group" and name in user.groups:
            return f"Group {quote(name)}"
        if kind == "ServiceAccount":
            namespace = subject.get("namespace") or binding["metadata"].get("namespace", "")
            if user.name == f"system:serviceaccount:{namespace}:{name}":
                return f"ServiceAccount {quote(f'{name}/{namespace}')}"
    return ""


def covers(rule: Object, wanted: Attributes) -> bool:
    """Does one rule allow the request?"""
    verbs = rule.get("verbs") or ()
    if "*" not in verbs and wanted.verb not in verbs:
        return False
    if wanted.path:
        return any(url in ("*", wanted.path) or (url.endswith("*") and wanted.path.startswith(url[:-1]))
                   for url in rule.get("nonResourceURLs") or ())
    groups, resources = rule.get("apiGroups") or (), rule.get("resources") or ()
    fits = "*" in resources or wanted.whole in resources or (wanted.subresource and f"*/{wanted.subresource}" in resources)
    names = rule.get("resourceNames") or ()
    return bool(("*" in groups or wanted.group in groups) and fits and (not names or wanted.name in names))


def _single(rule: Object) -> Iterator[Attributes]:
    """What a rule grants, one by one."""
    for verb in rule.get("verbs") or ():
        yield from (Attributes(verb, path=url) for url in rule.get("nonResourceURLs") or ())
        for group, resource, name in itertools.product(rule.get("apiGroups") or (), rule.get("resources") or (),
                                                       rule.get("resourceNames") or ("",)):
            plural, _, subresource = resource.partition("/")
            yield Attributes(verb, group, plural, subresource, "", name)


def _rule_text(one: Attributes) -> str:
    if one.path:
        return f"{{NonResourceURLs:[{quote(one.path)}], Verbs:[{quote(one.verb)}]}}"
    named = f", ResourceNames:[{quote(one.name)}]" if one.name else ""
    return f"{{APIGroups:[{quote(one.group)}], Resources:[{quote(one.whole)}]{named}, Verbs:[{quote(one.verb)}]}}"


def check_escalation(rbac: Rbac, user: User, resource_name: str, obj: Object, namespace: str) -> None:
    """A role or binding may not grant what its author does not hold (unless allowed to `escalate` or `bind`)."""
    plural, name = resource_name.partition(".")[0], obj["metadata"].get("name", "")
    if "system:masters" in user.groups:
        return
    if plural in ("roles", "clusterroles"):
        verb, rules = "escalate", obj.get("rules") or []
    else:
        ref = obj.get("roleRef") or {}
        role = rbac.role(ref, namespace)
        target = Attributes("bind", RBAC, "clusterroles" if ref.get("kind") == "ClusterRole" else "roles", "",
                            namespace, ref.get("name", ""))
        if rbac.allowed(user, target).allowed:
            return
        if role is None:
            raise status.not_found(resource_name, target.name)
        verb, rules = "bind", role.get("rules") or []
    if verb == "escalate" and rbac.allowed(user, Attributes(verb, RBAC, plural, "", namespace, name)).allowed:
        return
    held = rbac.rules(user, namespace)
    lacking = [one for rule in rules for one in _single(rule) if not any(covers(other, one) for other in held)]
    if lacking:
        groups, told = " ".join(map(quote, user.groups)), "\n".join(map(_rule_text, lacking))
        raise status.forbidden(resource_name, name, f"user {quote(user.name)} (groups=[{groups}]) is attempting to grant "
                               f"RBAC permissions not currently held:\n{told}")


# the reviews


def review(kind: str, obj: Object, user: User, rbac: Rbac, namespace: str) -> Object:
    """A SubjectAccessReview, in all its forms, with its status."""
    spec = obj.get("spec") or {}
    if kind == "SelfSubjectRulesReview":
        if not spec.get("namespace"):
            raise status.bad_request("no namespace on request")
        held = rbac.rules(user, spec["namespace"])
        rules = [{key: rule[key] for key in ("verbs", "apiGroups", "resources", "resourceNames") if rule.get(key)}
                 for rule in held if rule.get("resources")]
        urls = [{"verbs": rule["verbs"], "nonResourceURLs": rule["nonResourceURLs"]} for rule in held
                if rule.get("nonResourceURLs")]
        return {**obj, "metadata": {}, "spec": {}, "status": {"resourceRules": rules, "nonResourceRules": urls, "incomplete": False}}
    asked = spec.get("resourceAttributes")
    errors = list(_faults(kind, obj, spec, namespace))
    if errors:
        raise status.invalid("", "authorization.k8s.io", "", errors)
    if kind in ("SubjectAccessReview", "LocalSubjectAccessReview"):
        user = User(spec.get("user", ""), tuple(spec.get("groups") or ()), spec.get("uid", ""))
    if asked is not None:
        wanted = Attributes(asked.get("verb", ""), asked.get("group", ""), asked.get("resource", ""),
                            asked.get("subresource", ""), namespace or asked.get("namespace", ""), asked.get("name", ""))
    else:
        wanted = Attributes(spec["nonResourceAttributes"].get("verb", ""), path=spec["nonResourceAttributes"].get("path", ""))
    verdict = rbac.allowed(user, wanted)
    return {**obj, "status": {"allowed": verdict.allowed, **({"reason": verdict.reason} if verdict.reason else {})}}


def _faults(kind: str, obj: Object, spec: Object, namespace: str) -> Iterator[FieldError]:
    asked, url = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if asked is not None and url is not None:
        yield invalid("spec.nonResourceAttributes", {"Path": url.get("path", ""), "Verb": url.get("verb", "")},
                      "cannot be specified in combination with resourceAttributes")
    if asked is None and url is None:
        yield invalid("spec.resourceAttributes", None,
                      "exactly one of nonResourceAttributes or resourceAttributes must be specified")
    if kind != "SelfSubjectAccessReview" and not spec.get("user") and not spec.get("groups"):
        yield invalid("spec.user", "", "at least one of user or group must be specified")
    metadata = {key: value for key, value in (obj.get("metadata") or {}).items()
                if key != "managedFields" and not (kind == "LocalSubjectAccessReview" and key == "namespace")}
    if metadata:
        yield invalid("metadata", metadata, "must be empty")
    if kind == "LocalSubjectAccessReview" and asked is not None and asked.get("namespace", "") != namespace:
        yield invalid("spec.resourceAttributes.namespace", asked.get("namespace", ""), "must match metadata.namespace")
