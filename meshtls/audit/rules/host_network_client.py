"""A workload in the host's network is never injected: as a client it sends plaintext from its node's address."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts, inside
from meshtls.audit.hints import callees
from meshtls.audit.rule import WORKLOADS, Flaw, Rule
from meshtls.model.check import Confidence, Severity


def find(facts: Facts) -> Iterator[Flaw]:
    if not facts.meshed_namespaces:
        return
    for w in facts.workloads:
        if facts.face(w).spec.host_network and w.namespace != facts.mesh.root:
            known = [s.ref for s, _ in callees(facts, w) if any(facts.refuses(server) for server in facts.behind(s))]
            yield Flaw(
                subject=w.ref,
                path=inside(w, "spec", "hostNetwork"),
                message=f"{w.label} runs in the host's network and is never injected: {known[0] if known else 'what it calls in the mesh'} refuses its plaintext under STRICT.",
                severity=Severity.ERROR if known else None,
                because=("the injector leaves pods with hostNetwork alone", "its calls come from the node's address, so that logs do not name it"),
                catalogue=("NC-03", *(("NC-04",) if w.kind == "DaemonSet" else ())),
                fix="Keep the ports that it calls open: meshtls predict --strict NAMESPACE names them where objects do.",
            )


RULE = Rule(code="MT243", title="A host-network client cannot have a sidecar", severity=Severity.WARNING, confidence=Confidence.INFERRED,
            catalogue=("NC-03", "NC-04"), about=WORKLOADS, needs=("Namespace",), reads=("Service", "PeerAuthentication"), find=find)
