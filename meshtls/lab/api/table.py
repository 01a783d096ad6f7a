"""Objects as the rows that kubectl prints: column definitions and cells per kind, custom kinds by their printer
columns.

COLUMNS names each column as `Name`, `Name*` (only with -o wide), `Name#` (integer) or `Name?` (boolean), and CELLS gives the cells; ages are human ("5m12s"),
computed from `now`.
"""
import json
from collections.abc import Callable
from typing import Any

from meshtls.lab.api.cells import CELLS, age, find
from meshtls.lab.api.resources import Resource

Object = dict[str, Any]

COLUMNS: dict[str, str] = {
    "Pod": "Name,Ready,Status,Restarts,Age,IP*,Node*,Nominated Node*,Readiness Gates*",
    "Deployment": "Name,Ready,Up-to-date,Available,Age,Containers*,Images*,Selector*",
    "ReplicaSet": "Name,Desired#,Current#,Ready#,Age,Containers*,Images*,Selector*",
    "StatefulSet": "Name,Ready,Age,Containers*,Images*",
    "DaemonSet": "Name,Desired#,Current#,Ready#,Up-to-date#,Available#,Node Selector,Age,Containers*,Images*,Selector*",
    "Job": "Name,Status,Completions,Duration,Age,Containers*,Images*,Selector*",
    "CronJob": "Name,Schedule,Timezone,Suspend?,Active#,Last Schedule,Age,Containers*,Images*,Selector*",
    "Service": "Name,Type,Cluster-IP,External-IP,Port(s),Age,Selector*",
    "Endpoints": "Name,Endpoints,Age",
    "EndpointSlice": "Name,AddressType,Ports,Endpoints,Age",
    "Node": "Name,Status,Roles,Age,Version,Internal-IP*,External-IP*,OS-Image*,Kernel-Version*,Container-Runtime*",
    "Namespace": "Name,Status,Age",
    "Secret": "Name,Type,Data,Age",
    "ConfigMap": "Name,Data,Age",
    "ServiceAccount": "Name,Age",
    "ReplicationController": "Name,Desired#,Current#,Ready#,Age,Containers*,Images*,Selector*",
    "PodTemplate": "Name,Containers,Images,Pod Labels",
    "PersistentVolumeClaim": "Name,Status,Volume,Capacity,Access Modes,StorageClass,VolumeAttributesClass,Age,"
                             "VolumeMode*",
    "PersistentVolume": "Name,Capacity,Access Modes,Reclaim Policy,Status,Claim,StorageClass,VolumeAttributesClass,"
                        "Reason,Age,VolumeMode*",
    "StorageClass": "Name,Provisioner,ReclaimPolicy,VolumeBindingMode,AllowVolumeExpansion,Age",
    "IngressClass": "Name,Controller,Parameters,Age",
    "Ingress": "Name,Class,Hosts,Address,Ports,Age",
    "HorizontalPodAutoscaler": "Name,Reference,Targets,MinPods,MaxPods,Replicas,Age",
    "ResourceQuota": "Name,Request,Limit,Age",
    "Event": "Last Seen,Type,Reason,Object,Subobject*,Source*,Message,First Seen*,Count*,Name*",
    "NetworkPolicy": "Name,Pod-Selector,Age",
    "RoleBinding": "Name,Role,Age,Users*,Groups*,ServiceAccounts*",
    "ClusterRoleBinding": "Name,Role,Age,Users*,Groups*,ServiceAccounts*",
    "Lease": "Name,Holder,Age",
    "MutatingWebhookConfiguration": "Name,Webhooks#,Age",
    "ValidatingWebhookConfiguration": "Name,Webhooks#,Age",
    "ValidatingAdmissionPolicy": "Name,Validations#,ParamKind,Age",
    "ValidatingAdmissionPolicyBinding": "Name,PolicyName,ParamRef,Age",
    "RuntimeClass": "Name,Handler,Age",
    "ControllerRevision": "Name,Controller,Revision,Age",
    "PodDisruptionBudget": "Name,Min Available,Max Unavailable,Allowed Disruptions#,Age",
    "PriorityClass": "Name,Value#,Global-Default?,Age,PreemptionPolicy"}


def render(resource: Resource, version: str, objects: list[Object], now: float, *, include: str = "Metadata") -> Object:
    """A Table (meta.k8s.io/v1) of objects; `include` is Metadata, Object or None."""
    definitions, cells = _plan(resource, version)
    rows = []
    for obj in objects:
        row: Object = {"cells": cells(obj, now)}
        if include == "Object":
            row["object"] = obj
        elif include == "None":
            row["object"] = None
        else:
            row["object"] = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                             "metadata": obj["metadata"]}
        rows.append(row)
    return {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "columnDefinitions": definitions,
            "rows": rows}


def _plan(resource: Resource, version: str) -> tuple[list[Object], Callable[[Object, float], list[Any]]]:
    if resource.custom:
        extra = ((resource.columns or {}).get(version) or {}).get("additionalPrinterColumns") or [
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]
        definitions = [_definition("Name"), *({
            "name": column["name"], "type": column["type"], "format": column.get("format", ""),
            "description": column.get("description", ""), "priority": column.get("priority", 0)} for column in extra)]
        return definitions, lambda obj, now: [obj["metadata"]["name"],
                                              *(_custom_cell(column, obj, now) for column in extra)]
    if resource.kind in COLUMNS:
        return [_definition(text) for text in COLUMNS[resource.kind].split(",")], CELLS[resource.kind]
    return ([_definition("Name"), {**_definition("Created At"), "type": "date"}],
            lambda obj, now: [obj["metadata"]["name"], obj["metadata"].get("creationTimestamp")])


def _definition(text: str) -> Object:
    name = text.rstrip("*#?")
    kinds = {"#": "integer", "?": "boolean"}
    return {"name": name, "type": kinds.get(text[-1], "string"), "format": "name" if name == "Name"
            else "",
            "description": "", "priority": 1 if text.endswith("*") else 0}


def _custom_cell(column: Object, obj: Object, now: float) -> Any:
    value = find(obj, column["jsonPath"])
    if value is None:
        return None
    match column["type"]:
        case "date":
            return age(value, now) if isinstance(value, str) else None
        case "integer" | "number" | "boolean":
            return value
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
