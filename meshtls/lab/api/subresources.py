"""What hangs on an object besides itself: scale, binding, eviction, token; reviews; and DeleteOptions."""
import datetime
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from meshtls.lab.api import authz, decode, patch, status
from meshtls.lab.api.authz import Rbac
from meshtls.lab.api.cells import find
from meshtls.lab.api.field import invalid, quote, required, unsupported
from meshtls.lab.api.identity import ISSUER, Tokens, User
from meshtls.lab.api.store import Store
from meshtls.lab.api.writes import Options, Target, Writes

Object = dict[str, Any]


def delete_options(body: bytes, query: Mapping[str, str], options: Options) -> Object:
    """DeleteOptions of body and query. Raises ApiError 400 or 422."""
    wishes: Object = {}
    if body.strip():
        wishes, query, options.dry_run = _said(body), {}, False
    if query.get("gracePeriodSeconds"):
        try:
            wishes["gracePeriodSeconds"] = int(query["gracePeriodSeconds"])
        except ValueError:
            text = query["gracePeriodSeconds"]
            raise status.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
    for key in ("propagationPolicy", "orphanDependents"):
        if query.get(key):
            wishes[key] = query[key] if key == "propagationPolicy" else query[key] == "true"
    policy, errors = wishes.get("propagationPolicy"), []
    if policy is not None and wishes.get("orphanDependents") is not None:
        errors.append(invalid("propagationPolicy", policy,
                              "orphanDependents and deletionPropagation cannot be both set"))
    if policy is not None and policy not in ("Foreground", "Background", "Orphan"):
        errors.append(unsupported("propagationPolicy", policy, ("Foreground", "Background", "Orphan", "nil")))
    if any(value != "All" for value in wishes.get("dryRun") or ()):
        errors.append(unsupported("dryRun", wishes["dryRun"], ("All",)))
    if errors:
        raise status.invalid("DeleteOptions", "meta.k8s.io", "", errors)
    options.dry_run = options.dry_run or bool(wishes.get("dryRun"))
    return wishes


def _said(body: bytes) -> Object:
    """DeleteOptions as the body has them; then the query has no say."""
    try:
        wishes = decode.parse(body, "application/json", "DeleteOptions")
    except status.ApiError as error:
        raise status.bad_request(error.message.partition("(must be of type DeleteOptions): ")[2].rpartition(" (")[0]
                                 or error.message) from None
    kind = wishes.get("kind") or "DeleteOptions"
    if kind != "DeleteOptions":
        raise status.bad_request(f'no kind "{kind}" is registered for version "{wishes.get("apiVersion", "")}" in '
                                 'scheme "pkg/runtime/scheme.go:111"')
    seconds = wishes.get("gracePeriodSeconds")
    if seconds is not None and not isinstance(seconds, int):
        raise status.bad_request(f"json: cannot unmarshal {type(seconds).__name__.replace('str', 'string')} into Go "
                                 "struct field DeleteOptions.gracePeriodSeconds of type int64")
    return wishes


class Subresources:
    def __init__(self, store: Store, tokens: Tokens, rbac: Rbac, writes: Writes) -> None:
        self._store, self._tokens, self._rbac, self._writes = store, tokens, rbac, writes

    def review(self, target: Target, obj: Object, user: User) -> Object:
        """Access, token and self reviews, answered at once."""
        kind = target.resource.kind
        if target.resource.group == "authorization.k8s.io":
            return authz.review(kind, obj, user, self._rbac, target.namespace)
        if kind == "SelfSubjectReview":
            return {**obj, "metadata": {"creationTimestamp": self._store.now()}, "status": {"userInfo": user.info()}}
        if kind == "TokenReview":
            if not (obj.get("spec") or {}).get("token"):
                raise status.bad_request("token is required for TokenReview in authentication")
            return {**obj, "status": self._reviewed(obj["spec"]["token"], obj["spec"].get("audiences") or [ISSUER])}
        raise status.not_allowed()

    def _reviewed(self, token: str, wanted: list[str]) -> Object:
        found, given = self._tokens.user(token, wanted), self._tokens.audiences(token)
        if found is not None:
            fitting = [one for one in wanted if given is None or one in given]
            return {"authenticated": True, "user": found.info(), "audiences": fitting}
        error = "invalid bearer token"
        if given is not None and not set(given) & set(wanted):
            told, asked = (" ".join(map(quote, names)) for names in (given, wanted))
            error = f"[{error}, token audiences [{told}] is invalid for the target audiences [{asked}]]"
        return {"user": {}, "error": error}

    async def answer(self, verb: str, target: Target, user: User, request: HttpRequest) -> Response:
        held = self._store.get(target.resource.name, target.namespace, target.name)
        if held is None:
            raise status.not_found(target.resource.name, target.name)
        body = await request.body()
        dry = "All" in request.query_params.getlist("dryRun")
        match target.subresource, verb:
            case "scale", "get":
                return _json(_scale(held, _paths(target)))
            case "scale", "update" | "patch":
                return _json(await self._rescale(target, held, body, request, user, dry))
            case "binding", "create":
                return self._bind(target, held, decode.parse(body, "application/json", "Binding"), dry)
            case "eviction", "create":
                wishes = decode.parse(body, "application/json", "Eviction")
                if (wishes.get("metadata") or {}).get("name", target.name) != target.name:
                    raise status.bad_request("name in URL does not match name in Eviction object")
                await self._writes.delete(msgspec.structs.replace(target, subresource=""), wishes.get("deleteOptions")
                                          or {}, Options(user, dry_run=dry))
                return _json({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}, 201)
            case "token", "create":
                return self._token(target, decode.parse(body, "application/json", "TokenRequest"))
        raise status.not_allowed()

    async def _rescale(self, target: Target, held: Object, body: bytes, request: HttpRequest, user: User,
                       dry: bool) -> Object:
        scale, content = _scale(held, _paths(target)), request.headers.get("content-type", "").partition(";")[0]
        if request.method == "PUT":
            changed = decode.parse(body, "application/json", "Scale")
        else:
            wanted = patch.parse(body)
            changed = patch.json_patch(scale, wanted) if content == patch.JSON else patch.merge(scale, wanted)
        given = (changed.get("metadata") or {}).get("resourceVersion")
        if given and given != held["metadata"]["resourceVersion"]:
            raise status.modified(target.resource.name, target.name)
        named = (changed.get("metadata") or {}).get("name", target.name)
        if named != target.name:
            raise status.bad_request(f"the name of the object ({named}) does not match the name on the URL ({target.name})")
        replicas = (changed.get("spec") or {}).get("replicas", 0)
        if not isinstance(replicas, int):
            kind = type(replicas).__name__.replace("str", "string")
            fault = f"json: cannot unmarshal {kind} into Go struct field ScaleSpec.spec.replicas of type int32"
            shown = msgspec.json.encode(changed).decode()
            raise status.invalid("", "", "", [invalid("patch", shown, fault)])
        if replicas < 0:
            raise status.invalid("Scale", "autoscaling", target.name,
                                 [invalid("spec.replicas", replicas, "must be greater than or equal to 0")])
        manager = request.query_params.get("fieldManager") or request.headers.get("user-agent",
                                                                                  "unknown").partition("/")[0]
        options = Options(user, manager=manager, dry_run=dry, content_type=patch.MERGE)
        obj, _ = await self._writes.patch(msgspec.structs.replace(target, subresource=""),
                                          msgspec.json.encode(_nested(_paths(target), replicas)), options)
        return _scale(obj, _paths(target))

    def _bind(self, target: Target, pod: Object, binding: Object, dry: bool) -> Response:
        node = (binding.get("target") or {}).get("name")
        if not node:
            raise status.ApiError(500, "", str(required("target.name")))
        if pod["spec"].get("nodeName"):
            raise status.conflict("pods/binding", target.name,
                                  f'pod {target.name} is already assigned to node "{pod["spec"]["nodeName"]}"')

        def bound(obj: Object) -> None:
            obj["spec"]["nodeName"] = node
            conditions = obj.setdefault("status", {}).setdefault("conditions", [])
            conditions[:] = [one for one in conditions if one["type"] != "PodScheduled"]
            conditions.append({"type": "PodScheduled", "status": "True", "lastTransitionTime": self._store.now()})
        if not dry:
            self._store.mutate("pods", target.namespace, target.name, bound)
        return _json({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}, 201)

    def _fit_bound(self, ref: Object | None, namespace: str) -> None:
        if not ref:
            return
        kinds = {"Pod": "pods", "Secret": "secrets", "Node": "nodes"}
        plural = kinds.get(ref.get("kind", ""))
        if plural is None:
            raise status.bad_request(f"cannot bind token to object of type /{ref.get('apiVersion', '')}, "
                                     f"Kind={ref.get('kind', '')}")
        if self._store.get(plural, "" if plural == "nodes" else namespace, ref.get("name", "")) is None:
            raise status.not_found(plural, ref.get("name", ""))

    def _token(self, target: Target, wishes: Object) -> Response:
        spec, group = wishes.get("spec") or {}, "authentication.k8s.io"
        seconds, named = spec.get("expirationSeconds") or 3600, (wishes.get("metadata") or {}).get("name")
        if named and named != target.name:
            raise status.invalid("TokenRequest", group, target.name, [
                invalid("metadata.name", named, "must match the service account name if specified")])
        if not 600 <= seconds <= 2 ** 32:
            limit = "less than 10 minutes" if seconds < 600 else "larger than 2^32 seconds"
            raise status.invalid("TokenRequest", group, "", [
                invalid("spec.expirationSeconds", seconds, f"may not specify a duration {limit}")])
        self._fit_bound(spec.get("boundObjectRef"), target.namespace)
        audiences = spec.get("audiences") or [ISSUER]
        token = self._tokens.mint(target.namespace, target.name, ttl_s=seconds, audiences=audiences,
                                  bound=spec.get("boundObjectRef"))
        end = datetime.datetime.fromtimestamp(time.time() + seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return _json({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
                      "metadata": {"name": target.name, "namespace": target.namespace,
                                   "creationTimestamp": self._store.now()},
                      "spec": {"boundObjectRef": None, **spec, "audiences": audiences, "expirationSeconds": seconds},
                      "status": {"token": token, "expirationTimestamp": end}}, 201)


def _paths(target: Target) -> Object:
    """Where a custom kind has its replicas; nothing for built-in kinds."""
    version = (target.resource.columns or {}).get(target.version) or {}
    found: Object = (version.get("subresources") or {}).get("scale") or {}
    return found


def _nested(paths: Object, replicas: int) -> Object:
    found: Any = replicas
    for name in reversed(paths.get("specReplicasPath", ".spec.replicas").strip(".").split(".")):
        found = {name: found}
    return dict(found)


def _scale(obj: Object, paths: Object) -> Object:
    """`paths` say where a custom kind has its numbers."""
    metadata = obj["metadata"]
    selector = (obj.get("spec") or {}).get("selector") or {}
    labels = selector.get("matchLabels", selector) if not paths else {}
    wanted, held = (find(obj, paths.get(key, otherwise)) or 0 for key, otherwise in (
        ("specReplicasPath", ".spec.replicas"), ("statusReplicasPath", ".status.replicas")))
    told = ",".join(f"{key}={value}" for key, value in sorted(labels.items()) if isinstance(value, str))
    told = find(obj, paths["labelSelectorPath"]) or "" if paths.get("labelSelectorPath") else told
    return {"kind": "Scale", "apiVersion": "autoscaling/v1",
            "metadata": {key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion",
                                                        "creationTimestamp") if key in metadata},
            "spec": {"replicas": wanted} if wanted else {},
            "status": {"replicas": held, **({"selector": told} if told else {})}}


def _json(value: Object, code: int = 200) -> Response:
    return Response(msgspec.json.encode(value), code, media_type="application/json")
