"""What a node says of itself: where it is, this machine, which all nodes of a lab share, and the Lease that it renews while it lives."""
import datetime
import os
import platform
from typing import Any

from meshtls.lab.api.discovery import VERSION

Obj = dict[str, Any]
LEASES, LEASED_IN = "leases.coordination.k8s.io", "kube-node-lease"
RENEWAL_S, _PODS = 10, 1000


def node(name: str, ip: str, now: str) -> Obj:
    """Its object."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024
    room = {"cpu": str(os.cpu_count() or 1), "memory": f"{memory}Ki", "pods": str(_PODS)}
    system, machine = platform.uname(), {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": machine}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "the lab runs pods", "lastHeartbeatTime": now, "lastTransitionTime": now}
    about = {"kernelVersion": system.release, "osImage": "meshtls lab", "operatingSystem": "linux", "architecture": machine, "machineID": "",
             "systemUUID": "", "bootID": "", "containerRuntimeVersion": "lab://1", "kubeletVersion": VERSION["gitVersion"], "kubeProxyVersion": ""}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": {}, "status": {
        "conditions": [ready], "addresses": [{"type": "InternalIP", "address": ip}, {"type": "Hostname", "address": name}],
        "capacity": room, "allocatable": room, "nodeInfo": about}}


def lease(owner: Obj) -> Obj:
    """The Lease of a node."""
    name = owner["metadata"]["name"]
    reference = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": owner["metadata"]["uid"]}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name, "namespace": LEASED_IN, "ownerReferences": [reference]},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 4 * RENEWAL_S, "renewTime": precisely()}}


def precisely() -> str:
    """The time as a MicroTime."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
