"""A dump: everything that was read from a cluster, in one JSON file that stands in for the cluster later.

Only the fields that meshtls reads are in it, and no Secret ever was. Of what applications are told (environment, arguments) only
the names of Services remain, of annotations only those that decide something: passwords in plain values stay out, and every
answer is what the cluster's would be.
"""

from collections.abc import Collection, Iterator
from typing import Any

import msgspec

from meshtls.model.hosts import named
from meshtls.model.kinds import READ, kind_of
from meshtls.model.mesh import Mesh
from meshtls.sources.pseudonyms import Pseudonyms

# annotations that decide something, by prefix or as a whole; all others stay out of a dump
_ANNOTATIONS = (
    "sidecar.istio.io/", "traffic.sidecar.istio.io/", "networking.istio.io/", "ambient.istio.io/", "inject.istio.io/",
    "istio.io/", "prometheus.io/", "prometheus.istio.io/", "proxy.istio.io/", "k8s.v1.cni.cncf.io/networks", "meshtls.dev/",
    "nginx.ingress.kubernetes.io/service-upstream", "nginx.ingress.kubernetes.io/upstream-vhost",
    "nginx.ingress.kubernetes.io/backend-protocol", "kubernetes.io/ingress.class", "ingressclass.kubernetes.io/is-default-class", "argocd.argoproj.io/tracking-id",
    "kustomize.toolkit.fluxcd.io/", "helm.toolkit.fluxcd.io/", "configmanagement.gke.io/managed", "objectset.rio.cattle.io/",
)  # fmt: skip
# variables of control planes and network plugins whose values decide something
_VARIABLES = frozenset(
    {"PILOT_IGNORE_RESOURCES", "PILOT_INCLUDE_RESOURCES", "ISTIO_DUAL_STACK", "ENABLE_EXTERNAL_NAME_ALIAS", "FELIX_BPFENABLED"}
)


def write(mesh: Mesh, *, pseudonyms: bool = False, salt: str = "") -> Iterator[bytes]:
    """The dump of a mesh, piece by piece."""
    rename = Pseudonyms(mesh, salt) if pseudonyms else None
    absent = {kind: rename.text(reason) for kind, reason in mesh.absent.items()} if rename else mesh.absent
    head = {"apiVersion": "meshtls.dev/v1", "kind": "Dump", "live": mesh.live, "absent": absent}
    yield msgspec.json.encode(head)[:-1] + b',"items":['
    first = True
    services = mesh.services_by_name.keys()
    for field, group, cls in READ:
        for obj in getattr(mesh, field):
            value = msgspec.to_builtins(obj)
            value["kind"] = kind_of(cls)
            value.setdefault("apiVersion", f"{group}/v1" if group else "v1")
            _trim(value, obj.metadata.namespace, services)
            if rename is not None:
                value = rename(value)
            yield (b"" if first else b",\n") + msgspec.json.encode(value)
            first = False
    yield b"]}\n"


def narrowed(mesh: Mesh, namespaces: frozenset[str]) -> Mesh:
    """The mesh without objects of other namespaces, except the root's: they decide everywhere."""
    keep = namespaces | {config.root_namespace for config in mesh.configs.values()} | {mesh.root, "istio-system"}
    tables = {
        field: tuple(o for o in getattr(mesh, field) if not o.metadata.namespace or o.metadata.namespace in keep)
        for field, _, _ in READ
    }
    return msgspec.structs.replace(mesh, **tables)


def _trim(value: Any, namespace: str, services: Collection[tuple[str, str]]) -> None:
    """Leave out what nothing depends on: foreign annotations, headers, patches, and all of a container's texts but Services' names."""
    if isinstance(value, dict):
        notes = value.get("annotations")
        if isinstance(notes, dict):
            value["annotations"] = {k: v for k, v in notes.items() if k.startswith(_ANNOTATIONS)}
        if isinstance(value.get("containers"), list | tuple):
            for container in (*value["containers"], *value.get("initContainers", ()), *value.get("ephemeralContainers", ())):
                _texts(container, namespace, services)
        value.pop("httpHeaders", None)
        for modifier in ("requestHeaderModifier", "responseHeaderModifier"):
            for header in (h for way in ("set", "add") for h in (value.get(modifier) or {}).get(way, ())):
                header["value"] = "".join(c for c in header.get("value", "") if not (c.isprintable() or c == "\t"))
        if isinstance(value.get("exec"), dict):
            value["exec"] = {}
        if "applyTo" in value:
            value.pop("patch", None)
        for each in value.values():
            _trim(each, namespace, services)
    elif isinstance(value, list | tuple):
        for each in value:
            _trim(each, namespace, services)


def _texts(container: dict[str, Any], namespace: str, services: Collection[tuple[str, str]]) -> None:
    """Environment and arguments as the Services that they name; a proxy's arguments tell what it is, and stay."""
    env = []
    for entry in container.get("env", ()):
        text = entry.get("value", "")
        kept = text if entry.get("name") in _VARIABLES else _only(text, namespace, services, False)
        if kept:
            env.append({"name": entry.get("name", ""), "value": kept})
    container["env"] = env
    if container.get("name") != "istio-proxy":
        for field in ("command", "args"):
            texts = [_only(text, namespace, services, True) for text in container.get(field, ())]
            container[field] = [text for text in texts if text]


def _only(text: str, namespace: str, services: Collection[tuple[str, str]], arguments: bool) -> str:
    """The Services that a text names, as hosts that are read as the same ones again."""
    found = dict.fromkeys(key for key in named(text, namespace, arguments) if key in services)
    return " ".join(f"{name}.{home}" for home, name in found)
