"""What ConfigMaps, Secrets, namespaces, roles and the smaller kinds demand beyond their schema, as rules on their
structures."""
import base64
import re
from collections.abc import Iterator

from meshtls.lab.api import field, parsing
from meshtls.lab.api.field import FieldError, invalid, required, unsupported
from meshtls.lab.api.parts import Part, Rule, bad, each, fixed, labels, needs, never
from meshtls.lab.api.podsecurity import LEVELS, PREFIX
from meshtls.lab.api.quantities import amount

_SECRET_KEYS = {"kubernetes.io/tls": ("tls.crt", "tls.key"), "kubernetes.io/ssh-auth": ("ssh-privatekey",),
                "kubernetes.io/dockercfg": (".dockercfg",), "kubernetes.io/dockerconfigjson": (".dockerconfigjson",)}
_QUOTAS = {*(f"{kind}.{name}" for kind in ("limits", "requests") for name in ("cpu", "memory", "ephemeral-storage")), "cpu", "memory",
           "ephemeral-storage", "requests.storage", "pods", "resourcequotas", "services", "replicationcontrollers", "secrets", "configmaps",
           "persistentvolumeclaims", "services.nodeports", "services.loadbalancers"}
_ACCOUNT = "kubernetes.io/service-account.name"
_RBAC = "rbac.authorization.k8s.io"
_VOLUME_FIELDS = {"accessModes", "capacity", "claimRef", "mountOptions", "nodeAffinity", "persistentVolumeReclaimPolicy",
                  "storageClassName", "volumeMode", "volumeAttributesClassName"}


def _config(part: Part) -> Iterator[FieldError]:
    data, binary = part["data"] or {}, part["binaryData"] or {}
    for name in ("data", "binaryData"):
        for key in part[name] or ():
            yield from field.told(f"{name}[{key}]", key, field.config_key)
    for key in data:
        if key in binary:
            yield invalid(f"data[{key}]", key, "duplicate of key present in binaryData")
    if sum(len(text) for text in [*data.values(), *binary.values()] if isinstance(text, str)) > 1024 * 1024:
        yield field.too_long("" if part.model == "V1ConfigMap" else "data", 1048576)
    if part.old is not None and part.old.get("immutable"):
        for name in ("immutable", "data", "binaryData"):
            if (part[name] or {}) != (part.old.get(name) or {}):
                yield field.forbidden(name, "field is immutable when `immutable` is set")


def _secret(part: Part) -> Iterator[FieldError]:
    kind, data = part["type"] or "", part["data"] or {}
    for key in _SECRET_KEYS.get(kind, ()):
        if key not in data:
            yield required(f"data[{key}]")
        elif "docker" in key:
            body = base64.b64decode(data[key])
            try:
                parsing.from_json(body)
            except parsing.Faulty as error:
                yield invalid(f"data[{key}]", "<secret contents redacted>", str(error))
    if kind == "kubernetes.io/basic-auth" and not {"username", "password"} & set(data):
        yield from (required(f"data[{key}]") for key in ("username", "password"))
    if kind == "kubernetes.io/service-account-token" and not (part["metadata.annotations"] or {}).get(_ACCOUNT):
        yield required(f"metadata.annotations[{_ACCOUNT}]")


def _role_ref(part: Part) -> Iterator[FieldError]:
    kinds = ("ClusterRole",) if part.above and part.above.model == "V1ClusterRoleBinding" else ("Role", "ClusterRole")
    for key, known in (("apiGroup", (_RBAC,)), ("kind", kinds)):
        if part[key] not in known:
            yield unsupported(part.at(key), part[key] or "", known)


def _subject(part: Part) -> Iterator[FieldError]:
    wanted = {"ServiceAccount": ("",), "User": (_RBAC,), "Group": (_RBAC,)}.get(part["kind"] or "")
    if wanted and (part["apiGroup"] or "") not in wanted:
        yield unsupported(part.at("apiGroup"), part["apiGroup"] or "", wanted)
    if part["kind"] == "ServiceAccount":
        yield from each("name", field.subdomain_1123)(part)


def _quota(part: Part) -> Iterator[FieldError]:
    for key, text in (part["hard"] or {}).items():
        at = part.at(f"hard[{key}]")
        yield from field.told(at, key, field.qualified)
        if "/" not in key and key not in _QUOTAS:
            yield invalid(at, key, "must be a standard resource type or fully qualified")
            yield invalid(at, key, "must be a standard resource for quota")
        if amount(text) < 0:
            yield invalid(at, text, "must be greater than or equal to 0")


def _namespace(part: Part) -> Iterator[FieldError]:
    for name in part["spec.finalizers"] or ():
        yield from field.told("spec.finalizers", name, field.finalizer)
    before = ((part.old or {}).get("metadata") or {}).get("labels") or {}
    for mode in ("enforce", "audit", "warn"):
        for tail, form, told in (("-version", r"latest|v1\.(0|[1-9]\d*)", 'must be "latest" or "v1.x"'),
                                 ("", "|".join(LEVELS), f"must be one of {', '.join(LEVELS)}")):
            key = f"{PREFIX}{mode}{tail}"
            value = (part["metadata.labels"] or {}).get(key)
            if value is not None and not re.fullmatch(form, value) and before.get(key) != value:
                yield invalid(f"metadata.labels[{key}]", value, told)


def _event(part: Part) -> Iterator[FieldError]:
    about, namespace = part["involvedObject.namespace"] or "", part["metadata.namespace"] or ""
    if about != namespace and not (about == "" and namespace == "default"):
        yield invalid("involvedObject.namespace", about, "does not match event.namespace")
    if part["eventTime"]:
        for key in ("reportingComponent", "reportingInstance", "action", "reason"):
            yield from needs(key)(part)
        kind = part["type"] or ""
        if kind not in ("Normal", "Warning"):
            yield invalid("type", kind, f"has invalid value: {kind}")


RULES: dict[str, tuple[Rule, ...]] = {
    "V1ConfigMap": (_config,), "V1Secret": (fixed("type"), _secret, _config),
    "V1PolicyRule": (
        needs("verbs", "verbs must contain at least one value"),
        *(needs(key, f"resource rules must supply at least one {what}",
                lambda rule, key=key: not rule["nonResourceURLs"] and not rule[key])  # type: ignore[misc]
          for key, what in (("apiGroups", "api group"), ("resources", "resource"))),
        bad("nonResourceURLs", "namespaced rules cannot apply to non-resource URLs",
            lambda rule: rule["nonResourceURLs"] and rule.above and rule.above.model == "V1Role"),
        bad("nonResourceURLs", "rules cannot apply to both regular resources and non-resource URLs",
            lambda rule: rule["nonResourceURLs"] and (rule["apiGroups"] or rule["resources"]))),
    **dict.fromkeys(("V1RoleBinding", "V1ClusterRoleBinding"), (
        bad("roleRef", "cannot change roleRef", lambda one: one.old and one.old.get("roleRef") != one["roleRef"],
            value=lambda one: {key[:1].upper() + key[1:] if key != "apiGroup" else "APIGroup": one[f"roleRef.{key}"]
                               for key in ("apiGroup", "kind", "name")}),)),
    "V1RoleRef": (_role_ref, needs("name")),
    "V1ClusterRole": (needs("aggregationRule.clusterRoleSelectors", "at least one clusterRoleSelector required if aggregationRule is non-nil",
                            lambda role: role["aggregationRule"] is not None and not role["aggregationRule.clusterRoleSelectors"]),),
    "V1ResourceQuotaSpec": (_quota,),
    "RbacV1Subject": (_subject, needs("namespace", when=lambda one: (
        one["kind"] == "ServiceAccount" and not one["namespace"] and one.above is not None
        and one.above.model == "V1ClusterRoleBinding")),),
    "V1Namespace": (_namespace,), "CoreV1Event": (_event,),
    "V1PodDisruptionBudgetSpec": (
        bad("", "minAvailable and maxUnavailable cannot be both set",
            lambda one: one["minAvailable"] is not None and one["maxUnavailable"] is not None,
            value=lambda one: {key[:1].upper() + key[1:]: one[key] for key in (
                "minAvailable", "selector", "maxUnavailable", "unhealthyPodEvictionPolicy")}),
        each("minAvailable", field.share), each("maxUnavailable", field.share)),
    "V2HorizontalPodAutoscalerSpec": (
        needs("maxReplicas", "must be set and greater than 0", lambda one: (one["maxReplicas"] or 0) < 1),
        bad("maxReplicas", "must be greater than or equal to `minReplicas`",
            lambda one: (one["maxReplicas"] or 0) < one.value.get("minReplicas", 1),
            value=lambda one: one["maxReplicas"] or 0)),
    "V2CrossVersionObjectReference": (
        bad("apiVersion", "apiVersion must specify API group",
            lambda one: one.key == "scaleTargetRef" and not one["apiVersion"], value=lambda one: ""),),
    "V1RuntimeClass": (each("handler", field.label_1123), fixed("handler"), labels("scheduling.nodeSelector")),
    "V1PriorityClass": (
        never("metadata.name", "priority class names with 'system-' prefix are reserved for system use only.", lambda one: (
            one.old is None and (one["metadata.name"] or "").startswith("system-"))),
        never("value", "maximum allowed value of a user defined priority is 1000000000",
              lambda one: (one["value"] or 0) > 1_000_000_000 and not (one["metadata.name"] or "").startswith("system-")),
        never("value", "may not be changed in an update.",
              lambda one: one.old is not None and (one["value"] or 0) != (one.old.get("value") or 0))),
    "V1PersistentVolumeClaim": (
        needs("spec.accessModes", "at least 1 access mode is required",
              lambda claim: claim.above is None and not claim["spec.accessModes"]),
        needs("spec.resources[storage]",
              when=lambda claim: claim.above is None and not claim["spec.resources.requests.storage"])),
    "V1PersistentVolumeSpec": (
        needs("accessModes"), needs("capacity"),
        needs("", "must specify a volume type", lambda volume: not set(volume.value) - _VOLUME_FIELDS)),
    "V1ControllerRevision": (needs("data", "data is mandatory", lambda one: one["data"] is None), fixed("data")),
    "V1IngressClassSpec": (needs("controller"),), "V1ReplicationControllerSpec": (needs("selector"), needs("template"))}
