"""A container that runs as user or group 1337 is taken for the proxy: what it sends is plaintext."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts, application, inside
from meshtls.audit.hints import callees
from meshtls.audit.rule import WORKLOADS, Flaw, Rule
from meshtls.model import objects as o
from meshtls.model.check import Severity

PROXY = 1337


def find(facts: Facts) -> Iterator[Flaw]:
    for w in facts.sidecars:
        spec = facts.face(w).spec
        pod = spec.security_context
        for field, containers in (("containers", application(facts.face(w))), ("initContainers", spec.init_containers)):
            for container in containers:
                if container.name in ("istio-proxy", "istio-init", "istio-validation"):
                    continue
                user = _first(container.security_context, pod, "run_as_user")
                group = _first(container.security_context, pod, "run_as_group")
                if PROXY in (user, group):
                    known = [s.ref for s, _ in callees(facts, w) if any(facts.refuses(server) for server in facts.behind(s))]
                    what = "user" if user == PROXY else "group"
                    yield Flaw(
                        subject=w.ref,
                        path=inside(w, "spec", field, container.name),
                        message=f"Container {container.name} of {w.label} runs as {what} 1337, the proxy's own: its traffic leaves in plaintext, and STRICT servers refuse it"
                                + (f", {known[0]} among them." if known else "."),
                        severity=Severity.ERROR if known else None,
                        because=("interception lets traffic of user and group 1337 pass, or the proxy would capture itself",),
                        fix="securityContext:\n  runAsUser: 1000\n  runAsGroup: 1000",
                    )


def _first(own: o.SecurityContext | None, pod: o.SecurityContext | None, field: str) -> int | None:
    value = getattr(own, field) if own else None
    return value if value is not None else getattr(pod, field) if pod else None


RULE = Rule(code="MT222", title="A container runs as the proxy's user", severity=Severity.WARNING,
            catalogue=("CL-13", "PP-02"), about=WORKLOADS, needs=("Namespace",), reads=("Service", "PeerAuthentication"), find=find)
