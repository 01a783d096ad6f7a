"""Who writes an object from Git, by its labels and annotations: what such a one does not know of, it takes back within minutes.

An object that says itself that it is left alone has no owner. Whether the owner is paused elsewhere (suspend, sync policy) is not
in the object.
"""

from collections.abc import Mapping

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


def owned_by(labels: Mapping[str, str], annotations: Mapping[str, str]) -> tuple[str, str]:
    """(who reconciles it, how that is known); empty for nobody, and for what says that it is left alone."""
    if left_alone(labels, annotations):
        return "", ""
    for what, there, known in (("annotation", annotations, ANNOTATIONS), ("label", labels, LABELS)):
        for prefix, owner in known:
            key = next((k for k in there if k == prefix or (prefix.endswith("/") and k.startswith(prefix))), "")
            if key:
                return owner, f"{what} {key}"
    return "", ""


def left_alone(labels: Mapping[str, str], annotations: Mapping[str, str]) -> bool:
    """Whether the object says that its owner does not touch it."""
    return any(annotations.get(key, labels.get(key)) == value for key, value in LEFT_ALONE)
