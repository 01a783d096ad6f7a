"""A dump: everything that was read from a cluster, in one JSON file that stands in for the cluster later.

Only the fields that meshtls reads are in it, and no Secret ever was. Values of environment variables and annotations that
nothing depends on are left out. With `pseudonyms`, names, labels and hosts become stable pseudonyms: equal names stay equal,
so every answer stays the same in shape.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from meshtls.model.kinds import READ, kind_of
from meshtls.model.mesh import Mesh

# annotations that decide something, by prefix; all others stay out of a dump
_ANNOTATIONS = (
    "sidecar.istio.io/", "traffic.sidecar.istio.io/", "networking.istio.io/", "ambient.istio.io/", "inject.istio.io/",
    "istio.io/", "prometheus.io/", "prometheus.istio.io/", "nginx.ingress.kubernetes.io/", "kubernetes.io/ingress.class",
    "proxy.istio.io/", "k8s.v1.cni.cncf.io/", "meshtls.dev/", "argocd.argoproj.io/", "kustomize.toolkit.fluxcd.io/", "meta.helm.sh/",
    "helm.toolkit.fluxcd.io/", "configmanagement.gke.io/", "objectset.rio.cattle.io/",
)  # fmt: skip


def write(mesh: Mesh, *, pseudonyms: bool = False, salt: str = "") -> Iterator[bytes]:
    """The dump of a mesh, piece by piece."""
    rename = _Pseudonyms(mesh, salt) if pseudonyms else None
    head = {"apiVersion": "meshtls.dev/v1", "kind": "Dump", "live": mesh.live, "absent": mesh.absent}
    yield msgspec.json.encode(head)[:-1] + b',"items":['
    first = True
    for field, group, cls in READ:
        for obj in getattr(mesh, field):
            value = msgspec.to_builtins(obj)
            value["kind"] = kind_of(cls)
            value.setdefault("apiVersion", f"{group}/v1" if group else "v1")
            _trim(value)
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


def _trim(value: Any) -> None:
    """Leave out what nothing depends on: foreign annotations, and environment values that are not addresses."""
    if isinstance(value, dict):
        notes = value.get("annotations")
        if isinstance(notes, dict):
            value["annotations"] = {k: v for k, v in notes.items() if k.startswith(_ANNOTATIONS)}
        env = value.get("env")
        if isinstance(env, list):
            value["env"] = [e if _is_address(e.get("value", "")) else {"name": e.get("name", "")} for e in env]
        for each in value.values():
            _trim(each)
    elif isinstance(value, list):
        for each in value:
            _trim(each)


def _is_address(text: str) -> bool:
    """Whether a value names a host or URL without credentials in it."""
    return "@" not in text and re.fullmatch(r"(?:[a-z][a-z0-9+.-]*://)?[a-z0-9][a-z0-9.-]*(?::\d+)?(?:/[\w./-]*)?", text) is not None


class _Pseudonyms:
    """Replaces every name that is the user's own; what belongs to Istio or Kubernetes keeps its name."""

    def __init__(self, mesh: Mesh, salt: str) -> None:
        self._salt = salt
        keep = {"default", "kube-system", "kube-public", "kube-node-lease", "istio", "*", "~", ".", "mesh", mesh.root, "istio-system"}
        own: set[str] = set()
        for obj in mesh.objects():
            own.update((obj.metadata.name, obj.metadata.namespace))
            own.update(v for k, v in obj.metadata.labels.items() if not _is_theirs(k))
        words = {w for w in own if w and w not in keep and not w.startswith("istio") and not w.isdigit()}
        self._names = {word: self._of(word) for word in words}
        parts = sorted(self._names, key=len, reverse=True)
        pattern = "|".join(re.escape(p) for p in parts)
        self._pattern = re.compile(rf"(?<![a-z0-9-])(?:{pattern})(?![a-z0-9-])") if parts else None
        self._replace: Callable[[re.Match[str]], str] = lambda m: self._names[m[0]]

    def _of(self, word: str) -> str:
        return "n" + hashlib.sha256(f"{self._salt}/{word}".encode()).hexdigest()[:10]

    def __call__(self, value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {k: self(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [self(v, key) for v in value]
        if isinstance(value, str) and self._pattern is not None and key not in _FIXED:
            return self._pattern.sub(self._replace, value)
        return value


# fields whose values are words of Kubernetes or Istio
_FIXED = frozenset({"kind", "apiVersion", "mode", "protocol", "operator", "type", "phase", "status", "controller", "handler", "appProtocol", "uid"})


def _is_theirs(label: str) -> bool:
    return label.partition("/")[0].endswith(("istio.io", "kubernetes.io", "k8s.io"))
