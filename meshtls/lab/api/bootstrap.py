"""What every cluster has from the start, as far as tools need it: roles, their bindings and the system's priorities.

The table of ClusterRoles: role, API groups, verbs, resources. `-` is the core group. Verbs: r reads, w writes, * both, others
by name. `edit` holds `view`, `admin` holds `edit`.
"""
from typing import Any

from meshtls.lab.api.store import Store

_RBAC = "rbac.authorization.k8s.io"

_READ, _WRITE = ["get", "list", "watch"], ["create", "delete", "deletecollection", "patch", "update"]
_TABLE = """
view  -                         r configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods
    replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status
view  -                         r bindings limitranges namespaces/status pods/log pods/status
    replicationcontrollers/status resourcequotas resourcequotas/status
view  -                         r namespaces
view  -,events.k8s.io           r events
view  discovery.k8s.io          r endpointslices
view  apps                      r controllerrevisions daemonsets daemonsets/status deployments deployments/scale
    deployments/status replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale
    statefulsets/status
view  autoscaling               r horizontalpodautoscalers horizontalpodautoscalers/status
view  batch                     r cronjobs cronjobs/status jobs jobs/status
view  policy                    r poddisruptionbudgets poddisruptionbudgets/status
view  networking.k8s.io         r ingresses ingresses/status networkpolicies
edit  -                         r pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy
edit  -                         impersonate serviceaccounts
edit  -                         w pods pods/attach pods/exec pods/portforward pods/proxy
edit  -                         create pods/eviction
edit  -                         w configmaps persistentvolumeclaims replicationcontrollers
    replicationcontrollers/scale secrets serviceaccounts services services/proxy
edit  -                         create serviceaccounts/token
edit  -,events.k8s.io           w events
edit  apps                      w daemonsets deployments deployments/rollback deployments/scale replicasets
    replicasets/scale statefulsets statefulsets/scale
edit  autoscaling               w horizontalpodautoscalers
edit  batch                     w cronjobs jobs
edit  policy                    w poddisruptionbudgets
edit  networking.k8s.io         w ingresses networkpolicies
edit  coordination.k8s.io       * leases
admin authorization.k8s.io      create localsubjectaccessreviews
admin rbac.authorization.k8s.io * rolebindings roles
system:basic-user authorization.k8s.io  create selfsubjectaccessreviews selfsubjectrulesreviews
system:basic-user authentication.k8s.io create selfsubjectreviews
"""
_PUBLIC = ["/healthz", "/livez", "/readyz", "/version", "/version/"]
_DISCOVERY = ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version",
              "/version/"]


def _roles() -> dict[str, list[dict[str, Any]]]:
    """Rules by role."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in _TABLE.strip().replace("\n    ", " ").splitlines():
        role, groups, verbs, *resources = line.split()
        known = {"r": _READ, "w": _WRITE, "*": sorted([*_READ, *_WRITE])}
        found.setdefault(role, []).append({
            "apiGroups": ["" if group == "-" else group for group in groups.split(",")], "resources": resources,
            "verbs": list(known.get(verbs, [verbs]))})
    found["edit"] += found["view"]
    found["admin"] = found["edit"] + found["admin"]
    return {**found, "system:discovery": [{"verbs": ["get"], "nonResourceURLs": _DISCOVERY}],
            "system:public-info-viewer": [{"verbs": ["get"], "nonResourceURLs": _PUBLIC}],
            "cluster-admin": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
                              {"nonResourceURLs": ["*"], "verbs": ["*"]}]}


def fill(store: Store) -> None:
    def keep(group: str, plural: str, kind: str, name: str, **more: Any) -> None:
        ours = {"labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
                "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}} if group == _RBAC else {}
        store.create(f"{plural}.{group}", {"apiVersion": f"{group}/v1", "kind": kind, "metadata": {"name": name, **ours}, **more})
    for name, rules in _roles().items():
        keep(_RBAC, "clusterroles", "ClusterRole", name, rules=rules)
    for name, group in (("cluster-admin", "system:masters"), ("system:basic-user", "system:authenticated"),
                        ("system:discovery", "system:authenticated"), ("system:public-info-viewer", "system:authenticated")):
        keep(_RBAC, "clusterrolebindings", "ClusterRoleBinding", name, roleRef={"apiGroup": _RBAC, "kind": "ClusterRole", "name": name},
             subjects=[{"kind": "Group", "name": group, "apiGroup": _RBAC}])
    for name, value, what in (("system-cluster-critical", 2000000000, "the cluster"), ("system-node-critical", 2000001000, "the node")):
        keep("scheduling.k8s.io", "priorityclasses", "PriorityClass", name, value=value, preemptionPolicy="PreemptLowerPriority",
             description=f"Used for system critical pods that must not be moved from {what}.")
