"""Get, list and watch: what is chosen, cut into pages and given the asked form (object, Table, metadata only)."""
import base64
import json
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from meshtls.lab.api import select, status, table
from meshtls.lab.api.field import forbidden, quote, unsupported
from meshtls.lab.api.resources import Resource
from meshtls.lab.api.select import Match
from meshtls.lab.api.store import Store
from meshtls.lab.api.target import Target
from meshtls.lab.api.watch import Watch, version_of

Object = dict[str, Any]
WATCH_LIMIT_S = 1800.0


class Form(msgspec.Struct, frozen=True):
    """How an answer is wanted: "", "Table" or "PartialObjectMetadata"; `include` for Tables."""

    kind: str = ""
    include: str = "Metadata"

    @classmethod
    def of(cls, accept: str, query: Mapping[str, str]) -> "Form":
        """The first acceptable media type decides. Raises ApiError 406 when none is."""
        for part in accept.split(",") if accept else ["*/*"]:
            media, *parameters = (piece.strip() for piece in part.split(";"))
            if media not in ("application/json", "*/*", "application/*", "application/yaml", "text/plain", ""):
                continue
            wanted = dict(piece.split("=", 1) for piece in parameters if "=" in piece)
            word = wanted.get("as", "")
            if word and (wanted.get("g") != "meta.k8s.io" or wanted.get("v") not in ("v1", "v1beta1")):
                continue
            if word == "Table":
                include = query.get("includeObject") or "Metadata"
                if include not in ("Metadata", "Object", "None"):
                    raise status.bad_request("Unable to convert to Table as requested: includeObject: Invalid value: "
                                             f"{quote(include)}: must be 'Metadata', 'Object', 'None', or empty")
                return cls("Table", include)
            if not word or word.startswith("PartialObjectMetadata"):
                return cls("PartialObjectMetadata" if word else "")
        raise status.ApiError(406, "NotAcceptable", "only the following media types are accepted: application/json, "
                              "application/yaml, application/vnd.kubernetes.protobuf, application/cbor")


def single(obj: Object, target: Target, form: Form) -> Object:
    """One object in the asked version and form."""
    if form.kind == "Table":
        return as_list([obj], target, form, {"resourceVersion": obj["metadata"].get("resourceVersion", "")})
    if form.kind:
        return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
    return {"kind": target.resource.kind, "apiVersion": target.api_version, **_bare(obj)}


def _bare(obj: Object) -> Object:
    return {key: value for key, value in obj.items() if key not in ("kind", "apiVersion")}


def matcher(query: Mapping[str, str], resource: Resource) -> Match | None:
    """Both selectors as one predicate, None if everything matches. Raises ApiError 400."""
    chosen = (select.labels(query.get("labelSelector", "")),
              select.fields(query.get("fieldSelector", ""), resource.kind, resource.custom))
    found = [one for one in chosen if one is not None]
    return (lambda obj: all(one(obj) for one in found)) if found else None


def listed(store: Store, target: Target, query: Mapping[str, str], form: Form) -> Object:
    """A List (or Table) of what matches, at most `limit` items. Raises ApiError."""
    _check(query)
    try:
        version = version_of(query.get("resourceVersion") or "0")
    except status.ApiError as error:
        raise status.bad_request(f"invalid resource version: {error.message}") from None
    if version > store.version:
        raise status.ApiError(504, "Timeout", f"Timeout: Too large resource version: {version}, current: {store.version}",
                              details={"causes": [{"reason": "ResourceVersionTooLarge",
                                                   "message": "Too large resource version"}], "retryAfterSeconds": 1})
    resource = target.resource
    matches = matcher(query, resource)
    found = store.list(resource.name, target.namespace)
    if matches is not None:
        found = [obj for obj in found if matches(obj)]
    metadata: Object = {"resourceVersion": str(store.version)}
    start = _resume(query["continue"]) if query.get("continue") else None
    if start is not None:
        found = [obj for obj in found if _key(obj) > start]
    limit = status.whole(query.get("limit") or "0")
    if 0 < limit < len(found):
        if matches is None:
            metadata["remainingItemCount"] = len(found) - limit
        found = found[:limit]
        metadata["continue"] = _mark(store.version, _key(found[-1]))
    return as_list(found, target, form, metadata)


def as_list(found: list[Object], target: Target, form: Form, metadata: Object) -> Object:
    resource, plain = target.resource, Form()
    if form.kind == "Table":
        rows = [single(obj, target, plain) for obj in found] if form.include == "Object" else found
        return {**table.render(resource, target.version, rows, time.time(), include=form.include), "metadata": metadata}
    items = [single(obj, target, form) if form.kind or resource.custom else _bare(obj) for obj in found]
    if form.kind:
        return {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                "items": items}
    metadata = {"continue": "", **metadata} if resource.custom else metadata
    return {"kind": resource.list_kind, "apiVersion": target.api_version, "metadata": metadata, "items": items}


def watched(target: Target, query: Mapping[str, str], form: Form) -> Watch:
    """The wishes of a watch request. Raises ApiError."""
    _check(query)
    initial = query.get("sendInitialEvents") == "true"
    asked = query.get("resourceVersion", "")
    version = version_of(asked) if asked else 0
    seconds = query.get("timeoutSeconds", "")
    matches = matcher(query, target.resource)
    return Watch(target.resource.name, target.namespace, matches or (lambda obj: True),
                 lambda obj: single(obj, target, form),
                 None if version == 0 or initial else version, float(seconds) if seconds.isdigit() and int(seconds)
                 else WATCH_LIMIT_S,
                 query.get("allowWatchBookmarks") in ("true", "1"), initial, target.resource.kind, target.api_version)


def _check(query: Mapping[str, str]) -> None:
    status.whole(query.get("timeoutSeconds") or "0")
    match, watching = query.get("resourceVersionMatch"), query.get("watch") in ("true", "1")
    initial, known = "sendInitialEvents" in query, ("NotOlderThan",) if watching else ("Exact", "NotOlderThan", "")
    name = "resourceVersionMatch"
    errors = [error for wrong, error in (
        (match and watching and not initial,
         forbidden(name, f"{name} is forbidden for watch unless sendInitialEvents is provided")),
        (match and not watching and not query.get("resourceVersion"),
         forbidden(name, f"{name} is forbidden unless resourceVersion is provided")),
        (match and query.get("continue"), forbidden(name, f"{name} is forbidden when continue is provided")),
        (match and match not in known, unsupported(name, match, known)),
        (match == "Exact" and query.get("resourceVersion") == "0",
         forbidden(name, f'{name} "exact" is forbidden for resourceVersion "0"')),
        (initial and not watching, forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list")),
        (initial and watching and match != "NotOlderThan",
         forbidden(name, f"sendInitialEvents requires setting {name} to NotOlderThan"))) if wrong]
    if errors:
        raise status.invalid("ListOptions", "meta.k8s.io", "", errors)
    if query.get("continue") and query.get("resourceVersion", "0") not in ("", "0"):
        raise status.bad_request("specifying resource version is not allowed when using continue")


def _key(obj: Object) -> tuple[str, str]:
    metadata = obj["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


def _mark(version: int, key: tuple[str, str]) -> str:
    text = json.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": "/".join(key) + "\x00"}, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def _resume(token: str) -> tuple[str, str]:
    """The last key of the page before. Raises ApiError 400 in the API server's words."""
    told = "invalid continue token: continue key is not valid"
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    bad = next((place for place, char in enumerate(token) if char not in alphabet), None)
    if bad is not None or len(token) % 4 == 1:
        raise status.bad_request(f"{told}: illegal base64 data at input byte "
                                 f"{bad if bad is not None else len(token) - 1}")
    data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    try:
        found = json.loads(data)
        namespace, _, name = found["start"].rstrip("\x00").rpartition("/")
    except (ValueError, KeyError, TypeError, AttributeError):
        if not data:
            raise status.bad_request(f"{told}: unexpected end of JSON input") from None
        first = chr(data[0]) if 0x20 <= data[0] < 0x7f else f"\\x{data[0]:02x}"
        raise status.bad_request(f"{told}: invalid character '{first}' looking for beginning of value") from None
    return namespace, name
