"""Jobs and CronJobs without sidecar: they run rarely, so that no time of watching shows what they call.

A Job runs once: it is only mentioned. Where the job names what it calls, MT240 says so.
"""

from collections.abc import Iterator

from meshtls.audit.facts import Facts, finished
from meshtls.audit.rule import Flaw, Rule
from meshtls.model import objects as o
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    if not facts.meshed_namespaces:
        return
    for w in facts.workloads:
        if w.kind not in ("Job", "CronJob") or facts.plane(w) != "none" or w.namespace == facts.mesh.root:
            continue
        if finished(w):
            continue
        when = f" ({w.owner.spec.schedule})" if isinstance(w.owner, o.CronJob) and w.owner.spec.schedule else ""
        yield Flaw(
            subject=w.ref,
            severity=None if w.kind == "CronJob" else Severity.INFO,
            message=f"{w.label}{when} has no sidecar. Whatever it calls in the mesh breaks at its next run, after everybody stopped watching.",
            because=("only what happens within the time of observation is seen", f"its pods would get no proxy in namespace {w.namespace}"),
            fix="Let it be injected (native sidecars end with the job), or run it once while you watch:\n"
                f"  kubectl -n {w.namespace} create job {w.name}-check --from={w.kind.lower()}/{w.name}" if w.kind == "CronJob" else
                "Let it be injected (native sidecars end with the job), or run it while you watch.",
        )


RULE = Rule(code="MT241", title="A job without sidecar runs outside the time of observation", severity=Severity.WARNING,
            catalogue=("NC-02", "RB-17"), about=("Job", "CronJob"), needs=("Namespace",), find=find)
