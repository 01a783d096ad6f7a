"""ValidatingAdmissionPolicy and its bindings, by CEL.

A policy judges a request only where a binding names it and both match. Actions: Deny refuses, Warn warns, Audit is
silent here. An expression that cannot be evaluated counts as refused unless the policy's failurePolicy is Ignore.
"""
from typing import Any

from meshtls.lab.api import cel, matching, status
from meshtls.lab.api.matching import Request
from meshtls.lab.api.store import Store

Object = dict[str, Any]
GROUP = "admissionregistration.k8s.io"
_CODES = {"Forbidden": 403, "Unauthorized": 401, "RequestEntityTooLarge": 413}


def judge(store: Store, request: Request, find_params: Any) -> None:
    """Raises ApiError for the first denial, in order of binding; adds warnings to the request.
    `find_params(api_version, kind, namespace, name)` gives a parameter object or None."""
    if request.resource.group == GROUP:
        return
    for binding in store.list(f"validatingadmissionpolicybindings.{GROUP}"):
        spec = binding["spec"]
        policy = store.get(f"validatingadmissionpolicies.{GROUP}", "", spec.get("policyName", ""))
        if policy is None or not all(matching.matches(match or {}, request, "resourceRules") for match in (
                policy["spec"].get("matchConstraints"), spec.get("matchResources"))):
            continue
        for message, reason in _failures(policy, binding, request, find_params):
            names = policy["metadata"]["name"], binding["metadata"]["name"]
            told = "ValidatingAdmissionPolicy '%s' with binding '%s'" % names
            actions = spec.get("validationActions") or ()
            if "Warn" in actions:
                request.warnings.append(f"Validation failed for {told}: {message}")
            if "Deny" in actions:
                error = status.forbidden(request.resource.name, request.name, f"{told} denied request: {message}")
                error.reason, error.code = reason, _CODES.get(reason, 422)
                error.details["causes"] = [{"message": f"{told} denied request: {message}"}]
                raise error


def _failures(policy: Object, binding: Object, request: Request, find_params: Any) -> list[tuple[str, str]]:
    spec = policy["spec"]
    lenient = spec.get("failurePolicy") == "Ignore"
    try:
        if not matching.conditions(spec, request):
            return []
        variables = {**request.variables(), **_params(spec, binding, request, find_params)}
    except (cel.CelError, LookupError) as error:
        return [] if lenient else [(str(error), "Invalid")]
    computed: Object = {}
    for variable in spec.get("variables") or ():
        try:
            computed[variable["name"]] = cel.evaluate(variable["expression"], {**variables, "variables": computed})
        except cel.CelError:
            continue  # a variable that nobody reads may fail; one that is read fails there
    variables["variables"] = computed
    found = []
    for rule in spec.get("validations") or ():
        try:
            if cel.evaluate(rule["expression"], variables) is not True:
                found.append((_message(rule, variables), rule.get("reason", "Invalid")))
        except cel.CelError as error:
            if not lenient:
                found.append((f"expression '{rule['expression']}' resulted in error: {error}", "Invalid"))
    return found


def _message(rule: Object, variables: Object) -> str:
    if rule.get("messageExpression"):
        try:
            said = cel.evaluate(rule["messageExpression"], variables)
        except cel.CelError:
            said = ""
        if isinstance(said, str) and said.strip():
            return said.strip()
    return rule.get("message", "").strip() or f"failed expression: {rule['expression'].strip()}"


def _params(spec: Object, binding: Object, request: Request, find_params: Any) -> Object:
    kind, ref = spec.get("paramKind"), binding["spec"].get("paramRef")
    if not kind or not ref:
        return {}
    found = find_params(kind["apiVersion"], kind["kind"], ref.get("namespace") or request.namespace,
                        ref.get("name", ""))
    if found is None:
        if ref.get("parameterNotFoundAction") == "Allow":
            return {"params": None}
        raise LookupError("failed to configure binding: no params found for policy binding with `Deny` "
                          "parameterNotFoundAction")
    return {"params": found}
