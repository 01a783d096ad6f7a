"""Is a built-in object good? Its metadata, then of each structure in it what the tables of `rules` and its own rule say.

`errors(resource, version, obj, old)` gives every FieldError, old is None for a create. A rule hangs on a structure, as
validation does in the API server; messages are the API server's.
"""
import functools
from collections.abc import Callable, Iterator
from typing import Any

from meshtls.lab.api import field, schema, validate_admission, validate_kinds, validate_network, validate_pod, validate_work
from meshtls.lab.api.field import IMMUTABLE, FieldError, duplicate, forbidden, invalid, required, unsupported
from meshtls.lab.api.parts import Change, Part, Rule, bad, each, labels, needs, never, walk
from meshtls.lab.api.resources import Resource
from meshtls.lab.api.rules import CHECKS, ENUMS, OPTIONAL, RANGES, UNIQUE

Object = dict[str, Any]
_NAME_RULES: dict[str, Callable[[str], list[str]]] = {
    "Namespace": field.label_1123, "Service": field.label_1123, "StatefulSet": field.label_1123,
    "Role": field.path_segment, "ClusterRole": field.path_segment, "RoleBinding": field.path_segment,
    "ClusterRoleBinding": field.path_segment}
_ANY_NAME = {"Event", "PodDisruptionBudget"}
_FIXED = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")


def metadata(resource: Resource, obj: Object, old: Object | None) -> Iterator[FieldError]:
    """Names, labels, annotations, owners, finalizers; on an update what must not change."""
    meta = obj.get("metadata") or {}
    rule = field.subdomain_1123 if resource.custom else _NAME_RULES.get(resource.kind, field.subdomain_1123)
    name, prefix = meta.get("name") or "", meta.get("generateName") or ""
    if old is None:
        if prefix:
            trial = prefix[:-1] + "a" if prefix.endswith("-") else prefix
            yield from (invalid("metadata.generateName", prefix, told) for told in rule(trial))
        if not name:
            yield required("metadata.name", "name or generateName is required")
        elif resource.custom or resource.kind not in _ANY_NAME:
            yield from field.told("metadata.name", name, rule)
    yield from field.labels("metadata.labels", meta.get("labels") or {})
    annotations = meta.get("annotations") or {}
    for key in annotations:
        yield from (invalid("metadata.annotations", key, told) for told in field.qualified(key.lower()))
    if sum(len(key) + len(value) for key, value in annotations.items()) > 256 * 1024:
        yield field.too_long("metadata.annotations", 262144)
    yield from _owners(meta.get("ownerReferences") or [])
    finalizers = meta.get("finalizers") or []
    for finalizer in finalizers:
        yield from field.told("metadata.finalizers", finalizer, field.qualified)
    for place, finalizer in enumerate(() if resource.custom else finalizers):
        yield from field.told(f"metadata.finalizers[{place}]", finalizer, field.finalizer)
    if old is not None:
        before = old["metadata"]
        for key in _FIXED:
            if key in meta and (key in before or key.startswith("deletion")) and meta[key] != before.get(key):
                yield invalid(f"metadata.{key}", meta[key], IMMUTABLE)
        added = sorted(set(finalizers) - set(before.get("finalizers") or ()))
        if before.get("deletionTimestamp") and added:
            yield forbidden("metadata.finalizers",
                            "no new finalizers can be added if the object is being deleted, found new finalizers "
                            "[]string{" + ", ".join(map(field.quote, added)) + "}")


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
    found, changes = told_twice(resource, obj, old), list[FieldError]()
    for part in walk(schema.of(resource, version), obj, old):
        found += _fields(part)
        for rule in RULES.get(part.model, ()):
            (changes if isinstance(rule, Change) else found).extend(rule(part))
    return found + changes


def told_twice(resource: Resource, obj: Object, old: Object | None) -> list[FieldError]:
    """What is wrong with the metadata; of a change the API server asks it twice."""
    return list(metadata(resource, obj, old)) * (1 if old is None else 2)


def _fields(part: Part) -> Iterator[FieldError]:
    needed, facts = _facts(part.model)
    for key in needed:
        if part.value.get(key) in (None, ""):
            yield required(part.at(key))
    for key, value in part.value.items():
        if value is None or key not in facts:
            continue
        known, check, bounds, alone = facts[key]
        if known:
            listed = isinstance(value, list)
            yield from (unsupported(part.at(key) + (f"[{place}]" if listed else ""), item, known)
                        for place, item in enumerate(value if listed else [value]) if item not in known)
        if check:
            yield from each(key, check)(part)
        if bounds and not bounds[0] <= value <= bounds[1]:
            yield invalid(part.at(key), value, bounds[2])
        if alone and (value or key not in needed) and value in [item.get(key) for item in part.before]:
            yield duplicate(part.at(key), value)


@functools.cache
def _facts(model: str) -> tuple[list[str], dict[str, tuple[Any, ...]]]:
    """The required fields of a structure, and of others what the tables say."""
    node = schema.model(model)
    needed = [key for key in node.get("required") or () if key != "metadata" and f"{model}.{key}" not in OPTIONAL]
    facts = {key: (*(table.get(f"{model}.{key}") or table.get(key) for table in (ENUMS, CHECKS, RANGES)),
                   f"{model}.{key}" in UNIQUE) for key in node.get("properties") or ()}
    return needed, {key: told for key, told in facts.items() if any(told)}


def _requirement(*known: str) -> tuple[Rule, ...]:
    """One expression of a selector."""
    return (
        bad("operator", "not a valid selector operator", lambda one: one["operator"] not in (None, *known)),
        needs("values", "must be specified when `operator` is 'In' or 'NotIn'",
              lambda one: one["operator"] in ("In", "NotIn") and not one["values"]),
        never("values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
              lambda one: one["operator"] in ("Exists", "DoesNotExist") and one["values"]),
        needs("values", "must be specified single value when `operator` is 'Lt' or 'Gt'",
              lambda one: one["operator"] in ("Gt", "Lt") and len(one["values"] or ()) != 1),
        each("key", field.qualified))


_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")
RULES: dict[str, tuple[Rule, ...]] = {
    "V1LabelSelector": (labels("matchLabels"),), "V1PodTemplateSpec": (labels("metadata.labels"),),
    "V1LabelSelectorRequirement": _requirement(*_OPERATORS),
    "V1NodeSelectorRequirement": _requirement(*_OPERATORS, "Gt", "Lt"),
    **validate_pod.RULES, **validate_work.RULES, **validate_network.RULES, **validate_admission.RULES,
    **validate_kinds.RULES}
