"""Whether a pod may run on a node: nodeSelector, required node affinity, taints, cordons. Pure."""

from meshtls.lab.api.select import selected
from meshtls.lab.controllers.objects import Obj, labels_of, name_of


def why_not(pod: Obj, node: Obj, *, ignore_cordon: bool = False) -> str:
    """Empty if the pod fits, else the scheduler's own words for the reason."""
    spec, node_spec = pod["spec"], node.get("spec") or {}
    if node_spec.get("unschedulable") and not ignore_cordon:
        return "node(s) were unschedulable"
    for taint in node_spec.get("taints") or ():
        tolerated = any(_tolerates(one, taint) for one in spec.get("tolerations") or ())
        if taint["effect"] in ("NoSchedule", "NoExecute") and not tolerated:
            return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
    if not selected({"matchLabels": spec.get("nodeSelector")}, labels_of(node)) or not _affinity_holds(spec, node):
        return "node(s) didn't match Pod's node affinity/selector"
    return ""


def _affinity_holds(spec: Obj, node: Obj) -> bool:
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return not required or any(
        selected({"matchExpressions": term.get("matchExpressions")}, labels_of(node))
        and selected({"matchExpressions": term.get("matchFields")}, {"metadata.name": name_of(node)})
        for term in required.get("nodeSelectorTerms") or ()
        if term.get("matchExpressions") or term.get("matchFields")
    )


def _tolerates(toleration: Obj, taint: Obj) -> bool:
    if any(toleration.get(field) not in (None, "", taint[field]) for field in ("key", "effect")):
        return False
    exists = toleration.get("operator") == "Exists"
    return exists or bool(toleration.get("key")) and toleration.get("value", "") == taint.get("value", "")
