"""What the API server fills in: one function a kind, each changing the object in place.

Only defaults of the type itself stand here; what admission adds to pods (service account, tolerations) stands in
`admission`.
"""
import base64
from collections.abc import Callable
from typing import Any

Object = dict[str, Any]


def _set(holder: Object, **values: Any) -> None:
    """Where there is nothing, null or an empty text."""
    for key, value in values.items():
        if holder.get(key) in (None, ""):
            holder[key] = value


def apply(kind: str, obj: Object) -> None:
    """Defaults of a built-in kind, on every write."""
    change = BY_KIND.get(kind)
    if change is not None:
        change(obj)


def _pod(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, enableServiceLinks=True)
    pod_spec(spec)


def pod_spec(spec: Object) -> None:
    _set(spec, restartPolicy="Always", dnsPolicy="ClusterFirst", terminationGracePeriodSeconds=30,
         schedulerName="default-scheduler",
         securityContext={})
    if spec.get("serviceAccountName") or spec.get("serviceAccount"):
        account = spec.get("serviceAccountName") or spec["serviceAccount"]
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    for volume in spec.get("volumes") or ():
        _volume(volume)
    for group in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(group) or ():
            if isinstance(container, dict):
                _container(container, bool(spec.get("hostNetwork")))


def _container(container: Object, host_network: bool) -> None:
    image = container.get("image") or ""
    tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
    fresh = "@" not in image and tag in ("", "latest")
    _set(container, terminationMessagePath="/dev/termination-log", terminationMessagePolicy="File", resources={},
         imagePullPolicy="Always" if fresh else "IfNotPresent")
    for port in container.get("ports") or ():
        _set(port, protocol="TCP")
        if host_network and "containerPort" in port:
            _set(port, hostPort=port["containerPort"])
    for variable in container.get("env") or ():
        field = (variable.get("valueFrom") or {}).get("fieldRef")
        if field is not None:
            _set(field, apiVersion="v1")
    limits = container["resources"].get("limits") or {}
    if limits:
        container["resources"]["requests"] = {**limits, **(container["resources"].get("requests") or {})}
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe := container.get(name):
            _set(probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
            _http_get(probe)
            if "grpc" in probe:
                _set(probe["grpc"], service="")
    for handler in (container.get("lifecycle") or {}).values():
        if isinstance(handler, dict):
            _http_get(handler)


def _http_get(handler: Object) -> None:
    if "httpGet" in handler:
        _set(handler["httpGet"], path="/", scheme="HTTP")


def _volume(volume: Object) -> None:
    if not set(volume) - {"name"}:
        volume["emptyDir"] = {}
    for source in ("configMap", "secret", "downwardAPI", "projected"):
        if isinstance(volume.get(source), dict):
            _set(volume[source], defaultMode=420)
    for source in (volume.get("projected") or {}).get("sources") or ():
        if "serviceAccountToken" in source:
            _set(source["serviceAccountToken"], expirationSeconds=3600)
    for holder in [volume.get("downwardAPI") or {}, *[source.get("downwardAPI") or {} for source in
                                                      (volume.get("projected") or {}).get("sources") or ()]]:
        for item in holder.get("items") or ():
            if "fieldRef" in item:
                _set(item["fieldRef"], apiVersion="v1")
    if isinstance(volume.get("hostPath"), dict):
        _set(volume["hostPath"], type="")


def _template(spec: Object) -> None:
    pod_spec(spec.setdefault("template", {}).setdefault("spec", {}))


def _deployment(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600)
    strategy = spec.setdefault("strategy", {})
    _set(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        _set(strategy.setdefault("rollingUpdate", {}), maxUnavailable="25%", maxSurge="25%")
    _template(spec)


def _replicaset(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, replicas=1)
    _template(spec)


def _replication_controller(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, replicas=1)
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if spec.get("template"):
        _template(spec)
    if labels:
        _set(spec, selector=dict(labels))
        _set(obj.setdefault("metadata", {}), labels=dict(labels))


def _volume_of_cluster(obj: Object) -> None:
    _set(obj.setdefault("spec", {}), persistentVolumeReclaimPolicy="Retain", volumeMode="Filesystem")
    if isinstance(obj["spec"].get("hostPath"), dict):
        _set(obj["spec"]["hostPath"], type="")


def _autoscaler(obj: Object) -> None:
    _set(obj.setdefault("spec", {}), minReplicas=1, metrics=[{
        "type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}])


def _statefulset(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, replicas=1, revisionHistoryLimit=10, podManagementPolicy="OrderedReady",
         persistentVolumeClaimRetentionPolicy={"whenDeleted": "Retain", "whenScaled": "Retain"})
    strategy = spec.setdefault("updateStrategy", {})
    _set(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        _set(strategy.setdefault("rollingUpdate", {}), partition=0)
    for claim in spec.get("volumeClaimTemplates") or ():
        _set(claim, apiVersion="v1", kind="PersistentVolumeClaim", status={"phase": "Pending"})
        _set(claim.setdefault("spec", {}), volumeMode="Filesystem")
    _template(spec)


def _daemonset(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    annotations = obj.setdefault("metadata", {}).setdefault("annotations", {})
    annotations.setdefault("deprecated.daemonset.template.generation",
                           str(obj["metadata"].get("generation", 0)))
    _set(spec, revisionHistoryLimit=10)
    strategy = spec.setdefault("updateStrategy", {})
    _set(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        _set(strategy.setdefault("rollingUpdate", {}), maxUnavailable=1, maxSurge=0)
    _template(spec)


def _job_spec(spec: Object) -> None:
    if "completions" not in spec and "parallelism" not in spec:
        _set(spec, completions=1)
    _set(spec, parallelism=1, backoffLimit=6, completionMode="NonIndexed", suspend=False, manualSelector=False,
         podReplacementPolicy="TerminatingOrFailed")
    _template(spec)


def _job(obj: Object) -> None:
    _job_spec(obj.setdefault("spec", {}))


def _cronjob(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, concurrencyPolicy="Allow", suspend=False, successfulJobsHistoryLimit=3, failedJobsHistoryLimit=1)
    template = spec.setdefault("jobTemplate", {}).setdefault("spec", {})
    pod_spec(template.setdefault("template", {}).setdefault("spec", {}))


def _service(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, type="ClusterIP", sessionAffinity="None")
    if spec["sessionAffinity"] == "ClientIP":
        _set(spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {}), timeoutSeconds=10800)
    for port in spec.get("ports") or ():
        _set(port, protocol="TCP")
        if port.get("targetPort") in (0, "", None):
            port["targetPort"] = port.get("port", 0)
    if spec["type"] != "ExternalName":
        _set(spec, internalTrafficPolicy="Cluster")
    if spec["type"] in ("NodePort", "LoadBalancer"):
        _set(spec, externalTrafficPolicy="Cluster")
    if spec["type"] == "LoadBalancer":
        _set(spec, allocateLoadBalancerNodePorts=True)


def _secret(obj: Object) -> None:
    _set(obj, type="Opaque")
    texts = obj.pop("stringData", None)
    if texts:
        obj["data"] = {**(obj.get("data") or {}),
                       **{key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}}


def _namespace(obj: Object) -> None:
    metadata = obj.setdefault("metadata", {})
    if metadata.get("name"):
        metadata.setdefault("labels", {})["kubernetes.io/metadata.name"] = metadata["name"]


def _network_policy(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, policyTypes=["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
    for rule in [*(spec.get("ingress") or ()), *(spec.get("egress") or ())]:
        for port in rule.get("ports") or ():
            _set(port, protocol="TCP")


def _binding(obj: Object) -> None:
    _set(obj.setdefault("roleRef", {}), apiGroup="rbac.authorization.k8s.io")
    for subject in obj.get("subjects") or ():
        if subject.get("kind") in ("User", "Group"):
            _set(subject, apiGroup="rbac.authorization.k8s.io")


def _webhooks(obj: Object) -> None:
    for hook in obj.get("webhooks") or ():
        _set(hook, failurePolicy="Fail", matchPolicy="Equivalent", namespaceSelector={}, objectSelector={},
             timeoutSeconds=10)
        if obj.get("kind") == "MutatingWebhookConfiguration":
            _set(hook, reinvocationPolicy="Never")
        for rule in hook.get("rules") or ():
            _set(rule, scope="*")
        if service := (hook.get("clientConfig") or {}).get("service"):
            _set(service, port=443)


def _admission_policy(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, failurePolicy="Fail")
    _match_resources(spec.get("matchConstraints"))


def _admission_binding(obj: Object) -> None:
    _match_resources(obj.setdefault("spec", {}).get("matchResources"))


def _match_resources(match: Object | None) -> None:
    if match is None:
        return
    _set(match, matchPolicy="Equivalent", namespaceSelector={}, objectSelector={})
    for rule in match.get("resourceRules") or ():
        _set(rule, scope="*")


def _definition(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, conversion={"strategy": "None"})
    names = spec.setdefault("names", {})
    if names.get("kind"):
        _set(names, singular=names["kind"].lower(), listKind=names["kind"] + "List")


def _endpoint_slice(obj: Object) -> None:
    for port in obj.get("ports") or ():
        _set(port, name="", protocol="TCP")


def _endpoints(obj: Object) -> None:
    for subset in obj.get("subsets") or ():
        for port in subset.get("ports") or ():
            _set(port, protocol="TCP")


def _claim(obj: Object) -> None:
    _set(obj.setdefault("spec", {}), volumeMode="Filesystem")


BY_KIND: dict[str, Callable[[Object], None]] = {
    "Pod": _pod, "Deployment": _deployment, "ReplicaSet": _replicaset, "StatefulSet": _statefulset,
    "DaemonSet": _daemonset, "Job": _job,
    "CronJob": _cronjob, "Service": _service, "Secret": _secret, "Namespace": _namespace,
    "NetworkPolicy": _network_policy,
    "RoleBinding": _binding, "ClusterRoleBinding": _binding, "MutatingWebhookConfiguration": _webhooks,
    "ValidatingWebhookConfiguration": _webhooks, "ValidatingAdmissionPolicy": _admission_policy,
    "ValidatingAdmissionPolicyBinding": _admission_binding, "CustomResourceDefinition": _definition,
    "EndpointSlice": _endpoint_slice,
    "Endpoints": _endpoints, "PersistentVolumeClaim": _claim, "PodTemplate": _template,
    "ReplicationController": _replication_controller, "PersistentVolume": _volume_of_cluster,
    "HorizontalPodAutoscaler": _autoscaler,
    "StorageClass": lambda obj: _set(obj, reclaimPolicy="Delete", volumeBindingMode="Immediate"),
    "PriorityClass": lambda obj: _set(obj, preemptionPolicy="PreemptLowerPriority")}


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
