"""What the API server fills in: for each structure a table of plain values, and a function where it depends.

A value is filled in where there is nothing, null or an empty text; a structure before those inside it. Only defaults of
the type itself stand here; what admission adds to pods (service account, tolerations) stands in `admission`.
"""
import base64
from collections.abc import Callable
from typing import Any

from meshtls.lab.api import schema
from meshtls.lab.api.parts import Part, walk
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
    "V1ServicePort": {"protocol": "TCP"}, "V1ClientIPConfig": {"timeoutSeconds": 10800},
    "V1Secret": {"type": "Opaque"}, "V1NetworkPolicyPort": {"protocol": "TCP"},
    "V1RoleRef": {"apiGroup": "rbac.authorization.k8s.io"},
    "V1MutatingWebhook": {**_HOOK, "reinvocationPolicy": "Never"}, "V1ValidatingWebhook": _HOOK,
    "V1RuleWithOperations": {"scope": "*"}, "V1NamedRuleWithOperations": {"scope": "*"},
    "AdmissionregistrationV1ServiceReference": {"port": 443}, "V1MatchResources": _MATCH,
    "V1ValidatingAdmissionPolicySpec": {"failurePolicy": "Fail"},
    "V1CustomResourceDefinitionSpec": {"conversion": {"strategy": "None"}},
    "DiscoveryV1EndpointPort": {"name": "", "protocol": "TCP"}, "CoreV1EndpointPort": {"protocol": "TCP"},
    "V1PersistentVolumeClaimSpec": {"volumeMode": "Filesystem"},
    "V1PersistentVolumeSpec": {"persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem"},
    "V2HorizontalPodAutoscalerSpec": {"minReplicas": 1, "metrics": [{"type": "Resource", "resource": {
        "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]},
    "V1StorageClass": {"reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"},
    "V1PriorityClass": {"preemptionPolicy": "PreemptLowerPriority"}}


_ROLLING: dict[str, Object] = {
    "V1DeploymentStrategy": {"maxUnavailable": "25%", "maxSurge": "25%"},
    "V1StatefulSetUpdateStrategy": {"partition": 0},
    "V1DaemonSetUpdateStrategy": {"maxUnavailable": 1, "maxSurge": 0}}


def apply(resource: Resource, version: str, obj: Object) -> None:
    """Defaults of a built-in kind, on every write, in place."""
    for part in walk(schema.of(resource, version), obj):
        _set(part.value, PLAIN.get(part.model, {}))
        if part.model in DEPENDENT:
            DEPENDENT[part.model](part)


def _set(holder: Object, values: Object) -> None:
    for key, value in values.items():
        if holder.get(key) in (None, ""):
            holder[key] = clone(value)


def _pod(part: Part) -> None:
    _set(part.value["spec"], {"enableServiceLinks": True})


def _pod_spec(part: Part) -> None:
    account = part.value.get("serviceAccountName") or part.value.get("serviceAccount")
    if account:
        part.value["serviceAccountName"] = part.value["serviceAccount"] = account


def _container(part: Part) -> None:
    container = part.value
    image = container.get("image") or ""
    fresh = "@" not in image and image.rpartition("/")[2].partition(":")[2] in ("", "latest")
    _set(container, {"imagePullPolicy": "Always" if fresh else "IfNotPresent"})
    if limits := container["resources"].get("limits"):
        container["resources"]["requests"] = {**limits, **(part["resources.requests"] or {})}


def _container_port(part: Part) -> None:
    pod = part.above.above if part.above else None
    if pod and pod.value.get("hostNetwork") and "containerPort" in part.value:
        _set(part.value, {"hostPort": part.value["containerPort"]})


def _volume(part: Part) -> None:
    if not set(part.value) - {"name"}:
        part.value["emptyDir"] = {}


def _rolling(part: Part) -> None:
    if part.value["type"] == "RollingUpdate":
        _set(part.value.setdefault("rollingUpdate", {}), _ROLLING[part.model])


def _statefulset(part: Part) -> None:
    for claim in part["volumeClaimTemplates"] or ():
        _set(claim, {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "status": {"phase": "Pending"}})


def _daemonset(part: Part) -> None:
    annotations = part.value.setdefault("metadata", {}).setdefault("annotations", {})
    annotations.setdefault("deprecated.daemonset.template.generation", str(part.value["metadata"].get("generation", 0)))


def _job(part: Part) -> None:
    spec = part.value["spec"]
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    _set(spec, {"parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": False,
                "manualSelector": False, "podReplacementPolicy": "TerminatingOrFailed"})


def _replication_controller(part: Part) -> None:
    if labels := part["spec.template.metadata.labels"]:
        _set(part.value["spec"], {"selector": labels})
        _set(part.value.setdefault("metadata", {}), {"labels": labels})


def _service(part: Part) -> None:
    spec, outside = part.value, part.value["type"] in ("NodePort", "LoadBalancer")
    if spec["sessionAffinity"] == "ClientIP":
        spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
    _set(spec, {**({"internalTrafficPolicy": "Cluster"} if spec["type"] != "ExternalName" else {}),
                **({"externalTrafficPolicy": "Cluster"} if outside else {}),
                **({"allocateLoadBalancerNodePorts": True} if spec["type"] == "LoadBalancer" else {})})


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


def _network_policy(part: Part) -> None:
    _set(part.value, {"policyTypes": ["Ingress", "Egress"] if part.value.get("egress") else ["Ingress"]})


def _subject(part: Part) -> None:
    if part.value.get("kind") in ("User", "Group"):
        _set(part.value, {"apiGroup": "rbac.authorization.k8s.io"})


def _definition(part: Part) -> None:
    names = part.value["names"]
    if names.get("kind"):
        _set(names, {"singular": names["kind"].lower(), "listKind": names["kind"] + "List"})


DEPENDENT: dict[str, Callable[[Part], None]] = {
    "V1Pod": _pod, "V1PodSpec": _pod_spec, "V1Container": _container, "V1EphemeralContainer": _container,
    "V1ContainerPort": _container_port, "V1Volume": _volume, "V1DeploymentStrategy": _rolling,
    "V1StatefulSetUpdateStrategy": _rolling, "V1DaemonSetUpdateStrategy": _rolling, "V1StatefulSetSpec": _statefulset,
    "V1DaemonSet": _daemonset, "V1Job": _job, "V1ReplicationController": _replication_controller,
    "V1ServiceSpec": _service, "V1ServicePort": _service_port, "V1Secret": _secret, "V1Namespace": _namespace,
    "V1NetworkPolicySpec": _network_policy, "RbacV1Subject": _subject, "V1CustomResourceDefinitionSpec": _definition}


def quality_of_service(spec: Object) -> str:
    """BestEffort, Burstable or Guaranteed, from cpu and memory of all containers."""
    kinds = set()
    for container in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]:
        resources = container.get("resources") or {}
        limits, requests = ({key: value for key, value in (resources.get(name) or {}).items()
                             if key in ("cpu", "memory")}
                            for name in ("limits", "requests"))
        if limits and len(limits) == 2 and requests in (limits, {}):
            kinds.add("Guaranteed")
        else:
            kinds.add("Burstable" if limits or requests else "BestEffort")
    if kinds == {"Guaranteed"}:
        return "Guaranteed"
    return "BestEffort" if kinds <= {"BestEffort"} else "Burstable"
