"""Is a built-in object good? A walk over its schema with tables, then what one kind alone demands.

`errors(resource, version, obj, old)` gives every FieldError, old is None for a create. The tables name fields as
Model.field (classes of the official client); messages are the API server's.
"""
from collections.abc import Callable, Iterator
from typing import Any

from meshtls.lab.api import field, schema, validate_kinds, validate_pod
from meshtls.lab.api.field import FieldError, forbidden, invalid, required, unsupported
from meshtls.lab.api.resources import Resource
from meshtls.lab.api.validate_kinds import IMMUTABLE

Object = dict[str, Any]

ENUMS: dict[str, tuple[str, ...]] = {
    "V1PodSpec.restartPolicy": ("Always", "OnFailure", "Never"),
    "V1PodSpec.dnsPolicy": ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"),
    "V1Container.imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    "V1Container.terminationMessagePolicy": ("File", "FallbackToLogsOnError"),
    "V1ContainerPort.protocol": ("SCTP", "TCP", "UDP"), "V1ServicePort.protocol": ("SCTP", "TCP", "UDP"),
    "V1NetworkPolicyPort.protocol": ("SCTP", "TCP", "UDP"), "DiscoveryV1EndpointPort.protocol": ("SCTP", "TCP", "UDP"),
    "V1HTTPGetAction.scheme": ("HTTP", "HTTPS"),
    "V1SeccompProfile.type": ("Localhost", "RuntimeDefault", "Unconfined"),
    "V1ServiceSpec.type": ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort"),
    "V1ServiceSpec.sessionAffinity": ("ClientIP", "None"),
    "V1DeploymentStrategy.type": ("Recreate", "RollingUpdate"),
    "V1StatefulSetSpec.podManagementPolicy": ("OrderedReady", "Parallel"),
    "V1StatefulSetUpdateStrategy.type": ("OnDelete", "RollingUpdate"),
    "V1DaemonSetUpdateStrategy.type": ("OnDelete", "RollingUpdate"),
    "V1JobSpec.completionMode": ("Indexed", "NonIndexed"),
    "V1CronJobSpec.concurrencyPolicy": ("Allow", "Forbid", "Replace"),
    "V1EndpointSlice.addressType": ("FQDN", "IPv4", "IPv6"),
    "V1MutatingWebhook.failurePolicy": ("Fail", "Ignore"), "V1ValidatingWebhook.failurePolicy": ("Fail", "Ignore"),
    "V1MutatingWebhook.matchPolicy": ("Equivalent", "Exact"),
    "V1ValidatingWebhook.matchPolicy": ("Equivalent", "Exact"),
    "V1MutatingWebhook.sideEffects": ("None", "NoneOnDryRun"),
    "V1ValidatingWebhook.sideEffects": ("None", "NoneOnDryRun"),
    "V1MutatingWebhook.reinvocationPolicy": ("IfNeeded", "Never"),
    "V1RuleWithOperations.scope": ("*", "Cluster", "Namespaced"),
    "V1NamedRuleWithOperations.scope": ("*", "Cluster", "Namespaced"),
    "V1ValidatingAdmissionPolicySpec.failurePolicy": ("Fail", "Ignore"),
    "V1CustomResourceDefinitionSpec.scope": ("Cluster", "Namespaced"),
    "RbacV1Subject.kind": ("Group", "ServiceAccount", "User"),
    "V1IngressBackend.pathType": ("Exact", "ImplementationSpecific", "Prefix")}
ITEM_ENUMS: dict[str, tuple[str, ...]] = {
    "V1NetworkPolicySpec.policyTypes": ("Egress", "Ingress"),
    "V1RuleWithOperations.operations": ("*", "CONNECT", "CREATE", "DELETE", "UPDATE"),
    "V1NamedRuleWithOperations.operations": ("*", "CONNECT", "CREATE", "DELETE", "UPDATE"),
    "V1ValidatingAdmissionPolicyBindingSpec.validationActions": ("Audit", "Deny", "Warn")}
NAMES: dict[str, Callable[[str], list[str]]] = {
    "V1Container.name": field.label_1123, "V1EphemeralContainer.name": field.label_1123,
    "V1Volume.name": field.label_1123,
    "V1ContainerPort.name": field.port_name, "V1EnvVar.name": field.env_name, "V1ServicePort.name": field.label_1123,
    "V1PodSpec.serviceAccountName": field.subdomain_1123, "V1PodSpec.hostname": field.label_1123,
    "V1PodSpec.subdomain": field.label_1123,
    "V1PodSpec.nodeName": field.subdomain_1123, "V1LabelSelectorRequirement.key": field.qualified}
NONNEGATIVE = {"V1DeploymentSpec.replicas", "V1ReplicaSetSpec.replicas", "V1StatefulSetSpec.replicas",
               "V1JobSpec.completions",
               "V1JobSpec.parallelism", "V1JobSpec.backoffLimit", "V1JobSpec.activeDeadlineSeconds",
               "V1JobSpec.ttlSecondsAfterFinished",
               "V1DeploymentSpec.minReadySeconds", "V1DeploymentSpec.revisionHistoryLimit",
               "V1Probe.initialDelaySeconds",
               "V1Probe.timeoutSeconds", "V1Probe.periodSeconds", "V1Probe.successThreshold",
               "V1Probe.failureThreshold",
               "V1CronJobSpec.successfulJobsHistoryLimit", "V1CronJobSpec.failedJobsHistoryLimit",
               "V1CronJobSpec.startingDeadlineSeconds",
               "V1LeaseSpec.leaseTransitions", "V1PodSpec.terminationGracePeriodSeconds"}
POSITIVE = {"V1LeaseSpec.leaseDurationSeconds"}
PORTS = {"V1ContainerPort.containerPort", "V1ServicePort.port"}
OPTIONAL = {"V1ServicePort.port", "V1ContainerPort.containerPort", "V1DeploymentSpec.template", "V1JobSpec.template",
            "V1Probe.port",
            "CoreV1Event.metadata", "V1PolicyRule.verbs", "V1PodSpec.containers"}
"""Required by the model, but judged in other words below (or filled in)."""

_NAME_RULES: dict[str, Callable[[str], list[str]]] = {
    "Namespace": field.label_1123, "Service": field.label_1035, "Role": field.path_segment,
    "ClusterRole": field.path_segment,
    "RoleBinding": field.path_segment, "ClusterRoleBinding": field.path_segment, "StatefulSet": field.label_1123}
SELECTED = {"Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"}


def metadata(resource: Resource, obj: Object, old: Object | None) -> Iterator[FieldError]:
    """Names, labels, annotations, owners, finalizers; on an update what must not change."""
    meta = obj.get("metadata") or {}
    rule = _NAME_RULES.get(resource.kind, field.subdomain_1123) if not resource.custom else field.subdomain_1123
    name, prefix = meta.get("name") or "", meta.get("generateName") or ""
    if old is None:
        if prefix:
            trial = prefix[:-1] + "a" if prefix.endswith("-") else prefix
            yield from (invalid("metadata.generateName", prefix, told) for told in rule(trial))
        if not name:
            yield required("metadata.name", "name or generateName is required")
        else:
            yield from (invalid("metadata.name", name, told) for told in rule(name))
    for key, value in (meta.get("labels") or {}).items():
        yield from (invalid("metadata.labels", key, told) for told in field.qualified(key))
        yield from (invalid("metadata.labels", value, told) for told in field.label_value(value))
    for key in meta.get("annotations") or {}:
        yield from (invalid("metadata.annotations", key, told) for told in field.qualified(key.lower()))
    if sum(len(key) + len(value) for key, value in (meta.get("annotations") or {}).items()) > 256 * 1024:
        yield field.too_long("metadata.annotations", 262144)
    for place, owner in enumerate(meta.get("ownerReferences") or ()):
        for key in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(key):
                yield required(f"metadata.ownerReferences[{place}].{key}", "must not be empty")
    for finalizer in meta.get("finalizers") or ():
        yield from (invalid("metadata.finalizers", finalizer, told) for told in field.qualified(finalizer))
        if "/" not in finalizer and finalizer not in ("orphan", "foregroundDeletion",
                                                      "kubernetes") and not resource.custom:
            yield invalid("metadata.finalizers", finalizer,
                          "name is neither a standard finalizer name nor is it fully qualified")
    if old is not None:
        before = old["metadata"]
        for key in ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"):
            if key in meta and key in before and meta[key] != before[key]:
                yield invalid(f"metadata.{key}", meta[key], IMMUTABLE)
        if before.get("deletionTimestamp"):
            added = sorted(set(meta.get("finalizers") or ()) - set(before.get("finalizers") or ()))
            if added:
                told = "[]string{" + ", ".join(field.quote(text) for text in added) + "}"
                yield forbidden("metadata.finalizers",
                                f"no new finalizers can be added if the object is being deleted, found new finalizers "
                                f"{told}")


def errors(resource: Resource, version: str, obj: Object, old: Object | None) -> list[FieldError]:
    """All that is wrong with a built-in object."""
    found = list(metadata(resource, obj, old))
    node = schema.of(resource, version)
    rest = {key: value for key, value in obj.items() if key not in ("metadata", "status", "apiVersion", "kind")}
    spec_rules = list(_walk(node, rest, "", skip=("metadata",)))
    special = validate_kinds.KINDS.get(resource.kind)
    if special is not None:
        spec_rules += list(special(obj, old))
    if resource.kind in SELECTED:
        spec_rules += list(validate_kinds.workload(obj, old))
    return found + spec_rules


def _walk(node: Object, value: Any, path: str, skip: tuple[str, ...] = ()) -> Iterator[FieldError]:
    node = schema.resolve(node)
    if isinstance(value, dict):
        owner = node.get("x-model", "")
        for key in node.get("required") or ():
            held = value.get(key)
            if key not in skip and f"{owner}.{key}" not in OPTIONAL and (held is None or held == ""):
                yield required(_join(path, key))
        inner = node.get("additionalProperties")
        for key, item in value.items():
            child = (node.get("properties") or {}).get(key) or (inner if isinstance(inner, dict) else None)
            if child is None or (owner == "" and key == "metadata"):
                continue
            at = _join(path, key)
            yield from _scalar(f"{owner}.{key}", item, at)
            if owner == "V1LabelSelector" and key == "matchLabels":
                for label, text in item.items():
                    yield from (invalid(at, label, told) for told in field.qualified(label))
                    yield from (invalid(at, text, told) for told in field.label_value(text))
            if owner == "V1PodTemplateSpec" and key == "metadata":
                for label, text in (item.get("labels") or {}).items():
                    yield from (invalid(f"{at}.labels", label, told) for told in field.qualified(label))
                    yield from (invalid(f"{at}.labels", text, told) for told in field.label_value(text))
                continue
            if owner == "V1JSONSchemaProps":
                continue
            if isinstance(item, (dict, list)):
                yield from _walk(child, item, at)
            if owner in ("V1PodTemplateSpec", "V1Pod") and key == "spec":
                yield from validate_pod.spec(item, at)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            if isinstance(item, (dict, list)):
                yield from _walk(node.get("items") or {}, item, f"{path}[{place}]")


def _scalar(name: str, value: Any, path: str) -> Iterator[FieldError]:
    if name in ENUMS and value not in ENUMS[name]:
        yield unsupported(path, value, ENUMS[name])
    for place, item in enumerate(value if name in ITEM_ENUMS and isinstance(value, list) else ()):
        if item not in ITEM_ENUMS[name]:
            yield unsupported(f"{path}[{place}]", item, ITEM_ENUMS[name])
    if name in NAMES and value:
        yield from (invalid(path, value, told) for told in NAMES[name](value))
    if name in NONNEGATIVE and value < 0:
        yield invalid(path, value, "must be greater than or equal to 0")
    if name in POSITIVE and value <= 0:
        yield invalid(path, value, "must be greater than 0")
    if name in PORTS:
        yield from (invalid(path, value, told) for told in field.port_number(value))
    if name == "V1LabelSelectorRequirement.operator" and value not in ("In", "NotIn", "Exists", "DoesNotExist"):
        yield invalid(path, value, "not a valid selector operator")


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
