"""The EndpointSlices that a Service and its pods add up to. Pure.

Laws (k8s.io/endpointslice):
  1. A pod counts while it has an address and has not ended. serving = it is ready; ready = serving and not being
     deleted, or the Service publishes not-ready addresses; terminating = being deleted.
  2. A named target port is each pod's own number (native sidecars' ports count); pods whose numbers differ go into
     different slices. A pod without a port of that name serves the other ports only.
  3. At most 100 endpoints a slice; a Service without endpoints has one empty slice.
"""

import json
from collections.abc import Sequence

from meshtls.lab.controllers import pods
from meshtls.lab.controllers.objects import Obj, child, digest, is_deleting, key_of, labels_of, name_of, status_of

SERVICE_LABEL, MANAGED_BY = "kubernetes.io/service-name", "endpointslice.kubernetes.io/managed-by"
CONTROLLER = "endpointslice-controller.k8s.io"
HEADLESS = "service.kubernetes.io/headless"
LARGEST = 100


def build(service: Obj, found: Sequence[Obj]) -> list[Obj]:
    """The wanted slices of `service` for the pods that it selects, in order of name."""
    groups: dict[str, tuple[list[Obj], list[Obj]]] = {}
    for pod in found:
        if status_of(pod).get("podIP") and not pods.is_done(pod):
            ports = _ports(service, pod)
            groups.setdefault(json.dumps(ports), (ports, []))[1].append(_endpoint(service, pod))
    pieces = [
        (ports, number, group[number : number + LARGEST])
        for ports, group in groups.values()
        for number in range(0, len(group), LARGEST)
    ]
    return [_slice(service, *piece) for piece in pieces or [([], 0, [])]]


def target_port(port: Obj, pod: Obj) -> int | None:
    """The number of a Service port on this pod; None if the pod has no port of that name."""
    target = port.get("targetPort") or port["port"]
    if isinstance(target, int) or str(target).isdigit():
        return int(target)
    restartable = (one for one in pod["spec"].get("initContainers") or () if one.get("restartPolicy") == "Always")
    for container in (*pod["spec"]["containers"], *restartable):
        for declared in container.get("ports") or ():
            if declared.get("name") == target and declared.get("protocol", "TCP") == port.get("protocol", "TCP"):
                return int(declared["containerPort"])
    return None


def _ports(service: Obj, pod: Obj) -> list[Obj]:
    numbered = ((port, target_port(port, pod)) for port in service["spec"].get("ports") or ())
    return [
        {"name": port.get("name", ""), "port": number, "protocol": port.get("protocol", "TCP")}
        | {key: port[key] for key in ("appProtocol",) if port.get(key)}
        for port, number in numbered
        if number is not None
    ]


def _endpoint(service: Obj, pod: Obj) -> Obj:
    namespace, name = key_of(pod)
    serving, terminating = pods.is_ready(pod), is_deleting(pod)
    ready = (serving and not terminating) or bool(service["spec"].get("publishNotReadyAddresses"))
    endpoint = {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": {"kind": "Pod", "namespace": namespace, "name": name, "uid": pod["metadata"]["uid"]},
    }
    if pod["spec"].get("nodeName"):
        endpoint["nodeName"] = pod["spec"]["nodeName"]
    if pod["spec"].get("hostname") and pod["spec"].get("subdomain") == service["metadata"]["name"]:
        endpoint["hostname"] = pod["spec"]["hostname"]
    return endpoint


def _slice(service: Obj, ports: list[Obj], number: int, endpoints: list[Obj]) -> Obj:
    name = name_of(service)
    headless = {HEADLESS: ""} if service["spec"].get("clusterIP") == "None" else {}
    suffix = digest([service["metadata"]["uid"], ports, number], 5)
    made = child(service, "discovery.k8s.io/v1", "EndpointSlice", name=f"{name}-{suffix}", generateName=f"{name}-")
    made["metadata"]["labels"] = {**labels_of(service), **headless, SERVICE_LABEL: name, MANAGED_BY: CONTROLLER}
    return {**made, "addressType": "IPv4", "endpoints": endpoints, "ports": ports}
