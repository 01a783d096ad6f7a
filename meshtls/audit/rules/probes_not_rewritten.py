"""Kubelet probes that are not rewritten: under STRICT httpGet and gRPC probes fail, and the pod restarts for ever.

tcpSocket probes go on passing, since the proxy accepts every connection: they say healthy whatever is behind.
"""

from collections.abc import Iterator

from meshtls.audit.facts import Facts, application
from meshtls.audit.rule import WORKLOADS, Flaw, Rule
from meshtls.model import objects as o
from meshtls.model.check import Confidence, Severity
from meshtls.model.workload import Workload

KEY = "sidecar.istio.io/rewriteAppHTTPProbers"
STATUS_PORT = 15020


def find(facts: Facts) -> Iterator[Flaw]:
    for w in facts.sidecars:
        for face in facts.faces(w):
            off = face.metadata.annotations.get(KEY) == "false"
            live = bool(w.pods)
            if not off and not live:
                continue
            flaw = _first(facts, w, face, off)
            if flaw:
                yield flaw
                break


def _first(facts: Facts, w: Workload, face: o.Pod, off: bool) -> Flaw | None:
    for container in application(face):
        for field, probe in (("livenessProbe", container.liveness_probe), ("readinessProbe", container.readiness_probe), ("startupProbe", container.startup_probe)):
            if probe is None:
                continue
            port = _port(probe, container)
            kind = "httpGet" if probe.http_get else "grpc" if probe.grpc else "tcpSocket" if probe.tcp_socket else ""
            if not kind or port == STATUS_PORT or not facts.refuses(w, port):
                continue
            if kind == "tcpSocket":
                message, severity = f"The {field} of {container.name} in {w.label} says healthy whatever is behind it: the proxy accepts every TCP connection.", Severity.INFO
            else:
                message, severity = f"The {field} of {container.name} in {w.label} goes to port {port} in plaintext: under STRICT it fails, and the pod never becomes ready or restarts.", None
            why = f"annotation {KEY}: \"false\"" if off else "the running pod's probe does not point to 15020: the container was added after injection, or rewriting is off"
            return Flaw(
                subject=w.ref,
                path=("spec", "template", "spec", "containers", container.name, field),
                severity=severity,
                message=message,
                because=(why, "the kubelet has no certificate of the mesh"),
                catalogue=("KP-02",) if off else ("KP-02", "KP-03"),
                fix=f"Remove the annotation {KEY}." if off else
                "Let injection run last (reinvocationPolicy: IfNeeded), or keep the probe's port out: traffic.sidecar.istio.io/excludeInboundPorts.",
            )
    return None


def _port(probe: o.Probe, container: o.Container) -> int:
    wanted = probe.http_get.port if probe.http_get else probe.tcp_socket.port if probe.tcp_socket else probe.grpc.port if probe.grpc else 0
    if isinstance(wanted, int):
        return wanted
    if wanted.isdigit():
        return int(wanted)
    return next((p.container_port for p in container.ports if p.name == wanted), 0)


RULE = Rule(code="MT320", title="A kubelet probe is not rewritten", severity=Severity.ERROR, confidence=Confidence.MEASURED,
            catalogue=("KP-02", "KP-03"), about=WORKLOADS, needs=("PeerAuthentication", "Namespace"), find=find)
