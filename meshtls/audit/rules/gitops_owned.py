"""A PeerAuthentication that GitOps owns goes back to what Git says within minutes: STRICT and rollback alike.

Where the object itself says that it is left alone, nothing is found. Whether the owner is paused elsewhere (suspend, sync
policy) is not in the objects that are read. The labels of a namespace that GitOps owns are mentioned: they decide injection.
"""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity
from meshtls.model.objects import Object
from meshtls.policy.authn import mode_of as mode

# label or annotation, as a whole or by prefix -> who reconciles what carries it
LABELS = (
    ("argocd.argoproj.io/instance", "Argo CD"),
    ("kustomize.toolkit.fluxcd.io/", "Flux (Kustomization)"),
    ("helm.toolkit.fluxcd.io/", "Flux (HelmRelease)"),
    ("kapp.k14s.io/app", "kapp"),
    ("objectset.rio.cattle.io/hash", "Fleet"),
)
ANNOTATIONS = (
    ("argocd.argoproj.io/tracking-id", "Argo CD"),
    ("configmanagement.gke.io/managed", "Config Sync"),
    ("objectset.rio.cattle.io/id", "Fleet"),
)
LEFT_ALONE = (("kustomize.toolkit.fluxcd.io/reconcile", "disabled"), ("kustomize.toolkit.fluxcd.io/ssa", "Ignore"),
              ("configmanagement.gke.io/managed", "disabled"))


def find(facts: Facts) -> Iterator[Flaw]:
    for policy in facts.mesh.peer_authentications:
        owner, how = owned_by(policy)
        if owner:
            strict = mode(policy) == "STRICT"
            yield Flaw(
                subject=policy.ref,
                path=("metadata",),
                severity=Severity.WARNING if strict else None,
                message=f"{owner} owns this policy: a change in the cluster is taken back within minutes, "
                        + ("the rollback from STRICT too." if strict else "STRICT and its rollback alike."),
                because=(how,),
                fix="Change it in Git, or pause the owner for the time of the migration.",
            )
    for namespace in facts.mesh.namespaces:
        owner, how = owned_by(namespace)
        if owner and namespace.name in facts.meshed_namespaces:
            yield Flaw(
                subject=namespace.ref,
                path=("metadata", "labels"),
                severity=Severity.INFO,
                message=f"{owner} owns this namespace: a change of its labels, which decide injection, is taken back within minutes.",
                because=(how,),
            )


def owned_by(obj: Object) -> tuple[str, str]:
    """(who reconciles it, how that is known); empty for nobody, and for what says that it is left alone."""
    notes, labels = obj.annotations, obj.labels
    if any(notes.get(key, labels.get(key)) == value for key, value in LEFT_ALONE):
        return "", ""
    for what, there, known in (("annotation", notes, ANNOTATIONS), ("label", labels, LABELS)):
        for prefix, owner in known:
            key = next((k for k in there if k == prefix or (prefix.endswith("/") and k.startswith(prefix))), "")
            if key:
                return owner, f"{what} {key}"
    return "", ""


RULE = Rule(code="MT134", title="GitOps would take a change back", severity=Severity.ERROR,
            catalogue=("RB-06",), about=("PeerAuthentication",), reads=("Namespace", "Pod"), find=find)
