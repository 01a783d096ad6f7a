"""What stands in the columns of kubectl's tables: one function a kind gives the cells of an object.

`now` is in seconds; ages are human ("5m12s").
"""
import datetime
import re
from collections.abc import Callable
from typing import Any

Object = dict[str, Any]


def human(seconds: float) -> str:
    """A duration as kubectl shows ages: 45s, 5m12s, 3h, 2d4h, 400d, 2y10d."""
    total = int(seconds)
    if total < 0:
        return "0s" if total >= -1 else "<invalid>"
    minutes, hours, days = total // 60, total // 3600, total // 86400

    def two(whole: int, unit: str, rest: int, small: str) -> str:
        return f"{whole}{unit}{rest}{small}" if rest else f"{whole}{unit}"
    if total < 120:
        return f"{total}s"
    if minutes < 10:
        return two(minutes, "m", total % 60, "s")
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    return two(days // 365, "y", days % 365, "d") if days < 365 * 8 else f"{days // 365}y"


def _seconds(text: str) -> float:
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def age(text: str | None, now: float) -> str:
    try:
        return human(now - _seconds(text)) if text else "<unknown>"
    except ValueError:
        return "<unknown>"


def find(value: Any, path: str) -> Any:
    """The first value at a JSONPath of the form .a.b[0].c, [*] and [?(@.x=="y")] included."""
    for name, index, key, wanted in re.findall(
            r"\.?([^.\[\]]+)|\[(\d+|\*)\]|\[\?\(@\.([\w.]+)==[\"']?([^\"')]*)[\"']?\)\]", path.replace("\\.", "\x00")):
        if name and isinstance(value, dict):
            value = value.get(name.replace("\x00", "."))
        elif index and isinstance(value, list):
            place = 0 if index == "*" else int(index)
            value = value[place] if place < len(value) else None
        elif key and isinstance(value, list):
            value = next((item for item in value if str(find(item, key)) == wanted), None)
        else:
            return None
    return value


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def _age(obj: Object, now: float) -> str:
    return age(obj["metadata"].get("creationTimestamp"), now)


def _pairs(labels: Object | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or "<none>"


def _selector(selector: Object | None) -> str:
    if not selector:
        return "<none>"
    terms = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for term in selector.get("matchExpressions") or ():
        word = {"In": "in", "NotIn": "notin"}.get(term["operator"])
        values = ",".join(sorted(term.get("values") or ()))
        terms.append(f"{term['key']} {word} ({values})" if word else ("!" if term["operator"] == "DoesNotExist" else "")
                     + term["key"])
    return ",".join(terms) or "<none>"


def _images(template: Object) -> list[str]:
    containers = ((template.get("spec") or {}).get("containers")) or []
    return [",".join(container.get("name", "") for container in containers),
            ",".join(container.get("image", "") for container in containers)]


def _wide(obj: Object) -> list[str]:
    spec = obj["spec"]
    return [*_images(spec.get("template") or {}), _selector(spec.get("selector"))]


def pod_status(pod: Object) -> tuple[int, int, str, int, str]:
    """(ready, containers, the word under STATUS, restarts, when the last one was) as kubectl tells them."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    reason = status.get("reason") or status.get("phase") or "Unknown"
    sidecars = {one["name"] for one in spec.get("initContainers") or () if one.get("restartPolicy") == "Always"}
    total = len(spec.get("containers") or ()) + len(sidecars)
    restarts, sidecar_restarts, ready, last = 0, 0, 0, ""
    initializing = False
    if any(gate for gate in spec.get("schedulingGates") or ()) and reason == "Pending":
        reason = "SchedulingGated"
    for place, held in enumerate(status.get("initContainerStatuses") or ()):
        restarts += held.get("restartCount", 0)
        if held["name"] in sidecars:
            sidecar_restarts += held.get("restartCount", 0)
        last = max(last, ((held.get("lastState") or {}).get("terminated") or {}).get("finishedAt") or "")
        state = held.get("state") or {}
        if "terminated" in state and state["terminated"].get("exitCode") == 0:
            continue
        if held["name"] in sidecars and held.get("started"):
            ready += bool(held.get("ready"))
            continue
        if "terminated" in state:
            reason = "Init:" + _ended(state["terminated"])
        elif state.get("waiting", {}).get("reason") not in (None, "", "PodInitializing"):
            reason = "Init:" + state["waiting"]["reason"]
        else:
            reason = f"Init:{place}/{len(spec.get('initContainers') or ())}"
        initializing = True
        break
    if not initializing:
        restarts, running = sidecar_restarts, False
        for held in reversed(status.get("containerStatuses") or ()):
            restarts += held.get("restartCount", 0)
            last = max(last, ((held.get("lastState") or {}).get("terminated") or {}).get("finishedAt") or "")
            state = held.get("state") or {}
            if state.get("waiting", {}).get("reason"):
                reason = state["waiting"]["reason"]
            elif "terminated" in state:
                reason = _ended(state["terminated"])
            elif held.get("ready") and "running" in state:
                running = True
                ready += 1
        if reason == "Completed" and running:
            fine = any(item.get("type") == "Ready" and item.get("status") == "True" for item in status.get("conditions")
                       or ())
            reason = "Running" if fine else "NotReady"
    if pod["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            reason = "Unknown"
        elif status.get("phase") not in ("Succeeded", "Failed"):
            reason = "Terminating"
    return ready, total, reason, restarts, last


def _ended(state: Object) -> str:
    if state.get("reason"):
        return str(state["reason"])
    return f"Signal:{state['signal']}" if state.get("signal") else f"ExitCode:{state.get('exitCode', 0)}"


def _pod(obj: Object, now: float) -> list[Any]:
    ready, total, reason, restarts, last = pod_status(obj)
    told = f"{restarts} ({age(last, now)} ago)" if restarts and last else str(restarts)
    status = obj.get("status") or {}
    gates = [gate["conditionType"] for gate in obj["spec"].get("readinessGates") or ()]
    met = sum(any(item["type"] == gate and item["status"] == "True" for item in status.get("conditions") or ())
              for gate in gates)
    return [_name(obj), f"{ready}/{total}", reason, told, _age(obj, now), status.get("podIP") or "<none>",
            obj["spec"].get("nodeName") or "<none>", status.get("nominatedNodeName") or "<none>",
            f"{met}/{len(gates)}" if gates else "<none>"]


def _deployment(obj: Object, now: float) -> list[Any]:
    status = obj.get("status") or {}
    return [_name(obj), f"{status.get('readyReplicas', 0)}/{obj['spec'].get('replicas', 0)}",
            status.get("updatedReplicas", 0),
            status.get("availableReplicas", 0), _age(obj, now), *_wide(obj)]


def _replicaset(obj: Object, now: float) -> list[Any]:
    status = obj.get("status") or {}
    return [_name(obj), obj["spec"].get("replicas", 0), status.get("replicas", 0), status.get("readyReplicas", 0),
            _age(obj, now), *_wide(obj)]


def _statefulset(obj: Object, now: float) -> list[Any]:
    ready = (obj.get("status") or {}).get("readyReplicas", 0)
    return [_name(obj), f"{ready}/{obj['spec'].get('replicas', 0)}", _age(obj, now), *_wide(obj)[:2]]


def _daemonset(obj: Object, now: float) -> list[Any]:
    status = obj.get("status") or {}
    counts = [status.get(key, 0) for key in ("desiredNumberScheduled", "currentNumberScheduled", "numberReady",
                                             "updatedNumberScheduled",
                                             "numberAvailable")]
    return [_name(obj), *counts, _pairs(obj["spec"]["template"]["spec"].get("nodeSelector")), _age(obj, now),
            *_wide(obj)]


def _job(obj: Object, now: float) -> list[Any]:
    spec, status = obj["spec"], obj.get("status") or {}
    done, wanted = status.get("succeeded", 0), spec.get("completions")
    parallel = spec.get("parallelism") or 0
    held = {item["type"]: item["status"] == "True" for item in status.get("conditions") or ()}
    word = next((name for name in ("Complete", "Failed") if held.get(name)),
                "Terminating" if obj["metadata"].get("deletionTimestamp") else "Suspended" if held.get("Suspended") else
                "FailureTarget" if held.get("FailureTarget") else "Running")
    told = f"{done}/{wanted}" if wanted is not None else f"{done}/1 of {parallel}" if parallel > 1 else f"{done}/1"
    lasted = ""
    if status.get("startTime"):
        end = _seconds(status["completionTime"]) if status.get("completionTime") else now
        lasted = human(end - _seconds(status["startTime"]))
    return [_name(obj), word, told, lasted, _age(obj, now), *_wide(obj)]


def _cronjob(obj: Object, now: float) -> list[Any]:
    spec, status = obj["spec"], obj.get("status") or {}
    last = age(status["lastScheduleTime"], now) if status.get("lastScheduleTime") else "<none>"
    return [_name(obj), spec.get("schedule", ""), spec.get("timeZone") or "<none>", str(bool(spec.get("suspend"))),
            len(status.get("active") or ()), last, _age(obj, now),
            *_images(spec["jobTemplate"]["spec"].get("template") or {}),
            _selector(spec["jobTemplate"]["spec"].get("selector"))]


def _replication(obj: Object, now: float) -> list[Any]:
    spec = obj["spec"]
    return [*_replicaset(obj, now)[:5], *_images(spec.get("template") or {}), _pairs(spec.get("selector"))]


_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def _claim(obj: Object, now: float) -> list[Any]:
    spec, status = obj["spec"], obj.get("status") or {}
    bound = bool(spec.get("volumeName"))
    modes = ",".join(_MODES.get(mode, mode) for mode in status.get("accessModes") or ()) if bound else ""
    phase = "Terminating" if obj["metadata"].get("deletionTimestamp") else status.get("phase", "")
    return [_name(obj), phase, spec.get("volumeName", ""), (status.get("capacity") or {}).get("storage", "")
            if bound else "", modes, spec.get("storageClassName", ""), spec.get("volumeAttributesClassName", "<unset>"),
            _age(obj, now), spec.get("volumeMode", "<unset>")]


def _volume(obj: Object, now: float) -> list[Any]:
    spec, status = obj["spec"], obj.get("status") or {}
    claim = spec.get("claimRef") or {}
    phase = "Terminating" if obj["metadata"].get("deletionTimestamp") else status.get("phase", "")
    return [_name(obj), (spec.get("capacity") or {}).get("storage", ""),
            ",".join(_MODES.get(mode, mode) for mode in spec.get("accessModes") or ()),
            spec.get("persistentVolumeReclaimPolicy", ""), phase,
            f"{claim['namespace']}/{claim['name']}" if claim else "", spec.get("storageClassName", ""),
            spec.get("volumeAttributesClassName", "<unset>"), status.get("reason", ""), _age(obj, now),
            spec.get("volumeMode", "<unset>")]


def _ingress(obj: Object, now: float) -> list[Any]:
    spec = obj["spec"]
    hosts = [rule["host"] for rule in spec.get("rules") or () if rule.get("host")]
    given = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return [_name(obj), spec.get("ingressClassName") or "<none>", ",".join(hosts) or "*",
            ",".join(item.get("ip") or item.get("hostname", "") for item in given), "80, 443" if spec.get("tls")
            else "80", _age(obj, now)]


def _autoscaler(obj: Object, now: float) -> list[Any]:
    spec, target = obj["spec"], obj["spec"].get("scaleTargetRef") or {}
    told = [f"{(metric.get('resource') or {}).get('name', '')}: <unknown>/"
            f"{((metric.get('resource') or {}).get('target') or {}).get('averageUtilization', 0)}%"
            for metric in spec.get("metrics") or () if metric.get("type") == "Resource"]
    return [_name(obj), f"{target.get('kind')}/{target.get('name')}", ", ".join(told) or "<none>",
            str(spec.get("minReplicas", "<unset>")), spec.get("maxReplicas", 0),
            (obj.get("status") or {}).get("currentReplicas", 0), _age(obj, now)]


def _quota(obj: Object) -> tuple[str, str]:
    status = obj.get("status") or {}
    used = status.get("used") or {}
    told = {key: f"{key}: {used.get(key, 0)}/{value}" for key, value in sorted((status.get("hard") or {}).items())}
    return (", ".join(text for key, text in told.items() if not key.startswith("limits")),
            ", ".join(text for key, text in told.items() if key.startswith("limits")))


def _service(obj: Object, now: float) -> list[Any]:
    spec = obj["spec"]
    kind = spec.get("type", "ClusterIP")
    ports = []
    for port in spec.get("ports") or ():
        outside = f":{port['nodePort']}" if port.get("nodePort") else ""
        ports.append(f"{port['port']}{outside}/{port.get('protocol', 'TCP')}")
    external = ",".join(spec.get("externalIPs") or ()) or "<none>"
    if kind == "ExternalName":
        external = spec.get("externalName", "<unknown>")
    elif kind == "LoadBalancer":
        given = [item.get("ip") or item.get("hostname", "")
                 for item in ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()]
        external = ",".join(given) or "<pending>"
    return [_name(obj), kind, spec.get("clusterIP") or "<none>", external, ",".join(ports) or "<none>", _age(obj, now),
            _pairs(spec.get("selector"))]


def _few(items: list[str]) -> str:
    return ",".join(items[:3]) + (f" + {len(items) - 3} more..." if len(items) > 3 else "") if items else "<none>"


def _endpoints(obj: Object, now: float) -> list[Any]:
    found = [f"{address['ip']}:{port['port']}" for subset in obj.get("subsets") or ()
             for address in subset.get("addresses") or ()
             for port in subset.get("ports") or ()]
    return [_name(obj), _few(found), _age(obj, now)]


def _endpoint_slice(obj: Object, now: float) -> list[Any]:
    ports = [str(port.get("port", "*")) for port in obj.get("ports") or ()]
    addresses = [address for endpoint in obj.get("endpoints") or () for address in endpoint.get("addresses") or ()]
    return [_name(obj), obj.get("addressType", ""), _few(ports) if ports else "<unset>", _few(addresses) if addresses
            else "<unset>",
            _age(obj, now)]


def _node(obj: Object, now: float) -> list[Any]:
    status, labels = obj.get("status") or {}, obj["metadata"].get("labels") or {}
    ready = next((item["status"] for item in status.get("conditions") or () if item["type"] == "Ready"), "Unknown")
    word = {"True": "Ready", "False": "NotReady"}.get(ready,
                                                      "Unknown") + (",SchedulingDisabled"
                                                                    if obj.get("spec", {}).get("unschedulable") else "")
    roles = sorted(key.removeprefix("node-role.kubernetes.io/") for key in labels
                   if key.startswith("node-role.kubernetes.io/"))
    info = status.get("nodeInfo") or {}
    address = {item["type"]: item["address"] for item in status.get("addresses") or ()}
    return [_name(obj), word, ",".join(roles) or "<none>", _age(obj, now), info.get("kubeletVersion", ""),
            address.get("InternalIP", "<none>"),
            address.get("ExternalIP", "<none>"), info.get("osImage") or "<unknown>", info.get("kernelVersion")
            or "<unknown>",
            info.get("containerRuntimeVersion") or "<unknown>"]


def _event(obj: Object, now: float) -> list[Any]:
    first = obj.get("firstTimestamp") or obj.get("eventTime")
    series = obj.get("series") or {}
    last = obj.get("lastTimestamp") or series.get("lastObservedTime") or first
    count = series.get("count") or obj.get("count") or obj.get("deprecatedCount") or 1
    about = obj.get("involvedObject") or obj.get("regarding") or {}
    source = obj.get("source") or {}
    told = ", ".join(text for text in (source.get("component") or obj.get("reportingComponent", ""),
                                       source.get("host", "")) if text)
    seen = f"{age(last, now)} (x{count} over {age(first, now)})" if series else age(last, now)
    return [seen, obj.get("type", ""), obj.get("reason", ""),
            f"{about.get('kind', '').lower()}/{about.get('name', '')}",
            about.get("fieldPath", ""), told, (obj.get("message") or obj.get("note") or "").strip(), age(first, now),
            count, _name(obj)]


def _binding(obj: Object, now: float) -> list[Any]:
    subjects, ref = obj.get("subjects") or [], obj.get("roleRef") or {}

    def named(kind: str) -> str:
        return ", ".join(f"{one['namespace']}/{one['name']}" if kind == "ServiceAccount" else one["name"]
                         for one in subjects if one["kind"] == kind)
    return [_name(obj), f"{ref.get('kind')}/{ref.get('name')}", _age(obj, now), named("User"), named("Group"),
            named("ServiceAccount")]


def _spec(obj: Object, *path: str, otherwise: Any = "<unset>") -> Any:
    value = find(obj, ".".join(path))
    return otherwise if value is None else value


CELLS: dict[str, Callable[[Object, float], list[Any]]] = {
    "Pod": _pod, "Deployment": _deployment, "ReplicaSet": _replicaset, "StatefulSet": _statefulset,
    "DaemonSet": _daemonset, "Job": _job,
    "CronJob": _cronjob, "Service": _service, "Endpoints": _endpoints, "EndpointSlice": _endpoint_slice, "Node": _node,
    "Event": _event,
    "RoleBinding": _binding, "ClusterRoleBinding": _binding,
    "Namespace": lambda obj, now: [_name(obj), _spec(obj, "status.phase", otherwise=""), _age(obj, now)],
    "Secret": lambda obj, now: [_name(obj), obj.get("type", "Opaque"), len(obj.get("data") or {}), _age(obj, now)],
    "ConfigMap": lambda obj, now: [_name(obj), len(obj.get("data") or {}) + len(obj.get("binaryData") or {}),
                                   _age(obj, now)],
    "ServiceAccount": lambda obj, now: [_name(obj), _age(obj, now)],
    "ReplicationController": _replication, "PersistentVolumeClaim": _claim, "PersistentVolume": _volume,
    "Ingress": _ingress, "HorizontalPodAutoscaler": _autoscaler,
    "PodTemplate": lambda obj, now: [_name(obj), *_images(obj.get("template") or {}),
                                     _pairs(find(obj, "template.metadata.labels"))],
    "StorageClass": lambda obj, now: [_name(obj), obj.get("provisioner", ""), obj.get("reclaimPolicy", "Delete"),
                                      obj.get("volumeBindingMode", "Immediate"),
                                      bool(obj.get("allowVolumeExpansion")), _age(obj, now)],
    "IngressClass": lambda obj, now: [_name(obj), _spec(obj, "spec.controller", otherwise=""),
                                      _spec(obj, "spec.parameters.name", otherwise="<none>"), _age(obj, now)],
    "ResourceQuota": lambda obj, now: [_name(obj), *_quota(obj), _age(obj, now)],
    "NetworkPolicy": lambda obj, now: [_name(obj), _selector(obj["spec"].get("podSelector")), _age(obj, now)],
    "Lease": lambda obj, now: [_name(obj), _spec(obj, "spec.holderIdentity", otherwise=""), _age(obj, now)],
    "MutatingWebhookConfiguration": lambda obj, now: [_name(obj), len(obj.get("webhooks") or ()), _age(obj, now)],
    "ValidatingWebhookConfiguration": lambda obj, now: [_name(obj), len(obj.get("webhooks") or ()), _age(obj, now)],
    "ValidatingAdmissionPolicy": lambda obj, now: [_name(obj), len(obj["spec"].get("validations") or ()),
                                                   _spec(obj, "spec.paramKind.kind"),
                                                   _age(obj, now)],
    "ValidatingAdmissionPolicyBinding": lambda obj, now: [_name(obj), _spec(obj, "spec.policyName"),
                                                          _spec(obj, "spec.paramRef.name"),
                                                          _age(obj, now)],
    "RuntimeClass": lambda obj, now: [_name(obj), obj.get("handler", ""), _age(obj, now)],
    "ControllerRevision": lambda obj, now: [
        _name(obj),
        next((f"{owner['kind'].lower()}.apps/{owner['name']}" for owner in obj["metadata"].get("ownerReferences") or ()
                          if owner.get("controller")), "<none>"), obj.get("revision", 0), _age(obj, now)],
    "PodDisruptionBudget": lambda obj, now: [
        _name(obj), str(_spec(obj, "spec.minAvailable", otherwise="N/A")),
        str(_spec(obj, "spec.maxUnavailable", otherwise="N/A")),
        _spec(obj, "status.disruptionsAllowed", otherwise=0), _age(obj, now)],
    "PriorityClass": lambda obj, now: [_name(obj), obj.get("value", 0), str(bool(obj.get("globalDefault"))).lower(),
                                       _age(obj, now),
                                       obj.get("preemptionPolicy", "PreemptLowerPriority")]}
