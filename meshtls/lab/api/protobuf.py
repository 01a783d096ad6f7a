"""Request bodies in Kubernetes' protobuf, which kubectl's own clients send for built-in kinds; answers are always JSON.

The body is "k8s\\0" and an envelope that names apiVersion and kind; the object follows as one message. What type a field
has is known from the kind's schema; _TABLE adds its number: of some messages the fields in the order of their numbers,
which begin at 1; a number tells where they go on after a gap. `^` means that the message's fields stand in the parent's
place in JSON. A field that the table does not know is refused, not dropped; a status is never a client's to send.
"""
import base64
import datetime
from collections.abc import Iterator
from typing import Any

from meshtls.lab.api import schema, status, zeros

MAGIC = b"k8s\x00"
MEDIA = "application/vnd.kubernetes.protobuf"
Object = dict[str, Any]

_TABLE = """
V1ObjectMeta name generateName namespace selfLink uid resourceVersion generation creationTimestamp deletionTimestamp
    deletionGracePeriodSeconds labels annotations ownerReferences finalizers
V1OwnerReference kind 3 name uid apiVersion controller blockOwnerDeletion
V1LabelSelector matchLabels matchExpressions
V1LabelSelectorRequirement key operator values
V1DeleteOptions gracePeriodSeconds preconditions orphanDependents propagationPolicy dryRun
    ignoreStoreReadErrorWithClusterBreakingPotential
V1Preconditions uid resourceVersion
V1Namespace,V1Service,V1Pod,V1ResourceQuota,V1Deployment,V1Job,V1CronJob,V1SelfSubjectAccessReview,
    V1SelfSubjectRulesReview,AuthenticationV1TokenRequest,V1PodDisruptionBudget,V1Ingress,V2HorizontalPodAutoscaler
    metadata spec status
V1NamespaceSpec finalizers
V1ConfigMap metadata data binaryData immutable
V1Secret metadata data type stringData immutable
V1ServiceAccount metadata secrets imagePullSecrets automountServiceAccountToken
V1ObjectReference kind namespace name uid apiVersion resourceVersion fieldPath
V1LocalObjectReference,LocalObjectReference name
V1ServiceSpec ports selector clusterIP type externalIPs 7 sessionAffinity loadBalancerIP loadBalancerSourceRanges
    externalName externalTrafficPolicy healthCheckNodePort publishNotReadyAddresses sessionAffinityConfig 17
    ipFamilyPolicy clusterIPs ipFamilies allocateLoadBalancerNodePorts loadBalancerClass internalTrafficPolicy
    trafficDistribution
V1ServicePort name protocol port targetPort nodePort appProtocol
V1SessionAffinityConfig clientIP
V1ClientIPConfig timeoutSeconds
V1PodTemplateSpec,V1JobTemplateSpec metadata spec
V1PodSpec volumes containers restartPolicy terminationGracePeriodSeconds activeDeadlineSeconds dnsPolicy nodeSelector
    serviceAccountName serviceAccount nodeName hostNetwork hostPID hostIPC securityContext imagePullSecrets hostname
    subdomain 19 schedulerName initContainers automountServiceAccountToken tolerations hostAliases priorityClassName
    priority dnsConfig shareProcessNamespace readinessGates runtimeClassName enableServiceLinks preemptionPolicy
    overhead topologySpreadConstraints 35 setHostnameAsFQDN 37 hostUsers 40 resources hostnameOverride
V1Container name image command args workingDir ports env resources volumeMounts livenessProbe readinessProbe lifecycle
    terminationMessagePath imagePullPolicy securityContext stdin stdinOnce tty envFrom terminationMessagePolicy 22
    startupProbe resizePolicy restartPolicy
V1ContainerPort name hostPort containerPort protocol hostIP
V1EnvVar name value valueFrom
V1EnvVarSource fieldRef resourceFieldRef configMapKeyRef secretKeyRef
V1EnvFromSource prefix configMapRef secretRef
V1ConfigMapEnvSource,V1SecretEnvSource ^LocalObjectReference optional
V1ConfigMapKeySelector,V1SecretKeySelector ^LocalObjectReference key optional
V1ObjectFieldSelector apiVersion fieldPath
V1ResourceFieldSelector containerName resource divisor
V1ResourceRequirements limits requests
V1VolumeMount name readOnly mountPath subPath mountPropagation subPathExpr recursiveReadOnly
V1Probe ^ProbeHandler initialDelaySeconds timeoutSeconds periodSeconds successThreshold failureThreshold
    terminationGracePeriodSeconds
V1Lifecycle postStart preStop stopSignal
V1LifecycleHandler exec httpGet tcpSocket sleep
V1ExecAction command
V1HTTPGetAction path port host scheme httpHeaders
V1HTTPHeader,V1Sysctl,V1PodDNSConfigOption name value
V1TCPSocketAction port host
V1GRPCAction port service
V1SleepAction seconds
V1SecurityContext capabilities privileged seLinuxOptions runAsUser runAsNonRoot readOnlyRootFilesystem
    allowPrivilegeEscalation runAsGroup procMount 11 seccompProfile appArmorProfile
V1PodSecurityContext seLinuxOptions runAsUser runAsNonRoot supplementalGroups fsGroup runAsGroup sysctls 9
    fsGroupChangePolicy seccompProfile appArmorProfile supplementalGroupsPolicy seLinuxChangePolicy
V1Capabilities add drop
V1SELinuxOptions user role type level
V1SeccompProfile,V1AppArmorProfile type localhostProfile
V1Volume name ^VolumeSource
V1HostPathVolumeSource path type
V1EmptyDirVolumeSource medium sizeLimit
V1SecretVolumeSource secretName items defaultMode optional
V1ConfigMapVolumeSource ^LocalObjectReference items defaultMode optional
V1ConfigMapProjection,V1SecretProjection ^LocalObjectReference items 4 optional
V1PersistentVolumeClaimVolumeSource claimName readOnly
V1DownwardAPIVolumeSource items defaultMode
V1DownwardAPIProjection items
V1DownwardAPIVolumeFile path fieldRef resourceFieldRef mode
V1KeyToPath key path mode
V1ProjectedVolumeSource sources defaultMode
V1VolumeProjection secret downwardAPI configMap serviceAccountToken
V1ServiceAccountTokenProjection audience expirationSeconds path
V1Toleration key operator value effect tolerationSeconds
V1HostAlias ip hostnames
V1PodDNSConfig nameservers searches options
V1PodReadinessGate conditionType
V1ContainerResizePolicy resourceName restartPolicy
V1TopologySpreadConstraint maxSkew topologyKey whenUnsatisfiable labelSelector minDomains nodeAffinityPolicy
    nodeTaintsPolicy matchLabelKeys
VolumeSource hostPath emptyDir 6 secret 10 persistentVolumeClaim 16 downwardAPI 19 configMap 26 projected
ProbeHandler exec httpGet tcpSocket grpc
V1ResourceQuotaSpec hard scopes
V1DeploymentSpec replicas selector template strategy minReadySeconds revisionHistoryLimit paused 9
    progressDeadlineSeconds
V1DeploymentStrategy type rollingUpdate
V1RollingUpdateDeployment maxUnavailable maxSurge
V1JobSpec parallelism completions activeDeadlineSeconds selector manualSelector template backoffLimit
    ttlSecondsAfterFinished completionMode suspend 12 backoffLimitPerIndex maxFailedIndexes podReplacementPolicy
    managedBy
V1CronJobSpec schedule startingDeadlineSeconds concurrencyPolicy suspend jobTemplate successfulJobsHistoryLimit
    failedJobsHistoryLimit timeZone
V1Role metadata rules
V1ClusterRole metadata rules aggregationRule
V1AggregationRule clusterRoleSelectors
V1PolicyRule verbs apiGroups resources resourceNames nonResourceURLs
V1RoleBinding,V1ClusterRoleBinding metadata subjects roleRef
V1RoleRef apiGroup kind name
RbacV1Subject kind apiGroup name namespace
V1SelfSubjectAccessReviewSpec resourceAttributes nonResourceAttributes
V1ResourceAttributes namespace verb group version resource subresource name
V1NonResourceAttributes path verb
V1SelfSubjectRulesReviewSpec namespace
V1SelfSubjectReview metadata status
V1TokenRequestSpec audiences 3 boundObjectRef expirationSeconds
V1BoundObjectReference kind apiVersion name uid
V1Eviction metadata deleteOptions
V1PodDisruptionBudgetSpec minAvailable selector maxUnavailable unhealthyPodEvictionPolicy
V1PriorityClass metadata value globalDefault description preemptionPolicy
V1IngressSpec defaultBackend tls rules ingressClassName
V1IngressBackend 4 service
V1IngressServiceBackend name port
V1ServiceBackendPort name number
V1IngressTLS hosts secretName
V1IngressRule host ^IngressRuleValue
IngressRuleValue http
V1HTTPIngressRuleValue paths
V1HTTPIngressPath path backend pathType
V2HorizontalPodAutoscalerSpec scaleTargetRef minReplicas maxReplicas metrics
V2CrossVersionObjectReference kind name apiVersion
V2MetricSpec type 4 resource
V2ResourceMetricSource name target
V2MetricTarget type value averageValue averageUtilization
"""
_ROOTS = {"TokenRequest": "AuthenticationV1TokenRequest"}
"""Where the client's class is not named version + kind."""


def _read_table() -> dict[str, dict[int, str]]:
    """Message -> number -> field."""
    found: dict[str, dict[int, str]] = {}
    for line in _TABLE.strip().replace(",\n    ", ",").replace("\n    ", " ").splitlines():
        messages, *words = line.split()
        number, table = 0, dict[int, str]()
        for word in words:
            number = int(word) - 1 if word.isdigit() else number + 1
            if not word.isdigit():
                table[number] = word
        found.update(dict.fromkeys(messages.split(","), table))
    return found


MESSAGES = _read_table()


def decode(body: bytes) -> Object:
    """The object in a protobuf body. Raises ApiError 400 (malformed) or 415 (a message or field that is not known
    here)."""
    try:
        envelope = dict(fields(body[len(MAGIC):]))
        named = {number: value.decode() for number, value in fields(envelope.get(1, b""))}
        version, kind = named.get(1, ""), named.get(2, "")
        model = _ROOTS.get(kind) or version.rpartition("/")[2].capitalize() + kind
        if model not in MESSAGES:
            raise status.unsupported_media(f"the lab reads {kind or 'this'} as JSON or YAML only, not as protobuf")
        return {"apiVersion": version, "kind": kind, **_message(model, schema.model(model), envelope.get(2, b""))}
    except (IndexError, UnicodeDecodeError, TypeError, ValueError) as error:
        raise status.bad_request(f"the object provided is unrecognized: malformed protobuf: {error}") from error


def fields(data: Any) -> Iterator[tuple[int, Any]]:
    """(number, value) of a message: integers and bytes."""
    view, place = memoryview(bytes(data)), 0
    while place < len(view):
        tag, place = _varint(view, place)
        match tag & 7:
            case 0:
                value, place = _varint(view, place)
                yield tag >> 3, value
            case 2:
                size, place = _varint(view, place)
                if place + size > len(view):
                    raise ValueError("a field is longer than the message")
                yield tag >> 3, bytes(view[place:place + size])
                place += size
            case 1 | 5:
                size = 8 if tag & 7 == 1 else 4
                yield tag >> 3, int.from_bytes(view[place:place + size], "little")
                place += size
            case _:
                raise ValueError(f"unknown wire type {tag & 7}")


def _varint(view: memoryview, place: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = view[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
        if shift > 63:
            raise ValueError("a number is too long")


def _message(name: str, node: schema.Node, data: bytes) -> Object:
    found: Object = {}
    for number, raw in fields(data):
        key = MESSAGES.get(name, {}).get(number, "")
        child = node["properties"].get(key)
        if child is None and not key.startswith("^"):
            raise status.unsupported_media(f"the lab does not know field {number} of {name} in protobuf; send it as "
                                           "JSON or YAML")
        if child is None:
            found.update(_message(key[1:], node, raw))
            continue
        if child.get("type") == "array":
            found.setdefault(key, []).append(_value(child["items"], raw))
        elif "additionalProperties" in child:
            entry = dict(fields(raw))
            found.setdefault(key, {})[entry.get(1, b"").decode()] = _value(child["additionalProperties"], entry.get(2, b""))
        elif key != "status" and (value := _value(child, raw)) is not None and not (
                zeros.left_out(key, value, schema.resolve(child), node)):
            found[key] = value
    return found


def _value(node: schema.Node, raw: Any) -> Any:
    if "$ref" in node:
        return _message(node["$ref"], schema.model(node["$ref"]), raw)
    if node.get("x-quantity"):
        return dict(fields(raw)).get(1, b"").decode() or "0"
    if node.get("x-kubernetes-int-or-string"):
        held = dict(fields(raw))
        return held.get(3, b"").decode() if held.get(1) else _signed(held.get(2, 0))
    match node.get("format", node.get("type")):
        case "date-time":
            seconds = _signed(dict(fields(raw)).get(1, 0))
            return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds > 0 else None
        case "byte":
            return base64.b64encode(raw).decode()
        case "boolean":
            return bool(raw)
        case "int32" | "int64":
            return _signed(raw)
    return raw.decode()


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number
