"""Annotations that let a client's traffic leave past its sidecar: in plaintext, which STRICT refuses."""

from collections.abc import Iterator

from meshtls.audit import say
from meshtls.audit.facts import Facts, inside, numbers, section
from meshtls.audit.hints import callees
from meshtls.audit.rule import WORKLOADS, Flaw, Rule
from meshtls.model.check import Severity

PREFIX = "traffic.sidecar.istio.io/"


def find(facts: Facts) -> Iterator[Flaw]:
    served = {port.port for s in facts.mesh.services if any(facts.meshed(w) for w in facts.behind(s)) for port in s.spec.ports}
    for w in facts.sidecars:
        notes = facts.face(w).metadata.annotations
        excluded = sorted(numbers(notes.get(PREFIX + "excludeOutboundPorts", "")) & served)
        if excluded:
            called = [s.ref for s, _ in callees(facts, w) if any(p.port in excluded for p in s.spec.ports)]
            yield _flaw(w, PREFIX + "excludeOutboundPorts", f"calls to port {say.some([str(p) for p in excluded])}",
                        f"Services of the mesh listen there{': ' + called[0] if called else ''}", Severity.ERROR if called else Severity.WARNING)
        include = notes.get(PREFIX + "includeOutboundIPRanges")
        if include is not None and "*" not in include:
            yield _flaw(w, PREFIX + "includeOutboundIPRanges", f"everything but {include or 'nothing'}", "other addresses are not captured", Severity.WARNING)
        ranges = notes.get(PREFIX + "excludeOutboundIPRanges", "")
        if ranges:
            yield _flaw(w, PREFIX + "excludeOutboundIPRanges", f"calls to {ranges}", "these addresses are not captured", Severity.WARNING)


    for ref, values in facts.injector_values:
        proxy = section(values, "global", "proxy")
        for field in ("excludeOutboundPorts", "excludeIPRanges", "includeIPRanges"):
            said = str(proxy.get(field) or "")
            hit = numbers(said) & served if field == "excludeOutboundPorts" else said and said != "*"
            if hit:
                yield Flaw(
                    subject=ref,
                    path=("data", "values", field),
                    message=f"Every workload without an annotation of its own sends what {field} {said!r} leaves out past its sidecar, in plaintext: "
                            "STRICT servers refuse it.",
                    because=(f"the injector's values say global.proxy.{field}: {said!r}",),
                    fix=f"Narrow global.proxy.{field} to what is outside the mesh, and restart the workloads.",
                )


def _flaw(w, annotation, what, why, severity) -> Flaw:  # type: ignore[no-untyped-def]
    return Flaw(
        subject=w.ref,
        path=inside(w, "metadata", "annotations", annotation),
        severity=severity,
        message=f"{w.label} sends {what} past its sidecar, in plaintext: STRICT servers refuse it.",
        because=(f"annotation {annotation}", why),
        fix=f"Remove the annotation {annotation}, or narrow it to what is outside the mesh.",
    )


RULE = Rule(code="MT221", title="A client's traffic leaves past its sidecar", severity=Severity.WARNING,
            catalogue=("CL-12",), about=WORKLOADS, needs=("Service", "Namespace"), reads=("ConfigMap",), find=find)
