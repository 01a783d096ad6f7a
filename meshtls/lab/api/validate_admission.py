"""What webhooks, admission policies and definitions of custom kinds demand beyond their schema, as rules on their
structures."""
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from meshtls.lab.api import cel, field
from meshtls.lab.api.field import FieldError, invalid, required, unsupported
from meshtls.lab.api.parts import Part, Rule, bad, each, needs, unique

Object = dict[str, Any]
_TYPES = ("array", "boolean", "integer", "number", "object", "string")


def _hook_name(name: str) -> list[str]:
    wrong = field.subdomain_1123(name)
    return [",".join(wrong)] if wrong else [] if name.count(".") >= 2 else [
        "should be a domain with at least three segments separated by dots"]


def _client(part: Part) -> Iterator[FieldError]:
    url = part["url"]
    if url is None or "service" in part.value:
        return
    parts, at, form = urlsplit(url), part.at("url"), "desired format: https://host[/path]"
    if parts.scheme != "https":
        yield invalid(at, parts.scheme, f"'https' is the only allowed URL scheme; {form}")
    for text, what in ((parts.netloc.rpartition("@")[0], "user information is"), (parts.fragment, "fragments are"),
                       (parts.query, "query parameters are")):
        if text:
            yield invalid(at, text, f"{what} not permitted in the URL")
    if not parts.netloc:
        yield invalid(at, "", f"host must be specified; {form}")


def _service_path(text: str) -> list[str]:
    steps = text.split("/")[1:]
    return [*([] if text.startswith("/") else ["must start with a '/'"]), *(
        f"segment[{place}] may not be empty" for place, step in enumerate(steps or [""])
        if not step and (place < len(steps) - 1 or not steps))]


def _rule(part: Part) -> Iterator[FieldError]:
    for key, what in (("operations", "operations"), ("apiGroups", "API groups"), ("apiVersions", "API versions"),
                      ("resources", "")):
        held = part[key] or []
        if not held:
            yield required(part.at(key))
        if what and "*" in held and len(held) > 1:
            yield invalid(part.at(key), held, f"if '*' is present, must not specify other {what}")
        if key == "apiVersions":
            yield from (required(part.at(f"{key}[{place}]")) for place, item in enumerate(held) if not item)
    yield from _resources(part.at("resources"), part["resources"] or [])


def _resources(at: str, held: list[str]) -> Iterator[FieldError]:
    """None may be covered by one before it. (Whether `*` stands beside others is asked of the last one alone.)"""
    alone = [item for item in held if "/" not in item]
    for place, item in enumerate(held):
        resource, _, sub = item.partition("/")
        covering = [star for star in (f"{resource}/*", f"*/{sub}") if sub and star in held[:place]]
        yield from (invalid(f"{at}[{place}]", item, f"if '{star}' is present, must not specify {item}") for star in covering)
    if "*/*" in held and len(held) > 1:
        yield invalid(at, held, "if '*/*' is present, must not specify other resources")
    if "*" in alone and alone[-1] != "*":
        yield invalid(at, held, "if '*' is present, must not specify other resources without subresources")


def _expression(key: str, wanted: str) -> Rule:
    """The expression can be compiled, knows its variables and has the wanted type as far as that can be told."""
    def rule(part: Part) -> Iterator[FieldError]:
        text, policy = part[key] or "", part.above
        if not text.strip():
            return
        known: list[str] = []
        if policy and policy.model == "V1ValidatingAdmissionPolicySpec":
            known = [f"variables.{variable.get('name')}" for variable in policy["variables"] or ()]
            known += ["params"] if policy["paramKind"] is not None else []
        if fault := cel.compiles(text) or cel.unknown(text, known):
            yield invalid(part.at(key), text, fault)
        elif (kind := cel.literal(text)) and kind != wanted:
            yield invalid(part.at(key), text, f"must evaluate to {wanted} but got {kind}")
    return rule


def _definition(part: Part) -> Iterator[FieldError]:
    spec, name = part["spec"] or {}, part["metadata.name"] or ""
    if name != f"{part['spec.names.plural'] or ''}.{spec.get('group', '')}":
        yield invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group')
    if "." not in (spec.get("group") or "."):
        yield invalid("spec.group", spec.get("group", ""), "should be a domain with at least one dot")
    for key in ("singular", "listKind") if not (spec.get("names") or {}).get("kind") else ():
        yield required(f"spec.names.{key}")
    if sum(bool(version.get("storage")) for version in spec.get("versions") or ()) != 1:
        yield invalid("spec.versions", spec.get("versions"), "must have exactly one version marked as storage version")
    for place, version in enumerate(spec.get("versions") or ()):
        if root := (version.get("schema") or {}).get("openAPIV3Schema"):
            yield from _schema(root, "spec.validation.openAPIV3Schema", True)
        else:
            yield required(f"spec.versions[{place}].schema.openAPIV3Schema", "schemas are required")
    yield from each("spec.names.plural", field.label_1035)(part)


def _schema(node: Object, path: str, root: bool = False) -> Iterator[FieldError]:
    """A structural schema: every specified field has a type, defaults fit."""
    kind = node.get("type")
    loose = node.get("x-kubernetes-int-or-string") or node.get("x-kubernetes-preserve-unknown-fields")
    if not kind and not loose and not root:
        yield required(f"{path}.type", "must not be empty for specified object fields")
    elif kind and kind not in _TYPES:
        yield unsupported(f"{path}.type", kind, _TYPES)
    held = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
    given = held.get(type(node.get("default")))
    if kind in _TYPES and given and given != kind and (given, kind) != ("integer", "number"):
        yield FieldError(f"{path}.default", "FieldValueTypeInvalid", given,
                         f' in body must be of type {kind}: "{given}"')
    for key, child in (node.get("properties") or {}).items():
        yield from _schema(child or {}, f"{path}.properties[{key}]")
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from _schema(node[key], f"{path}.{key}")


def _versions_once(part: Part) -> Iterator[FieldError]:
    held = part["admissionReviewVersions"] or []
    yield from (invalid(part.at(f"admissionReviewVersions[{place}]"), one, "duplicate version")
                for place, one in enumerate(held) if one in held[:place])


WEBHOOK: tuple[Rule, ...] = (
    each("name", _hook_name), _versions_once,
    bad("admissionReviewVersions", "must include at least one of v1, v1beta1", lambda hook: (
        hook["admissionReviewVersions"] and not {"v1", "v1beta1"} & set(hook["admissionReviewVersions"]))),
    bad("timeoutSeconds", "the timeout value must be between 1 and 30 seconds",
        lambda hook: not 1 <= hook.value.get("timeoutSeconds", 10) <= 30),
    needs("sideEffects", "must specify one of None, NoneOnDryRun"),
    needs("admissionReviewVersions", "must specify one of v1, v1beta1"),
    needs("clientConfig", "exactly one of url or service is required",
          lambda hook: (hook["clientConfig.url"] is None) == (hook["clientConfig.service"] is None)))

RULES: dict[str, tuple[Rule, ...]] = {
    "V1MutatingWebhook": WEBHOOK, "V1ValidatingWebhook": WEBHOOK,
    "AdmissionregistrationV1WebhookClientConfig": (_client,),
    "AdmissionregistrationV1ServiceReference": (
        each("port", lambda port: [f"port is not valid: {told}" for told in field.port_number(port)]),
        each("path", _service_path)),
    "V1RuleWithOperations": (_rule,), "V1NamedRuleWithOperations": (_rule,),
    "V1MatchCondition": (_expression("expression", "bool"),),
    "V1ValidatingAdmissionPolicySpec": (
        *(needs(key, "validations or auditAnnotations must contain at least one item",
                lambda policy: not policy["validations"] and not policy["auditAnnotations"])
          for key in ("validations", "auditAnnotations")),
        needs("matchConstraints", when=lambda policy: policy["matchConstraints"] is None),
        needs("matchConstraints.resourceRules", when=lambda policy: (
            policy["matchConstraints"] is not None and not policy["matchConstraints.resourceRules"]))),
    "V1ParamKind": (needs("apiVersion"), needs("kind")),
    "V1Validation": (
        _expression("expression", "bool"), _expression("messageExpression", "string"),
        bad("message", "must be non-empty if specified", lambda one: one["message"] and not one["message"].strip()),
        bad("message", "must not contain line breaks", lambda one: "\n" in (one["message"] or "").strip())),
    "V1ValidatingAdmissionPolicyBindingSpec": (
        needs("validationActions", "at least one validation action is required"), unique("validationActions", lambda action: action),
        bad("validationActions", "must not contain both Deny and Warn (repeating the same validation failure information in "
            "the API response and headers serves no purpose)",
            lambda one: {"Deny", "Warn"} <= set(one["validationActions"] or ()))),
    "V1ParamRef": (
        needs("", "one of name or selector must be specified", lambda ref: not ref["name"] and ref["selector"] is None),
        needs("parameterNotFoundAction")),
    "V1CustomResourceDefinition": (_definition,)}
