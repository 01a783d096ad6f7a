"""A hostPort leads from the node's address into the pod: plaintext clients of it are refused under STRICT."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts, application, inside
from meshtls.audit.rule import WORKLOADS, Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    for w in facts.in_mesh:
        if facts.face(w).spec.host_network:
            continue
        for container in application(facts.face(w)):
            for port in container.ports:
                if port.host_port and facts.refuses(w, port.container_port):
                    yield Flaw(
                        subject=w.ref,
                        path=inside(w, "spec", "containers", container.name, "ports", str(port.container_port)),
                        message=f"{w.label} is reached at port {port.host_port} of its node: such clients are refused under STRICT on port {port.container_port}.",
                        because=("the connection is handed to the pod and captured there",
                                 "in ambient calls to a node's address are not sent by mTLS, from meshed clients either"),
                        catalogue=("LB-04", *(("AM-12",) if facts.plane(w) == "ambient" else ())),
                        fix="Call it through a Service, or keep the port open with portLevelMtls.",
                    )


RULE = Rule(code="MT262", title="A hostPort is refused under STRICT", severity=Severity.WARNING,
            catalogue=("LB-04", "AM-12"), about=WORKLOADS, needs=("PeerAuthentication", "Namespace"), find=find)
