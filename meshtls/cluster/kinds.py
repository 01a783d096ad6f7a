"""The kinds that meshtls reads or writes, one line each: the whole list.

A key is the kind's name; the Gateway API's `Gateway` shares its name with Istio's and has its group in the key.
Versions are those served by Kubernetes 1.25 and newer and by Istio 1.22 and newer.
"""

import re

import msgspec

from meshtls.errors import InputError

_NAME = re.compile(r"[a-zA-Z0-9]([-a-zA-Z0-9._:]{0,251}[a-zA-Z0-9])?")


class Kind(msgspec.Struct, frozen=True):
    """A resource type: `group` is "" for the core group, `plural` is its word in paths."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """`plural.group`, as RBAC and messages write it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str | None = None, name: str | None = None, sub: str = "") -> str:
        """The URL path of a collection or an object. Raises InputError for a name that would change the path's meaning."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if namespace and self.namespaced:
            parts += ["namespaces", _safe(namespace, "namespace")]
        elif name is not None and self.namespaced:
            raise InputError(f"{self.kind} {name}: an object of this kind needs a namespace")
        parts.append(self.plural)
        if name is not None:
            parts.append(_safe(name, f"name of a {self.kind}"))
        if sub:
            parts.append(sub)
        return "/" + "/".join(parts)


def _safe(name: str, what: str) -> str:
    if not _NAME.fullmatch(name) or ".." in name:
        raise InputError(f"{name[:80]!r} is no {what}", "names are lower-case letters, digits, dashes and dots")
    return name


def find(api_version: str, kind: str) -> Kind:
    """The kind of an object that says `apiVersion` and `kind`. Raises InputError for one that is not in the list."""
    group = api_version.rpartition("/")[0]
    known = KINDS.get(f"{kind}.{group}") or KINDS.get(kind)
    if known is None or known.group != group:
        raise InputError(f"{api_version} {kind}: meshtls does not work with objects of this kind")
    return known if known.api_version == api_version else msgspec.structs.replace(
        known, version=api_version.rpartition("/")[2]
    )


_ALL = (
    Kind("", "v1", "namespaces", "Namespace", False),
    Kind("", "v1", "nodes", "Node", False),
    Kind("", "v1", "pods", "Pod", True),
    Kind("", "v1", "services", "Service", True),
    Kind("", "v1", "endpoints", "Endpoints", True),
    Kind("", "v1", "configmaps", "ConfigMap", True),
    Kind("", "v1", "secrets", "Secret", True),
    Kind("", "v1", "serviceaccounts", "ServiceAccount", True),
    Kind("", "v1", "events", "Event", True),
    Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", True),
    Kind("apps", "v1", "deployments", "Deployment", True),
    Kind("apps", "v1", "replicasets", "ReplicaSet", True),
    Kind("apps", "v1", "statefulsets", "StatefulSet", True),
    Kind("apps", "v1", "daemonsets", "DaemonSet", True),
    Kind("batch", "v1", "jobs", "Job", True),
    Kind("batch", "v1", "cronjobs", "CronJob", True),
    Kind("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", True),
    Kind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", True),
    Kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", True),
    Kind("networking.k8s.io", "v1", "ingresses", "Ingress", True),
    Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", True),
    Kind("coordination.k8s.io", "v1", "leases", "Lease", True),
    Kind("rbac.authorization.k8s.io", "v1", "roles", "Role", True),
    Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", True),
    Kind("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", False),
    Kind("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", False),
    Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False),
    Kind("apiregistration.k8s.io", "v1", "apiservices", "APIService", False),
    Kind("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", False),
    Kind("admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", False),
    Kind("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", False),
    Kind("admissionregistration.k8s.io", "v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", False),
    Kind("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False),
    Kind("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", False),
    Kind("security.istio.io", "v1", "peerauthentications", "PeerAuthentication", True),
    Kind("security.istio.io", "v1", "authorizationpolicies", "AuthorizationPolicy", True),
    Kind("security.istio.io", "v1", "requestauthentications", "RequestAuthentication", True),
    Kind("networking.istio.io", "v1", "destinationrules", "DestinationRule", True),
    Kind("networking.istio.io", "v1", "virtualservices", "VirtualService", True),
    Kind("networking.istio.io", "v1", "serviceentries", "ServiceEntry", True),
    Kind("networking.istio.io", "v1", "sidecars", "Sidecar", True),
    Kind("networking.istio.io", "v1", "gateways", "Gateway", True),
    Kind("networking.istio.io", "v1", "workloadentries", "WorkloadEntry", True),
    Kind("networking.istio.io", "v1", "workloadgroups", "WorkloadGroup", True),
    Kind("networking.istio.io", "v1beta1", "proxyconfigs", "ProxyConfig", True),
    Kind("networking.istio.io", "v1alpha3", "envoyfilters", "EnvoyFilter", True),
    Kind("extensions.istio.io", "v1alpha1", "wasmplugins", "WasmPlugin", True),
    Kind("telemetry.istio.io", "v1", "telemetries", "Telemetry", True),
    Kind("gateway.networking.k8s.io", "v1", "gateways", "Gateway", True),
    Kind("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute", True),
    Kind("gateway.networking.k8s.io", "v1", "grpcroutes", "GRPCRoute", True),
    Kind("gateway.networking.k8s.io", "v1", "gatewayclasses", "GatewayClass", False),
    Kind("gateway.networking.k8s.io", "v1alpha2", "tcproutes", "TCPRoute", True),
    Kind("gateway.networking.k8s.io", "v1alpha2", "tlsroutes", "TLSRoute", True),
    Kind("gateway.networking.k8s.io", "v1", "backendtlspolicies", "BackendTLSPolicy", True),
    Kind("", "v1", "replicationcontrollers", "ReplicationController", True),
    Kind("networking.k8s.io", "v1", "ingressclasses", "IngressClass", False),
    Kind("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", False),
    Kind("monitoring.coreos.com", "v1", "servicemonitors", "ServiceMonitor", True),
    Kind("monitoring.coreos.com", "v1", "podmonitors", "PodMonitor", True),
    Kind("policies.kyverno.io", "v1", "validatingpolicies", "ValidatingPolicy", False),
    Kind("constraints.gatekeeper.sh", "v1beta1", "meshtlsguardpolicies", "MeshtlsGuardPolicies", False),
    Kind("constraints.gatekeeper.sh", "v1beta1", "meshtlsguardcalls", "MeshtlsGuardCalls", False),
    Kind("constraints.gatekeeper.sh", "v1beta1", "meshtlsguardpods", "MeshtlsGuardPods", False),
    Kind("constraints.gatekeeper.sh", "v1beta1", "meshtlsguardworkloads", "MeshtlsGuardWorkloads", False),
    Kind("constraints.gatekeeper.sh", "v1beta1", "meshtlsguardcronjobs", "MeshtlsGuardCronjobs", False),
    Kind("constraints.gatekeeper.sh", "v1beta1", "meshtlsguardlabels", "MeshtlsGuardLabels", False),
)

KINDS: dict[str, Kind] = {}
for _kind in _ALL:
    KINDS[f"{_kind.kind}.{_kind.group}" if _kind.kind in KINDS else _kind.kind] = _kind
