"""What a kind does with itself when it is created, changed or deleted: status kept apart, addresses allotted, selectors
generated."""
import ipaddress
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from meshtls.lab.api import defaults, schema, zeros
from meshtls.lab.api.field import FieldError, invalid
from meshtls.lab.api.resources import Resource
from meshtls.lab.api.store import Store, clone

Object = dict[str, Any]
SERVICE_RANGE = ipaddress.ip_network("10.96.0.0/16")
NODE_PORTS = range(30000, 32768)
_OF_THE_SERVER = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink")


def reset(resource: Resource, subresource: str) -> Callable[[tuple[str, ...]], bool]:
    """Tells of a field's path whether a write this way leaves the field as it was."""
    if subresource == "status" and resource.custom:
        return lambda path: path[0] != "f:status"
    kept: set[tuple[str, ...]] = {("f:status",)} if not subresource and "status" in resource.subresources else set()
    if subresource == "status":
        kept = {("f:spec",), ("f:metadata", "f:labels" if resource.kind == "Deployment" else "f:ownerReferences")}
    return lambda path: any(path[:len(one)] == one for one in kept)


def created(resource: Resource, obj: Object, store: Store) -> None:
    """Before the first validation of a new object, in place."""
    if "g" in resource.traits:
        obj["metadata"]["generation"] = 1
    if "status" in resource.subresources and resource.kind != "Node":
        obj.pop("status", None)
        if not resource.custom:
            obj["status"] = zeros.empty(schema.of(resource, resource.versions[0])).get("status", {})
    match resource.kind:
        case "Pod":
            spec = obj.get("spec") or {}
            obj["status"] = {"phase": "Pending", "qosClass": defaults.quality_of_service(spec)}
            if spec.get("schedulingGates"):
                obj["status"]["conditions"] = [{
                    "type": "PodScheduled", "status": "False", "lastProbeTime": None, "lastTransitionTime": store.now(), "reason":
                    "SchedulingGated", "message": "Scheduling is blocked due to non-empty scheduling gates"}]
        case "Namespace":
            obj["status"] = {"phase": "Active"}
            spec = obj.setdefault("spec", {})
            spec["finalizers"] = sorted({"kubernetes", *(spec.get("finalizers") or ())})
        case "PersistentVolume" | "PersistentVolumeClaim":
            obj["status"] = {"phase": "Pending"}
            if resource.kind == "PersistentVolume":
                obj["status"]["lastPhaseTransitionTime"] = store.now()
        case "DaemonSet" if not resource.custom:
            obj["metadata"]["annotations"]["deprecated.daemonset.template.generation"] = "1"
    if resource.kind == "Job" and not resource.custom:
        _job_selector(obj)
    if resource.kind == "CustomResourceDefinition":
        _definition_status(obj, store)


def _job_selector(obj: Object) -> None:
    spec, metadata = obj.setdefault("spec", {}), obj["metadata"]
    if spec.get("manualSelector"):
        return
    uid = metadata.setdefault("uid", str(uuid.uuid4()))
    labels = spec.setdefault("template", {}).setdefault("metadata", {}).setdefault("labels", {})
    labels.update({"batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": metadata.get("name", ""),
                   "controller-uid": uid, "job-name": metadata.get("name", "")})
    spec.setdefault("selector", {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}})
    if not metadata.get("labels"):
        metadata["labels"] = dict(labels)


def _definition_status(obj: Object, store: Store) -> None:
    spec = obj.get("spec") or {}

    def condition(kind: str, reason: str, message: str) -> Object:
        return {"type": kind, "status": "True", "lastTransitionTime": store.now(), "reason": reason, "message": message}
    obj["status"] = {"acceptedNames": clone(spec.get("names") or {}),
                     "storedVersions": [version.get("name", "") for version in spec.get("versions") or ()
                                        if version.get("storage")],
                     "conditions": [condition("NamesAccepted", "NoConflicts", "no conflicts found"),
                                    condition("Established", "InitialNamesAccepted",
                                              "the initial names have been accepted")]}


def allot(resource: Resource, obj: Object, store: Store, old: Object | None = None) -> Iterator[FieldError]:
    """Cluster addresses and node ports of a Service that lacks them, in place; complaints about taken ones."""
    if resource.kind != "Service" or resource.custom:
        return
    spec = obj["spec"]
    others = [other["spec"] for other in store.list("services")
              if other["metadata"].get("uid") != obj["metadata"].get("uid")]
    if spec.get("type") == "ExternalName":
        return
    bare = spec.get("clusterIP") == "None" and not spec.get("selector") and not spec.get("ipFamilies")
    spec.setdefault("ipFamilyPolicy", "RequireDualStack" if bare else "SingleStack")
    spec.setdefault("ipFamilies", ["IPv4", "IPv6"] if bare else ["IPv4"])
    taken = {other.get("clusterIP") for other in others}
    given = spec.get("clusterIP") or (spec.get("clusterIPs") or [""])[0]
    if given and given not in ("None", ((old or {}).get("spec") or {}).get("clusterIP")):
        try:
            fine = ipaddress.ip_address(given) in SERVICE_RANGE
        except ValueError:
            yield invalid("spec.clusterIPs[0]", given, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")
            return
        if not fine:
            yield invalid("spec.clusterIPs", [given],
                          f"failed to allocate IP {given}: the provided IP ({given}) is not in the valid range. "
                          f"The range of valid IPs is {SERVICE_RANGE}")
        elif given in taken:
            yield invalid("spec.clusterIPs", [given],
                          f"failed to allocate IP {given}: provided IP is already allocated")
    elif not given:
        start = int(SERVICE_RANGE.network_address) + 10
        given = next(text for place in range(60_000)
                     if (text := str(ipaddress.ip_address(start + (len(others) + place) % 65_000))) not in taken)
    spec["clusterIP"], spec["clusterIPs"] = given, [given]
    if spec.get("type") in ("NodePort", "LoadBalancer"):
        used = {port.get("nodePort") for other in others for port in other.get("ports") or ()}
        for port in spec.get("ports") or ():
            if not port.get("nodePort") and spec.get("allocateLoadBalancerNodePorts") is not False:
                port["nodePort"] = next(number for number in NODE_PORTS if number not in used)
            used.add(port.get("nodePort"))


_OUTSIDE = {"NodePort", "LoadBalancer"}
_ADDRESSES = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy")
_OF_TYPES: tuple[tuple[set[str], tuple[str, ...]], ...] = (
    (_OUTSIDE, ("externalTrafficPolicy",)),
    ({"LoadBalancer"}, ("allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort")),
    ({"ClusterIP", *_OUTSIDE}, (*_ADDRESSES, "internalTrafficPolicy")))
"""Types of Services, and the fields that only these have."""


def _service(spec: Object, before: Object) -> None:
    """What belonged to a Service's former type goes when the change leaves it as it was; else addresses and ports stay."""
    left, kind = before.get("type"), spec.get("type")
    held = {(port.get("port"), port.get("protocol")): port.get("nodePort") for port in before.get("ports") or ()}
    for port in spec.get("ports") or ():
        node_port = held.get((port.get("port"), port.get("protocol")))
        if left in _OUTSIDE and kind not in _OUTSIDE and port.get("nodePort") in held.values():
            port.pop("nodePort", None)
        elif left == kind and node_port:
            port.setdefault("nodePort", node_port)
    for types, keys in _OF_TYPES:
        for key in keys if left in types and kind not in types else ():
            if spec.get(key) == before.get(key):
                spec.pop(key, None)
    if spec.get("clusterIP") and spec["clusterIP"] != before.get("clusterIP") and spec.get("clusterIPs") == before.get("clusterIPs"):
        spec["clusterIPs"] = [spec["clusterIP"]]
    for key in _ADDRESSES if kind != "ExternalName" else ():
        if not spec.get(key) and key in before:
            spec[key] = clone(before[key])


def updated(resource: Resource, obj: Object, old: Object, subresource: str) -> Object:
    """The object to be stored for a change through the kind itself or one of its subresources."""
    before = old["metadata"]
    if subresource == "status":
        found = {**clone(old), **({"status": obj["status"]} if "status" in obj else {})}
        given = obj["metadata"]
        if resource.custom:
            given = {key: given[key] for key in ("managedFields", "resourceVersion") if key in given}
            found["metadata"] = {**clone(before), **given}
            return found
        fixed = (*_OF_THE_SERVER, "ownerReferences", *(("labels",) if resource.kind == "Deployment" else ()))
        found["metadata"] = {**{key: value for key, value in given.items() if key not in fixed},
                             **{key: before[key] for key in fixed if key in before}}
        return found
    if subresource == "ephemeralcontainers":
        found = {**clone(old), "metadata": {**clone(before), **{key: obj["metadata"][key] for key in (
            "managedFields", "resourceVersion") if key in obj["metadata"]}}}
        found["spec"]["ephemeralContainers"] = (obj.get("spec") or {}).get("ephemeralContainers") or []
        return found
    if subresource == "finalize":
        return {**clone(old),
                "spec": {**(old.get("spec") or {}), "finalizers": (obj.get("spec") or {}).get("finalizers") or []}}
    if "status" in resource.subresources:
        obj.pop("status", None)
        if "status" in old:
            obj["status"] = clone(old["status"])
    metadata = obj.setdefault("metadata", {})
    for key in _OF_THE_SERVER:
        given = metadata.pop(key, None)
        if key in before:
            metadata[key] = given if key == "uid" and given else before[key]
        elif given and key.startswith("deletion"):
            metadata[key] = given  # to be refused
    if resource.kind == "Service" and not resource.custom:
        _service(obj["spec"], old["spec"])
    if resource.kind == "DaemonSet" and not resource.custom:
        key, changed = "deprecated.daemonset.template.generation", obj["spec"].get("template") != old["spec"].get("template")
        held = int((before.get("annotations") or {}).get(key, "1"))
        obj["metadata"].setdefault("annotations", {})[key] = str(held + changed)
    if resource.kind == "Namespace":
        obj.setdefault("spec", {})["finalizers"] = clone((old.get("spec") or {}).get("finalizers") or [])
        if not obj["spec"]["finalizers"]:
            del obj["spec"]["finalizers"]
    return obj
