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

_ALWAYS: dict[str, set[str]] = {zero: set(names.split()) for zero, names in (
    ("null", """currentMetrics eventTime finishedAt firstTimestamp lastHeartbeatTime lastObservedTime lastProbeTime
     lastTimestamp lastTransitionTime lastUpdateTime pathType sideEffects sources startedAt storedVersions
     V1ClusterRole.rules V1CustomResourceDefinitionStatus.conditions V1DaemonSetSpec.selector V1DeploymentSpec.selector
     V1EndpointSlice.endpoints V1EndpointSlice.ports V1GRPCAction.service V1ReplicaSetSpec.selector V1Role.rules
     V1StatefulSetSpec.selector V1TypedLocalObjectReference.apiGroup V1TypedObjectReference.apiGroup"""),
    ("{}", """acceptedNames daemonEndpoints kubeletEndpoint lastState loadBalancer nodeInfo source state updateStrategy
     V1Container.resources V1DeploymentSpec.strategy V1Endpoint.conditions V1EphemeralContainer.resources
     V1IngressServiceBackend.port V1JobTemplateSpec.metadata V1JobTemplateSpec.spec V1NetworkPolicySpec.podSelector
     V1PersistentVolumeClaimSpec.resources V1PersistentVolumeClaimTemplate.metadata V1PersistentVolumeClaimTemplate.spec
     V1PodTemplate.template V1PodTemplateSpec.metadata V1PodTemplateSpec.spec V1ReplicaSetSpec.template"""),
    ('""', """reportingComponent reportingInstance serviceName V1DaemonSetCondition.status V1DaemonSetCondition.type
     V1DeploymentCondition.status V1DeploymentCondition.type V1PodFailurePolicyOnPodConditionsPattern.status
     V1ReplicaSetCondition.status V1ReplicaSetCondition.type V1RoleRef.apiGroup V1StatefulSetCondition.status
     V1StatefulSetCondition.type"""),
    ("0", """currentHealthy desiredHealthy disruptionsAllowed expectedPods start targetPort
     V1ControllerRevision.revision V1PriorityClass.value V1StatefulSetStatus.availableReplicas"""),
    ('"0"', "divisor"))}
"""By what is written: the fields of any structure, or of one."""

_NEVER = {"V1ValidatingAdmissionPolicyBindingSpec.policyName", "V1ValidatingAdmissionPolicyBindingSpec.validationActions",
          "V1TokenReviewSpec.token", "V1PodVolumeHealth.lastTransitionTime", "V1VolumeHealthStatus.lastTransitionTime"}
"""Required by the model or written elsewhere, yet left out when empty."""

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
def _written(model: str) -> dict[str, str]:
    """The fields that are always there, and as what when nothing is given (JSON)."""
    node = schema.model(model)
    found = {}
    for key, child in (node.get("properties") or {}).items():
        either = {key, f"{model}.{key}"}
        structure = key in ("metadata", "spec", "status") and "apiVersion" in node["properties"]
        always = [zero for zero, names in _ALWAYS.items() if either & names]
        if either & _NEVER or key in ("apiVersion", "kind"):
            continue
        if always:
            found[key] = always[0]
        elif key in (node.get("required") or ()) or structure:
            plain = 0 if child.get("x-kubernetes-int-or-string") else _SCALARS.get(child.get("type", ""))
            found[key] = "{}" if "$ref" in child else json.dumps(None if child.get("format") == "date-time" else plain)
    return found


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
        return key != "managedFields"  # there it means something
    if key in _written(model) if model else key in (owner.get("required") or ()):
        return False
    if value == {} and "additionalProperties" in node:
        return True
    either = {key, f"{model}.{key}"}
    if value == "" and isinstance(value, str):
        return not either & _TEXT_STAYS
    return (value is False and bool(either & _FALSE_GOES)) or (
        value == 0 and isinstance(value, int) and value is not False and bool(either & _ZERO_GOES))
