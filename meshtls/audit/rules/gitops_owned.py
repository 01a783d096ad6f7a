"""A PeerAuthentication that GitOps owns goes back to what Git says within minutes: STRICT and rollback alike."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity
from meshtls.model.objects import Object


def find(facts: Facts) -> Iterator[Flaw]:
    for policy in facts.mesh.peer_authentications:
        owner, how = owned_by(policy)
        if owner:
            yield Flaw(
                subject=policy.ref,
                path=("metadata",),
                message=f"{owner} owns this policy: a change in the cluster is taken back within minutes, a rollback too.",
                because=(how,),
                fix="Change it in Git, or pause the owner for the time of the migration.",
            )


def owned_by(obj: Object) -> tuple[str, str]:
    """(who reconciles it, how that is known); empty for nobody."""
    notes, labels = obj.annotations, obj.labels
    for key in notes:
        if key == "argocd.argoproj.io/tracking-id":
            return "Argo CD", f"annotation {key}"
    if "argocd.argoproj.io/instance" in labels:
        return "Argo CD", "label argocd.argoproj.io/instance"
    for key in labels:
        if key.startswith("kustomize.toolkit.fluxcd.io/"):
            return "Flux (Kustomization)", f"label {key}"
        if key.startswith("helm.toolkit.fluxcd.io/"):
            return "Flux (HelmRelease)", f"label {key}"
    return "", ""


RULE = Rule(code="MT134", title="GitOps would take a change back", severity=Severity.WARNING,
            catalogue=("RB-06",), about=("PeerAuthentication",), find=find)
