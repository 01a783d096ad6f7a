"""A pod that the mesh should capture and does not: labelled for ambient without the annotation, or told to bypass."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts, inside
from meshtls.audit.rule import WORKLOADS, Flaw, Rule
from meshtls.model.check import Severity
from meshtls.policy.dataplane import BYPASS, MODE, bypassed

REDIRECTION = "ambient.istio.io/redirection"


def find(facts: Facts) -> Iterator[Flaw]:
    for w in facts.workloads:
        namespace = facts.mesh.namespace_labels.get(w.namespace, {}).get(MODE, "")
        for face in facts.faces(w):
            notes, own = face.metadata.annotations, face.metadata.labels.get(MODE)
            wanted = own == "ambient" or (namespace == "ambient" and own != "none")
            if bypassed(notes) and (wanted or notes.get(REDIRECTION) == "enabled"):
                yield Flaw(
                    subject=w.ref,
                    path=inside(w, "metadata", "annotations", BYPASS),
                    message=f"{w.label} receives its traffic past ztunnel: STRICT is not enforced there.",
                    because=(f"the pod has the annotation {BYPASS}: \"{notes[BYPASS]}\"",),
                    catalogue=("AM-10",),
                    fix=f"Remove the annotation {BYPASS}.",
                )
                break
            running = bool(w.pods) and face.status.phase in ("", "Running")
            if (wanted and running and not face.spec.host_network and notes.get(REDIRECTION) != "enabled"
                    and facts.plane_of(face) == "none"):
                yield Flaw(
                    subject=w.ref,
                    message=f"Pod {face.name} is not captured by ztunnel although it or its namespace {w.namespace} is labelled for ambient.",
                    because=(f"it lacks the annotation {REDIRECTION}: enabled, which istio-cni sets once the pod is captured",),
                    catalogue=("AM-11",),
                    fix=f"See the log of istio-cni on its node, then: kubectl -n {w.namespace} delete pod {face.name}",
                )
                break


RULE = Rule(code="MT126", title="An ambient pod is not captured", severity=Severity.WARNING,
            catalogue=("AM-10", "AM-11"), about=WORKLOADS, needs=("Namespace",), find=find)
