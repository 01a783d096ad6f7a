"""A Service that is not exported to its clients' namespaces is unknown there: calls leave in plaintext."""

from collections.abc import Iterator, Sequence

from meshtls.audit.facts import Facts
from meshtls.audit.hints import callees
from meshtls.audit.rule import Flaw, Rule
from meshtls.model import objects as o
from meshtls.model.check import Severity
from meshtls.policy.select import matches as chosen

ANNOTATION = "networking.istio.io/exportTo"


def find(facts: Facts) -> Iterator[Flaw]:
    config = facts.mesh.config
    for service in facts.mesh.services:
        text = service.annotations.get(ANNOTATION)
        scopes = [part.strip() for part in text.split(",")] if text else list(config.default_service_export_to)
        labels = facts.mesh.namespace_labels.get(service.namespace)
        unseen = bool(config.discovery_selectors) and labels is not None and not any(chosen(s, labels) for s in config.discovery_selectors)
        if not unseen and (not scopes or "*" in scopes):
            continue
        meshed = [w for w in facts.behind(service) if facts.refuses(w)]
        if not meshed:
            continue
        named = _outside(facts, service, () if unseen else scopes)
        where = "nowhere: discoverySelectors leave its namespace out" if unseen else f"only in {', '.join(scopes)}"
        yield Flaw(
            subject=service.ref,
            path=("metadata", "annotations", ANNOTATION) if text else (),
            severity=Severity.ERROR if named else None,
            message=f"Known to meshed clients {where}. {f'{named} calls it from elsewhere: plaintext' if named else 'Clients elsewhere send it plaintext'}, "
                    f"which STRICT on {meshed[0].label} refuses.",
            because=(f"annotation {ANNOTATION}" if text else f"{config.ref} says so",
                     "a Service that a client's proxy does not know goes to PassthroughCluster, in plaintext"),
            fix=f"  kubectl -n {service.namespace} annotate service {service.name} {ANNOTATION}='*' --overwrite",
        )


def _outside(facts: Facts, service: o.Service, scopes: Sequence[str]) -> str:
    """A meshed client that names the Service and does not know it; "" where none is seen."""
    seen = {service.namespace if scope == "." else scope for scope in scopes}
    for w in facts.sidecars:
        if w.namespace not in seen and any(s is service for s, _ in callees(facts, w)):
            return w.ref
    return ""


RULE = Rule(code="MT217", title="A Service is hidden from some of its clients", severity=Severity.WARNING,
            catalogue=("CL-09",), about=("Service",), needs=("Pod", "ConfigMap", "Namespace", "PeerAuthentication"), find=find)
