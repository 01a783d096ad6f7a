"""What the API server fills in: for each structure a table of plain values, those that hold sometimes, and a function
where the value itself depends.

A value is filled in where there is nothing, null or an empty text; a structure before those inside it. Only defaults of
the type itself stand here; what admission adds to pods (service account, tolerations) stands in `admission`.
"""
import base64
from collections.abc import Callable
from typing import Any

from meshtls.lab.api import schema
from meshtls.lab.api.parts import Part, walk
from meshtls.lab.api.quantities import amount
from meshtls.lab.api.resources import Resource
from meshtls.lab.api.store import clone

Object = dict[str, Any]
_MATCH: Object = {"matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {}}
_HOOK: Object = {"failurePolicy": "Fail", "timeoutSeconds": 10, **_MATCH}
_CONTAINER: Object = {"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                      "resources": {}}
_FILES: Object = {"defaultMode": 0o644}

PLAIN: dict[str, Object] = {
    "V1PodSpec": {"restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30,
                  "schedulerName": "default-scheduler", "securityContext": {}},
    "V1Container": _CONTAINER, "V1EphemeralContainer": _CONTAINER, "V1ContainerPort": {"protocol": "TCP"},
    "V1Probe": {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
    "V1HTTPGetAction": {"path": "/", "scheme": "HTTP"}, "V1GRPCAction": {"service": ""},
    "V1ObjectFieldSelector": {"apiVersion": "v1"}, "V1HostPathVolumeSource": {"type": ""},
    "V1ConfigMapVolumeSource": _FILES, "V1SecretVolumeSource": _FILES, "V1DownwardAPIVolumeSource": _FILES,
    "V1ProjectedVolumeSource": _FILES, "V1ServiceAccountTokenProjection": {"expirationSeconds": 3600},
    "V1DeploymentSpec": {"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600, "strategy": {}},
    "V1DeploymentStrategy": {"type": "RollingUpdate"},
    "V1ReplicaSetSpec": {"replicas": 1}, "V1ReplicationControllerSpec": {"replicas": 1},
    "V1StatefulSetSpec": {
        "replicas": 1, "revisionHistoryLimit": 10, "podManagementPolicy": "OrderedReady", "updateStrategy": {},
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"}},
    "V1StatefulSetUpdateStrategy": {"type": "RollingUpdate"},
    "V1DaemonSetSpec": {"revisionHistoryLimit": 10, "updateStrategy": {}},
    "V1DaemonSetUpdateStrategy": {"type": "RollingUpdate"},
    "V1CronJobSpec": {"concurrencyPolicy": "Allow", "suspend": False, "successfulJobsHistoryLimit": 3,
                      "failedJobsHistoryLimit": 1},
    "V1ServiceSpec": {"type": "ClusterIP", "sessionAffinity": "None"},
    "V1ServicePort": {"protocol": "TCP"},
    "V1Secret": {"type": "Opaque"}, "V1NetworkPolicyPort": {"protocol": "TCP"},
    "V1RoleRef": {"apiGroup": "rbac.authorization.k8s.io"},
    "V1MutatingWebhook": {**_HOOK, "reinvocationPolicy": "Never"}, "V1ValidatingWebhook": _HOOK,
    "V1RuleWithOperations": {"scope": "*"}, "V1NamedRuleWithOperations": {"scope": "*"},
    "AdmissionregistrationV1ServiceReference": {"port": 443}, "V1MatchResources": _MATCH,
    "V1ValidatingAdmissionPolicySpec": {"failurePolicy": "Fail"},
    "V1CustomResourceDefinitionSpec": {"conversion": {"strategy": "None"}},
    "DiscoveryV1EndpointPort": {"name": "", "protocol": "TCP"}, "CoreV1EndpointPort": {"protocol": "TCP"},
    "V1PersistentVolumeClaimSpec": {"volumeMode": "Filesystem"}, "V1PersistentVolumeClaimStatus": {"phase": "Pending"},
    "V1PersistentVolumeSpec": {"persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem"},
    "V2HorizontalPodAutoscalerSpec": {"minReplicas": 1, "metrics": [{"type": "Resource", "resource": {
        "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]},
    "V1StorageClass": {"reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"},
    "V1PriorityClass": {"preemptionPolicy": "PreemptLowerPriority"}}


def _in(model: str) -> Callable[[Part], bool]:
    return lambda part: part.above is not None and part.above.model == model


def _typed(*kinds: str) -> Callable[[Part], bool]:
    return lambda part: part["type"] in kinds


def _rolls(part: Part) -> bool:
    return part.above is not None and part.above["type"] == "RollingUpdate"


def _sticky(part: Part) -> bool:
    return bool(part.within("V1ServiceSpec").get("sessionAffinity") == "ClientIP")


_Rows = tuple[tuple[Callable[[Part], Any], Object], ...]
_ROLLING: _Rows = ((_typed("RollingUpdate"), {"rollingUpdate": {}}),)
SOMETIMES: dict[str, _Rows] = {
    "V1PodSpec": ((_in("V1Pod"), {"enableServiceLinks": True}),),
    "V1Volume": ((lambda volume: not set(volume.value) - {"name"}, {"emptyDir": {}}),),
    "V1DeploymentStrategy": _ROLLING, "V1StatefulSetUpdateStrategy": _ROLLING, "V1DaemonSetUpdateStrategy": _ROLLING,
    "V1RollingUpdateDeployment": ((_rolls, {"maxUnavailable": "25%", "maxSurge": "25%"}),),
    "V1RollingUpdateStatefulSetStrategy": ((_rolls, {"partition": 0}),),
    "V1RollingUpdateDaemonSet": ((_rolls, {"maxUnavailable": 1, "maxSurge": 0}),),
    "V1PersistentVolumeClaim": ((_in("V1StatefulSetSpec"), {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "status": {}}),),
    "V1JobSpec": (
        (lambda job: _in("V1Job")(job) and not {"completions", "parallelism"} & set(job.value), {"completions": 1}),
        (_in("V1Job"), {"parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": False,
                        "manualSelector": False, "podReplacementPolicy": "TerminatingOrFailed"})),
    "V1ServiceSpec": (
        (_sticky, {"sessionAffinityConfig": {}}),
        (lambda service: service["type"] != "ExternalName", {"internalTrafficPolicy": "Cluster"}),
        (_typed("NodePort", "LoadBalancer"), {"externalTrafficPolicy": "Cluster"}),
        (_typed("LoadBalancer"), {"allocateLoadBalancerNodePorts": True})),
    "V1SessionAffinityConfig": ((_sticky, {"clientIP": {}}),),
    "V1ClientIPConfig": ((_sticky, {"timeoutSeconds": 10800}),),
    "V1NetworkPolicySpec": ((lambda policy: policy["egress"], {"policyTypes": ["Ingress", "Egress"]}),
                            (lambda policy: not policy["egress"], {"policyTypes": ["Ingress"]})),
    "RbacV1Subject": ((lambda one: one["kind"] in ("User", "Group"), {"apiGroup": "rbac.authorization.k8s.io"}),)}


def apply(resource: Resource, version: str, obj: Object) -> None:
    """Defaults of a built-in kind, on every write, in place."""
    for part in walk(schema.of(resource, version), obj):
        _set(part.value, PLAIN.get(part.model, {}))
        for when, values in SOMETIMES.get(part.model, ()):
            if when(part):
                _set(part.value, values)
        if part.model in DEPENDENT:
            DEPENDENT[part.model](part)


def _set(holder: Object, values: Object) -> None:
    for key, value in values.items():
        if holder.get(key) in (None, ""):
            holder[key] = clone(value)


def _requests(resources: Object) -> None:
    """Who is limited asks for as much, unless it says otherwise."""
    if limits := resources.get("limits"):
        resources["requests"] = {**limits, **(resources.get("requests") or {})}


def _pod(part: Part) -> None:
    held = part.value.get("status") or {}
    for one, several in (("podIP", "podIPs"), ("hostIP", "hostIPs")):
        if held.get(one) and [item.get("ip") for item in held.get(several) or ()][:1] != [held[one]]:
            held[several] = [{"ip": held[one]}]


def _node_spec(part: Part) -> None:
    if part["podCIDR"]:
        _set(part.value, {"podCIDRs": [part["podCIDR"]]})


def _pod_spec(part: Part) -> None:
    _requests(part["resources"] or {})
    if part.value["terminationGracePeriodSeconds"] < 0:
        part.value["terminationGracePeriodSeconds"] = 1
    account = part.value.get("serviceAccountName") or part.value.get("serviceAccount")
    if account:
        part.value["serviceAccountName"] = part.value["serviceAccount"] = account


def _container(part: Part) -> None:
    container = part.value
    image = container.get("image") or ""
    fresh = "@" not in image and image.rpartition("/")[2].partition(":")[2] in ("", "latest")
    _set(container, {"imagePullPolicy": "Always" if fresh else "IfNotPresent"})
    _requests(container["resources"])


def _container_port(part: Part) -> None:
    if part.within("V1PodSpec").get("hostNetwork") and "containerPort" in part.value:
        _set(part.value, {"hostPort": part.value["containerPort"]})


def _daemonset(part: Part) -> None:
    annotations = part.value.setdefault("metadata", {}).setdefault("annotations", {})
    annotations.setdefault("deprecated.daemonset.template.generation", str(part.value["metadata"].get("generation", 0)))


def _replication_controller(part: Part) -> None:
    if labels := part["spec.template.metadata.labels"]:
        _set(part.value["spec"], {"selector": labels})
        _set(part.value.setdefault("metadata", {}), {"labels": labels})


def _service_port(part: Part) -> None:
    if part.value.get("targetPort") in (0, "", None):
        part.value["targetPort"] = part.value.get("port", 0)


def _secret(part: Part) -> None:
    if texts := part.value.pop("stringData", None):
        part.value["data"] = {**(part["data"] or {}),
                              **{key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}}


def _namespace(part: Part) -> None:
    metadata = part.value.setdefault("metadata", {})
    if metadata.get("name"):
        metadata.setdefault("labels", {})["kubernetes.io/metadata.name"] = metadata["name"]


def _definition(part: Part) -> None:
    names = part.value["names"]
    if names.get("kind"):
        _set(names, {"singular": names["kind"].lower(), "listKind": names["kind"] + "List"})


DEPENDENT: dict[str, Callable[[Part], None]] = {
    "V1Pod": _pod, "V1NodeSpec": _node_spec, "V1PodSpec": _pod_spec, "V1Container": _container, "V1EphemeralContainer": _container,
    "V1ContainerPort": _container_port, "V1DaemonSet": _daemonset, "V1ReplicationController": _replication_controller,
    "V1ServicePort": _service_port, "V1Secret": _secret, "V1Namespace": _namespace,
    "V1CustomResourceDefinitionSpec": _definition}


def quality_of_service(spec: Object) -> str:
    """BestEffort, Burstable or Guaranteed, from cpu and memory of all containers."""
    kinds = set()
    holders = [spec] if spec.get("resources") else [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    for holder in holders:
        resources = holder.get("resources") or {}
        limits, requests = ({key: amount(value) for key, value in (resources.get(name) or {}).items()
                             if key in ("cpu", "memory")}
                            for name in ("limits", "requests"))
        if limits and len(limits) == 2 and requests in (limits, {}):
            kinds.add("Guaranteed")
        else:
            kinds.add("Burstable" if limits or requests else "BestEffort")
    if kinds == {"Guaranteed"}:
        return "Guaranteed"
    return "BestEffort" if kinds <= {"BestEffort"} else "Burstable"
