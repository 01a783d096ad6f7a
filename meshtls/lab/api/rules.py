"""What the fields of built-in kinds may hold, as tables. A field is named alone where it means the same in every structure,
else as Model.field (classes of the official client)."""
import math
from collections.abc import Callable
from typing import Any

from meshtls.lab.api import field

ENUMS: dict[str, tuple[str, ...]] = {
    "V1PodSpec.restartPolicy": ("Always", "OnFailure", "Never"),
    "V1Container.restartPolicy": ("Always", "Never", "OnFailure"),
    "dnsPolicy": ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"),
    "imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    "terminationMessagePolicy": ("File", "FallbackToLogsOnError"), "V1ContainerPort.protocol": ("SCTP", "TCP", "UDP"),
    "V1ServicePort.protocol": ("SCTP", "TCP", "UDP"), "V1NetworkPolicyPort.protocol": ("TCP", "UDP", "SCTP"),
    "DiscoveryV1EndpointPort.protocol": ("SCTP", "TCP", "UDP"), "scheme": ("HTTP", "HTTPS"),
    "V1SeccompProfile.type": ("Localhost", "RuntimeDefault", "Unconfined"),
    "V1ServiceSpec.type": ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort"),
    "V1HostPathVolumeSource.type": ("", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"),
    "V1AppArmorProfile.type": ("Localhost", "RuntimeDefault", "Unconfined"), "sessionAffinity": ("ClientIP", "None"),
    "completionMode": ("NonIndexed", "Indexed"),
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
    "mountPropagation": ("Bidirectional", "HostToContainer", "None"),
    "fsGroupChangePolicy": ("Always", "OnRootMismatch"), "procMount": ("Default", "Unmasked"),
    "whenUnsatisfiable": ("DoNotSchedule", "ScheduleAnyway"),
    "effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
    "podReplacementPolicy": ("Failed", "TerminatingOrFailed"), "whenDeleted": ("Retain", "Delete"),
    "whenScaled": ("Retain", "Delete"), "unhealthyPodEvictionPolicy": ("AlwaysAllow", "IfHealthyBudget"),
    "volumeMode": ("Block", "Filesystem"), "persistentVolumeReclaimPolicy": ("Delete", "Recycle", "Retain"),
    "reclaimPolicy": ("Delete", "Retain"), "volumeBindingMode": ("Immediate", "WaitForFirstConsumer"),
    "V1PriorityClass.preemptionPolicy": ("Never", "PreemptLowerPriority"),
    "V1Validation.reason": ("Forbidden", "Invalid", "RequestEntityTooLarge"),
    "parameterNotFoundAction": ("Allow", "Deny"), "policyTypes": ("Ingress", "Egress"),
    "operations": ("*", "CONNECT", "CREATE", "DELETE", "UPDATE"), "validationActions": ("Audit", "Deny", "Warn"),
    "accessModes": ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"),
    "V1ResourceFieldSelector.resource": tuple(f"{kind}.{name}" for kind in ("limits", "requests")
                                              for name in ("cpu", "ephemeral-storage", "memory"))}
"""Of a list: each item."""

_NO_ID = "must be between 0 and 2147483647, inclusive"
CHECKS: dict[str, Callable[[Any], list[str]]] = {
    "V1Container.name": field.label_1123, "V1EphemeralContainer.name": field.label_1123,
    "V1Volume.name": field.label_1123, "V1ContainerPort.name": field.port_name, "V1EnvVar.name": field.env_name,
    "V1ServicePort.name": field.label_1123,
    "DiscoveryV1EndpointPort.name": field.label_1123, "serviceAccountName": field.subdomain_1123,
    "hostname": field.label_1123, "subdomain": field.label_1123, "nodeName": field.subdomain_1123,
    "conditionType": field.qualified, "V1Toleration.key": field.qualified, "runtimeClassName": field.subdomain_1123,
    "externalName": field.subdomain_1123, "appProtocol": field.qualified, "prefix": field.env_name,
    "ingressClassName": field.subdomain_1123, "V1HostAlias.ip": field.address, "nameservers": field.address, "searches": field.search_domain,
    "supplementalGroups": lambda group: [] if 0 <= group < 2 ** 31 else [_NO_ID],
    "externalIPs": field.address, "loadBalancerClass": field.qualified,
    "V1StatefulSetSpec.serviceName": lambda name: field.label_1123(name) if name else [],
    "containerPort": lambda port: field.port_number(port) if port else [], "V1ServicePort.port": field.port_number,
    "V1GRPCAction.port": field.port_number, "hostPort": field.port_number}
"""What a name, address or port must be; of a list each item."""

_NONNEGATIVE = """
backoffLimit backoffLimitPerIndex completions failedJobsHistoryLimit failureThreshold healthCheckNodePort
initialDelaySeconds leaseTransitions maxFailedIndexes minReadySeconds parallelism replicas revisionHistoryLimit start
startingDeadlineSeconds successThreshold successfulJobsHistoryLimit ttlSecondsAfterFinished
V1JobSpec.activeDeadlineSeconds V1Probe.periodSeconds V1Probe.timeoutSeconds
V1RollingUpdateStatefulSetStrategy.partition
"""
_POSITIVE = ("leaseDurationSeconds", "V1Probe.terminationGracePeriodSeconds")
_ID = (0, 2 ** 31 - 1, _NO_ID)
_MODE = (0, 0o777, "must be a number between 0 and 0777 (octal), both inclusive")
RANGES: dict[str, tuple[float, float, str]] = {
    **dict.fromkeys(_NONNEGATIVE.split(), (0, math.inf, "must be greater than or equal to 0")),
    **dict.fromkeys(_POSITIVE, (1, math.inf, "must be greater than 0")),
    **dict.fromkeys(("maxSkew", "minDomains"), (1, math.inf, "must be greater than zero")),
    **dict.fromkeys(("V1PreferredSchedulingTerm.weight", "V1WeightedPodAffinityTerm.weight"), (1, 100, "must be in the range 1-100")),
    "V2HorizontalPodAutoscalerSpec.minReplicas": (1, math.inf, "must be greater than or equal to 1"),
    **dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), _ID),
    **dict.fromkeys(("defaultMode", "V1KeyToPath.mode"), _MODE),
    "V1PodSpec.activeDeadlineSeconds": (1, 2 ** 31 - 1, "must be between 1 and 2147483647, inclusive"),
    "V1ClientIPConfig.timeoutSeconds": (1, 86400, "must be greater than 0 and less than 86400")}
"""Least, most and what is said of others."""

UNIQUE = {"V1Volume.name", "V1MatchCondition.name", "V1ContainerPort.name", "V1ServicePort.name", "DiscoveryV1EndpointPort.name",
          "V1Sysctl.name", "V1MutatingWebhook.name", "V1ValidatingWebhook.name", "V1LimitRangeItem.type"}
"""What no two items of a list may share."""

OPTIONAL = {"V1ServicePort.port", "V1ContainerPort.containerPort", "V1DeploymentSpec.template", "V1JobSpec.template",
            "V1Probe.port", "V1PolicyRule.verbs", "V1PodSpec.containers", "V1GRPCAction.port",
            "V1LimitRangeSpec.limits", "V1HTTPHeader.value", "V1PodAffinityTerm.topologyKey", "V1TopologySpreadConstraint.topologyKey",
            "V1NodeSelector.nodeSelectorTerms", "V1ValidatingAdmissionPolicyBindingSpec.validationActions",
            "V1ServiceAccountTokenProjection.path", "V1HTTPIngressPath.pathType", "V1DaemonSetSpec.selector", "V1RoleRef.kind",
            "V1RoleRef.name", "V1Endpoint.addresses",
            "V1ConfigMapKeySelector.key", "V1SecretKeySelector.key",
            *(f"V1{kind}Webhook.{key}" for kind in ("Mutating", "Validating")
              for key in ("admissionReviewVersions", "sideEffects"))}
"""Required by the model, but judged in other words below (or filled in)."""
