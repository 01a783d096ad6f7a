"""Kubelet probes that are not rewritten: under STRICT httpGet and gRPC probes fail, and the pod restarts for ever.

tcpSocket probes go on passing, since the proxy accepts every connection: they say healthy whatever is behind.
"""

from collections.abc import Iterator

from meshtls.audit import say
from meshtls.audit.facts import Facts, application, inside, port_of, section
from meshtls.audit.rule import WORKLOADS, Flaw, Rule
from meshtls.model import objects as o
from meshtls.model.check import Severity
from meshtls.model.workload import Workload

KEY = "sidecar.istio.io/rewriteAppHTTPProbers"
STATUS_PORT = 15020


def find(facts: Facts) -> Iterator[Flaw]:
    everywhere = any(section(values, "sidecarInjectorWebhook").get("rewriteAppHTTPProbe") is False for _, values in facts.injector_values)
    for w in facts.sidecars:
        for face in facts.faces(w):
            off = face.metadata.annotations.get(KEY, "false" if everywhere and not w.pods else "") == "false"
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
            what = probe.http_get or probe.tcp_socket or probe.grpc
            port = port_of(what.port, container) if what else 0
            kind = "httpGet" if probe.http_get else "grpc" if probe.grpc else "tcpSocket" if probe.tcp_socket else ""
            if not kind or port == STATUS_PORT or not facts.refuses(w, port):
                continue
            if kind == "tcpSocket":
                message, severity = f"The {field} of {container.name} in {w.label} says healthy whatever is behind it: the proxy accepts every TCP connection.", Severity.INFO
            else:
                message, severity = f"The {field} of {container.name} in {w.label} goes to port {port} in plaintext: under STRICT it fails, and the pod never becomes ready or restarts.", None
            why = "rewriting is off, by the annotation or by the injector's values" if off else "the running pod's probe does not point to 15020: the container was added after injection, or rewriting is off"
            return Flaw(
                subject=w.ref,
                path=inside(w, "spec", "containers", container.name, field),
                severity=severity,
                message=message,
                because=(why, "the kubelet has no certificate of the mesh"),
                catalogue=("KP-02",) if off else ("KP-02", "KP-03"),
                fix=(f"Remove the annotation {KEY} (or sidecarInjectorWebhook.rewriteAppHTTPProbe: false of the injector)." if off else
                     "Let injection run last (reinvocationPolicy: IfNeeded), or keep the probe's port out: traffic.sidecar.istio.io/excludeInboundPorts.")
                    + (f"\nUntil then, keep the port open to the kubelet:\n{say.exception(facts, w, [port])}" if severity is None and face.metadata.labels else ""),
            )
    return None


RULE = Rule(code="MT320", title="A kubelet probe is not rewritten", severity=Severity.ERROR,
            catalogue=("KP-02", "KP-03"), about=WORKLOADS, needs=("PeerAuthentication", "Namespace"), find=find)
