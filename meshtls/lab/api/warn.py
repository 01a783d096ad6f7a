"""What the API server warns of although it takes the object: of its metadata, and of the structures in it."""
from collections.abc import Callable, Iterator
from typing import Any

from meshtls.lab.api import field, schema
from meshtls.lab.api.parts import Part, walk
from meshtls.lab.api.quantities import amount
from meshtls.lab.api.resources import Resource

Object = dict[str, Any]
_NAMED = {"Pod": "the Pod's hostname", "Deployment": "Pod names and hostnames", "ReplicaSet": "Pod names and hostnames"}


def of(resource: Resource, obj: Object) -> Iterator[str]:
    """Warnings about one object that is to be stored."""
    owners = obj["metadata"].get("ownerReferences") or []
    if twice := sorted({str(owner.get("uid")) for place, owner in enumerate(owners) if owner in owners[:place]}):
        yield (".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may "
               f"reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {', '.join(twice)}")
    if resource.custom:
        for name in obj["metadata"].get("finalizers") or ():
            if "/" not in name and name not in field.STANDARD_FINALIZERS:
                path = " including a path (/)" if "." in name else ""
                yield (f"metadata.finalizers: {field.quote(name)}: prefer a domain-qualified finalizer name{path} to avoid accidental "
                       "conflicts with other finalizer writers")
        return
    if resource.kind in _NAMED and (told := field.label_1123(obj["metadata"].get("name") or "")):
        yield (f"metadata.name: this is used in {_NAMED[resource.kind]}, which can result in surprising behavior; a DNS label is "
               f"recommended: [{', '.join(told)}]")
    for part in walk(schema.of(resource, resource.versions[0]), obj):
        if part.model in WARNINGS:
            yield from WARNINGS[part.model](part)


def of_deletion(resource: Resource, wishes: Object) -> Iterator[str]:
    """Warnings about a wish to delete, whether or not there is such an object."""
    told = wishes.get("propagationPolicy") is not None or wishes.get("orphanDependents") is not None
    if resource.kind == "Job" and not resource.custom and not told:
        yield ("child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or "
               "set propagationPolicy=Orphan to suppress this warning")


def _annotations(part: Part) -> Iterator[str]:
    for key in part["metadata.annotations"] or ():
        if key.startswith("container.apparmor.security.beta.kubernetes.io/"):
            yield f'{part.at("metadata.annotations")}[{key}]: deprecated since v1.30; use the "appArmorProfile" field instead'


def _pod(part: Part) -> Iterator[str]:
    for place, secret in enumerate(part["imagePullSecrets"] or ()):
        if not secret.get("name"):
            yield f'{part.at("imagePullSecrets")}[{place}].name: invalid empty name ""'
    for place, spread in enumerate(part["topologySpreadConstraints"] or ()):
        if spread.get("labelSelector") is None:
            yield (f"{part.at('topologySpreadConstraints')}[{place}].labelSelector: a null labelSelector results in matching no "
                   "pod")


def _port(part: Part) -> Iterator[str]:
    for place, other in enumerate(part.before):
        if all(other.get(key) == part[key] for key in ("containerPort", "protocol", "hostPort", "hostIP")):
            yield f"{part.path}: duplicate port definition with {part.path.rpartition('[')[0]}[{place}]"
            break
    if part["hostIP"] and not part["hostPort"]:
        yield (f"{part.path}: hostIP set without hostPort: {{Name:{part['name'] or ''} HostPort:0 ContainerPort:"
               f"{part['containerPort']} Protocol:{part['protocol']} HostIP:{part['hostIP']}}}")


def _variable(part: Part) -> Iterator[str]:
    if part["name"] in [other.get("name") for other in part.before]:
        yield f"{part.path}: hides previous definition of {field.quote(part['name'])}, which may be dropped when using apply"


def _resources(part: Part) -> Iterator[str]:
    for kind in ("limits", "requests"):
        for key, text in (part[kind] or {}).items():
            if key in ("memory", "ephemeral-storage") and amount(text) % 1:
                yield f"{part.at(kind)}[{key}]: fractional byte value {field.quote(text)} is invalid, must be an integer"


def _service(part: Part) -> Iterator[str]:
    if part["trafficDistribution"] == "PreferClose":
        yield 'spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"'


def _volume(part: Part) -> Iterator[str]:
    for source in part["projected.sources"] or ():
        if not source:
            yield f"volume {field.quote(part['name'])} (Projected) has no sources provided"


def _secret(part: Part) -> Iterator[str]:
    if part["type"] == "kubernetes.io/tls" and not (part["data"] or {}).get("tls.crt"):
        yield "tls: failed to find any PEM data in certificate input"


WARNINGS: dict[str, Callable[[Part], Iterator[str]]] = {
    "V1Pod": _annotations, "V1PodTemplateSpec": _annotations, "V1PodSpec": _pod, "V1ContainerPort": _port,
    "V1EnvVar": _variable, "V1ResourceRequirements": _resources, "V1ServiceSpec": _service, "V1Secret": _secret,
    "V1Volume": _volume}
