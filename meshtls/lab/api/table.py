"""Objects as the rows that kubectl prints: column definitions and cells per kind, custom kinds by their printer
columns.

A kind's columns stand in _COLUMNS as `Name=cell`; `Name*` comes with -o wide only, `Name#` is an integer, `Name?` a
boolean. A cell is text with `{path}`, `{path:otherwise}` or `{word paths}`: the values at a JSONPath of the object (its
FACTS lie at `told`), several joined by commas, or what a word of _WORDS makes of them. A column of _USUAL needs no
cell.
"""
import functools
import json
import re
from collections.abc import Callable
from typing import Any

from meshtls.lab.api.cells import FACTS, age, find, getter
from meshtls.lab.api.resources import Resource

Object = dict[str, Any]
Cell = Callable[[Object, float], Any]

_USUAL = {"Name": "{metadata.name}", "Age": "{age metadata.creationTimestamp}",
          "Containers": "{spec.template.spec.containers[*].name}", "Images": "{spec.template.spec.containers[*].image}",
          "Selector": "{selector spec.selector}"}
_COLUMNS = """
Pod: Name | Ready={told.ready} | Status={told.status} | Restarts={told.restarts} | Age | IP*={status.podIP:<none>} |
    Node*={spec.nodeName:<none>} | Nominated Node*={status.nominatedNodeName:<none>} |
    Readiness Gates*={told.gates:<none>}
Deployment: Name | Ready={status.readyReplicas:0}/{spec.replicas:0} | Up-to-date={status.updatedReplicas:0} |
    Available={status.availableReplicas:0} | Age | Containers* | Images* | Selector*
ReplicaSet: Name | Desired#={spec.replicas:0} | Current#={status.replicas:0} | Ready#={status.readyReplicas:0} | Age |
    Containers* | Images* | Selector*
StatefulSet: Name | Ready={status.readyReplicas:0}/{spec.replicas:0} | Age | Containers* | Images*
DaemonSet: Name | Desired#={status.desiredNumberScheduled:0} | Current#={status.currentNumberScheduled:0} |
    Ready#={status.numberReady:0} | Up-to-date#={status.updatedNumberScheduled:0} |
    Available#={status.numberAvailable:0} | Node Selector={pairs spec.template.spec.nodeSelector} | Age | Containers* |
    Images* | Selector*
Job: Name | Status={told.status} | Completions={told.completions} | Duration={told.duration} | Age | Containers* |
    Images* | Selector*
CronJob: Name | Schedule={spec.schedule} | Timezone={spec.timeZone:<none>} | Suspend?={yes spec.suspend} |
    Active#={count status.active} | Last Schedule={age status.lastScheduleTime:<none>} | Age |
    Containers*={spec.jobTemplate.spec.template.spec.containers[*].name} |
    Images*={spec.jobTemplate.spec.template.spec.containers[*].image} |
    Selector*={selector spec.jobTemplate.spec.selector}
Service: Name | Type={spec.type:ClusterIP} | Cluster-IP={spec.clusterIP:<none>} | External-IP={told.external:<none>} |
    Port(s)={told.ports[*]:<none>} | Age | Selector*={pairs spec.selector}
Endpoints: Name | Endpoints={few told.found[*]:<none>} | Age
EndpointSlice: Name | AddressType={addressType} | Ports={few told.ports[*]:<unset>} |
    Endpoints={few endpoints[*].addresses[*]:<unset>} | Age
Node: Name | Status={told.status} | Roles={told.roles[*]:<none>} | Age | Version={status.nodeInfo.kubeletVersion} |
    Internal-IP*={status.addresses[?(@.type=="InternalIP")].address:<none>} |
    External-IP*={status.addresses[?(@.type=="ExternalIP")].address:<none>} |
    OS-Image*={status.nodeInfo.osImage:<unknown>} | Kernel-Version*={status.nodeInfo.kernelVersion:<unknown>} |
    Container-Runtime*={status.nodeInfo.containerRuntimeVersion:<unknown>}
Namespace: Name | Status={status.phase} | Age
Secret: Name | Type={type:Opaque} | Data={count data} | Age
ConfigMap: Name | Data={count data binaryData} | Age
ServiceAccount: Name | Age
ReplicationController: Name | Desired#={spec.replicas:0} | Current#={status.replicas:0} |
    Ready#={status.readyReplicas:0} | Age | Containers* | Images* | Selector*={pairs spec.selector}
PodTemplate: Name | Containers={template.spec.containers[*].name} | Images={template.spec.containers[*].image} |
    Pod Labels={pairs template.metadata.labels}
PersistentVolumeClaim: Name | Status={told.phase} | Volume={spec.volumeName} | Capacity={told.capacity} |
    Access Modes={told.modes} | StorageClass={spec.storageClassName} |
    VolumeAttributesClass={spec.volumeAttributesClassName:<unset>} | Age | VolumeMode*={spec.volumeMode:<unset>}
PersistentVolume: Name | Capacity={told.capacity} | Access Modes={told.modes} |
    Reclaim Policy={spec.persistentVolumeReclaimPolicy} | Status={told.phase} | Claim={told.claim} |
    StorageClass={spec.storageClassName} | VolumeAttributesClass={spec.volumeAttributesClassName:<unset>} |
    Reason={status.reason} | Age | VolumeMode*={spec.volumeMode:<unset>}
StorageClass: Name | Provisioner={provisioner} | ReclaimPolicy={reclaimPolicy:Delete} |
    VolumeBindingMode={volumeBindingMode:Immediate} | AllowVolumeExpansion={true allowVolumeExpansion} | Age
IngressClass: Name | Controller={spec.controller} | Parameters={spec.parameters.name:<none>} | Age
Ingress: Name | Class={spec.ingressClassName:<none>} | Hosts={spec.rules[*].host:*} | Address={told.address} |
    Ports={told.ports} | Age
HorizontalPodAutoscaler: Name | Reference={spec.scaleTargetRef.kind}/{spec.scaleTargetRef.name} |
    Targets={told.targets:<none>} | MinPods={text spec.minReplicas:<unset>} | MaxPods={spec.maxReplicas:0} |
    Replicas={status.currentReplicas:0} | Age
ResourceQuota: Name | Request={told.request} | Limit={told.limit} | Age
Event: Last Seen={told.seen} | Type={type} | Reason={reason} |
    Object={lower involvedObject.kind}/{involvedObject.name} | Subobject*={involvedObject.fieldPath} |
    Source*={listed told.source[*]} | Message={told.message} | First Seen*={told.first} | Count*={told.count} | Name*
NetworkPolicy: Name | Pod-Selector={selector spec.podSelector} | Age
RoleBinding,ClusterRoleBinding: Name | Role={roleRef.kind}/{roleRef.name} | Age |
    Users*={listed subjects[?(@.kind=="User")].name} | Groups*={listed subjects[?(@.kind=="Group")].name} |
    ServiceAccounts*={listed told.accounts[*]}
Lease: Name | Holder={spec.holderIdentity} | Age
MutatingWebhookConfiguration: Name | Webhooks#={count webhooks} | Age
ValidatingWebhookConfiguration: Name | Webhooks#={count webhooks} | Age
ValidatingAdmissionPolicy: Name | Validations#={count spec.validations} | ParamKind={spec.paramKind.kind:<unset>} | Age
ValidatingAdmissionPolicyBinding: Name | PolicyName={spec.policyName:<unset>} | ParamRef={spec.paramRef.name:<unset>} |
    Age
RuntimeClass: Name | Handler={handler} | Age
ControllerRevision: Name | Controller={told.owner[0]:<none>} | Revision={revision:0} | Age
PodDisruptionBudget: Name | Min Available={text spec.minAvailable:N/A} |
    Max Unavailable={text spec.maxUnavailable:N/A} | Allowed Disruptions#={status.disruptionsAllowed:0} | Age
PriorityClass: Name | Value#={value:0} | Global-Default?={true globalDefault} | Age |
    PreemptionPolicy={preemptionPolicy:PreemptLowerPriority}
"""
_OTHERS = "Name | Created At={metadata.creationTimestamp}"
COLUMNS = {kind: columns for kinds, _, columns in (
    line.partition(": ") for line in _COLUMNS.strip().replace("\n    ", " ").splitlines()) for kind in kinds.split(",")}


def _pairs(labels: Object) -> list[str]:
    return [f"{key}={value}" for key, value in sorted(labels.items())]


def _selector(selector: Object) -> str:
    terms = _pairs(selector.get("matchLabels") or {})
    for term in selector.get("matchExpressions") or ():
        word = {"In": "in", "NotIn": "notin"}.get(term["operator"])
        values = ",".join(sorted(term.get("values") or ()))
        terms.append(f"{term['key']} {word} ({values})" if word else ("!" if term["operator"] == "DoesNotExist" else "")
                     + term["key"])
    return ",".join(terms) or "<none>"


def _few(items: list[Any]) -> str:
    return ",".join(map(str, items[:3])) + (f" + {len(items) - 3} more..." if len(items) > 3 else "")


_WORDS: dict[str, Callable[[list[Any], float], Any]] = {
    "age": lambda values, now: age(next(iter(values), None), now),
    "pairs": lambda values, now: ",".join(text for one in values for text in _pairs(one)) or "<none>",
    "selector": lambda values, now: _selector(values[0] if values else {}),
    "few": lambda values, now: _few(values), "listed": lambda values, now: ", ".join(map(str, values)),
    "count": lambda values, now: sum(map(len, values)), "text": lambda values, now: str(values[0]),
    "lower": lambda values, now: str(values[0]).lower(), "yes": lambda values, now: str(bool(values and values[0])),
    "true": lambda values, now: bool(values and values[0])}


@functools.lru_cache(maxsize=512)
def _cell(text: str) -> Cell:
    """What gives a cell; one that is a single placeholder keeps the value's type."""
    parts = [_placeholder(part[1:-1]) if part[0] == "{" else part for part in re.split(r"(\{[^}]*\})", text) if part]
    if len(parts) == 1 and callable(parts[0]):
        return parts[0]
    return lambda obj, now: "".join(part if isinstance(part, str) else str(part(obj, now)) for part in parts)


def _placeholder(text: str) -> Cell:
    found = re.fullmatch(r"(?:(\w+) )?([^:]*?)(?::(.*))?", text)
    assert found is not None, text
    word, paths, otherwise = found[1], found[2].split(), found[3]
    default = int(otherwise) if otherwise and otherwise.isdigit() else otherwise
    getters = [getter(path) for path in paths]

    def cell(obj: Object, now: float) -> Any:
        values = getters[0](obj) if len(getters) == 1 else [value for get in getters for value in get(obj)]
        if values == [""]:
            values = []
        if not values and default is not None:
            return default
        if word:
            return _WORDS[word](values, now)
        return values[0] if len(values) == 1 else ",".join(map(str, values))
    return cell


def render(resource: Resource, version: str, objects: list[Object], now: float, *, include: str, api: str) -> Object:
    """A Table of `api` (meta.k8s.io/v1) of objects; `include` is Metadata, Object or None."""
    definitions, cells = _plan(resource, version)
    facts = FACTS.get(resource.kind) if not resource.custom else None
    rows = []
    for obj in objects:
        row = {"kind": "PartialObjectMetadata", "apiVersion": api, "metadata": obj["metadata"]}
        known = {**obj, "told": facts(obj, now)} if facts else obj
        rows.append({"cells": [cell(known, now) for cell in cells],
                     "object": obj if include == "Object" else row if include == "Metadata" else None})
    bare = not rows and not resource.custom and resource.kind not in COLUMNS
    return {"kind": "Table", "apiVersion": api, "metadata": {}, "columnDefinitions": definitions, "rows": None if bare else rows}


def _plan(resource: Resource, version: str) -> tuple[list[Object], list[Cell]]:
    if resource.custom:
        extra = ((resource.columns or {}).get(version) or {}).get("additionalPrinterColumns") or [
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]
        return ([_definition("Name"), *({"format": "", "description": "", "priority": 0, **{
            key: value for key, value in column.items() if key != "jsonPath"}} for column in extra)],
                [_cell("{metadata.name}"), *(functools.partial(_custom_cell, column) for column in extra)])
    columns = [text.partition("=")[::2] for text in COLUMNS.get(resource.kind, _OTHERS).split(" | ")]
    return ([_definition(name) for name, _ in columns],
            [_cell(cell or _USUAL[name.rstrip("*")]) for name, cell in columns])


def _definition(text: str) -> Object:
    name = text.rstrip("*#?")
    kind = {"#": "integer", "?": "boolean"}.get(text[-1], "date" if name == "Created At" else "string")
    return {"name": name, "type": kind, "format": "name" if name == "Name" else "", "description": "",
            "priority": 1 if text.endswith("*") else 0}


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
