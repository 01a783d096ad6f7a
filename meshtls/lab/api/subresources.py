"""What hangs on an object besides itself: scale, binding, eviction, token; reviews; and DeleteOptions."""
import datetime
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from meshtls.lab.api import authz, decode, patch, status
from meshtls.lab.api.authz import Rbac
from meshtls.lab.api.cells import find
from meshtls.lab.api.field import invalid, quote, required, unsupported
from meshtls.lab.api.identity import ISSUER, Tokens, User
from meshtls.lab.api.store import Store
from meshtls.lab.api.target import Options, Target, fit_name
from meshtls.lab.api.writes import Writes

Object = dict[str, Any]
_DONE = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def delete_options(body: bytes, query: Mapping[str, str], options: Options) -> Object:
    """DeleteOptions of body and query. Raises ApiError 400 or 422."""
    wishes: Object = {}
    if body.strip():
        wishes, query, options.dry_run = _said(body), {}, False
    if query.get("gracePeriodSeconds"):
        wishes["gracePeriodSeconds"] = status.whole(query["gracePeriodSeconds"])
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
    return decode.typed(wishes, "DeleteOptions")


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
        found, given = self._tokens.user(token, wanted), self._tokens.claims(token).get("aud")
        if found is not None:
            fitting = [one for one in wanted if given is None or one in given]
            return {"authenticated": True, "user": found.info(), "audiences": fitting}
        error = "invalid bearer token"
        if given is not None and not set(given) & set(wanted):
            told, asked = (" ".join(map(quote, names)) for names in (given, wanted))
            error = f"[{error}, token audiences [{told}] is invalid for the target audiences [{asked}]]"
        return {"user": {}, "error": error}

    async def answer(self, verb: str, target: Target, body: bytes, options: Options) -> tuple[Object, int]:
        """What is told, and its code. Raises ApiError."""
        held = self._writes.held(target)
        match target.subresource, verb:
            case "scale", "get":
                return _scale(held, target), 200
            case "scale", "update" | "patch":
                return await self._rescale(target, held, body, options, whole=verb == "update"), 200
            case "binding", "create":
                self._bind(target, held, decode.parse(body, "application/json", "Binding"), options)
                return _DONE, 201
            case "eviction", "create":
                wishes = decode.parse(body, "application/json", "Eviction")
                if (wishes.get("metadata") or {}).get("name") != target.name:
                    raise status.bad_request("name in URL does not match name in Eviction object")
                removal = wishes.get("deleteOptions") or {}
                options.dry_run = options.dry_run or bool(removal.get("dryRun"))
                await self._writes.delete(_whole(target), removal, options)
                return _DONE, 201
            case "token", "create":
                return self._token(target, decode.parse(body, "application/json", "TokenRequest")), 201
        raise status.not_allowed()

    async def _rescale(self, target: Target, held: Object, body: bytes, options: Options, *, whole: bool) -> Object:
        scale = _scale(held, target)
        applied = options.content_type == patch.APPLY
        if whole or applied:
            changed = decode.parse(body, "application/yaml" if applied else "application/json", "Scale")
            if changed.get("kind", "Scale") != "Scale":
                raise status.bad_request(f'{changed["kind"]} in version "{str(changed.get("apiVersion")).rpartition("/")[2]}" cannot be '
                                         "handled as a Scale: unknown conversion")
        else:
            wanted = patch.parse(body, options.content_type)
            json_patch = options.content_type == patch.JSON
            changed = patch.json_patch(scale, wanted) if json_patch else patch.merge(scale, wanted)
        metadata, replicas = changed.get("metadata") or {}, (changed.get("spec") or {}).get("replicas", 0)
        if metadata.get("resourceVersion") not in (None, "", held["metadata"]["resourceVersion"]):
            raise status.modified(target.resource.name, target.name)
        fit_name(metadata, target)
        if not isinstance(replicas, int):
            kind = type(replicas).__name__.replace("str", "string")
            fault = f"json: cannot unmarshal {kind} into Go struct field ScaleSpec.spec.replicas of type int32"
            shown = msgspec.json.encode(changed).decode()
            raise status.invalid("", "", "", [invalid("patch", shown, fault)])
        if replicas < 0:
            raise status.invalid("Scale", "autoscaling", target.name,
                                 [invalid("spec.replicas", replicas, "must be greater than or equal to 0")])
        change: Any = replicas
        for name in reversed(_paths(target)["specReplicasPath"].strip(".").split(".")):
            change = {name: change}
        change |= {"apiVersion": target.api_version, "kind": target.resource.kind, "metadata": {"name": target.name}}
        options = msgspec.structs.replace(options, content_type=patch.APPLY if applied else patch.MERGE)
        obj, _ = await self._writes.patch(target, msgspec.json.encode(change), options)
        return _scale(obj, target)

    def _bind(self, target: Target, pod: Object, binding: Object, options: Options) -> None:
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
        if not options.dry_run:
            self._store.mutate("pods", target.namespace, target.name, bound)

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

    def _token(self, target: Target, wishes: Object) -> Object:
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
        return {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
                "metadata": {"name": target.name, "namespace": target.namespace, "creationTimestamp": self._store.now()},
                "spec": {"boundObjectRef": None, **spec, "audiences": audiences, "expirationSeconds": seconds},
                "status": {"token": token, "expirationTimestamp": end}}


def _whole(target: Target) -> Target:
    return msgspec.structs.replace(target, subresource="")


def _paths(target: Target) -> Object:
    """Where a kind has its replicas; a custom one says so itself."""
    version = (target.resource.columns or {}).get(target.version) or {}
    return {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
            **((version.get("subresources") or {}).get("scale") or {})}


def _scale(obj: Object, target: Target) -> Object:
    paths, metadata = _paths(target), obj["metadata"]
    if target.resource.custom:
        told = find(obj, paths["labelSelectorPath"]) if paths.get("labelSelectorPath") else ""
    else:
        selector = obj["spec"].get("selector") or {}
        labels = selector.get("matchLabels", selector)
        told = ",".join(f"{key}={value}" for key, value in sorted(labels.items()) if isinstance(value, str))
    wanted, held = find(obj, paths["specReplicasPath"]), find(obj, paths["statusReplicasPath"])
    return {"kind": "Scale", "apiVersion": "autoscaling/v1",
            "metadata": {key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion",
                                                        "creationTimestamp") if key in metadata},
            "spec": {"replicas": wanted} if wanted else {},
            "status": {"replicas": held or 0, **({"selector": told} if told else {})}}
