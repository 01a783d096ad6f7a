"""Two Services name one port of a workload with different protocols: the oldest Service's decides."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model import objects as o
from meshtls.model.check import Severity
from meshtls.policy.select import age
from meshtls.policy.service import AUTO, HTTP, protocol_of


def find(facts: Facts) -> Iterator[Flaw]:
    for w in facts.workloads:
        services = facts.services_of.get(w.ref, ())
        if len(services) < 2 or not facts.meshed(w):
            continue
        seen: dict[int, tuple[o.Service, str]] = {}
        for service in sorted(services, key=age):
            for port in service.spec.ports:
                target = facts.target(port, w)
                if not target or port.protocol not in ("TCP", ""):
                    continue
                kind = _family(protocol_of(port))
                first = seen.setdefault(target, (service, kind))
                if kind != first[1] and first[0].ref != service.ref:
                    yield Flaw(
                        subject=service.ref,
                        path=("spec", "ports", port.name or str(port.port)),
                        message=f"Port {target} of {w.label} is {shown(kind)} here and {shown(first[1])} in {first[0].ref}: the older Service decides what the proxy expects.",
                        because=("inbound traffic of a port has one protocol, the oldest Service's",),
                        fix=f"Name the port alike in both (name or appProtocol), for example:\n  ports:\n  - name: {shown(first[1]).lower()}-{port.name or target}\n    targetPort: {target}",
                    )


def _family(protocol: str) -> str:
    """What an inbound listener makes of a protocol: HTTP of any kind is one, everything else that is declared is TCP."""
    return "HTTP" if protocol in HTTP else protocol if protocol == AUTO else "TCP"


def shown(family: str) -> str:
    """How it is called in words."""
    return "undeclared" if family == AUTO else family


RULE = Rule(code="MT128", title="Two Services disagree on a port's protocol", severity=Severity.WARNING,
            catalogue=("CT-01",), about=("Service",), needs=("Pod", "Namespace"), find=find)
