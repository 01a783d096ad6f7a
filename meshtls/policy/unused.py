"""What Gateway API objects say of a Service without deciding a call to it: ignored by istiod, or not for this client and port.

The answer of a call names what decided it. Whoever wrote a route or a BackendTLSPolicy for the Service and does not find it there
reads here why.
"""

from collections.abc import Iterator

from meshtls.policy.because import Because
from meshtls.policy.calls import Where
from meshtls.policy.engine import ControlPlane, Face
from meshtls.policy.routes import Virtual
from meshtls.policy.service import AUTO, HTTP, TLS


def unused(control: ControlPlane, face: Face, where: Where, decided: frozenset[str]) -> Iterator[Because]:
    """Each object that speaks of the Service and did not decide, with the reason; `decided` are the refs of those that did."""
    host = where.host.hostname
    told = set(decided)
    for ignored in control.ignored:
        if host in ignored.hosts:
            told.add(ignored.because.object)
            yield ignored.because
    if not face.plane.sidecar:
        return
    for virtual in control.virtual:
        if virtual.gateway_semantics and host in virtual.hosts:
            for ref in dict.fromkeys(ref for ref, _ in virtual.written) or (virtual.ref,):
                if ref not in told:
                    yield Because(ref, "spec.parentRefs", _why(virtual, face, where))
    for rule in control.backend_rules:
        if rule.spec.host == host:
            for port, ref in rule.policies.items():
                if ref not in told:
                    other = f"it is for port {port}" if port and port != where.port.number else "a DestinationRule that the client uses says otherwise, or it does not reach the client"
                    yield Because(ref, "spec.targetRefs", f"does not decide here: {other}")


def _why(virtual: Virtual, face: Face, where: Where) -> str:
    http, protocol, number = bool(virtual.http), where.port.protocol, where.port.number
    ports = {m.port for layer in (virtual.http, virtual.tcp, virtual.tls) for route in layer for m in route.match}
    if ports and 0 not in ports and number not in ports:
        says = f"it is for port {', '.join(map(str, sorted(ports)))}"
    elif http and protocol not in HTTP and protocol != AUTO:
        says = f"port {number} is {protocol}, and HTTPRoutes and GRPCRoutes count on HTTP ports"
    elif virtual.tcp and protocol in HTTP:
        says = f"port {number} is {protocol}, and TCPRoutes count on ports that are not HTTP"
    elif virtual.tls and protocol not in TLS:
        says = f"port {number} is {protocol}, and TLSRoutes count on TLS ports"
    elif http and virtual.namespace not in (face.pod.namespace, where.host.namespace):
        says = f"it is for clients in {virtual.namespace} alone"
    else:
        says = "another route or VirtualService of this host comes first, or it does not reach the client"
    return f"does not decide here: {says}"
