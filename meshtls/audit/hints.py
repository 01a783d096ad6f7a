"""Hints: Services that a workload names in its environment, command or arguments. A hint is no proof of a call.

Names that no Service has are passed over, so ordinary host names do not count.
"""

from meshtls.audit.facts import Facts
from meshtls.model import objects as o
from meshtls.model.hosts import named
from meshtls.model.workload import Workload

ISTIO = ("istio-proxy", "istio-init", "istio-validation")


def callees(facts: Facts, w: Workload) -> tuple[tuple[o.Service, str], ...]:
    """(Service, where it is named) for each Service that `w` names, except those that `w` itself serves."""
    spec = facts.face(w).spec
    return _known(facts, w, "callees", (*spec.containers, *spec.init_containers))


def init_callees(facts: Facts, w: Workload) -> tuple[tuple[o.Service, str], ...]:
    """The same of those init containers alone that end before the others start."""
    return _known(facts, w, "init callees", tuple(c for c in facts.face(w).spec.init_containers if c.restart_policy != "Always"))


def _known(facts: Facts, w: Workload, name: str, containers: tuple[o.Container, ...]) -> tuple[tuple[o.Service, str], ...]:
    memo = facts.memo(name)
    if w.ref not in memo:
        memo[w.ref] = tuple(_read(facts, w, containers))
    return memo[w.ref]  # type: ignore[no-any-return]


def _read(facts: Facts, w: Workload, containers: tuple[o.Container, ...]) -> list[tuple[o.Service, str]]:
    found: dict[str, tuple[o.Service, str]] = {}
    by_name = facts.mesh.services_by_name
    own = {s.ref for s in facts.services_of.get(w.ref, ())}
    for container in containers:
        if container.name in ISTIO:
            continue
        texts = [(f"env {env.name}", env.value) for env in container.env if env.value]
        texts += [("its arguments", text) for text in (*container.command, *container.args)]
        for where, text in texts:
            for key in named(text, w.namespace, where == "its arguments"):
                service = by_name.get(key)
                if service and service.spec.type == "ExternalName":
                    service = facts.service(service.spec.external_name, service.namespace) or service
                if service and service.ref not in own:
                    found.setdefault(service.ref, (service, where))
    return list(found.values())
