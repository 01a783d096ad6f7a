"""The kinds that meshtls reads: one literal list, in the order in which they are read from a cluster.

Each row: field of Mesh, API group, class. The class's KIND (or its name) is the kind; versions do not matter, since only
fields that every served version shares are read.
"""

from meshtls.model import objects as o

READ: tuple[tuple[str, str, type[o.Object]], ...] = (
    ("namespaces", "", o.Namespace),
    ("pods", "", o.Pod),
    ("deployments", "apps", o.Deployment),
    ("stateful_sets", "apps", o.StatefulSet),
    ("daemon_sets", "apps", o.DaemonSet),
    ("replica_sets", "apps", o.ReplicaSet),
    ("replication_controllers", "", o.ReplicationController),
    ("jobs", "batch", o.Job),
    ("cron_jobs", "batch", o.CronJob),
    ("services", "", o.Service),
    ("endpoint_slices", "discovery.k8s.io", o.EndpointSlice),
    ("peer_authentications", "security.istio.io", o.PeerAuthentication),
    ("authorization_policies", "security.istio.io", o.AuthorizationPolicy),
    ("destination_rules", "networking.istio.io", o.DestinationRule),
    ("virtual_services", "networking.istio.io", o.VirtualService),
    ("sidecars", "networking.istio.io", o.Sidecar),
    ("service_entries", "networking.istio.io", o.ServiceEntry),
    ("workload_entries", "networking.istio.io", o.WorkloadEntry),
    ("gateways", "networking.istio.io", o.Gateway),
    ("envoy_filters", "networking.istio.io", o.EnvoyFilter),
    ("proxy_configs", "networking.istio.io", o.ProxyConfig),
    ("telemetries", "telemetry.istio.io", o.Telemetry),
    ("k8s_gateways", "gateway.networking.k8s.io", o.K8sGateway),
    ("gateway_classes", "gateway.networking.k8s.io", o.GatewayClass),
    ("http_routes", "gateway.networking.k8s.io", o.HTTPRoute),
    ("grpc_routes", "gateway.networking.k8s.io", o.GRPCRoute),
    ("tcp_routes", "gateway.networking.k8s.io", o.TCPRoute),
    ("tls_routes", "gateway.networking.k8s.io", o.TLSRoute),
    ("backend_tls_policies", "gateway.networking.k8s.io", o.BackendTLSPolicy),
    ("config_maps", "", o.ConfigMap),
    ("mutating_webhooks", "admissionregistration.k8s.io", o.MutatingWebhookConfiguration),
    ("validating_webhooks", "admissionregistration.k8s.io", o.ValidatingWebhookConfiguration),
    ("api_services", "apiregistration.k8s.io", o.APIService),
    ("crds", "apiextensions.k8s.io", o.CustomResourceDefinition),
    ("network_policies", "networking.k8s.io", o.NetworkPolicy),
    ("ingresses", "networking.k8s.io", o.Ingress),
    ("ingress_classes", "networking.k8s.io", o.IngressClass),
    ("runtime_classes", "node.k8s.io", o.RuntimeClass),
    ("service_monitors", "monitoring.coreos.com", o.ServiceMonitor),
    ("pod_monitors", "monitoring.coreos.com", o.PodMonitor),
    ("nodes", "", o.Node),
    ("admission_policies", "admissionregistration.k8s.io", o.ValidatingAdmissionPolicy),
    ("admission_bindings", "admissionregistration.k8s.io", o.ValidatingAdmissionPolicyBinding),
    ("kyverno_policies", "policies.kyverno.io", o.ValidatingPolicy),
    ("guard_policies", "constraints.gatekeeper.sh", o.MeshtlsGuardPolicies),
    ("guard_calls", "constraints.gatekeeper.sh", o.MeshtlsGuardCalls),
    ("guard_pods", "constraints.gatekeeper.sh", o.MeshtlsGuardPods),
    ("guard_workloads", "constraints.gatekeeper.sh", o.MeshtlsGuardWorkloads),
    ("guard_cronjobs", "constraints.gatekeeper.sh", o.MeshtlsGuardCronjobs),
    ("guard_labels", "constraints.gatekeeper.sh", o.MeshtlsGuardLabels),
)

# kinds that have no namespace
CLUSTER_SCOPED: frozenset[str] = frozenset(
    {
        "Namespace",
        "GatewayClass",
        "MutatingWebhookConfiguration",
        "ValidatingWebhookConfiguration",
        "APIService",
        "CustomResourceDefinition",
        "IngressClass",
        "RuntimeClass",
        "Node",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ValidatingPolicy",
        "MeshtlsGuardPolicies",
        "MeshtlsGuardCalls",
        "MeshtlsGuardPods",
        "MeshtlsGuardWorkloads",
        "MeshtlsGuardCronjobs",
        "MeshtlsGuardLabels",
    }
)


def kind_of(cls: type[o.Object]) -> str:
    """What the API calls objects of this class."""
    return cls.KIND or cls.__name__


# (group, kind) -> (field of Mesh, class)
BY_KIND: dict[tuple[str, str], tuple[str, type[o.Object]]] = {
    (group, kind_of(cls)): (field, cls) for field, group, cls in READ
}
