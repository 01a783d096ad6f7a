"""What the fields of built-in kinds may hold, as tables. A field is named alone where it means the same in every structure,
else as Model.field (classes of the official client)."""
import math
from collections.abc import Callable
from typing import Any

from meshtls.lab.api import field

ENUMS: dict[str, tuple[str, ...]] = {
    "V1PodSpec.restartPolicy": ("Always", "OnFailure", "Never"),
    "V1ContainerResizePolicy.restartPolicy": ("NotRequired", "RestartContainer"),
    "V1Container.restartPolicy": ("Always", "Never", "OnFailure"),
    "dnsPolicy": ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"),
    "imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    "terminationMessagePolicy": ("File", "FallbackToLogsOnError"), "V1ContainerPort.protocol": ("SCTP", "TCP", "UDP"),
    "V1ServicePort.protocol": ("SCTP", "TCP", "UDP"), "V1NetworkPolicyPort.protocol": ("SCTP", "TCP", "UDP"),
    "DiscoveryV1EndpointPort.protocol": ("SCTP", "TCP", "UDP"), "scheme": ("HTTP", "HTTPS"),
    "V1SeccompProfile.type": ("Localhost", "RuntimeDefault", "Unconfined"),
    "V1ServiceSpec.type": ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort"),
    "V1DeploymentStrategy.type": ("Recreate", "RollingUpdate"),
    "V1StatefulSetUpdateStrategy.type": ("OnDelete", "RollingUpdate"),
    "V1DaemonSetUpdateStrategy.type": ("OnDelete", "RollingUpdate"),
    "V1HostPathVolumeSource.type": ("", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"),
    "V1AppArmorProfile.type": ("Localhost", "RuntimeDefault", "Unconfined"), "sessionAffinity": ("ClientIP", "None"),
    "podManagementPolicy": ("OrderedReady", "Parallel"), "completionMode": ("Indexed", "NonIndexed"),
    "concurrencyPolicy": ("Allow", "Forbid", "Replace"), "addressType": ("FQDN", "IPv4", "IPv6"),
    "failurePolicy": ("Fail", "Ignore"), "matchPolicy": ("Equivalent", "Exact"),
    "sideEffects": ("None", "NoneOnDryRun"), "reinvocationPolicy": ("IfNeeded", "Never"),
    "V1RuleWithOperations.scope": ("*", "Cluster", "Namespaced"),
    "V1NamedRuleWithOperations.scope": ("*", "Cluster", "Namespaced"),
    "V1CustomResourceDefinitionSpec.scope": ("Cluster", "Namespaced"),
    "RbacV1Subject.kind": ("ServiceAccount", "User", "Group"),
    "pathType": ("Exact", "ImplementationSpecific", "Prefix"),
    "ipFamilyPolicy": ("PreferDualStack", "RequireDualStack", "SingleStack"),
    "internalTrafficPolicy": ("Cluster", "Local"), "externalTrafficPolicy": ("Cluster", "Local"),
    "trafficDistribution": ("PreferClose", "PreferSameZone", "PreferSameNode"),
    "mountPropagation": ("Bidirectional", "HostToContainer", "None"), "V1PodOS.name": ("linux", "windows"),
    "fsGroupChangePolicy": ("Always", "OnRootMismatch"), "procMount": ("Default", "Unmasked"),
    "whenUnsatisfiable": ("DoNotSchedule", "ScheduleAnyway"),
    "effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
    "podReplacementPolicy": ("Failed", "TerminatingOrFailed"), "whenDeleted": ("Retain", "Delete"),
    "whenScaled": ("Retain", "Delete"), "unhealthyPodEvictionPolicy": ("AlwaysAllow", "IfHealthyBudget"),
    "volumeMode": ("Block", "Filesystem"), "persistentVolumeReclaimPolicy": ("Delete", "Recycle", "Retain"),
    "reclaimPolicy": ("Delete", "Retain"), "volumeBindingMode": ("Immediate", "WaitForFirstConsumer"),
    "V1PriorityClass.preemptionPolicy": ("Never", "PreemptLowerPriority"),
    "V1Validation.reason": ("Forbidden", "Invalid", "RequestEntityTooLarge"),
    "parameterNotFoundAction": ("Allow", "Deny"), "policyTypes": ("Egress", "Ingress"),
    "operations": ("*", "CONNECT", "CREATE", "DELETE", "UPDATE"), "validationActions": ("Audit", "Deny", "Warn"),
    "accessModes": ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")}
"""Of a list: each item."""

CHECKS: dict[str, Callable[[Any], list[str]]] = {
    "V1Container.name": field.label_1123, "V1EphemeralContainer.name": field.label_1123,
    "V1Volume.name": field.label_1123, "V1ContainerPort.name": field.port_name, "V1EnvVar.name": field.env_name,
    "V1ServicePort.name": field.label_1123, "V1PodSchedulingGate.name": field.qualified,
    "DiscoveryV1EndpointPort.name": field.label_1123, "serviceAccountName": field.subdomain_1123,
    "hostname": field.label_1123, "subdomain": field.label_1123, "nodeName": field.subdomain_1123,
    "conditionType": field.qualified, "V1Toleration.key": field.qualified, "runtimeClassName": field.subdomain_1123,
    "externalName": field.subdomain_1123, "appProtocol": field.qualified, "prefix": field.env_name,
    "ingressClassName": field.subdomain_1123, "V1HostAlias.ip": field.address, "nameservers": field.address,
    "externalIPs": field.address, "containerPort": field.port_number, "V1ServicePort.port": field.port_number,
    "V1GRPCAction.port": field.port_number, "hostPort": field.port_number}
"""What a name, address or port must be; of a list each item."""

_NONNEGATIVE = """
backoffLimit backoffLimitPerIndex completions failedJobsHistoryLimit failureThreshold healthCheckNodePort
initialDelaySeconds leaseTransitions maxFailedIndexes minReadySeconds parallelism replicas revisionHistoryLimit start
startingDeadlineSeconds successThreshold successfulJobsHistoryLimit ttlSecondsAfterFinished
V1JobSpec.activeDeadlineSeconds V1Probe.periodSeconds V1Probe.timeoutSeconds
V1RollingUpdateStatefulSetStrategy.partition
"""
_POSITIVE = ("leaseDurationSeconds", "maxSkew", "V1Probe.terminationGracePeriodSeconds")
_ID = (0, 2 ** 31 - 1, "must be between 0 and 2147483647, inclusive")
_MODE = (0, 0o777, "must be a number between 0 and 0777 (octal), both inclusive")
RANGES: dict[str, tuple[float, float, str]] = {
    **dict.fromkeys(_NONNEGATIVE.split(), (0, math.inf, "must be greater than or equal to 0")),
    **dict.fromkeys(_POSITIVE, (1, math.inf, "must be greater than 0")),
    **dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), _ID),
    **dict.fromkeys(("defaultMode", "V1KeyToPath.mode"), _MODE),
    "V1PodSpec.activeDeadlineSeconds": (1, 2 ** 31 - 1, "must be between 1 and 2147483647, inclusive"),
    "V1ClientIPConfig.timeoutSeconds": (1, 86400, "must be greater than 0 and less than 86400")}
"""Least, most and what is said of others."""

UNIQUE = {"V1Volume.name", "V1ContainerPort.name", "V1ServicePort.name", "DiscoveryV1EndpointPort.name", "V1Sysctl.name",
          "V1MutatingWebhook.name", "V1ValidatingWebhook.name", "V1LimitRangeItem.type"}
"""What no two items of a list may share."""

OPTIONAL = {"V1ServicePort.port", "V1ContainerPort.containerPort", "V1DeploymentSpec.template", "V1JobSpec.template",
            "V1Probe.port", "V1PolicyRule.verbs", "V1PodSpec.containers", "V1GRPCAction.port",
            "V1LimitRangeSpec.limits", "V1DaemonSetSpec.selector", "V1RoleRef.kind", "V1RoleRef.name", "V1Endpoint.addresses",
            "V1ConfigMapKeySelector.key", "V1SecretKeySelector.key",
            *(f"V1{kind}Webhook.{key}" for kind in ("Mutating", "Validating")
              for key in ("admissionReviewVersions", "sideEffects"))}
"""Required by the model, but judged in other words below (or filled in)."""
