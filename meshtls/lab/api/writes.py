"""Create, replace, patch and delete: the steps of a write, in the API server's order.

    decode -> fields known -> names fit -> defaults -> admission (mutating) -> defaults -> validation -> owners of
    fields -> admission (validating) -> the store, unless it is a dry run
"""
import asyncio
import secrets
import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from meshtls.lab.api import apply, authz, custom, decode, defaults, parsing, patch, status, strategy, validate, validate_pod, warn
from meshtls.lab.api.admission import Admission
from meshtls.lab.api.field import FieldError, invalid
from meshtls.lab.api.identity import User
from meshtls.lab.api.matching import Request
from meshtls.lab.api.resources import Registry
from meshtls.lab.api.store import Missing, Stale, Store, clone, wanted
from meshtls.lab.api.target import Options, Target, fit, fit_namespace, named

Object = dict[str, Any]
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_RBAC_GUARDED = {f"{plural}.{authz.RBAC}" for plural in ("roles", "clusterroles", "rolebindings", "clusterrolebindings")}


class Writes:
    def __init__(self, store: Store, registry: Registry, admission: Admission, rbac: authz.Rbac) -> None:
        self._store, self._registry, self._admission, self._rbac = store, registry, admission, rbac
        self._running: set[asyncio.Future[None]] = set()

    def read(self, body: bytes, target: Target, options: Options) -> Object:
        """A request's object, of the right kind and with known fields only."""
        obj = decode.parse(body, options.content_type, target.resource.kind)
        decode.check_kind(obj, target.resource, target.version, self._registry, body)
        found, complaints = decode.shape(obj, target.resource, target.version)
        options.warnings += decode.judge(complaints, options.validation, target.resource, target.version)
        return found

    def own(self, target: Target, obj: Object, options: Options, old: Object | None = None) -> None:
        """Write the requester into an object as the owner of what is new in it."""
        apply.updated(target.node, old, obj, options.manager, target.api_version,
                      target.subresource, self._store.now(), strategy.reset(target.resource, target.subresource))

    async def write(self, verb: str, target: Target, body: bytes, options: Options) -> tuple[Object, bool]:
        """Create, update or patch by a request's body: the object, and whether it is new. Raises ApiError."""
        if verb == "patch":
            return await self.patch(target, body, options)
        obj = self.read(body, target, options)
        return await self.replace(target, obj, options) if verb == "update" else (
            await self.create(target, obj, options), True)

    async def create(self, target: Target, obj: Object, options: Options, *, applied: bool = False) -> Object:
        """Store a new object. Raises ApiError."""
        resource = target.resource
        metadata = obj.setdefault("metadata", {})
        fit_namespace(metadata, target)
        if metadata.pop("resourceVersion", None) and not options.dry_run:
            raise status.ApiError(500, "", "resourceVersion should not be set on objects to be created")
        for key in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
            metadata.pop(key, None)
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"][:58] + "".join(secrets.choice(_LETTERS) for _ in range(5))
        if resource.custom and obj.get("kind") != resource.kind:
            raise status.invalid(str(obj.get("kind")), resource.group, metadata.get("name", ""), [
                invalid("kind", obj.get("kind"), f"must be {resource.kind}")])
        obj = await self._judged(target, obj, None, options, "CreateOptions", applied)
        name = obj["metadata"]["name"]
        if (there := self._store.get(resource.name, target.namespace, name)) is not None:
            raise status.already_exists(resource.name, name, leaving="deletionTimestamp" in there["metadata"])
        return obj if options.dry_run else self._store.create(resource.name, obj)

    async def replace(self, target: Target, obj: Object, options: Options) -> tuple[Object, bool]:
        """The changed object, and whether it was created (some kinds are)."""
        metadata, resource = obj.setdefault("metadata", {}), target.resource
        named(metadata, target)
        fit(metadata, target)
        old = self._store.get(resource.name, target.namespace, target.name)
        if old is None and "p" in resource.traits and not target.subresource:
            return await self.create(target, obj, options), True
        old = self.held(target)
        if metadata.get("resourceVersion") in (None, "", "0") and "r" in resource.traits:
            raise status.invalid(resource.plural, resource.group, target.name, [
                invalid("metadata.resourceVersion", 0, "must be specified for an update")])
        if metadata.get("uid") and metadata["uid"] != old["metadata"]["uid"]:
            raise status.conflict(resource.name, target.name, _other_uid(target, metadata["uid"], old))
        return await self._change(target, old, obj, options, "UpdateOptions"), False

    async def patch(self, target: Target, body: bytes, options: Options) -> tuple[Object, bool]:
        """The changed object, and whether an apply created it."""
        kind = options.content_type
        if kind in (patch.APPLY, "application/apply-patch+cbor"):
            return await self._apply(target, body, options)
        if kind not in (patch.MERGE, patch.JSON, patch.STRATEGIC):
            raise status.unsupported_media("415: Unsupported Media Type")
        if kind == patch.STRATEGIC and target.resource.custom:
            raise status.unknown_format(patch.JSON, patch.MERGE, patch.APPLY)
        change = patch.parse(body, kind)
        for attempt in range(5):
            old = self.held(target)
            current = {**old, "apiVersion": target.api_version, "kind": target.resource.kind}
            made = (patch.strategic(target.node, current, change) if kind == patch.STRATEGIC else
                    patch.merge(current, change) if kind == patch.MERGE else patch.json_patch(current, change))
            obj = self._reshaped(target, made, change, options)
            named(obj.setdefault("metadata", {}), target)
            fit(obj["metadata"], target)
            pinned = isinstance(change, dict) and (change.get("metadata") or {}).get("resourceVersion")
            try:
                return await self._change(target, old, obj, options, "PatchOptions"), False
            except status.ApiError as error:
                if error.reason != "Conflict" or pinned or attempt == 4 or self._store.get(
                        target.resource.name, target.namespace, target.name) is old:
                    raise
        raise AssertionError("unreachable")

    def _reshaped(self, target: Target, made: Object, change: Any, options: Options) -> Object:
        """A patched object with known fields only; complaints name the patch."""
        given, tree = (made.get("apiVersion"), made.get("kind")), options.content_type == patch.STRATEGIC
        metadata = made.get("metadata")
        bare = {key: value for key, value in metadata.items() if key != "managedFields"} if isinstance(metadata, dict) else metadata
        body = msgspec.json.encode({**made, "metadata": bare}, order="sorted")
        if target.resource.custom and given[1] and given != (target.api_version, target.resource.kind):
            key, value, wanted = next(one for one in (("apiVersion", given[0], target.api_version),
                                                       ("kind", given[1], target.resource.kind)) if one[1] != one[2])
            raise status.invalid(str(given[1]), str(given[0]).rpartition("/")[0], target.name,
                                 [invalid(key, value, f"must be {wanted}")])
        try:
            decode.check_kind(made, target.resource, target.version, self._registry, body)
            obj, complaints = decode.shape(made, target.resource, target.version, tree=tree)
            complaints = [*patch.complaints(change, options.content_type), *complaints]
            strict = complaints and options.validation == "Strict"
            fault = f"strict decoding error: {', '.join(complaints)}" if strict else ""
        except status.ApiError as error:
            fault = error.message.partition(f"a {target.resource.kind}: ")[2] or error.message
            fault = fault.partition(f"of type {target.resource.kind}): ")[2].rpartition(" (")[0] or fault
        if fault:
            shown = patch.shown(change) if tree else body.decode()
            raise status.invalid("", "", "", [invalid("patch", shown, fault)])
        if options.validation == "Warn":
            options.warnings += complaints
        return obj

    async def _apply(self, target: Target, body: bytes, options: Options) -> tuple[Object, bool]:
        config = _configuration(body, options)
        group, _, version = str(config.get("apiVersion") or "").rpartition("/")
        if (config.get("apiVersion"), config.get("kind")) != (target.api_version, target.resource.kind):
            raise status.bad_request(f"invalid object type: {group}/{version}, Kind={config.get('kind') or ''}")
        as_given, given = clone(config), config.setdefault("metadata", {})
        space = given.get("namespace") or "" if isinstance(given, dict) else ""
        if isinstance(given, dict):
            if given.get("managedFields") is not None:
                raise status.bad_request("metadata.managedFields must be nil")
            fit(given, target)
        if faults := list(apply.faults(target.node, config)):
            told = faults[0] if len(faults) == 1 else "errors:\n" + "\n".join(f"  {fault}" for fault in faults)
            raise status.ApiError(500, "", f"failed to create typed patch object ({space}/{target.name}; "
                                  f"{group}/{version}, Kind={target.resource.kind}): {told}")
        shaped, _ = decode.shape(config, target.resource, target.version, whole=False)
        old = self._store.get(target.resource.name, target.namespace, target.name)
        if old is None and target.subresource:
            raise status.not_found(target.resource.name, target.name)
        if old is None:
            named(as_given.get("metadata") or {}, target)
        live = {**old, "apiVersion": target.api_version} if old is not None else None
        config = {key: value for key, value in shaped.items() if target.subresource != "status" or key != "spec"}
        if not target.subresource and "status" in target.resource.subresources:
            config.pop("status", None)
        made = apply.applied(target.node, live, config, options.manager, target.api_version, options.force, self._store.now(),
                             target.subresource, strategy.reset(target.resource, target.subresource), apply.noted(as_given))
        made, _ = decode.shape(made, target.resource, target.version)
        if old is None:
            made.update(apiVersion=target.api_version, kind=target.resource.kind)
            return await self.create(target, made, options, applied=True), True
        return await self._change(target, old, made, options, "PatchOptions", applied=True), False

    async def _change(self, target: Target, old: Object, obj: Object, options: Options, kind: str, *,
                      applied: bool = False) -> Object:
        resource, metadata = target.resource, obj["metadata"]
        given = metadata.get("resourceVersion")
        if given and not given.isdigit():
            raise status.ApiError(500, "", f'strconv.ParseUint: parsing "{given}": invalid syntax')
        if given and given != "0" and given != old["metadata"]["resourceVersion"]:
            raise status.modified(resource.name, target.name)
        if not applied and metadata.get("managedFields") == old["metadata"].get("managedFields"):
            metadata.pop("managedFields", None)
        obj = await self._judged(target, obj, old, options, kind, applied)
        obj["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        if options.dry_run:
            if "generation" in old["metadata"]:
                obj["metadata"]["generation"] = old["metadata"]["generation"] + (wanted(obj) != wanted(old))
            return obj
        try:
            return self._store.update(resource.name, obj)
        except Stale:
            raise status.modified(resource.name, target.name) from None
        except Missing:
            raise status.not_found(resource.name, target.name) from None

    async def _judged(self, target: Target, obj: Object, old: Object | None, options: Options, kind: str,
                      applied: bool) -> Object:
        """The object as it is to be stored, after all that a write passes. Raises ApiError."""
        resource = target.resource
        self._fill(target, obj)
        if not applied:
            self.own(target, obj, options, old)
        request = self._request(target, "CREATE" if old is None else "UPDATE", obj, old, options, options.told(kind))
        if await self._admission.mutate(request):
            # what a webhook made is read as a client's object is: unknown and empty fields go
            request.object, _ = decode.shape(request.object or {}, resource, target.version)
            self._fill(target, request.object)
        obj = request.object or {}
        if old is None:
            obj["metadata"].update(uid=str(uuid.uuid4()), creationTimestamp=self._store.now())
            strategy.created(resource, obj, self._store)
        else:
            obj = request.object = strategy.updated(resource, obj, old, target.subresource)
        errors = self._errors(target, obj, old) or list(strategy.allot(resource, obj, self._store, old))
        request.name = obj["metadata"].get("name", "")
        if errors:
            raise status.invalid(resource.kind, resource.group, request.name, errors)
        options.warnings += warn.of(resource, obj)
        if owners := obj["metadata"].get("ownerReferences"):
            obj["metadata"]["ownerReferences"] = [one for place, one in enumerate(owners) if one not in owners[:place]]
        if resource.name in _RBAC_GUARDED and (old is None or _granted(obj) != _granted(old)):
            authz.check_escalation(self._rbac, options.user, resource.name, obj, target.namespace)
        await self._admission.validate(request)
        obj["apiVersion"] = resource.stored_version
        return obj

    async def delete(self, target: Target, wishes: Object, options: Options) -> tuple[Object, bool]:
        """The object as it is left or was, and whether it is gone. `wishes` are DeleteOptions."""
        old = self.held(target)
        resource, kind = target.resource, target.resource.kind
        condition = wishes.get("preconditions") or {}
        qualified = f"{kind}.{resource.group}" if resource.group else kind
        for key, word, tail in (("uid", "UID", "The object might have been deleted and then recreated"),
                                ("resourceVersion", "ResourceVersion", "The object might have been modified")):
            if kind in ("Namespace", "CustomResourceDefinition") and key == "uid" and not resource.custom and (
                    condition.get(key, old["metadata"][key]) != old["metadata"][key]):
                raise status.conflict(resource.name, target.name, "Precondition failed: UID in precondition: "
                                      f"{condition[key]}, UID in object meta: {old['metadata'][key]}")
            if condition.get(key) and condition[key] != old["metadata"][key]:
                raise status.conflict(qualified, target.name,
                                      f"the {word} in the precondition ({condition[key]}) does not match the {word} in "
                                      f"record ({old['metadata'][key]}). {tail}")
        policy = wishes.get("propagationPolicy") or {True: "Orphan", False: "Background", None: ""}[
            wishes.get("orphanDependents")]
        request = self._request(target, "DELETE", None, old, options, {**options.told("DeleteOptions"), **wishes})
        await self._admission.mutate(request)
        await self._admission.validate(request)
        if not policy and not resource.custom and kind in ("Job", "ReplicationController"):
            policy = "Orphan"  # they leave their pods behind unless told otherwise
        finalizer = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}.get(policy or "")
        added = [finalizer] if finalizer and finalizer not in (old["metadata"].get("finalizers") or ()) else []
        if options.dry_run:
            left = clone(self._store.marked(resource.name, old, wishes.get("gracePeriodSeconds")))
            if held := [*(left["metadata"].get("finalizers") or ()), *added]:
                left["metadata"]["finalizers"] = held
            gone = not held and kind != "Namespace"
            return clone(old) if gone and kind != "Pod" else left, gone
        if added:
            self._store.mutate(resource.name, target.namespace, target.name,
                               lambda obj: obj["metadata"].setdefault("finalizers", []).append(finalizer))
        self._store.delete(resource.name, target.namespace, target.name, wishes.get("gracePeriodSeconds"))
        still = self._store.get(resource.name, target.namespace, target.name)
        if still is not None and still["metadata"]["uid"] == old["metadata"]["uid"]:
            return still, False
        gone = clone(old)
        if kind == "Namespace":
            gone.setdefault("status", {})["phase"] = "Terminating"
        if kind == "Pod" and not resource.custom:
            gone = clone(self._store.marked(resource.name, old, 0))
        return gone, True

    async def delete_all(self, target: Target, found: list[Object], wishes: Object, options: Options) -> None:
        for obj in found:
            one = msgspec.structs.replace(target, name=obj["metadata"]["name"],
                                          namespace=obj["metadata"].get("namespace", ""))
            try:
                await self.delete(one, wishes, options)
            except status.ApiError as error:
                if error.code != 404:
                    raise

    def submit(self, resource: str, obj: Object, user: str, done: Callable[[Any], None]) -> None:
        """A controller's create, with admission (see Store.submit)."""
        known = self._registry.named(resource)
        if known is None:
            done(status.unknown_resource())
            return
        target = Target(known, known.versions[0], (obj.get("metadata") or {}).get("namespace", ""))
        options = Options(User(user, ("system:masters", "system:authenticated")), manager=user.rpartition(":")[2])

        async def run() -> None:
            try:
                done(await self.create(target, clone(obj), options))
            except status.ApiError as error:
                done(error)
        task = asyncio.ensure_future(run())
        self._running.add(task)  # the loop itself holds a task weakly
        task.add_done_callback(self._running.discard)

    def held(self, target: Target) -> Object:
        found = self._store.get(target.resource.name, target.namespace, target.name)
        if found is None:
            raise status.not_found(target.resource.name, target.name)
        return found

    def _fill(self, target: Target, obj: Object) -> None:
        if target.resource.custom:
            custom.apply_defaults(target.node, obj)
        else:
            defaults.apply(target.resource, target.version, obj)

    def _errors(self, target: Target, obj: Object, old: Object | None) -> list[FieldError]:
        resource = target.resource
        if target.subresource == "status" and not resource.custom:
            return []
        if target.subresource == "ephemeralcontainers" and old is not None:
            return list(validate_pod.ephemeral(obj, old)) or validate.errors(
                resource, target.version, obj, {**old, "spec": obj["spec"]})
        if not resource.custom:
            return validate.errors(resource, target.version, obj, old)
        found, only = validate.told_twice(resource, obj, old), "status" if target.subresource == "status" else ""
        return found + custom.validate(target.node, obj, old, only, tuple(found))

    def _request(self, target: Target, operation: str, obj: Object | None, old: Object | None, options: Options,
                 told: Object) -> Request:
        name = target.name or ((obj or {}).get("metadata") or {}).get("name", "")
        return Request(target.resource, target.version, target.subresource, operation, target.namespace, name,
                       options.user, obj, old, told, options.dry_run, options.warnings)


def _configuration(body: bytes, options: Options) -> Object:
    """What is to be applied, as YAML or JSON. Raises ApiError 400."""
    try:
        config, twice = parsing.from_yaml(body)
    except parsing.Faulty as error:
        raise status.bad_request(f"error decoding YAML: error converting YAML to JSON: {error}") from error
    if config is not None and not isinstance(config, dict):
        raise status.bad_request("error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal "
                                 f"{parsing.kind_of(config)} into Go value of type map[string]interface {{}}")
    if twice and options.validation == "Strict":
        raise status.bad_request("\n  ".join(("error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:", *twice)))
    options.warnings += twice if options.validation == "Warn" else ()
    return config or {}


def _granted(obj: Object) -> Any:
    return obj.get("rules", obj.get("roleRef"))


def _other_uid(target: Target, uid: str, old: Object) -> str:
    space = f"{target.namespace}/" if target.namespace else ""
    group = f"{target.resource.group}/" if target.resource.custom else ""
    return (f"StorageError: invalid object, Code: 4, Key: /registry/{group}{target.resource.plural}/{space}{target.name}, "
            f"ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object "
            f"meta: {old['metadata']['uid']}")
