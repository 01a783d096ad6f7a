"""Which requests an admission webhook or policy is asked about: rules, selectors and CEL match conditions."""
from typing import Any

import msgspec

from meshtls.lab.api import cel, select
from meshtls.lab.api.identity import User
from meshtls.lab.api.resources import Resource

Object = dict[str, Any]


class Request(msgspec.Struct):
    """One write on its way through admission. `object` is None for deletes, `old` for creates."""

    resource: Resource
    version: str
    subresource: str
    operation: str
    namespace: str
    name: str
    user: User
    object: Object | None
    old: Object | None
    options: Object
    dry_run: bool
    warnings: list[str]
    namespace_object: Object | None = None

    def facts(self) -> Object:
        """The request as an AdmissionReview tells it, without uid and objects."""
        kind = {"group": self.resource.group, "version": self.version, "kind": self.resource.kind}
        resource = {"group": self.resource.group, "version": self.version, "resource": self.resource.plural}
        found = {"kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
                 "operation": self.operation,
                 "userInfo": self.user.info(), "dryRun": self.dry_run, "options": self.options}
        texts = {"name": self.name, "namespace": self.namespace, "subResource": self.subresource,
                 "requestSubResource": self.subresource}
        return {**found, **{key: text for key, text in texts.items() if text}}

    def variables(self) -> Object:
        """What CEL expressions see."""
        namespace = self.namespace_object if self.resource.namespaced else None
        return {"object": self.object, "oldObject": self.old, "request": self.facts(), "namespaceObject": namespace}


def matches(match: Object, request: Request, rules: str) -> bool:
    """Does a webhook or policy, whose rules stand under a key, match the request? Without rules everything does."""
    equivalent = match.get("matchPolicy", "Equivalent") == "Equivalent"
    wanted, unwanted = match.get(rules) or (), match.get("excludeResourceRules") or ()
    if wanted and not any(_ruled(rule, request, equivalent) for rule in wanted):
        return False
    return not any(_ruled(rule, request, equivalent) for rule in unwanted) and _selected(match, request)


def _ruled(rule: Object, request: Request, equivalent: bool) -> bool:
    """Does a rule (operations, apiGroups, apiVersions, resources, names, scope) name the request?"""
    def named(key: str, *values: str) -> bool:
        return bool({"*", *values} & set(rule.get(key) or ()))
    versions = request.resource.versions if equivalent else (request.version,)
    scope, names = rule.get("scope", "*"), rule.get("resourceNames")
    return (named("operations", request.operation) and named("apiGroups", request.resource.group)
            and named("apiVersions", *versions) and (not names or request.name in names)
            and scope in ("*", "Namespaced" if request.resource.namespaced else "Cluster")
            and any(_resource(text, request.resource.plural, request.subresource) for text in rule.get("resources") or ()))


def _resource(text: str, plural: str, subresource: str) -> bool:
    wanted, _, sub = text.partition("/")
    if wanted not in ("*", plural):
        return False
    if not subresource:
        return sub in ("", "*")
    return sub in ("*", subresource)


def _selected(match: Object, request: Request) -> bool:
    """Namespace and object selectors; a Namespace is selected by its own labels."""
    space = request.namespace_object
    if request.resource.kind == "Namespace":
        space = request.object or request.old
    selector = match.get("namespaceSelector")
    if selector and space is not None and (request.resource.namespaced or request.resource.kind == "Namespace"):
        if not select.selected(selector, (space.get("metadata") or {}).get("labels") or {}):
            return False
    selector = match.get("objectSelector")
    if not selector:
        return True
    return any(select.selected(selector, (obj.get("metadata") or {}).get("labels") or {})
               for obj in (request.object, request.old) if obj is not None)


def conditions(holder: Object, request: Request) -> bool:
    """matchConditions, all of them. Raises CelError when one cannot be evaluated and none is false."""
    failure: cel.CelError | None = None
    for condition in holder.get("matchConditions") or ():
        try:
            if cel.evaluate(condition["expression"], request.variables()) is not True:
                return False
        except cel.CelError as error:
            failure = error
    if failure is not None:
        raise failure
    return True
