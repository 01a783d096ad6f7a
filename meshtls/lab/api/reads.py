"""Get, list and watch: what is chosen, cut into pages and given the asked form (object, Table, metadata only)."""
import base64
import json
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from meshtls.lab.api import parsing, select, status, table
from meshtls.lab.api.field import forbidden, quote, unsupported
from meshtls.lab.api.resources import Resource
from meshtls.lab.api.select import Match
from meshtls.lab.api.store import Store
from meshtls.lab.api.target import Target
from meshtls.lab.api.watch import Watch, version_of

Object = dict[str, Any]
WATCH_LIMIT_S = 1800.0
_TOO_OLD = ("The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue "
            "parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided "
            "token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was "
            "returned and now may show up in the list.")


class Form(msgspec.Struct, frozen=True):
    """How an answer is wanted: "", "Table", "PartialObjectMetadata" or "PartialObjectMetadataList"; `include` for Tables;
    `version` of meta.k8s.io."""

    kind: str = ""
    include: str = "Metadata"
    version: str = "meta.k8s.io/v1"

    @classmethod
    def of(cls, accept: str, query: Mapping[str, str]) -> "Form":
        """The first acceptable media type decides. Raises ApiError 406 when none is."""
        known = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
        refusal = f"406: Not Acceptable\n\nAvailable representations: {known}"
        for part in accept.split(",") if accept else ["*/*"]:
            media, *parameters = (piece.strip() for piece in part.split(";"))
            if media not in ("application/json", "*/*", "application/*", "application/yaml", "text/plain", ""):
                continue
            refusal = f"only the following media types are accepted: {known}"
            wanted = dict(piece.split("=", 1) for piece in parameters if "=" in piece)
            word = wanted.get("as", "")
            if word and (wanted.get("g") != "meta.k8s.io" or wanted.get("v") not in ("v1", "v1beta1")):
                continue
            if word == "Table":
                include = query.get("includeObject") or "Metadata"
                if include not in ("Metadata", "Object", "None"):
                    raise status.bad_request("Unable to convert to Table as requested: includeObject: Invalid value: "
                                             f"{quote(include)}: must be 'Metadata', 'Object', 'None', or empty")
                return cls("Table", include, f"meta.k8s.io/{wanted['v']}")
            if not word or word in ("PartialObjectMetadata", "PartialObjectMetadataList"):
                return cls(word, version=f"meta.k8s.io/{wanted.get('v', 'v1')}")
        raise status.not_acceptable(refusal)


def single(obj: Object, target: Target, form: Form) -> Object:
    """One object in the asked version and form."""
    if form.kind == "Table":
        return as_list([obj], {"resourceVersion": obj["metadata"].get("resourceVersion", "")}, target=target, form=form)
    if form.kind == "PartialObjectMetadataList":
        raise _other_form(target, form, "object is not a list", target.resource.kind)
    if form.kind:
        return {"kind": "PartialObjectMetadata", "apiVersion": form.version, "metadata": obj["metadata"]}
    return {"kind": target.resource.kind, "apiVersion": target.api_version, **_bare(obj)}


def _other_form(target: Target, form: Form, is_what: str, kind: str) -> status.ApiError:
    resource = target.resource
    internal = f"{resource.group.partition('.')[0] or 'core'}.{kind}"
    if resource.custom:
        internal = "unstructured.Unstructured" + ("List" if kind == resource.list_kind else "")
    return status.not_acceptable(f"you requested {form.kind}, but the requested {is_what} (*{internal})")


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
    return as_list(*chosen(store, target, query), form=form, target=target)


def chosen(store: Store, target: Target, query: Mapping[str, str]) -> tuple[list[Object], Object]:
    """What matches, at most `limit` items, and the list's metadata. Raises ApiError."""
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
    start = _resume(query["continue"], store.oldest) if query.get("continue") else None
    if start is not None:
        found = [obj for obj in found if _key(obj) > start]
    limit = status.whole(query.get("limit") or "0") if query.get("resourceVersion") != "0" else 0  # of the cache all is told
    if 0 < limit < len(found):
        if matches is None:
            metadata["remainingItemCount"] = len(found) - limit
        found = found[:limit]
        metadata["continue"] = _mark(store.version, _key(found[-1]))
    return found, metadata


def as_list(found: list[Object], metadata: Object, *, target: Target, form: Form) -> Object:
    resource, plain = target.resource, Form()
    if form.kind == "Table":
        rows = [single(obj, target, plain) for obj in found] if form.include == "Object" else found
        return {**table.render(resource, target.version, rows, time.time(), include=form.include, api=form.version), "metadata": metadata}
    if form.kind == "PartialObjectMetadata":
        raise _other_form(target, form, "object is a list", resource.list_kind)
    if form.kind:
        plain = Form("PartialObjectMetadata", version=form.version)
    items = [single(obj, target, plain) if form.kind or resource.custom else _bare(obj) for obj in found]
    if form.kind:
        return {"kind": "PartialObjectMetadataList", "apiVersion": form.version, "metadata": metadata, "items": items}
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


def _resume(token: str, oldest: int) -> tuple[str, str]:
    """The last key of the page before. Raises ApiError 400, or 410 for a page of before `oldest`, in the API server's words."""
    told = "invalid continue token: continue key is not valid"
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    bad = next((place for place, char in enumerate(token) if char not in alphabet), None)
    if bad is not None or len(token) % 4 == 1:
        raise status.bad_request(f"{told}: illegal base64 data at input byte "
                                 f"{bad if bad is not None else len(token) - 1}")
    data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    try:
        found = parsing.from_json(data)
    except parsing.Faulty as error:
        raise status.bad_request(f"{told}: {error}") from None
    if not isinstance(found, dict) or found.get("v") != "meta.k8s.io/v1":
        version = found.get("v", "") if isinstance(found, dict) else ""
        raise status.bad_request(f"{told}: server does not recognize this encoded version {version}")
    if int(found.get("rv") or 0) < oldest:
        raise status.ApiError(410, "Expired", _TOO_OLD)
    namespace, _, name = str(found.get("start", "")).rstrip("\x00").rpartition("/")
    return namespace, name
