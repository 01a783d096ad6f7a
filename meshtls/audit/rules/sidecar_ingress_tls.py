"""A Sidecar's own server TLS counts only where the mode is DISABLE: STRICT and PERMISSIVE override it."""

from collections.abc import Iterator

from meshtls.audit import say
from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity
from meshtls.policy.select import subset as matches


def find(facts: Facts) -> Iterator[Flaw]:
    for sidecar in facts.mesh.sidecars:
        labels = sidecar.spec.workload_selector.labels if sidecar.spec.workload_selector else {}
        for index, ingress in enumerate(sidecar.spec.ingress):
            if ingress.tls is None or ingress.port is None:
                continue
            port = ingress.port.number
            for w in facts.workloads_in.get(sidecar.namespace, ()):
                if not facts.sidecar(w) or not matches(labels, facts.face(w).metadata.labels) or facts.after(w, port) == "DISABLE":
                    continue
                yield Flaw(
                    subject=sidecar.ref,
                    path=("spec", "ingress", str(index), "tls"),
                    message=f"Its TLS for port {port} of {w.label} is overridden by the mode {facts.mode(w, port)}; HTTPS clients from outside the mesh fail under STRICT.",
                    because=("Sidecar ingress tls is honoured only where the PeerAuthentication mode of the port is DISABLE",),
                    fix=say.exception(facts, w, [port], "DISABLE"),
                )
                break


RULE = Rule(code="MT117", title="A Sidecar's own TLS is overridden", severity=Severity.ERROR,
            catalogue=("PA-20",), about=("Sidecar",), needs=("PeerAuthentication", "Pod", "Namespace"), find=find)
