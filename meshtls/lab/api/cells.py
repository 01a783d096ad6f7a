"""What of an object the columns of kubectl's tables need beyond its own fields: ages, values at a path, and per kind the
facts that only code can tell (the word under a pod's STATUS).

`now` is in seconds; ages are human ("5m12s").
"""
import datetime
import functools
import re
from collections.abc import Callable
from typing import Any

Object = dict[str, Any]
_STEP = re.compile(r"\.?((?:\\\.|[^.\[\]])+)|\[(\d+|\*)\]|\[\?\(@\.([\w.]+)==[\"']?([^\"')]*)[\"']?\)\]")
_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


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


@functools.lru_cache(maxsize=1024)
def getter(path: str) -> Callable[[Any], list[Any]]:
    """Reads the values at a JSONPath of the form .a.b[0].c, [*] and [?(@.x=="y")] included; nulls count as absent."""
    steps = [(name.replace("\\.", "."), index, key, wanted) for name, index, key, wanted in _STEP.findall(path)]
    plain = [name for name, index, key, _ in steps if not index and not key]

    def get(value: Any) -> list[Any]:
        try:
            for name in plain:
                value = value.get(name)
        except AttributeError:
            return []
        return [] if value is None else [value]

    def walk(value: Any) -> list[Any]:
        found = [value]
        for name, index, key, wanted in steps:
            if name:
                found = [one[name] for one in found if isinstance(one, dict) and one.get(name) is not None]
                continue
            lists = [one for one in found if isinstance(one, list)]
            if key:
                found = [item for one in lists for item in one if str(find(item, key)) == wanted]
            else:
                found = [item for one in lists for item in (one if index == "*" else one[int(index):int(index) + 1])]
        return [one for one in found if one is not None]
    return get if len(plain) == len(steps) else walk


def every(value: Any, path: str) -> list[Any]:
    return getter(path)(value)


def find(value: Any, path: str) -> Any:
    """The first of them, or None."""
    return next(iter(every(value, path)), None)


def _pod(pod: Object, now: float) -> Object:
    """As kubectl counts: init containers come first; those that restart always are containers like the others."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    reason = status.get("reason") or status.get("phase") or "Unknown"
    if spec.get("schedulingGates") and reason == "Pending":
        reason = "SchedulingGated"
    sidecars = {one["name"] for one in spec.get("initContainers") or () if one.get("restartPolicy") == "Always"}
    initial, others = status.get("initContainerStatuses") or [], status.get("containerStatuses") or []
    ready, running = 0, False
    for place, held in enumerate(initial):
        state = held.get("state") or {}
        ended, waits = state.get("terminated"), (state.get("waiting") or {}).get("reason")
        if ended is not None and ended.get("exitCode") == 0:
            continue
        if held["name"] in sidecars and held.get("started"):
            ready += bool(held.get("ready"))
            continue
        reason = "Init:" + (_ended(ended) if ended is not None else waits if waits not in (None, "", "PodInitializing")
                            else f"{place}/{len(spec.get('initContainers') or ())}")
        counted = initial[:place + 1]
        break
    else:
        counted = [*(one for one in initial if one["name"] in sidecars), *others]
        for held in reversed(others):
            state = held.get("state") or {}
            if (state.get("waiting") or {}).get("reason"):
                reason = state["waiting"]["reason"]
            elif "terminated" in state:
                reason = _ended(state["terminated"])
            elif held.get("ready") and "running" in state:
                running = True
                ready += 1
        if reason == "Completed" and running:
            fine = find(pod, 'status.conditions[?(@.type=="Ready")].status') == "True"
            reason = "Running" if fine else "NotReady"
    if pod["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            reason = "Unknown"
        elif status.get("phase") not in ("Succeeded", "Failed"):
            reason = "Terminating"
    restarts = sum(one.get("restartCount", 0) for one in counted)
    last = max((find(one, "lastState.terminated.finishedAt") or "" for one in counted), default="")
    held_true = {one["type"] for one in status.get("conditions") or () if one["status"] == "True"}
    gates = [gate["conditionType"] in held_true for gate in spec.get("readinessGates") or ()]
    return {"ready": f"{ready}/{len(spec.get('containers') or ()) + len(sidecars)}", "status": reason,
            "gates": f"{sum(gates)}/{len(gates)}" if gates else "",
            "restarts": f"{restarts} ({age(last, now)} ago)" if restarts and last else str(restarts)}


def _ended(state: Object) -> str:
    if state.get("reason"):
        return str(state["reason"])
    return f"Signal:{state['signal']}" if state.get("signal") else f"ExitCode:{state.get('exitCode', 0)}"


def _job(obj: Object, now: float) -> Object:
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
    return {"status": word, "completions": told, "duration": lasted}


def _volume(obj: Object, now: float) -> Object:
    """Of a PersistentVolume, and of a claim, whose size and modes count once it is bound."""
    spec, status = obj["spec"], obj.get("status") or {}
    size = spec if "capacity" in spec else status if spec.get("volumeName") else {}
    claim = spec.get("claimRef") or {}
    return {"phase": "Terminating" if obj["metadata"].get("deletionTimestamp") else status.get("phase"),
            "capacity": (size.get("capacity") or {}).get("storage"),
            "modes": ",".join(_MODES.get(mode, mode) for mode in size.get("accessModes") or ()),
            "claim": f"{claim['namespace']}/{claim['name']}" if claim else ""}


def _given(obj: Object) -> str:
    """The addresses that a load balancer gave."""
    return ",".join(item.get("ip") or item.get("hostname", "")
                    for item in every(obj, "status.loadBalancer.ingress[*]"))


def _autoscaler(obj: Object, now: float) -> Object:
    told = [f"{metric['resource'].get('name', '')}: <unknown>/{find(metric, 'resource.target.averageUtilization') or 0}%"
            for metric in every(obj, 'spec.metrics[?(@.type=="Resource")]')]
    return {"targets": ", ".join(told)}


def _quota(obj: Object, now: float) -> Object:
    status = obj.get("status") or {}
    used = status.get("used") or {}
    told = {key: f"{key}: {used.get(key, 0)}/{value}" for key, value in sorted((status.get("hard") or {}).items())}
    return {"request": ", ".join(text for key, text in told.items() if not key.startswith("limits")),
            "limit": ", ".join(text for key, text in told.items() if key.startswith("limits"))}


def _service(obj: Object, now: float) -> Object:
    spec = obj["spec"]
    external = {"ExternalName": spec.get("externalName") or "<unknown>", "LoadBalancer": _given(obj) or "<pending>"}
    return {"external": external.get(spec.get("type", ""), ",".join(spec.get("externalIPs") or ())),
            "ports": [f"{port['port']}{':' + str(port['nodePort']) if port.get('nodePort') else ''}/"
                      f"{port.get('protocol', 'TCP')}" for port in spec.get("ports") or ()]}


def _endpoints(obj: Object, now: float) -> Object:
    return {"found": [f"{address['ip']}:{port['port']}" for subset in obj.get("subsets") or ()
                      for address in subset.get("addresses") or () for port in subset.get("ports") or ()]}


def _node(obj: Object, now: float) -> Object:
    ready = find(obj, 'status.conditions[?(@.type=="Ready")].status')
    prefix = "node-role.kubernetes.io/"
    roles = sorted(key.removeprefix(prefix) for key in obj["metadata"].get("labels") or {} if key.startswith(prefix))
    return {"status": {"True": "Ready", "False": "NotReady"}.get(str(ready), "Unknown")
            + (",SchedulingDisabled" if find(obj, "spec.unschedulable") else ""), "roles": roles}


def _event(obj: Object, now: float) -> Object:
    first = obj.get("firstTimestamp") or obj.get("eventTime")
    series = obj.get("series") or {}
    last = obj.get("lastTimestamp") or series.get("lastObservedTime") or first
    source = obj.get("source") or {}
    return {"seen": f"{age(last, now)} (x{series['count']} over {age(first, now)})" if series else age(last, now),
            "first": age(first, now), "count": series.get("count") or obj.get("count") or 1,
            "source": [text for text in (source.get("component") or obj.get("reportingComponent"), source.get("host"))
                       if text], "message": (obj.get("message") or "").strip()}


def _owner(obj: Object, now: float) -> Object:
    return {"owner": [f"{owner['kind'].lower()}.apps/{owner['name']}"
                      for owner in obj["metadata"].get("ownerReferences") or () if owner.get("controller")]}


FACTS: dict[str, Callable[[Object, float], Object]] = {
    "Pod": _pod, "Job": _job, "PersistentVolumeClaim": _volume, "PersistentVolume": _volume,
    "HorizontalPodAutoscaler": _autoscaler, "ResourceQuota": _quota, "Service": _service, "Endpoints": _endpoints,
    "Node": _node, "Event": _event, "ControllerRevision": _owner,
    "Ingress": lambda obj, now: {"address": _given(obj), "ports": "80, 443" if obj["spec"].get("tls") else "80"},
    "EndpointSlice": lambda obj, now: {"ports": [port.get("port", "*") for port in obj.get("ports") or ()]},
    **dict.fromkeys(("RoleBinding", "ClusterRoleBinding"), lambda obj, now: {
        "accounts": [f"{one['namespace']}/{one['name']}" for one in obj.get("subjects") or ()
                     if one["kind"] == "ServiceAccount"]})}
