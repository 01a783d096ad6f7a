"""The three patches that say what to change: merge (RFC 7386), JSON (RFC 6902) and strategic merge.

Each takes the current object and the parsed patch and returns a new object; the inputs stay as they are. The strategic
merge is guided by the kind's schema: lists that are maps merge by their first key, sets unite, other lists are
replaced.
"""
from collections.abc import Iterator
from typing import Any

from meshtls.lab.api import parsing, schema, status
from meshtls.lab.api.store import clone

MERGE, JSON, STRATEGIC, APPLY = ("application/merge-patch+json", "application/json-patch+json",
                                 "application/strategic-merge-patch+json",
                                 "application/apply-patch+yaml")
_ORDER, _DROP = "$setElementOrder/", "$deleteFromPrimitiveList/"


def parse(body: bytes, content_type: str = MERGE) -> Any:
    """Raises ApiError 400 on a body that is no JSON, or not of the type's shape."""
    told = "" if content_type == STRATEGIC else "error decoding patch: "
    try:
        found = parsing.from_json(body)
    except parsing.Faulty as error:
        raise status.bad_request(f"{told}{error}") from error
    if content_type == JSON:
        _check_operations(found)
    elif found is None:
        raise status.bad_request("Invalid JSON Patch")
    elif not isinstance(found, dict):
        raise status.bad_request(f"{told}json: cannot unmarshal {parsing.kind_of(found)} into Go value of type map[string]interface {{}}")
    return found


def _check_operations(found: Any) -> None:
    listed = found if isinstance(found, list) else [] if found is None else None
    for value, wanted in ((found, "[]handlers.jsonPatchOp"), *((one, "handlers.jsonPatchOp") for one in listed or ())):
        if value is not None and not isinstance(value, dict if wanted[0] != "[" else list):
            raise status.bad_request(f"error decoding patch: json: cannot unmarshal {parsing.kind_of(value)} into Go value of type {wanted}")
    for one in listed or ():
        for key in ("op", "path", "from"):
            if not isinstance((one or {}).get(key) or "", str):
                raise status.bad_request(f"error decoding patch: json: cannot unmarshal {parsing.kind_of(one[key])} into Go struct field "
                                         f"jsonPatchOp.{key} of type string")
    if len(listed or ()) > 10_000:
        raise status.ApiError(413, "RequestEntityTooLarge",
                              "Request entity too large: The allowed maximum operations in a JSON patch is "
                              f"10000, got {len(listed or ())}")


def complaints(patch: Any, content_type: str) -> Iterator[str]:
    """What stands twice in a patch, or is unknown in its operations."""
    before = "json patch " if content_type == JSON else ""
    yield from (before + told for told in parsing.repeated(patch))
    for place, one in enumerate(patch if content_type == JSON else ()):
        yield from (f'{before}unknown field "[{place}].{key}"' for key in one if key not in ("op", "path", "from", "value"))


def merge(current: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return clone(patch)
    found = dict(current) if isinstance(current, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merge(found.get(key), value)
    return clone(found)


def json_patch(current: dict[str, Any], operations: Any) -> dict[str, Any]:
    """Raises ApiError 422 for what does not apply."""
    import jsonpatch
    import jsonpointer
    changed = clone(current)
    try:
        for one in map(_rooted, operations):
            holder = jsonpointer.JsonPointer(one.get("path", "")).to_last(changed)[0] if one.get("op") == "replace" else None
            if isinstance(holder, dict):  # a field that is not there yet is as good
                one["op"] = "add"
            changed = jsonpatch.apply_patch(changed, [{"value": None, **one}], in_place=True)
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError, KeyError, IndexError) as error:
        raise status.unprocessable("the server rejected our request due to an error in our request") from error
    if not isinstance(changed, dict):
        raise status.unprocessable("the server rejected our request due to an error in our request")
    return changed


def shown(value: Any) -> str:
    """A JSON value as Go prints a map."""
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{shown(item)}" for key, item in sorted(value.items())) + "]"
    if isinstance(value, list):
        return "[" + " ".join(map(shown, value)) + "]"
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _rooted(operation: dict[str, Any]) -> dict[str, Any]:
    """Pointers begin behind their first slash, whatever stands before it."""
    return {key: "/" + value.partition("/")[2] if key in ("path", "from") and isinstance(value, str) and "/" in value
            else value for key, value in operation.items()}


def strategic(node: dict[str, Any], current: dict[str, Any], patch: Any) -> dict[str, Any]:
    return _object(schema.resolve(node), clone(current), clone(patch))


def _object(node: dict[str, Any], current: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    directive = patch.pop("$patch", "merge")
    if directive == "replace":
        return dict(_plain(patch))
    if directive == "delete":
        return {}
    if directive != "merge":
        raise status.bad_request(f"unknown patch type: {directive}")
    retained = patch.pop("$retainKeys", None)
    if retained is not None:
        current = {key: value for key, value in current.items() if key in retained}
    orders = {key.removeprefix(_ORDER): patch.pop(key) for key in list(patch) if key.startswith(_ORDER)}
    drops = {key.removeprefix(_DROP): patch.pop(key) for key in list(patch) if key.startswith(_DROP)}
    for key, gone in drops.items():
        if isinstance(current.get(key), list):
            current[key] = [item for item in current[key] if item not in gone]
    for key in [*patch, *(key for key in orders if key not in patch)]:
        child = schema.child(node, key)
        if key not in patch:
            patched: Any = []
        elif patch[key] is None:
            current.pop(key, None)
            continue
        else:
            patched = patch[key]
        if isinstance(patched, dict):
            if isinstance(current.get(key), dict):
                current[key] = _object(child, current[key], patched)
            elif "$patch" in patched:
                current.pop(key, None)
            else:
                current[key] = _object(child, {}, patched)
        elif isinstance(patched, list) and (key in patch or isinstance(current.get(key), list)):
            current[key] = _list(child, current.get(key) or [], patched, orders.get(key))
        else:
            current[key] = patched
    return current


def _list(node: dict[str, Any], current: list[Any], patch: list[Any], order: list[Any] | None) -> list[Any]:
    keys = schema.merge_keys(node)
    if keys is None:
        if node.get("x-kubernetes-list-type") == "set":
            merged = current + [item for item in patch if item not in current]
            return _ordered(current, merged, order, lambda item: item)
        return list(_plain(patch))
    key = keys[0]
    if any(isinstance(item, dict) and item.get("$patch") == "replace" for item in patch):
        return [_plain(item) for item in patch if set(item) - {"$patch"}]
    merged = list(current)
    items = schema.items(node)
    for item in patch:
        if not isinstance(item, dict) or key not in item:
            raise status.ApiError(500, "", f"map: {shown(item)} does not contain declared merge key: {key}")
        place = next((at for at, held in enumerate(merged) if held.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            if place is not None:
                del merged[place]
        elif place is None:
            merged.append(_object(items, {}, item))
        else:
            merged[place] = _object(items, merged[place], item)
    named = [item[key] for item in order or patch if key in item and item.get("$patch") != "delete"]
    return _ordered(current, merged, named, lambda item: item.get(key))


def _ordered(before: list[Any], merged: list[Any], order: list[Any] | None, mark: Any) -> list[Any]:
    """The patch's order for what it names; the rest keeps its place among its former neighbours."""
    if not order:
        return merged
    marks = [mark(item) for item in before]
    named = sorted((item for item in merged if mark(item) in order), key=lambda item: order.index(mark(item)))
    others = [item for item in merged if mark(item) not in order]
    found: list[Any] = []
    while named and others:
        left, right = mark(named[0]), mark(others[0])
        first = left in marks and right in marks and marks.index(left) > marks.index(right)
        found.append((others if first else named).pop(0))
    return found + named + others


def _plain(value: Any) -> Any:
    """Without directives."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if not key.startswith("$") and item is not None}
    return [_plain(item) for item in value] if isinstance(value, list) else value
