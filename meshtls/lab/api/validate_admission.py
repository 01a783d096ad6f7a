"""What webhooks, admission policies and definitions of custom kinds demand beyond their schema."""
import functools
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from meshtls.lab.api import cel, field
from meshtls.lab.api.field import FieldError, invalid, required, unsupported

Object = dict[str, Any]
_TYPES = ("array", "boolean", "integer", "number", "object", "string")


def webhooks(obj: Object, old: Object | None) -> Iterator[FieldError]:
    names = set()
    for place, hook in enumerate(obj.get("webhooks") or ()):
        at = f"webhooks[{place}]"
        name = hook.get("name") or ""
        if name and (field.subdomain_1123(name) or name.count(".") < 2):
            told = (",".join(field.subdomain_1123(name))
                    or "should be a domain with at least three segments separated by dots")
            yield invalid(f"{at}.name", name, told)
        if name in names:
            yield field.duplicate(f"{at}.name", name)
        names.add(name)
        if hook.get("admissionReviewVersions") and not {"v1", "v1beta1"} & set(hook["admissionReviewVersions"]):
            yield invalid(f"{at}.admissionReviewVersions", hook["admissionReviewVersions"],
                          "must include at least one of v1, v1beta1")
        if not 1 <= hook.get("timeoutSeconds", 10) <= 30:
            yield invalid(f"{at}.timeoutSeconds", hook["timeoutSeconds"],
                          "the timeout value must be between 1 and 30 seconds")
        if not hook.get("admissionReviewVersions"):
            yield required(f"{at}.admissionReviewVersions", "must specify one of v1, v1beta1")
        for here, rule in enumerate(hook.get("rules") or ()):
            yield from _rule(rule, f"{at}.rules[{here}]")
        yield from _conditions(hook.get("matchConditions") or [], f"{at}.matchConditions")
        config = hook.get("clientConfig") or {}
        if ("url" in config) == ("service" in config):
            yield required(f"{at}.clientConfig", "exactly one of url or service is required")
        elif "url" in config and not config["url"].startswith("https://"):
            scheme = config["url"].partition("://")[0] if "://" in config["url"] else ""
            yield invalid(f"{at}.clientConfig.url", scheme or config["url"],
                          "'https' is the only allowed URL scheme; desired format: https://host[/path]")
        elif "url" in config:
            yield from _address(config["url"], f"{at}.clientConfig.url")
        else:
            yield from _service(config["service"], f"{at}.clientConfig.service")


def _address(url: str, path: str) -> Iterator[FieldError]:
    parts = urlsplit(url)
    if not parts.netloc:
        yield invalid(path, "", "host must be specified; desired format: https://host[/path]")
    for text, what in ((parts.netloc.rpartition("@")[0], "user information is"), (parts.fragment, "fragments are"),
                       (parts.query, "query parameters are")):
        if text:
            yield invalid(path, text, f"{what} not permitted in the URL")


def _service(service: Object, path: str) -> Iterator[FieldError]:
    if service.get("port") is not None:
        yield from (invalid(f"{path}.port", service["port"], f"port is not valid: {told}")
                    for told in field.port_number(service["port"]))
    text = service.get("path")
    if not text:
        return
    if not text.startswith("/"):
        yield invalid(f"{path}.path", text, "must start with a '/'")
    steps = text.split("/")[1:]
    for place, step in enumerate(steps or [""]):
        if not step and place < len(steps) - 1 or not steps:
            yield invalid(f"{path}.path", text, f"segment[{place}] may not be empty")


def _rule(rule: Object, path: str) -> Iterator[FieldError]:
    for key, what in (("operations", "operations"), ("apiGroups", "API groups"), ("apiVersions", "API versions"),
                      ("resources", "resources without subresources")):
        held = rule.get(key) or []
        if not held:
            yield required(f"{path}.{key}")
        star = "*/*" if key == "resources" and "*/*" in held else "*"
        rest = [item for item in held if item != star and not (key == "resources" and star == "*" and "/" in item)]
        if star in held and rest:
            yield invalid(f"{path}.{key}", held, f"if '{star}' is present, must not specify other "
                          + ("resources" if star == "*/*" else what))
        if key == "apiVersions":
            yield from (required(f"{path}.{key}[{place}]") for place, item in enumerate(held) if not item)


def _conditions(conditions: list[Object], path: str) -> Iterator[FieldError]:
    for place, condition in enumerate(conditions):
        yield from _expression(condition.get("expression") or "", f"{path}[{place}].expression")


def _expression(text: str, path: str, wanted: str = "bool", known: tuple[str, ...] = ()) -> Iterator[FieldError]:
    """The expression can be compiled, knows its variables and has the wanted type as far as that can be told."""
    if not text.strip():
        return
    if fault := cel.compiles(text):
        yield invalid(path, text, fault)
    elif unknown := cel.unknown(text, known):
        yield invalid(path, text, unknown)
    elif (kind := cel.literal(text)) and kind != wanted:
        yield invalid(path, text, f"must evaluate to {wanted} but got {kind}")


def policy(obj: Object, old: Object | None) -> Iterator[FieldError]:
    spec = obj.get("spec") or {}
    if not spec.get("validations") and not spec.get("auditAnnotations"):
        for key in ("validations", "auditAnnotations"):
            yield required(f"spec.{key}", "validations or auditAnnotations must contain at least one item")
    match = spec.get("matchConstraints")
    if match is None:
        yield required("spec.matchConstraints")
    else:
        if not match.get("resourceRules"):
            yield required("spec.matchConstraints.resourceRules")
        for place, rule in enumerate(match.get("resourceRules") or ()):
            yield from _rule(rule, f"spec.matchConstraints.resourceRules[{place}]")
    kind = spec.get("paramKind")
    if kind is not None:
        yield from (required(f"spec.paramKind.{key}") for key in ("apiVersion", "kind") if not kind.get(key))
    params = ("params",) if kind is not None else ()
    names = tuple(f"variables.{variable.get('name')}" for variable in spec.get("variables") or ())
    check = functools.partial(_expression, known=(*params, *names))
    for place, condition in enumerate(spec.get("matchConditions") or ()):
        yield from check(condition.get("expression") or "", f"spec.matchConditions[{place}].expression")
    for place, rule in enumerate(spec.get("validations") or ()):
        at = f"spec.validations[{place}]"
        yield from check(rule.get("expression") or "", f"{at}.expression")
        yield from check(rule.get("messageExpression") or "", f"{at}.messageExpression", "string")
        message = rule.get("message") or ""
        if message and not message.strip():
            yield invalid(f"{at}.message", message, "must be non-empty if specified")
        elif "\n" in message.strip():
            yield invalid(f"{at}.message", message, "must not contain line breaks")


def binding(obj: Object, old: Object | None) -> Iterator[FieldError]:
    spec = obj.get("spec") or {}
    actions, ref = spec.get("validationActions") or [], spec.get("paramRef")
    yield from (field.duplicate(f"spec.validationActions[{place}]", action) for place, action in enumerate(actions)
                if action in actions[:place])
    if {"Deny", "Warn"} <= set(actions):
        yield invalid("spec.validationActions", actions, "must not contain both Deny and Warn (repeating the same "
                      "validation failure information in the API response and headers serves no purpose)")
    if ref is not None:
        if not ref.get("name") and ref.get("selector") is None:
            yield required("spec.paramRef", "one of name or selector must be specified")
        if not ref.get("parameterNotFoundAction"):
            yield required("spec.paramRef.parameterNotFoundAction")


def definition(obj: Object, old: Object | None) -> Iterator[FieldError]:
    spec = obj.get("spec") or {}
    names = spec.get("names") or {}
    wanted = f"{names.get('plural', '')}.{spec.get('group', '')}"
    if obj["metadata"].get("name") != wanted:
        yield invalid("metadata.name", obj["metadata"].get("name") or "", 'must be spec.names.plural+"."+spec.group')
    if sum(bool(version.get("storage")) for version in spec.get("versions") or ()) != 1:
        yield invalid("spec.versions", spec.get("versions"), "must have exactly one version marked as storage version")
    for place, version in enumerate(spec.get("versions") or ()):
        if not (version.get("schema") or {}).get("openAPIV3Schema"):
            yield required(f"spec.versions[{place}].schema.openAPIV3Schema", "schemas are required")
        else:
            yield from _schema(version["schema"]["openAPIV3Schema"], "spec.validation.openAPIV3Schema", True)
    if plural := names.get("plural"):
        yield from (invalid("spec.names.plural", plural, told) for told in field.label_1035(plural))


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
        yield from _schema(child, f"{path}.properties[{key}]")
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from _schema(node[key], f"{path}.{key}")
