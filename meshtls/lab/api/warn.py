"""What the API server warns of although it takes the object: one function for pods and templates, one for the rest."""
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from meshtls.lab.api import field
from meshtls.lab.api.quantities import amount

Object = dict[str, Any]
_NAMED = {"Deployment": "Pod names and hostnames", "ReplicaSet": "Pod names and hostnames"}


def of(kind: str, obj: Object) -> Iterator[str]:
    """Warnings about one object that is to be stored."""
    spec = obj.get("spec") or {}
    name = (obj.get("metadata") or {}).get("name") or ""
    owners = [owner.get("uid") for owner in (obj.get("metadata") or {}).get("ownerReferences") or ()]
    twice = sorted({uid for uid in owners if owners.count(uid) > 1})
    if twice:
        yield (".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may "
               "reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: "
               + ", ".join(twice))
    if kind == "Pod":
        if told := field.label_1123(name):
            yield (f"metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label "
                   f"is recommended: [{', '.join(told)}]")
        yield from _annotations(obj, "metadata.annotations")
        yield from _pod(spec, "spec")
    elif kind in _NAMED and (told := field.label_1123(name)):
        yield (f"metadata.name: this is used in {_NAMED[kind]}, which can result in surprising behavior; a DNS label is "
               f"recommended: [{', '.join(told)}]")
    template = ((spec.get("jobTemplate") or {}).get("spec") or {} if kind == "CronJob" else spec).get("template")
    if isinstance(template, dict) and kind not in ("Pod", "WorkloadGroup"):
        at = "spec.jobTemplate.spec.template" if kind == "CronJob" else "spec.template"
        yield from _annotations(template, f"{at}.metadata.annotations")
        yield from _pod(template.get("spec") or {}, f"{at}.spec")
    if kind == "Service" and spec.get("trafficDistribution") == "PreferClose":
        yield 'spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"'
    if kind == "Secret" and obj.get("type") == "kubernetes.io/tls" and not (obj.get("data") or {}).get("tls.crt"):
        yield "tls: failed to find any PEM data in certificate input"


def _annotations(holder: Object, path: str) -> Iterator[str]:
    for key in ((holder.get("metadata") or {}).get("annotations")) or {}:
        if key.startswith("container.apparmor.security.beta.kubernetes.io/"):
            yield f'{path}[{key}]: deprecated since v1.30; use the "appArmorProfile" field instead'


def _pod(spec: Object, path: str) -> Iterator[str]:
    for place, secret in enumerate(spec.get("imagePullSecrets") or ()):
        if not secret.get("name"):
            yield f'{path}.imagePullSecrets[{place}].name: invalid empty name ""'
    for place, spread in enumerate(spec.get("topologySpreadConstraints") or ()):
        if spread.get("labelSelector") is None:
            yield (f"{path}.topologySpreadConstraints[{place}].labelSelector: a null labelSelector results in matching no "
                   "pod")
    for group in ("initContainers", "containers"):
        for place, container in enumerate(spec.get(group) or ()):
            yield from _container(container, f"{path}.{group}[{place}]")


def _container(container: Object, path: str) -> Iterator[str]:
    known: dict[tuple[Any, ...], int] = {}
    for place, port in enumerate(container.get("ports") or ()):
        mark = (port.get("containerPort"), port.get("protocol"), port.get("hostPort"), port.get("hostIP"))
        if mark in known:
            yield f"{path}.ports[{place}]: duplicate port definition with {path}.ports[{known[mark]}]"
        known.setdefault(mark, place)
        if port.get("hostIP") and not port.get("hostPort"):
            yield (f"{path}.ports[{place}]: hostIP set without hostPort: {{Name:{port.get('name', '')} HostPort:0 "
                   f"ContainerPort:{port.get('containerPort')} Protocol:{port.get('protocol')} HostIP:{port['hostIP']}}}")
    names: set[str] = set()
    for place, variable in enumerate(container.get("env") or ()):
        name = variable.get("name") or ""
        if name in names:
            yield (f"{path}.env[{place}]: hides previous definition of {field.quote(name)}, which may be dropped when using "
                   "apply")
        names.add(name)
    for kind in ("limits", "requests"):
        for key, text in ((container.get("resources") or {}).get(kind) or {}).items():
            if key in ("memory", "ephemeral-storage") and amount(text) % Decimal(1):
                yield (f"{path}.resources.{kind}[{key}]: fractional byte value {field.quote(text)} is invalid, must be an "
                       "integer")
