"""What every write passes between authorization and the store.

    mutating    namespace exists and lives; service account, runtime class, priority, tolerations of a pod; mutating
    webhooks
    validating  Pod Security; ValidatingAdmissionPolicies; validating webhooks

The kind's own defaults and validation come between the two (see `writes`).
"""
import secrets
from typing import Any

from meshtls.lab.api import podsecurity, policies, status
from meshtls.lab.api.cells import find
from meshtls.lab.api.matching import Request
from meshtls.lab.api.resources import Registry
from meshtls.lab.api.store import Store
from meshtls.lab.api.webhooks import Webhooks

Object = dict[str, Any]
_PERMANENT = ("default", "kube-system", "kube-public")
TOKEN_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
TEMPLATES = {"Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "CronJob", "ReplicationController",
             "PodTemplate"}


class Admission:
    def __init__(self, store: Store, registry: Registry, webhooks: Webhooks) -> None:
        self._store, self._registry, self._webhooks = store, registry, webhooks

    async def mutate(self, request: Request) -> bool:
        """Steps that may change request.object; True if a webhook did, so that defaults have to be filled in again."""
        self._namespace(request)
        if request.resource.kind == "Pod" and not request.subresource and request.object is not None:
            _default_tolerations(request.object["spec"])
            if request.operation == "CREATE":
                name, spec = request.object["metadata"].get("name", ""), request.object["spec"]
                self._service_account(request, spec, name)
                self._runtime_class(spec, name)
                self._priority(spec, name)
        return await self._webhooks.mutate(request)

    async def validate(self, request: Request) -> None:
        if not request.subresource or request.subresource == "ephemeralcontainers":
            self._pod_security(request)
        policies.judge(self._store, request, self._params)
        await self._webhooks.validate(request)

    def _namespace(self, request: Request) -> None:
        resource = request.resource
        if resource.kind == "Namespace" and request.operation == "DELETE" and request.name in _PERMANENT:
            raise status.forbidden("namespaces", request.name, "this namespace may not be deleted")
        if not resource.namespaced:
            return
        space = self._store.get("namespaces", "", request.namespace)
        request.namespace_object = space
        if request.operation != "CREATE" or resource.virtual and resource.kind == "LocalSubjectAccessReview":
            return
        if space is None:
            raise status.not_found("namespaces", request.namespace)
        if space["metadata"].get("deletionTimestamp"):
            error = status.forbidden(resource.name, request.name,
                                     f"unable to create new content in namespace {request.namespace} because it is "
                                     "being terminated")
            error.details["causes"] = [{"reason": "NamespaceTerminating",
                                        "message": f"namespace {request.namespace} is being terminated",
                                        "field": "metadata.namespace"}]
            raise error

    def _service_account(self, request: Request, spec: Object, name: str) -> None:
        wanted = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
        account = self._store.get("serviceaccounts", request.namespace, wanted)
        if account is None:
            raise status.forbidden("pods", name,
                                   f"error looking up service account {request.namespace}/{wanted}: serviceaccount "
                                   f'"{wanted}" not found')
        spec["serviceAccountName"] = spec["serviceAccount"] = wanted
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = [dict(item) for item in account["imagePullSecrets"]]
        mounts = spec.get("automountServiceAccountToken", account.get("automountServiceAccountToken", True))
        containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
        bare = [one for one in containers if isinstance(one, dict)
                and not any(mount.get("mountPath") == TOKEN_MOUNT for mount in one.get("volumeMounts") or ())]
        if not mounts or not bare:
            return
        volume = f"kube-api-access-{secrets.token_hex(3)[:5]}"
        for container in bare:
            container.setdefault("volumeMounts", []).append({"name": volume, "readOnly": True,
                                                             "mountPath": TOKEN_MOUNT})
        spec.setdefault("volumes", []).append({"name": volume, "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace",
                                        "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}})

    def _runtime_class(self, spec: Object, name: str) -> None:
        wanted, given = spec.get("runtimeClassName"), spec.get("overhead")
        found = self._store.get("runtimeclasses.node.k8s.io", "", wanted) if wanted else {}
        overhead = ((found or {}).get("overhead") or {}).get("podFixed")
        for wrong, told in ((given and not wanted, "Pod Overhead set without corresponding RuntimeClass defined Overhead"),
                            (found is None, f'RuntimeClass "{wanted}" not found'),
                            (given and given != overhead, "Pod's Overhead doesn't match RuntimeClass's defined Overhead")):
            if wrong:
                raise status.forbidden("pods", name, f"pod rejected: {told}")
        if overhead:
            spec["overhead"] = dict(overhead)
        scheduling, held = (found or {}).get("scheduling") or {}, spec.get("tolerations") or []
        spec["tolerations"] = [*held, *(item for item in scheduling.get("tolerations") or () if item not in held)]
        for key, value in (scheduling.get("nodeSelector") or {}).items():
            if (own := spec.setdefault("nodeSelector", {}).setdefault(key, value)) != value:
                raise status.forbidden("pods", name, f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; "
                                       f"pod.spec.nodeSelector[{key}] = {own}")

    def _priority(self, spec: Object, name: str) -> None:
        wanted = spec.get("priorityClassName")
        found = self._store.get("priorityclasses.scheduling.k8s.io", "", wanted) if wanted else {}
        if found is None:
            raise status.forbidden("pods", name, f"no PriorityClass with name {wanted} was found")
        for key, value, kind, word in (
                ("priority", found.get("value", 0), "integer", "priority"),
                ("preemptionPolicy", found.get("preemptionPolicy", "PreemptLowerPriority"), "string", "PreemptionPolicy")):
            if spec.setdefault(key, value) != value:
                raise status.forbidden("pods", name, f"the {kind} value of {word} ({spec[key]}) must not be provided in "
                                       f"pod spec; priority admission controller computed {value} from the given "
                                       "PriorityClass name")

    def _pod_security(self, request: Request) -> None:
        kind, obj = request.resource.kind, request.object
        if obj is None:
            return
        if kind == "Namespace" and request.old is not None:
            pods = self._store.list("pods", request.name)
            request.warnings.extend(podsecurity.namespace_warnings(request.old, obj, pods))
        elif request.namespace_object is None:
            return
        elif kind == "Pod":
            if request.old is not None and _pictures(request.old) == _pictures(obj):
                return
            refusal, warnings = podsecurity.judge(request.namespace_object, obj["metadata"], obj["spec"], enforce=True)
            if refusal:
                raise status.forbidden("pods", request.name, refusal)
            request.warnings.extend(warnings)
        elif kind in TEMPLATES:
            template = find(obj, {"PodTemplate": "template", "CronJob": "spec.jobTemplate.spec.template"}.get(
                kind, "spec.template")) or {}
            _, warnings = podsecurity.judge(request.namespace_object, template.get("metadata") or {},
                                            template.get("spec") or {}, enforce=False)
            request.warnings.extend(warnings)

    def _params(self, api_version: str, kind: str, namespace: str, name: str) -> Object | None:
        resource = self._registry.of_kind(api_version.rpartition("/")[0], kind)
        if resource is None:
            return None
        return self._store.get(resource.name, namespace if resource.namespaced else "", name)


def _default_tolerations(spec: Object) -> None:
    """A pod stays five minutes on a node that is not ready or cannot be reached, unless it says otherwise."""
    tolerations = spec.setdefault("tolerations", [])
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not any(item.get("key", key) == key and item.get("effect", "NoExecute") == "NoExecute"
                   for item in tolerations):
            tolerations.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300})


def _pictures(pod: Object) -> list[tuple[Any, ...]]:
    """What of a pod can change and matter to Pod Security: its images and ephemeral containers."""
    return [(group, container.get("name"), container.get("image"))
            for group in ("initContainers", "containers", "ephemeralContainers")
            for container in pod["spec"].get(group) or ()]
