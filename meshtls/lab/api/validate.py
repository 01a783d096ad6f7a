"""Is a built-in object good? A walk over its schema with tables, then what one kind alone demands.

`errors(resource, version, obj, old)` gives every FieldError, old is None for a create. The tables are those of `rules`;
messages are the API server's.
"""
from collections.abc import Callable, Iterator
from typing import Any

from meshtls.lab.api import field, schema, validate_kinds, validate_pod, validate_work
from meshtls.lab.api.field import IMMUTABLE, FieldError, forbidden, invalid, required, unsupported
from meshtls.lab.api.resources import Resource
from meshtls.lab.api.rules import ADDRESSES, ENUMS, ITEM_ENUMS, NAMES, NONNEGATIVE, OPTIONAL, PORTS, POSITIVE, RANGES

Object = dict[str, Any]

_NAME_RULES: dict[str, Callable[[str], list[str]]] = {
    "Namespace": field.label_1123, "Service": field.label_1123, "Role": field.path_segment,
    "ClusterRole": field.path_segment,
    "RoleBinding": field.path_segment, "ClusterRoleBinding": field.path_segment, "StatefulSet": field.label_1123}
_ANY_NAME = {"Event", "PodDisruptionBudget"}
SELECTED = {"Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"}


def metadata(resource: Resource, obj: Object, old: Object | None) -> Iterator[FieldError]:
    """Names, labels, annotations, owners, finalizers; on an update what must not change."""
    meta = obj.get("metadata") or {}
    rule = _NAME_RULES.get(resource.kind, field.subdomain_1123) if not resource.custom else field.subdomain_1123
    name, prefix = meta.get("name") or "", meta.get("generateName") or ""
    if old is None:
        if prefix:
            trial = prefix[:-1] + "a" if prefix.endswith("-") else prefix
            yield from (invalid("metadata.generateName", prefix, told) for told in rule(trial))
        if not name:
            yield required("metadata.name", "name or generateName is required")
        elif resource.custom or resource.kind not in _ANY_NAME:
            yield from (invalid("metadata.name", name, told) for told in rule(name))
    for key, value in (meta.get("labels") or {}).items():
        yield from (invalid("metadata.labels", key, told) for told in field.qualified(key))
        yield from (invalid("metadata.labels", value, told) for told in field.label_value(value))
    for key in meta.get("annotations") or {}:
        yield from (invalid("metadata.annotations", key, told) for told in field.qualified(key.lower()))
    if sum(len(key) + len(value) for key, value in (meta.get("annotations") or {}).items()) > 256 * 1024:
        yield field.too_long("metadata.annotations", 262144)
    yield from _owners(meta.get("ownerReferences") or [])
    for finalizer in meta.get("finalizers") or ():
        yield from (invalid("metadata.finalizers", finalizer, told) for told in field.qualified(finalizer))
    for place, finalizer in enumerate(() if resource.custom else meta.get("finalizers") or ()):
        if "/" not in finalizer and finalizer not in ("orphan", "foregroundDeletion", "kubernetes"):
            yield invalid(f"metadata.finalizers[{place}]", finalizer,
                          "name is neither a standard finalizer name nor is it fully qualified")
    if old is not None:
        before = old["metadata"]
        for key in ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"):
            if key in meta and key in before and meta[key] != before[key]:
                yield invalid(f"metadata.{key}", meta[key], IMMUTABLE)
        if before.get("deletionTimestamp"):
            added = sorted(set(meta.get("finalizers") or ()) - set(before.get("finalizers") or ()))
            if added:
                told = "[]string{" + ", ".join(field.quote(text) for text in added) + "}"
                yield forbidden("metadata.finalizers",
                                f"no new finalizers can be added if the object is being deleted, found new finalizers "
                                f"{told}")


def _owners(owners: list[Object]) -> Iterator[FieldError]:
    ruling = ""
    for owner in owners:
        for key in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(key):
                yield invalid(f"metadata.ownerReferences.{key}", "", "must not be empty")
        group, _, version = (owner.get("apiVersion") or "").rpartition("/")
        if (group, owner.get("kind")) in (("", "Event"), ("events.k8s.io", "Event")):
            yield invalid("metadata.ownerReferences", owner,
                          f"{group}/{version}, Kind=Event is disallowed from being an owner")
        named = f"{owner.get('kind')}/{owner.get('name')}"
        if owner.get("controller") and ruling:
            yield invalid("metadata.ownerReferences", owners, 'Only one reference can have Controller set to true. '
                          f'Found "true" in references for {ruling} and {named}')
        ruling = named if owner.get("controller") else ruling


def errors(resource: Resource, version: str, obj: Object, old: Object | None) -> list[FieldError]:
    """All that is wrong with a built-in object."""
    found = list(metadata(resource, obj, old))
    node = schema.of(resource, version)
    rest = {key: value for key, value in obj.items() if key not in ("metadata", "status", "apiVersion", "kind")}
    spec_rules = list(_walk(node, _claimed(rest) if resource.kind == "StatefulSet" else rest, "", skip=("metadata",)))
    special = validate_kinds.KINDS.get(resource.kind)
    if special is not None:
        spec_rules += list(special(obj, old))
    if resource.kind in SELECTED:
        spec_rules = [*validate_work.workload(obj, old), *spec_rules]
    return found + spec_rules


def _claimed(body: Object) -> Object:
    """A StatefulSet with its claims among the volumes of its template, as its pods will have them."""
    spec = body.get("spec") or {}
    template = spec.get("template") or {}
    pod, names = template.get("spec"), [(claim.get("metadata") or {}).get("name") for claim in spec.get("volumeClaimTemplates") or ()]
    if not pod or not names:
        return body
    volumes = [one for one in pod.get("volumes") or () if one.get("name") not in names]
    volumes += [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in names]
    return {**body, "spec": {**spec, "template": {**template, "spec": {**pod, "volumes": volumes}}}}


def _walk(node: Object, value: Any, path: str, skip: tuple[str, ...] = ()) -> Iterator[FieldError]:
    node = schema.resolve(node)
    if isinstance(value, dict):
        owner = node.get("x-model", "")
        for key in node.get("required") or ():
            held = value.get(key)
            if key not in skip and f"{owner}.{key}" not in OPTIONAL and (held is None or held == ""):
                yield required(_join(path, key))
        inner = node.get("additionalProperties")
        for key, item in value.items():
            child = (node.get("properties") or {}).get(key) or (inner if isinstance(inner, dict) else None)
            if child is None or (owner == "" and key == "metadata"):
                continue
            at = _join(path, key)
            yield from _scalar(f"{owner}.{key}", item, at)
            if owner == "V1LabelSelector" and key == "matchLabels" and item:
                for label, text in item.items():
                    yield from (invalid(at, label, told) for told in field.qualified(label))
                    yield from (invalid(at, text, told) for told in field.label_value(text))
            if owner == "V1PodTemplateSpec" and key == "metadata":
                for label, text in (item.get("labels") or {}).items():
                    yield from (invalid(f"{at}.labels", label, told) for told in field.qualified(label))
                    yield from (invalid(f"{at}.labels", text, told) for told in field.label_value(text))
                continue
            if owner == "V1JSONSchemaProps":
                continue
            if isinstance(item, (dict, list)):
                yield from _walk(child, item, at)
                if owner in ("V1LabelSelector", "V1NodeSelectorTerm") and key in ("matchExpressions", "matchFields"):
                    yield from _expressions(item, at)
            if owner in ("V1PodTemplateSpec", "V1Pod") and key == "spec":
                yield from validate_pod.spec(item, at)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            if isinstance(item, (dict, list)):
                yield from _walk(node.get("items") or {}, item, f"{path}[{place}]")


def _expressions(terms: list[Object], path: str) -> Iterator[FieldError]:
    for place, term in enumerate(terms):
        operator, values, at = term.get("operator"), term.get("values") or [], f"{path}[{place}].values"
        if operator in ("In", "NotIn") and not values:
            yield required(at, "must be specified when `operator` is 'In' or 'NotIn'")
        if operator in ("Exists", "DoesNotExist") and values:
            yield forbidden(at, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
        if operator in ("Gt", "Lt") and len(values) != 1:
            yield required(at, "must be specified single value when `operator` is 'Lt' or 'Gt'")


def _scalar(name: str, value: Any, path: str) -> Iterator[FieldError]:
    if value is None:
        return
    if name in ENUMS and value not in ENUMS[name]:
        yield unsupported(path, value, ENUMS[name])
    for place, item in enumerate(value if name in ITEM_ENUMS and isinstance(value, list) else ()):
        if item not in ITEM_ENUMS[name]:
            yield unsupported(f"{path}[{place}]", item, ITEM_ENUMS[name])
    if name in NAMES and value:
        yield from (invalid(path, value, told) for told in NAMES[name](value))
    if name in NONNEGATIVE and value < 0:
        yield invalid(path, value, "must be greater than or equal to 0")
    if name in POSITIVE and value <= 0:
        yield invalid(path, value, "must be greater than 0")
    if name in RANGES and not RANGES[name][0] <= value <= RANGES[name][1]:
        yield invalid(path, value, RANGES[name][2])
    for place, item in enumerate(value if name in ADDRESSES and isinstance(value, list) else ()):
        yield from (invalid(f"{path}[{place}]", item, told) for told in field.address(item))
    if name in ADDRESSES and value and isinstance(value, str):
        yield from (invalid(path, value, told) for told in field.address(value))
    if name in PORTS:
        yield from (invalid(path, value, told) for told in field.port_number(value))
    if name in ("V1LabelSelectorRequirement.operator", "V1NodeSelectorRequirement.operator") and value not in (
            "In", "NotIn", "Exists", "DoesNotExist", *(("Gt", "Lt") if "Node" in name else ())):
        yield invalid(path, value, "not a valid selector operator")


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
