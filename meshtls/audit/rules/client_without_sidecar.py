"""A workload without sidecar names a Service of the mesh: STRICT refuses its calls."""

from collections.abc import Iterator

from meshtls.audit import say
from meshtls.audit.facts import Facts, finished
from meshtls.audit.hints import callees
from meshtls.audit.rule import WORKLOADS, Flaw, Rule
from meshtls.model.check import Confidence, Severity


def find(facts: Facts) -> Iterator[Flaw]:
    for w in facts.workloads:
        if facts.plane(w) != "none" or facts.face(w).spec.host_network or finished(w):
            continue
        hits = []
        for service, where in callees(facts, w):
            for server in facts.behind(service):
                ports = [t for p in service.spec.ports if p.protocol in ("TCP", "") and (t := facts.target(p, server)) and facts.refuses(server, t)]
                if ports:
                    hits.append((service, where, server, ports))
                    break
        if not hits:
            continue
        service, where, server, ports = hits[0]
        names = say.some([s.ref for s, *_ in hits])
        yield Flaw(
            subject=w.ref,
            message=f"{w.label} has no sidecar and names {names} ({where}): STRICT refuses its plaintext.",
            because=(f"{server.ref} is in the mesh; it is {facts.mode(server, ports[0])} now", "a client without sidecar has no certificate of the mesh"),
            catalogue=("NC-02",) if w.kind in ("Job", "CronJob") else ("NC-01",),
            fix=f"Give it a sidecar (label namespace {w.namespace} istio-injection=enabled, or the pod sidecar.istio.io/inject: \"true\"),\nor keep the port open to it:\n"
                + say.exception(facts, server, ports),
            affects=tuple({s.namespace for s, *_ in hits}),
        )


RULE = Rule(code="MT240", title="A client without sidecar names a Service of the mesh", severity=Severity.ERROR, confidence=Confidence.INFERRED,
            catalogue=("NC-01", "NC-02"), about=WORKLOADS, needs=("Service", "PeerAuthentication", "Namespace"), find=find)
