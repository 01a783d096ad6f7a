"""Which data plane a pod is on, and which of its traffic that data plane takes.

1. A pod that runs is what it is: a container named istio-proxy (classic), such an init container that is always restarted
   (native), the annotation `ambient.istio.io/redirection: enabled` (ambient), or none of these. Labels of the namespace are
   intent only.
2. A pod to be (a template, a manifest) is what injection would make of it; else ztunnel captures it by its label
   `istio.io/dataplane-mode: ambient`, or its namespace's unless the pod says `none` (the CNI agent's default selectors).
3. A gateway's or a waypoint's proxy is no sidecar: PeerAuthentication does not touch what it serves. Neither are the agents
   of proxyless gRPC. None of these templates sets the label by which clients know who takes mTLS.
"""

import json
from collections.abc import Mapping
from functools import lru_cache

import msgspec

from meshtls.model.mesh import Mesh
from meshtls.model.objects import Container, Pod
from meshtls.policy.because import Because
from meshtls.policy.inject import Injector
from meshtls.policy.service import TLS_MODE

SIDECAR, NATIVE, AMBIENT, BARE, GATEWAY, PROXYLESS = "sidecar", "native-sidecar", "ambient", "none", "gateway", "proxyless"
ANNOTATION = "traffic.sidecar.istio.io/"
MODE, BYPASS = "istio.io/dataplane-mode", "ambient.istio.io/bypass-inbound-capture"
AGENTS = frozenset({"grpc-agent", "grpc-simple"})
TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})  # what Go's strconv.ParseBool takes for true
UNCAPTURED = frozenset({15020, 15021, 15090})


class Plane(msgspec.Struct, frozen=True, gc=False):
    """`kind` is one of the six; `revision` whose istiod serves it ("" default)."""

    kind: str
    revision: str
    because: Because

    @property
    def sidecar(self) -> bool:
        return self.kind in (SIDECAR, NATIVE)


def is_manifest(pod: Pod) -> bool:
    """Whether a Pod is one to be created, not one that runs."""
    return not pod.metadata.uid and not pod.status.phase and not pod.status.pod_ip and not pod.status.pod_ips


def _proxy(pod: Pod) -> tuple[Container | None, bool]:
    for container in pod.spec.containers:
        if container.name == "istio-proxy":
            return container, False
    for container in pod.spec.init_containers:
        if container.name == "istio-proxy" and container.restart_policy == "Always":
            return container, True
    return None, False


@lru_cache(maxsize=256)
def _status_revision(text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        return ""
    revision = value.get("revision") if isinstance(value, dict) else ""
    return revision if isinstance(revision, str) else ""


def revision_of(pod: Pod) -> str:
    annotations = pod.metadata.annotations
    said = annotations.get("istio.io/rev") or _status_revision(annotations.get("sidecar.istio.io/status", ""))
    return "" if said in ("", "default") else said


def of_pod(pod: Pod) -> Plane:
    """The data plane of a pod that runs."""
    proxy, native = _proxy(pod)
    meta = pod.metadata
    revision = revision_of(pod)
    templates = meta.annotations.get("inject.istio.io/templates", "")
    if proxy is not None or "grpc-simple" in templates:
        if "grpc-" in templates:
            return Plane(PROXYLESS, revision, Because(pod.ref, "metadata.annotations.inject.istio.io/templates", templates))
        if _is_gateway(pod, proxy, templates):
            return Plane(GATEWAY, revision, Because(pod.ref, "spec.containers.istio-proxy", "a gateway's proxy, no sidecar"))
        where = "initContainers" if native else "containers"
        return Plane(NATIVE if native else SIDECAR, revision, Because(pod.ref, f"spec.{where}.istio-proxy", "has a sidecar"))
    if meta.annotations.get("ambient.istio.io/redirection") == "enabled":
        path = "metadata.annotations.ambient.istio.io/redirection"
        if bypassed(meta.annotations):
            return Plane(BARE, "", Because(pod.ref, f"metadata.annotations.{BYPASS}", "inbound traffic is not captured"))
        return Plane(AMBIENT, "", Because(pod.ref, path, "captured by ztunnel"))
    return Plane(BARE, "", Because(pod.ref, "spec.containers", "no istio-proxy container"))


def bypassed(annotations: Mapping[str, str]) -> bool:
    """Whether ztunnel is told not to take what comes in."""
    return annotations.get(BYPASS) in TRUE


def _is_gateway(pod: Pod, proxy: Container | None, templates: str) -> bool:
    if proxy is not None and len(proxy.args) > 1 and proxy.args[0] == "proxy":
        return proxy.args[1] in ("router", "waypoint")
    labels = pod.metadata.labels
    return "gateway" in templates or "gateway.istio.io/managed" in labels or "gateway.networking.k8s.io/gateway-name" in labels


def to_be(pod: Pod, ref: str, injector: Injector, mesh: Mesh) -> tuple[Plane, Pod]:
    """The data plane that a template's pod would be on, and the pod with the label that injection would add."""
    meta = pod.metadata
    labels = mesh.namespace_labels.get(meta.namespace, {})
    running = of_pod(pod)
    if running.kind != BARE or meta.annotations.get("ambient.istio.io/redirection"):
        return running, pod
    decision = injector.decide(meta.namespace, labels, meta.labels, meta.annotations, pod.spec)
    why = decision.because if decision.because.object else msgspec.structs.replace(decision.because, object=ref)
    if decision.injected:
        templates = {t.strip() for t in meta.annotations.get("inject.istio.io/templates", "sidecar").split(",")}
        kind = GATEWAY if "gateway" in templates else PROXYLESS if templates & AGENTS else SIDECAR
        kind = SIDECAR if "sidecar" in templates else kind
        added = {**({TLS_MODE: "istio"} if kind == SIDECAR else {}), **meta.labels}
        changed = msgspec.structs.replace(pod, metadata=msgspec.structs.replace(meta, labels=added))
        return Plane(kind, "" if decision.revision == "default" else decision.revision, why), changed
    own, home = meta.labels.get(MODE), labels.get(MODE)
    if (own == "ambient" or (home == "ambient" and own != "none")) and not pod.spec.host_network:
        if bypassed(meta.annotations):
            return Plane(BARE, "", Because(ref, f"metadata.annotations.{BYPASS}", "inbound traffic would not be captured")), pod
        owner = ref if own == "ambient" else f"Namespace/{meta.namespace}"
        return Plane(AMBIENT, "", Because(owner, "metadata.labels.istio.io/dataplane-mode", "ambient: ztunnel would capture it")), pod
    return Plane(BARE, "", why), pod


def _ports(text: str) -> frozenset[int]:
    return frozenset(int(p) for p in (part.strip() for part in text.split(",")) if p.isascii() and p.isdigit())


def takes_inbound(pod: Pod, port: int) -> Because | None:
    """Why a sidecar does not see what comes in on a port; None where it does."""
    annotations = pod.metadata.annotations
    if port in UNCAPTURED:
        return Because("", "", f"port {port} is the proxy's own and never captured")
    if annotations.get("sidecar.istio.io/interceptionMode") == "NONE":
        return Because(pod.ref, "metadata.annotations.sidecar.istio.io/interceptionMode", "NONE: nothing is captured")
    included = annotations.get(f"{ANNOTATION}includeInboundPorts", "*").strip()
    if included != "*":  # exclusions count only where everything is included
        path = f"metadata.annotations.{ANNOTATION}includeInboundPorts"
        return None if port in _ports(included) else Because(pod.ref, path, f"port {port} is not among the captured ones")
    if port in _ports(annotations.get(f"{ANNOTATION}excludeInboundPorts", "")):
        path = f"metadata.annotations.{ANNOTATION}excludeInboundPorts"
        return Because(pod.ref, path, f"port {port} is not captured: the proxy never sees it")
    return None


def named_inbound(pod: Pod) -> frozenset[int]:
    """The inbound ports that its annotations take in or leave out by number."""
    return frozenset().union(*(_ports(pod.annotations.get(f"{ANNOTATION}{name}InboundPorts", "")) for name in ("include", "exclude")))


def takes_outbound(pod: Pod, address: str, port: int) -> Because | None:
    """Why a sidecar does not see what its pod sends to an address and port; None where it does."""
    import ipaddress

    annotations = pod.metadata.annotations
    if annotations.get("sidecar.istio.io/interceptionMode") == "NONE":
        return Because(pod.ref, "metadata.annotations.sidecar.istio.io/interceptionMode", "NONE: nothing is captured")
    excluded = annotations.get(f"{ANNOTATION}excludeOutboundPorts", "")
    if excluded and port in _ports(excluded):
        path = f"metadata.annotations.{ANNOTATION}excludeOutboundPorts"
        return Because(pod.ref, path, f"port {port} leaves past the client's own proxy")
    for name, inside in (("excludeOutboundIPRanges", True), ("includeOutboundIPRanges", False)):
        text = annotations.get(ANNOTATION + name)
        if text is None or text.strip() == "*" or (inside and not text):
            continue
        try:
            ip = ipaddress.ip_address(address)
            hit = any(
                ip in ipaddress.ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip()
            )
        except ValueError:
            continue
        # included ports count after the excluded ranges and before the included ones
        wanted = annotations.get(f"{ANNOTATION}includeOutboundPorts", "")
        if hit == inside and (inside or port not in _ports(wanted)):
            word = "excluded" if inside else "not included"
            return Because(pod.ref, f"metadata.annotations.{ANNOTATION}{name}", f"{address} is {word}: it leaves past the proxy")
    return None
