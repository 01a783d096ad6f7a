"""A classic sidecar starts and stops beside the application: the first and the last calls may be plaintext."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts, application, inside
from meshtls.audit.hints import callees
from meshtls.audit.rule import WORKLOADS, Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    for w in facts.sidecars:
        if not facts.classic(w):
            continue
        face = facts.face(w)
        held = facts.mesh.config.default_config.hold_application_until_proxy_starts
        notes = face.metadata.annotations.get("proxy.istio.io/config", "")
        hooks = [c.name for c in application(face) if c.lifecycle and c.lifecycle.pre_stop]
        if hooks:
            yield Flaw(
                subject=w.ref,
                path=inside(w, "spec", "containers", hooks[0], "lifecycle", "preStop"),
                message=f"The preStop hook of {hooks[0]} in {w.label} may run after the proxy has ended: what it calls then fails under STRICT.",
                catalogue=("NC-10",),
                fix="Use native sidecars, which end after the application.",
            )
        elif not held and "holdApplicationUntilProxyStarts" not in notes and application(face) and (w.kind in ("Job", "CronJob") or callees(facts, w)):
            yield Flaw(
                subject=w.ref,
                message=f"{w.label} may start calling before its proxy is ready: refused, or plaintext.",
                catalogue=("NC-09",),
                fix="Use native sidecars, or the annotation proxy.istio.io/config: '{\"holdApplicationUntilProxyStarts\": true}'.",
            )


RULE = Rule(code="MT245", title="The application outlives its sidecar", severity=Severity.INFO,
            catalogue=("NC-09", "NC-10"), about=WORKLOADS, needs=("Pod",), reads=("ConfigMap", "Service"), find=find)
