"""Whether a pod may run on a node: nodeSelector, required node affinity, taints, cordons. Pure."""

from meshtls.lab.controllers.objects import Obj, labels_of, requirement_holds


def why_not(pod: Obj, node: Obj, *, ignore_cordon: bool = False) -> str:
    """Empty if the pod fits, else the scheduler's own words for the reason."""
    spec, node_spec = pod["spec"], node.get("spec") or {}
    if node_spec.get("unschedulable") and not ignore_cordon:
        return "node(s) were unschedulable"
    for taint in node_spec.get("taints") or ():
        if taint["effect"] in ("NoSchedule", "NoExecute") and not any(
            _tolerates(one, taint) for one in spec.get("tolerations") or ()
        ):
            return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
    labels = labels_of(node)
    if (spec.get("nodeSelector") or {}).items() - labels.items() or not _affinity_holds(spec, node):
        return "node(s) didn't match Pod's node affinity/selector"
    return ""


def _affinity_holds(spec: Obj, node: Obj) -> bool:
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    fields = {"metadata.name": node["metadata"]["name"]}
    return any(
        all(requirement_holds(need, labels_of(node)) for need in term.get("matchExpressions") or ())
        and all(requirement_holds(need, fields) for need in term.get("matchFields") or ())
        for term in required.get("nodeSelectorTerms") or ()
        if term.get("matchExpressions") or term.get("matchFields")
    )


def _tolerates(toleration: Obj, taint: Obj) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if not toleration.get("key"):
        return toleration.get("operator") == "Exists"
    if toleration["key"] != taint["key"]:
        return False
    return toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")
