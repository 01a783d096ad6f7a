"""A `Sidecar` that does not import a namespace makes calls into it unknown: they leave in plaintext, or are dropped.

Which namespaces a client calls cannot be read from objects, so this names what is cut off only where the client names a
Service of that namespace itself, in its environment or arguments.
"""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.hints import callees
from meshtls.audit.rule import Flaw, Rule
from meshtls.model import objects as o
from meshtls.model.check import Confidence, Severity
from meshtls.model.workload import Workload
from meshtls.policy.select import subset as matches


def find(facts: Facts) -> Iterator[Flaw]:
    if not facts.mesh.sidecars:
        return
    for w in facts.sidecars:
        if not (scope := _scope(facts, w)) or not scope.spec.egress:
            continue
        for service, said in callees(facts, w):
            if service.namespace == w.namespace and _imports(scope, w.namespace, service):
                continue
            if _imports(scope, w.namespace, service) or not any(facts.refuses(server) for server in facts.behind(service)):
                continue
            yield Flaw(
                subject=scope.ref,
                path=("spec", "egress"),
                message=f"{w.label} calls {service.ref} ({said}), which this Sidecar does not import: the call leaves in plaintext, and STRICT refuses it.",
                because=("a host that the client's proxy does not know goes to PassthroughCluster (plaintext), or is dropped under REGISTRY_ONLY",),
                fix=f"spec:\n  egress:\n  - hosts:\n    - \"./*\"\n    - \"{facts.mesh.root}/*\"\n    - \"{service.namespace}/{service.name}.{service.namespace}.svc.cluster.local\"",
                affects=(service.namespace,),
            )


def _scope(facts: Facts, w: Workload) -> o.Sidecar | None:
    """The Sidecar that applies to `w`: one that selects it, else its namespace's, else the root namespace's."""
    mine = [s for s in facts.mesh.sidecars if s.namespace == w.namespace]
    labels = facts.face(w).metadata.labels
    for s in mine:
        if s.spec.workload_selector and matches(s.spec.workload_selector.labels, labels):
            return s
    wide = [s for s in mine if not s.spec.workload_selector]
    root = [s for s in facts.mesh.sidecars if s.namespace == facts.mesh.root and not s.spec.workload_selector]
    return next(iter(wide or root), None)


def _imports(scope: o.Sidecar, home: str, service: o.Service) -> bool:
    name = f"{service.name}.{service.namespace}.svc.cluster.local"
    for egress in scope.spec.egress:
        for entry in egress.hosts:
            namespace, _, host = entry.rpartition("/")
            if namespace in ("*", service.namespace) or (namespace in (".", "") and service.namespace == home):
                if host in ("*", name) or (host.startswith("*") and name.endswith(host[1:])):
                    return True
    return False


RULE = Rule(code="MT216", title="A Sidecar does not import a Service that is called", severity=Severity.ERROR, confidence=Confidence.INFERRED,
            catalogue=("CL-08", "PP-14"), about=("Sidecar",), needs=("Service", "Pod", "PeerAuthentication", "Namespace"), find=find)
