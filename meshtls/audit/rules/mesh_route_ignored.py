"""A Gateway API route or BackendTLSPolicy of the mesh, or a part of it, that istiod does not use.

A parent without `group: ""`, a Service or port that does not exist, a filter that istiod does not know, a port of another
protocol, a policy that an older one pushes aside: whoever wrote the object believes that clients do something else than they do.
A backend that leads nowhere makes the client's own proxy answer with 500.
"""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    for each in facts.engine.control("").ignored:
        said = each.because
        kind, namespace, name = said.object.split("/")
        yield Flaw(
            subject=said.object,
            path=said.steps(),
            message=f"{said.says[:1].upper()}{said.says[1:]}.",
            fix=f"Mend {said.path}, or delete what does nothing:\n  kubectl -n {namespace} delete {kind.lower()} {name}",
        )


RULE = Rule(code="MT209", title="A route or BackendTLSPolicy of the mesh is ignored", severity=Severity.WARNING, catalogue=("DR-12",),
            about=("HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute", "BackendTLSPolicy"),
            needs=("Service", "ServiceEntry", "Namespace", "K8sGateway", "GatewayClass"), find=find)
