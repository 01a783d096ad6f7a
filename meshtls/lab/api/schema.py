"""The fields of each kind, as JSON schema.

Built-in kinds: read from the sources of the official Python client's models (generated from Kubernetes' OpenAPI
document), one model at a time when first needed and without importing them. Custom kinds: the schema of their
definition. What OpenAPI calls x-kubernetes-list-map-keys, -list-type and -map-type and the patch merge keys, which the
models leave out, stands in the tables below (from the API reference).

A node is a dict: type, properties, items, additionalProperties, required, description, "$ref" (another model),
"x-kubernetes-..." as in OpenAPI. `resolve` follows a "$ref".
"""
import ast
import functools
import importlib.util
import re
from pathlib import Path
from typing import Any

from meshtls.lab.api.resources import MODELS, Resource

Node = dict[str, Any]

LIST_KEYS: dict[str, list[str]] = {name: keys.split() for keys, names in {
    "name": """containers initContainers ephemeralContainers env volumes imagePullSecrets secrets webhooks matchConditions
     resourceClaims schedulingGates claims variables allocatedResourcesStatus resourceClaimStatuses""",
    "ip": "hostAliases podIPs hostIPs", "mountPath": "volumeMounts", "devicePath": "volumeDevices",
    "type": "conditions V1NodeAddress", "uid": "ownerReferences", "rule": "x-kubernetes-validations",
    "resourceID": "V1ResourceStatus.resources", "topologyKey whenUnsatisfiable": "topologySpreadConstraints",
    "containerPort protocol": "V1ContainerPort", "port protocol": "V1ServicePort",
    "": """V1PodStatus.hostIPs V1ServiceAccount.imagePullSecrets V1JobStatus.conditions
     V1NodeAllocatableResourceClaimStatus.containers"""}.items() for name in names.split()}
"""Lists that are maps, by their keys: property, model and property, or the items' model; without keys those that are
not. The first key is the strategic merge key."""

SET_LISTS = {"V1ObjectMeta.finalizers", "podCIDRs", "validationActions", "V1Endpoint.addresses",
             "V1UncountedTerminatedPods.failed", "V1UncountedTerminatedPods.succeeded",
             "V1PodFailurePolicyOnExitCodesRequirement.values"}
ATOMIC_MODELS = {
    "V1LabelSelector", "V1ObjectReference", "V1LocalObjectReference", "V1ConfigMapKeySelector", "V1SecretKeySelector",
    "V1ObjectFieldSelector", "V1ResourceFieldSelector", "V1TypedLocalObjectReference", "V1NodeSelector",
    "V1NodeSelectorTerm",
    "V1EndpointAddress", "CoreV1EndpointPort", "DiscoveryV1EndpointPort", "V1MatchResources",
    "V1NamedRuleWithOperations", "V1ParamKind", "V1ParamRef", "V1Variable", "V1ServiceBackendPort",
    "V1TopologySelectorTerm", "V1ScopeSelector", "V1RoleRef", "RbacV1Subject", "V1OwnerReference", "V1SecretReference", "V1FileKeySelector"}
ATOMIC_MAPS = {("V1ServiceSpec", "selector"), ("V1PodSpec", "nodeSelector"),
               ("V1ReplicationControllerSpec", "selector"), ("V1Scheduling", "nodeSelector")}
INT_OR_STRING = {"targetPort", "port", "maxUnavailable", "maxSurge", "minAvailable"}
INT64 = {"terminationGracePeriodSeconds", "activeDeadlineSeconds", "runAsUser", "runAsGroup", "fsGroup",
         "tolerationSeconds", "generation",
         "observedGeneration", "deletionGracePeriodSeconds", "expirationSeconds", "startingDeadlineSeconds",
         "supplementalGroups", "gracePeriodSeconds", "maxItems", "maxLength", "maxProperties", "minItems", "minLength", "minProperties", "revision",
         "uid", "gid", "sizeBytes", "seconds"}
QUANTITY_MAPS = {"limits", "requests", "capacity", "allocatable", "hard", "used", "overhead", "allocatedResources",
                 "default", "podFixed",
                 "defaultRequest", "max", "min", "maxLimitRequestRatio"}
BYTES = {"V1Secret.data", "V1ConfigMap.binaryData", "caBundle"}
"""Of a map: its values."""
QUANTITIES = {"sizeLimit", "divisor", "averageValue", "tolerance", "V2MetricTarget.value", "V2MetricValueStatus.value"}


@functools.cache
def _models() -> Path:
    spec = importlib.util.find_spec("kubernetes")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("the package kubernetes, which describes the built-in kinds, is not installed")
    return Path(next(iter(spec.submodule_search_locations))) / "client" / "models"


def _file_name(model: str) -> str:
    """V1HTTPGetAction -> v1_http_get_action, as the client's generator names its files."""
    text = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", model)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", text).lower()


@functools.cache
def model(name: str) -> Node:
    """The schema of one model; an open object when the client does not know it."""
    path = _models() / f"{_file_name(name)}.py"
    if not path.exists():
        return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    text = path.read_text(encoding="utf-8")
    types, keys = (ast.literal_eval(found[1]) if (found := re.search(attribute + r"[^=\n]*= (\{.*?\n?    \}|\{\})",
                                                                     text, re.S)) else {}
                   for attribute in ("openapi_types", "attribute_map"))
    node: Node = {"type": "object", "properties": {}, "x-model": name}
    wanted = []
    for attribute, kind in types.items():
        key = keys[attribute]
        node["properties"][key] = _property(name, key, kind)
        declared = re.search(rf"^    {attribute}: (.*)$", text, re.M)
        needed = declared and not re.search(r"= Field\(default=|= None", declared[1])
        if needed or f"Invalid value for `{attribute}`, must not be `None`" in text:
            wanted.append(key)
        if declared and (told := re.search(r'description="((?:[^"\\]|\\.)*)"', declared[1])):
            node["properties"][key]["description"] = told[1].replace('\\"', '"').replace("\\n", "\n")
    if wanted:
        node["required"] = wanted
    if name in ATOMIC_MODELS:
        node["x-kubernetes-map-type"] = "atomic"
    return node


def _property(owner: str, key: str, kind: str) -> Node:
    if listed := re.fullmatch(r"[Ll]ist\[(.*)\]", kind):
        keys = LIST_KEYS.get(f"{owner}.{key}")
        if keys is None and listed[1][0] in "VRC":
            keys = LIST_KEYS.get(listed[1]) or LIST_KEYS.get(key)
        form = "map" if keys else "set" if {key, f"{owner}.{key}"} & SET_LISTS else "atomic"
        return {"type": "array", "items": _property(owner, key, listed[1]), "x-kubernetes-list-type": form,
                **({"x-kubernetes-list-map-keys": keys} if keys else {})}
    if mapped := re.fullmatch(r"[Dd]ict[\[(]str, (.*)[\])]", kind):
        inner: Node = _property(owner, key, mapped[1])
        if key in QUANTITY_MAPS:
            inner = {"type": "string", "x-quantity": True}
        return {"type": "object", "additionalProperties": inner,
                **({"x-kubernetes-map-type": "atomic"} if (owner, key) in ATOMIC_MAPS else {})}
    if kind in ("str", "bytes", "bytearray"):
        either = {key, f"{owner}.{key}"}
        return {"type": "string", **({"x-quantity": True} if either & QUANTITIES else {"format": "byte"} if either & BYTES else {})}
    if kind == "int":
        return {"type": "integer", "format": "int64" if key in INT64 else "int32"}
    if kind == "object":
        return {f"x-kubernetes-{'int-or-string' if key in INT_OR_STRING else 'preserve-unknown-fields'}": True}
    return dict(_PLAIN[kind]) if kind in _PLAIN else {"$ref": kind}


_PLAIN: dict[str, Node] = {"datetime": {"type": "string", "format": "date-time"}, "float": {"type": "number"},
                           "bool": {"type": "boolean"}}


def resolve(node: Node) -> Node:
    return model(node["$ref"]) if "$ref" in node else node


def child(node: Node, key: str) -> Node:
    """The schema of a field or of a map's value, {} when nothing is known of it."""
    inner = node.get("additionalProperties")
    return resolve((node.get("properties") or {}).get(key) or (inner if isinstance(inner, dict) else {}))


def items(node: Node) -> Node:
    """The schema of a list's items."""
    return resolve(node.get("items") or {})


def model_name(resource: Resource, version: str) -> str:
    return MODELS.get((resource.group, resource.kind)) or version[0].upper() + version[1:] + resource.kind


META: Node = {"$ref": "V1ObjectMeta"}


def of(resource: Resource, version: str) -> Node:
    """The schema of a kind's objects, metadata included."""
    if resource.schemas is None:
        return model(model_name(resource, version))
    return _custom(resource.name, version, resource.schemas)


_custom_cache: dict[tuple[str, str], tuple[Any, Node]] = {}


def _custom(name: str, version: str, schemas: dict[str, Any]) -> Node:
    raw = schemas.get(version) or {}
    cached = _custom_cache.get((name, version))
    if cached and cached[0] is raw:
        return cached[1]
    node = {**raw, "type": "object"}
    node["properties"] = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, **(raw.get("properties") or {}),
                          "metadata": META}
    _custom_cache[(name, version)] = (raw, node)
    return node


def merge_keys(node: Node) -> list[str] | None:
    """The keys of a list that is a map, or None."""
    return node.get("x-kubernetes-list-map-keys") if node.get("x-kubernetes-list-type") == "map" else None


def mark(node: Node, item: Any) -> dict[str, Any]:
    """What tells an item of a list that is a map from the others: its keys, those of built-in kinds with their defaults."""
    keys, inside = merge_keys(node) or [], items(node)
    typed, needed = "x-model" in inside, inside.get("required") or ()
    found: dict[str, Any] = {}
    for key in keys:
        kind = (inside.get("properties") or {}).get(key, {}).get("type")
        default = "TCP" if key == "protocol" else {"string": "", "integer": 0}.get(kind) if typed and key in needed else None
        if (value := item.get(key, default)) is not None:
            found[key] = value
    return found


def is_atomic(node: Node) -> bool:
    """Owned and replaced as one."""
    if node.get("type") == "array":
        return bool(node.get("x-kubernetes-list-type", "atomic") == "atomic")
    return bool(node.get("x-kubernetes-map-type") == "atomic")
