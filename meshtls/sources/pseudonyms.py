"""Pseudonyms: a dump in which names, labels and hosts are replaced, so that every answer keeps its shape.

1. Equal words become equal pseudonyms; a host is replaced label by label, so that wildcards go on matching.
2. Words of Kubernetes, of Istio and of protocols stay, and so do fields whose values are such words: what decides stays readable.
3. Keys (of labels, of fields) and addresses stay. Images keep only what tells a known proxy or controller.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from meshtls.model import objects as o
from meshtls.model.mesh import Mesh

# words that mean something by themselves
_KEPT = frozenset(
    "default kube-system kube-public kube-node-lease local-path-storage istio istio-system mesh cluster local svc com org net io www "
    "true false enabled disabled yes no on off none any all always never "
    "http https http2 grpc grpc-web tcp udp tls mongo mysql redis smtp ftp ssh sftp imap pop3 metrics prometheus prom ambient "
    "nginx traefik haproxy kong contour envoy alb gce stable canary ingressgateway egressgateway istiod cilium calico-node ovnkube-node".split()
)
# fields whose values are words of Kubernetes or Istio
_FIXED = frozenset(
    "kind apiVersion mode protocol operator type phase status controller controllerName handler appProtocol uid apiGroups apiVersions "
    "resources operations scope applyTo context resolution location scheme action failurePolicy reinvocationPolicy policyTypes restartPolicy "
    "captureMode creationTimestamp resourceVersion key strategy sideEffects group".split()
)
_THEIRS = ("istio.io", "kubernetes.io", "k8s.io", "cncf.io", "prometheus.io")
_BARE_THEIRS = frozenset({"istio-injection", "istio"})
# keys of theirs that carry a name all the same
_NAMED = frozenset({
    "networking.istio.io/exportTo", "kubernetes.io/service-name", "kubernetes.io/metadata.name", "istio.io/use-waypoint",
    "statefulset.kubernetes.io/pod-name", "batch.kubernetes.io/job-name", "nginx.ingress.kubernetes.io/upstream-vhost",
    "gateway.networking.k8s.io/gateway-name", "sidecar.istio.io/userVolume",
})  # fmt: skip
_IMAGES = ("pilot", "proxyv2", "nginx", "traefik", "haproxy", "kong", "contour", "envoy", "ingress", "controller", "node")
_LABELS = frozenset({"labels", "annotations", "matchLabels", "selector", "sourceLabels"})


class Pseudonyms:
    """`names`: word -> pseudonym. Calling it on plain values of an object replaces them."""

    def __init__(self, mesh: Mesh, salt: str) -> None:
        words = {w for w in _own(mesh) if w and w not in _KEPT and w != mesh.root and not w.startswith("istio") and not w.isdigit()}
        self.names = {word: "n" + hashlib.sha256(f"{salt}/{word}".encode()).hexdigest()[:10] for word in words}
        parts = sorted(self.names, key=lambda word: (-len(word), word))
        self._pattern = re.compile(rf"(?<![A-Za-z0-9-])(?:{'|'.join(map(re.escape, parts))})(?![A-Za-z0-9-])") if parts else None

    def text(self, value: str) -> str:
        """A text with every word of the user's replaced."""
        return self._pattern.sub(lambda match: self.names[match[0]], value) if self._pattern else value

    def __call__(self, value: Any, key: str = "", parent: str = "") -> Any:
        if isinstance(value, dict):
            if value.get("kind") == "ConfigMap" and isinstance(value.get("data"), dict):
                return {**self({k: v for k, v in value.items() if k != "data"}), "data": {k: self._config(v) for k, v in value["data"].items()}}
            return {k: self(v, k, key) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self(v, key, parent) for v in value]
        if not isinstance(value, str) or key in _FIXED:
            return value
        if key == "image":
            return _image(value)
        if parent in _LABELS and _is_theirs(key) and key not in _NAMED:
            return value
        return self.text(value)

    def _config(self, text: str) -> str:
        """Istio's settings: their values, not their keys. What is no mapping (a certificate) stays."""
        try:
            value = yaml.load(text, Loader=yaml.CSafeLoader)
        except (yaml.YAMLError, ValueError, RecursionError):
            return text
        return json.dumps(self(value)) if isinstance(value, dict) else text


def _own(mesh: Mesh) -> Iterator[str]:
    for obj in mesh.objects():
        if isinstance(obj, o.CustomResourceDefinition | o.APIService):
            continue
        yield obj.metadata.name
        yield obj.metadata.namespace
        yield from _labels(obj.metadata.labels)
        if isinstance(obj, o.ServiceEntry | o.VirtualService | o.K8sGateway):
            for host in getattr(obj.spec, "hosts", ()):
                yield from host.split(".")
        if isinstance(obj, o.Route):
            for host in obj.spec.hostnames:
                yield from host.split(".")
        if isinstance(obj, o.BackendTLSPolicy):
            yield from obj.spec.validation.hostname.split(".")
        if isinstance(obj, o.Ingress):
            for rule in obj.spec.rules:
                yield from rule.host.split(".")
        if isinstance(obj, o.Gateway):
            for server in obj.spec.servers:
                for host in server.hosts:
                    yield from host.rpartition("/")[2].split(".")
        if isinstance(obj, o.WorkloadEntry):
            yield from _labels(obj.spec.labels)
        template = getattr(obj, "template", None)
        spec = obj.spec if isinstance(obj, o.Pod) else getattr(template, "spec", None)
        if isinstance(spec, o.PodSpec):
            yield spec.service_account_name
            yield spec.node_name
            yield from (c.name for c in (*spec.containers, *spec.init_containers))
        if template is not None:
            yield from _labels(template.metadata.labels)


def _labels(labels: dict[str, str]) -> Iterator[str]:
    return (value for key, value in labels.items() if not _is_theirs(key))


def _is_theirs(key: str) -> bool:
    domain = key.partition("/")[0]
    return key in _BARE_THEIRS or (domain.endswith(_THEIRS) and domain != "app.kubernetes.io")


def _image(value: str) -> str:
    last = value.rpartition("/")[2]
    return f"registry/{last}" if any(word in last for word in _IMAGES) else "registry/image"
