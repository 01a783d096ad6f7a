"""What a typed server writes although nobody said it, and what it leaves out although somebody did.

The API server decodes a built-in object into structures and writes those. Laws (Go's encoding/json on its types):
  1. A required field is always written; without a value it is "", 0, false, an empty structure, or null (lists, maps,
     times, references).
  2. An optional field is left out when it is "", 0, false or empty, unless "not given" and "zero" are different things
     to the server.
Both follow from the models but for the exceptions that stand in the tables (from the types of k8s.io/api).
"""
import functools
import json
from typing import Any

from meshtls.lab.api import schema

_ALWAYS = """
CoreV1Event source={} firstTimestamp=null lastTimestamp=null eventTime=null reportingComponent="" reportingInstance=""
CoreV1EventSeries lastObservedTime=null
V1ClusterRole rules=null
V1Container resources={}
V1ContainerStateRunning startedAt=null
V1ContainerStateTerminated startedAt=null finishedAt=null
V1ContainerStatus state={} lastState={}
V1ControllerRevision revision=0
V1CustomResourceDefinitionCondition lastTransitionTime=null
V1CustomResourceDefinitionStatus conditions=null acceptedNames={} storedVersions=null
V1DaemonSetCondition type="" status="" lastTransitionTime=null
V1DaemonSetSpec selector=null updateStrategy={}
V1DeploymentCondition type="" status="" lastUpdateTime=null lastTransitionTime=null
V1DeploymentSpec selector=null strategy={}
V1Endpoint conditions={}
V1EndpointSlice endpoints=null ports=null
V1EphemeralContainer resources={}
V1GRPCAction service=null
V1HTTPIngressPath pathType=null
V1IngressServiceBackend port={}
V1IngressStatus loadBalancer={}
V1JobCondition lastProbeTime=null lastTransitionTime=null
V1MutatingWebhook sideEffects=null
V1NamespaceCondition lastTransitionTime=null
V1NetworkPolicySpec podSelector={}
V1NodeCondition lastHeartbeatTime=null lastTransitionTime=null
V1NodeDaemonEndpoints kubeletEndpoint={}
V1NodeStatus daemonEndpoints={} nodeInfo={}
V1PersistentVolumeClaimCondition lastProbeTime=null lastTransitionTime=null
V1PersistentVolumeClaimSpec resources={}
V1PodCondition lastProbeTime=null lastTransitionTime=null
V1PodDisruptionBudgetStatus disruptionsAllowed=0 currentHealthy=0 desiredHealthy=0 expectedPods=0
V1PodFailurePolicyOnPodConditionsPattern status=""
V1PodTemplate template={}
V1PriorityClass value=0
V1ProjectedVolumeSource sources=null
V1ReplicaSetCondition type="" status="" lastTransitionTime=null
V1ReplicaSetSpec selector=null template={}
V1ReplicationControllerCondition lastTransitionTime=null
V1ResourceFieldSelector divisor="0"
V1Role rules=null
V1RoleRef apiGroup=""
V1ServicePort targetPort=0
V1ServiceStatus loadBalancer={}
V1StatefulSetCondition type="" status="" lastTransitionTime=null
V1StatefulSetOrdinals start=0
V1StatefulSetSpec selector=null serviceName="" updateStrategy={}
V1StatefulSetStatus availableReplicas=0
V1TypedLocalObjectReference apiGroup=null
V1TypedObjectReference apiGroup=null
V1ValidatingWebhook sideEffects=null
V2HorizontalPodAutoscalerCondition lastTransitionTime=null
V2HorizontalPodAutoscalerStatus currentMetrics=null
"""
_NEVER = {("V1ValidatingAdmissionPolicyBindingSpec", "policyName"),
          ("V1ValidatingAdmissionPolicyBindingSpec", "validationActions"), ("V1TokenReviewSpec", "token")}
"""Required by the model, yet left out when empty."""

_TEXT_STAYS = set("""
appProtocol completionMode deprecationWarning failurePolicy fsGroupChangePolicy gmsaCredentialSpec
gmsaCredentialSpecName holderIdentity hostnameOverride ingressClassName internalTrafficPolicy ipFamilyPolicy ipMode
labelSelectorPath loadBalancerClass localhostProfile managedBy matchPolicy mountPropagation nodeAffinityPolicy
nodeTaintsPolicy parameterNotFoundAction podReplacementPolicy preemptionPolicy preferredHolder procMount reclaimPolicy
recursiveReadOnly reinvocationPolicy resourceClaimName resourceClaimTemplateName runAsUserName runtimeClassName scope
seLinuxChangePolicy selectPolicy signerName stopSignal strategy supplementalGroupsPolicy timeZone trafficDistribution
unhealthyPodEvictionPolicy volumeAttributesClassName volumeBindingMode volumeMode zone
AdmissionregistrationV1ServiceReference.path ApiextensionsV1ServiceReference.path
AdmissionregistrationV1WebhookClientConfig.url ApiextensionsV1WebhookClientConfig.url DiscoveryV1EndpointPort.name
DiscoveryV1EndpointPort.protocol V1NetworkPolicyPort.protocol V1Validation.reason V1HostPathVolumeSource.type
V1IngressClassParametersReference.apiGroup V1IngressClassParametersReference.namespace
V1TypedObjectReference.namespace V1CSIVolumeSource.fsType V1Container.restartPolicy V1EphemeralContainer.restartPolicy
V1Endpoint.hostname V1Endpoint.nodeName V1EndpointAddress.nodeName V1PodDNSConfigOption.value
V1PersistentVolumeClaimSpec.storageClassName
""".split())
_FALSE_GOES = set("""
authenticated deprecated exclusiveMaximum exclusiveMinimum globalDefault hostIPC hostNetwork hostPID nullable paused
preserveUnknownFields publishNotReadyAddresses readOnly stdin stdinOnce tty uniqueItems unschedulable
x-kubernetes-embedded-resource x-kubernetes-int-or-string
""".split())
_ZERO_GOES = set("""
active availableReplicas count currentReplicas failed failureThreshold fullyLabeledReplicas generation healthCheckNodePort
hostPort initialDelaySeconds minReadySeconds nodePort number numberAvailable numberUnavailable periodSeconds
readyReplicas signal succeeded successThreshold unavailableReplicas updatedNumberScheduled updatedReplicas
V1Probe.timeoutSeconds V1CustomResourceColumnDefinition.priority V1DeploymentStatus.replicas
""".split())
_SCALARS = {"string": "", "integer": 0, "number": 0, "boolean": False}


@functools.cache
def _always(model: str) -> dict[str, str]:
    line = next((text for text in _ALWAYS.splitlines() if text.startswith(f"{model} ")), "")
    return dict(part.split("=", 1) for part in line.split()[1:])


@functools.cache
def _written(model: str) -> dict[str, str]:
    """The fields that are always there, and as what when nothing is given (JSON)."""
    node = schema.model(model)
    wanted = set(node.get("required") or ())
    found = {}
    for key, child in (node.get("properties") or {}).items():
        structure = key in ("metadata", "spec", "status") and "apiVersion" in node["properties"]
        if (key not in wanted and not structure) or (model, key) in _NEVER or key in ("apiVersion", "kind"):
            continue
        plain = None if child.get("format") == "date-time" else _SCALARS.get(child.get("type", ""))
        if child.get("x-kubernetes-int-or-string"):
            plain = 0
        found[key] = "{}" if "$ref" in child else json.dumps(plain)
    if model in ("V1PodTemplateSpec", "V1JobTemplateSpec", "V1PersistentVolumeClaimTemplate"):
        found["metadata"] = found["spec"] = "{}"
    return {**found, **_always(model)}


def fill(node: dict[str, Any], obj: dict[str, Any]) -> None:
    """Write what is always there into a structure, in place; parts that are there already are left alone."""
    for key, zero in _written(node["x-model"]).items():
        if obj.get(key) is None:
            obj[key] = json.loads(zero)
            if obj[key] == {}:
                fill(schema.resolve(node["properties"][key]), obj[key])


def empty(node: dict[str, Any]) -> dict[str, Any]:
    """An object of which nothing is given."""
    found: dict[str, Any] = {}
    if "x-model" in node:
        fill(node, found)
    return found


def left_out(key: str, value: Any, node: dict[str, Any], owner: dict[str, Any]) -> bool:
    """Is a given value as good as none? `node` is the field's, `owner` the structure's."""
    model = owner.get("x-model", "")
    if value == []:
        return True
    if key in _written(model) if model else key in (owner.get("required") or ()):
        return False
    if value == {} and "additionalProperties" in node:
        return True
    either = {key, f"{model}.{key}"}
    if value == "" and isinstance(value, str):
        return not either & _TEXT_STAYS
    return (value is False and bool(either & _FALSE_GOES)) or (
        value == 0 and isinstance(value, int) and value is not False and bool(either & _ZERO_GOES))
