"""Init containers run before a classic sidecar: what they send is plaintext. Native sidecars start first."""

from collections.abc import Iterator

from meshtls.audit import say
from meshtls.audit.facts import Facts, inside
from meshtls.audit.hints import init_callees
from meshtls.audit.rule import WORKLOADS, Flaw, Rule
from meshtls.model.check import Severity

ISTIO = ("istio-init", "istio-validation", "istio-proxy")


def find(facts: Facts) -> Iterator[Flaw]:
    for w in facts.sidecars:
        if not facts.classic(w):
            continue
        names = [c.name for c in facts.face(w).spec.init_containers if c.name not in ISTIO and c.restart_policy != "Always"]
        if not names:
            continue
        known = [s.ref for s, _ in init_callees(facts, w) if any(facts.refuses(server) for server in facts.behind(s))]
        yield Flaw(
            subject=w.ref,
            path=inside(w, "spec", "initContainers"),
            severity=Severity.ERROR if known else None,
            message=f"Init container {say.some(names)} of {w.label} runs before the sidecar: {'its calls to ' + known[0] if known else 'what it calls in the mesh'} "
                    "would be plaintext, and refused under STRICT.",
            because=("istio-proxy is an ordinary container here, which starts after all init containers",),
            fix="Use native sidecars (the default since Istio 1.27 on Kubernetes 1.33), or move the calls into the main container.",
        )


RULE = Rule(code="MT244", title="An init container runs before the sidecar", severity=Severity.WARNING,
            catalogue=("NC-08",), about=WORKLOADS, needs=("Pod",), reads=("Service", "PeerAuthentication"), find=find)
