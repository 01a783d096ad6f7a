"""Annotations leave inbound ports out of interception: plaintext reaches the application there, STRICT or not."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts, application, inside, numbers, port_of, section
from meshtls.audit.rule import WORKLOADS, Flaw, Rule
from meshtls.model.check import Severity
from meshtls.model.workload import Workload

EXCLUDE = "traffic.sidecar.istio.io/excludeInboundPorts"
INCLUDE = "traffic.sidecar.istio.io/includeInboundPorts"
OWN = frozenset({15020, 15021, 15090})


def find(facts: Facts) -> Iterator[Flaw]:
    yield from _everywhere(facts)
    for w in facts.sidecars:
        notes = facts.face(w).metadata.annotations
        excluded = sorted(numbers(notes.get(EXCLUDE, "")) - OWN)
        if excluded:
            yield Flaw(
                subject=w.ref,
                path=inside(w, "metadata", "annotations", EXCLUDE),
                message=f"Port {', '.join(map(str, excluded))} of {w.label} is past its sidecar: it answers plaintext from anywhere under STRICT, "
                        "and the proxy's configuration still says STRICT.",
                because=(f"annotation {EXCLUDE}",),
                catalogue=("SE-06", *(("KP-04",) if _probed(facts, w) & set(excluded) else ())),
                fix=f"Remove the annotation; where plaintext is meant, say so by policy:\nportLevelMtls:\n  \"{excluded[0]}\":\n    mode: PERMISSIVE",
            )
        include = notes.get(INCLUDE)
        if include is not None and include != "*":
            left = sorted(set(facts.ports(w)) - numbers(include) - OWN)
            if left or not include:
                yield Flaw(
                    subject=w.ref,
                    path=inside(w, "metadata", "annotations", INCLUDE),
                    message=f"Only port {include or '(none)'} of {w.label} is intercepted: {'port ' + ', '.join(map(str, left)) if left else 'every other port'} "
                            "answers plaintext under STRICT, and meshed clients send it mTLS.",
                    because=(f"annotation {INCLUDE}",),
                    catalogue=("IN-10", "SE-06"),
                    fix=f"Remove the annotation {INCLUDE}.",
                )


def _probed(facts: Facts, w: Workload) -> set[int]:
    """The ports that the kubelet probes: past the proxy such a probe is fine."""
    return {port_of(what.port, c) for c in application(facts.face(w)) for p in (c.liveness_probe, c.readiness_probe, c.startup_probe)
            if p and (what := p.http_get or p.tcp_socket or p.grpc)}


def _everywhere(facts: Facts) -> Iterator[Flaw]:
    """The same for every pod at once, by the injector's values."""
    for ref, values in facts.injector_values:
        said = str(section(values, "global", "proxy").get("excludeInboundPorts") or "")
        if numbers(said) - OWN:
            yield Flaw(
                subject=ref,
                path=("data", "values", "excludeInboundPorts"),
                message=f"Port {said} of every workload without an annotation of its own is past its sidecar: it answers plaintext from anywhere under STRICT.",
                because=(f"the injector's values say global.proxy.excludeInboundPorts: {said!r}",),
                catalogue=("SE-06",),
                fix="Take global.proxy.excludeInboundPorts out, restart the workloads, and say what is meant by policy (portLevelMtls).",
            )


RULE = Rule(code="MT308", title="Inbound ports are left out of interception", severity=Severity.WARNING,
            catalogue=("SE-06", "IN-10", "KP-04"), about=WORKLOADS, needs=("Namespace",), reads=("ConfigMap", "Service"), find=find)
