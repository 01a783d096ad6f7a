"""What the fields of built-in kinds may hold, as tables; fields are named as Model.field (classes of the official client).
"""
import math
from collections.abc import Callable
from typing import Any

from meshtls.lab.api import field

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
    "RbacV1Subject.kind": ("ServiceAccount", "User", "Group"),
    "V1HTTPIngressPath.pathType": ("Exact", "ImplementationSpecific", "Prefix"),
    "V1ServiceSpec.ipFamilyPolicy": ("PreferDualStack", "RequireDualStack", "SingleStack"),
    "V1ServiceSpec.internalTrafficPolicy": ("Cluster", "Local"),
    "V1ServiceSpec.externalTrafficPolicy": ("Cluster", "Local"),
    "V1ServiceSpec.trafficDistribution": ("PreferClose", "PreferSameZone", "PreferSameNode"),
    "V1VolumeMount.mountPropagation": ("Bidirectional", "HostToContainer", "None"),
    "V1HostPathVolumeSource.type": ("", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File",
                                    "FileOrCreate", "Socket"),
    "V1ContainerResizePolicy.restartPolicy": ("NotRequired", "RestartContainer"),
    "V1Container.restartPolicy": ("Always", "Never", "OnFailure"), "V1PodOS.name": ("linux", "windows"),
    "V1AppArmorProfile.type": ("Localhost", "RuntimeDefault", "Unconfined"),
    "V1PodSecurityContext.fsGroupChangePolicy": ("Always", "OnRootMismatch"),
    "V1SecurityContext.procMount": ("Default", "Unmasked"),
    "V1TopologySpreadConstraint.whenUnsatisfiable": ("DoNotSchedule", "ScheduleAnyway"),
    "V1Toleration.effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
    "V1Taint.effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
    "V1JobSpec.podReplacementPolicy": ("Failed", "TerminatingOrFailed"),
    "V1StatefulSetPersistentVolumeClaimRetentionPolicy.whenDeleted": ("Retain", "Delete"),
    "V1StatefulSetPersistentVolumeClaimRetentionPolicy.whenScaled": ("Retain", "Delete"),
    "V1PodDisruptionBudgetSpec.unhealthyPodEvictionPolicy": ("AlwaysAllow", "IfHealthyBudget"),
    "V1PersistentVolumeClaimSpec.volumeMode": ("Block", "Filesystem"),
    "V1PersistentVolumeSpec.persistentVolumeReclaimPolicy": ("Delete", "Recycle", "Retain"),
    "V1StorageClass.reclaimPolicy": ("Delete", "Retain"),
    "V1StorageClass.volumeBindingMode": ("Immediate", "WaitForFirstConsumer"),
    "V1PriorityClass.preemptionPolicy": ("Never", "PreemptLowerPriority"),
    "V1Validation.reason": ("Forbidden", "Invalid", "RequestEntityTooLarge"),
    "V1ParamRef.parameterNotFoundAction": ("Allow", "Deny"),
    "V1MatchResources.matchPolicy": ("Equivalent", "Exact"),
    "V1NetworkPolicySpec.policyTypes": ("Egress", "Ingress"),
    "V1RuleWithOperations.operations": ("*", "CONNECT", "CREATE", "DELETE", "UPDATE"),
    "V1NamedRuleWithOperations.operations": ("*", "CONNECT", "CREATE", "DELETE", "UPDATE"),
    "V1ValidatingAdmissionPolicyBindingSpec.validationActions": ("Audit", "Deny", "Warn"),
    "V1PersistentVolumeClaimSpec.accessModes": ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"),
    "V1PersistentVolumeSpec.accessModes": ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")}
"""Of a list: each item."""

CHECKS: dict[str, Callable[[Any], list[str]]] = {
    "V1Container.name": field.label_1123, "V1EphemeralContainer.name": field.label_1123,
    "V1Volume.name": field.label_1123,
    "V1ContainerPort.name": field.port_name, "V1EnvVar.name": field.env_name, "V1ServicePort.name": field.label_1123,
    "V1PodSpec.serviceAccountName": field.subdomain_1123, "V1PodSpec.hostname": field.label_1123,
    "V1PodSpec.subdomain": field.label_1123,
    "V1PodSpec.nodeName": field.subdomain_1123, 
    "V1PodSchedulingGate.name": field.qualified,
    "V1PodReadinessGate.conditionType": field.qualified, "V1Toleration.key": field.qualified,
    "V1PodSpec.runtimeClassName": field.subdomain_1123, "V1ServiceSpec.externalName": field.subdomain_1123,
    "V1ServicePort.appProtocol": field.qualified, "V1Endpoint.hostname": field.label_1123,
    "V1Endpoint.nodeName": field.subdomain_1123, "V1EnvFromSource.prefix": field.env_name,
    "V1IngressSpec.ingressClassName": field.subdomain_1123, "DiscoveryV1EndpointPort.name": field.label_1123,
    "V1HostAlias.ip": field.address, "V1PodDNSConfig.nameservers": field.address,
    "V1ServiceSpec.externalIPs": field.address, "V1ContainerPort.containerPort": field.port_number,
    "V1ServicePort.port": field.port_number, "V1ContainerPort.hostPort": field.port_number,
    "V1GRPCAction.port": field.port_number}
"""What a name, address or port must be; of a list each item."""

_NONNEGATIVE = {"V1DeploymentSpec.replicas", "V1ReplicaSetSpec.replicas", "V1StatefulSetSpec.replicas",
               "V1JobSpec.completions",
               "V1JobSpec.parallelism", "V1JobSpec.backoffLimit", "V1JobSpec.activeDeadlineSeconds",
               "V1JobSpec.ttlSecondsAfterFinished",
               "V1DeploymentSpec.minReadySeconds", "V1DeploymentSpec.revisionHistoryLimit",
               "V1Probe.initialDelaySeconds",
               "V1Probe.timeoutSeconds", "V1Probe.periodSeconds", "V1Probe.successThreshold",
               "V1Probe.failureThreshold",
               "V1CronJobSpec.successfulJobsHistoryLimit", "V1CronJobSpec.failedJobsHistoryLimit",
               "V1CronJobSpec.startingDeadlineSeconds",
               "V1LeaseSpec.leaseTransitions", "V1StatefulSetSpec.minReadySeconds", "V1StatefulSetSpec.revisionHistoryLimit",
               "V1DaemonSetSpec.minReadySeconds", "V1DaemonSetSpec.revisionHistoryLimit", "V1ReplicaSetSpec.minReadySeconds",
               "V1ReplicationControllerSpec.replicas", "V1ReplicationControllerSpec.minReadySeconds",
               "V1RollingUpdateStatefulSetStrategy.partition", "V1StatefulSetOrdinals.start",
               "V1JobSpec.backoffLimitPerIndex", "V1JobSpec.maxFailedIndexes", "V1ServiceSpec.healthCheckNodePort"}
_POSITIVE = {"V1LeaseSpec.leaseDurationSeconds", "V1Probe.terminationGracePeriodSeconds",
            "V1TopologySpreadConstraint.maxSkew"}
_ID = (0, 2 ** 31 - 1, "must be between 0 and 2147483647, inclusive")
_MODE = (0, 0o777, "must be a number between 0 and 0777 (octal), both inclusive")
RANGES: dict[str, tuple[float, float, str]] = {
    **dict.fromkeys(_NONNEGATIVE, (0, math.inf, "must be greater than or equal to 0")),
    **dict.fromkeys(_POSITIVE, (1, math.inf, "must be greater than 0")),
    "V1PodSpec.activeDeadlineSeconds": (1, 2 ** 31 - 1, "must be between 1 and 2147483647, inclusive"),
    "V1ClientIPConfig.timeoutSeconds": (1, 86400, "must be greater than 0 and less than 86400"),
    "V1PodSecurityContext.runAsUser": _ID, "V1PodSecurityContext.runAsGroup": _ID, "V1PodSecurityContext.fsGroup": _ID,
    "V1SecurityContext.runAsUser": _ID, "V1SecurityContext.runAsGroup": _ID,
    "V1ConfigMapVolumeSource.defaultMode": _MODE, "V1SecretVolumeSource.defaultMode": _MODE,
    "V1ProjectedVolumeSource.defaultMode": _MODE, "V1DownwardAPIVolumeSource.defaultMode": _MODE,
    "V1KeyToPath.mode": _MODE}
"""Least, most and what is said of others."""

UNIQUE = {"V1Volume.name", "V1ContainerPort.name", "V1ServicePort.name", "DiscoveryV1EndpointPort.name", "V1Sysctl.name",
          "V1MutatingWebhook.name", "V1ValidatingWebhook.name", "V1LimitRangeItem.type"}
"""What no two items of a list may share."""

OPTIONAL = {"V1ServicePort.port", "V1ContainerPort.containerPort", "V1DeploymentSpec.template", "V1JobSpec.template",
            "V1Probe.port",
            "CoreV1Event.metadata", "V1PolicyRule.verbs", "V1PodSpec.containers", "V1GRPCAction.port",
            "V1LimitRangeSpec.limits", "V1DaemonSetSpec.selector", "V1RoleRef.kind", "V1Endpoint.addresses"}
"""Required by the model, but judged in other words below (or filled in)."""
