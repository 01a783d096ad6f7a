"""Mesh: everything that is declared, as one frozen value, with the indexes that questions need built on first use.

One tuple per kind, ordered by namespace and name. `absent` says of a kind that it could not be read and why: rules that
depend on it answer SKIP with that reason, never PASS. A kind that is merely empty is not in `absent`.
"""

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TypeVar

import msgspec

from meshtls.model import objects as o
from meshtls.model.config import MeshConfig
from meshtls.model.kinds import READ
from meshtls.model.origin import Origins
from meshtls.model.workload import Workload, group

T = TypeVar("T", bound=o.Object)

TEMPLATED = (
    "deployments",
    "stateful_sets",
    "daemon_sets",
    "replica_sets",
    "replication_controllers",
    "jobs",
    "cron_jobs",
)


class Mesh(msgspec.Struct, frozen=True, kw_only=True, dict=True, eq=False):
    """What is declared.

    `configs`: revision -> MeshConfig, one for each `istio` ConfigMap in the input. `absent`: kind -> why it could not be read.
    `notes`: what was assumed or passed over while reading, for the user. `live`: read from a cluster (or a dump of one), so
    that what is missing does not exist. `origins` finds the file and line of an object's field.
    """

    namespaces: tuple[o.Namespace, ...] = ()
    pods: tuple[o.Pod, ...] = ()
    deployments: tuple[o.Deployment, ...] = ()
    stateful_sets: tuple[o.StatefulSet, ...] = ()
    daemon_sets: tuple[o.DaemonSet, ...] = ()
    replica_sets: tuple[o.ReplicaSet, ...] = ()
    replication_controllers: tuple[o.ReplicationController, ...] = ()
    jobs: tuple[o.Job, ...] = ()
    cron_jobs: tuple[o.CronJob, ...] = ()
    services: tuple[o.Service, ...] = ()
    endpoint_slices: tuple[o.EndpointSlice, ...] = ()
    peer_authentications: tuple[o.PeerAuthentication, ...] = ()
    authorization_policies: tuple[o.AuthorizationPolicy, ...] = ()
    destination_rules: tuple[o.DestinationRule, ...] = ()
    virtual_services: tuple[o.VirtualService, ...] = ()
    sidecars: tuple[o.Sidecar, ...] = ()
    service_entries: tuple[o.ServiceEntry, ...] = ()
    workload_entries: tuple[o.WorkloadEntry, ...] = ()
    gateways: tuple[o.Gateway, ...] = ()
    envoy_filters: tuple[o.EnvoyFilter, ...] = ()
    proxy_configs: tuple[o.ProxyConfig, ...] = ()
    telemetries: tuple[o.Telemetry, ...] = ()
    k8s_gateways: tuple[o.K8sGateway, ...] = ()
    gateway_classes: tuple[o.GatewayClass, ...] = ()
    http_routes: tuple[o.HTTPRoute, ...] = ()
    grpc_routes: tuple[o.GRPCRoute, ...] = ()
    tcp_routes: tuple[o.TCPRoute, ...] = ()
    tls_routes: tuple[o.TLSRoute, ...] = ()
    backend_tls_policies: tuple[o.BackendTLSPolicy, ...] = ()
    config_maps: tuple[o.ConfigMap, ...] = ()
    mutating_webhooks: tuple[o.MutatingWebhookConfiguration, ...] = ()
    validating_webhooks: tuple[o.ValidatingWebhookConfiguration, ...] = ()
    api_services: tuple[o.APIService, ...] = ()
    crds: tuple[o.CustomResourceDefinition, ...] = ()
    network_policies: tuple[o.NetworkPolicy, ...] = ()
    ingresses: tuple[o.Ingress, ...] = ()
    ingress_classes: tuple[o.IngressClass, ...] = ()
    runtime_classes: tuple[o.RuntimeClass, ...] = ()
    service_monitors: tuple[o.ServiceMonitor, ...] = ()
    pod_monitors: tuple[o.PodMonitor, ...] = ()
    nodes: tuple[o.Node, ...] = ()
    admission_policies: tuple[o.ValidatingAdmissionPolicy, ...] = ()
    admission_bindings: tuple[o.ValidatingAdmissionPolicyBinding, ...] = ()
    kyverno_policies: tuple[o.ValidatingPolicy, ...] = ()
    guard_policies: tuple[o.MeshtlsGuardPolicies, ...] = ()
    guard_calls: tuple[o.MeshtlsGuardCalls, ...] = ()
    guard_pods: tuple[o.MeshtlsGuardPods, ...] = ()
    guard_workloads: tuple[o.MeshtlsGuardWorkloads, ...] = ()
    guard_cronjobs: tuple[o.MeshtlsGuardCronjobs, ...] = ()
    guard_labels: tuple[o.MeshtlsGuardLabels, ...] = ()

    configs: dict[str, MeshConfig] = {}
    absent: dict[str, str] = {}
    notes: tuple[str, ...] = ()
    live: bool = False
    origins: Origins = Origins()

    @property
    def config(self) -> MeshConfig:
        """The default revision's settings, or the only revision's, or Istio's defaults where the input has none."""
        if "default" in self.configs:
            return self.configs["default"]
        return next(iter(self.configs.values()), MeshConfig())

    def config_of(self, revision: str) -> MeshConfig:
        """Settings of the istiod that serves proxies of `revision`; the default's where that one is not in the input."""
        return self.configs.get(revision or "default", self.config)

    @property
    def root(self) -> str:
        """The root namespace."""
        return self.config.root_namespace

    @cached_property
    def workloads(self) -> tuple[Workload, ...]:
        """Every workload with its pods, by namespace, kind and name."""
        return group(self.pods, (obj for field in TEMPLATED for obj in getattr(self, field)))

    @cached_property
    def workload_of_pod(self) -> dict[tuple[str, str], Workload]:
        """(namespace, pod name) -> its workload."""
        return {(pod.metadata.namespace, pod.metadata.name): w for w in self.workloads for pod in w.pods}

    @cached_property
    def namespace_labels(self) -> dict[str, dict[str, str]]:
        """Labels of every namespace object; a namespace that only objects name is missing here."""
        return {ns.metadata.name: ns.metadata.labels for ns in self.namespaces}

    @cached_property
    def namespace_names(self) -> frozenset[str]:
        """Every namespace that exists or that an object in the input lives in."""
        names = {ns.metadata.name for ns in self.namespaces}
        names.update(obj.metadata.namespace for obj in self.objects() if obj.metadata.namespace)
        return frozenset(names)

    @cached_property
    def pod_by_ip(self) -> dict[str, o.Pod]:
        """Pods by each of their addresses; those of the host network share an address and are left out."""
        found: dict[str, o.Pod] = {}
        for pod in self.pods:
            if pod.spec.host_network or pod.status.phase in ("Succeeded", "Failed"):
                continue
            for address in pod_addresses(pod):
                found[address] = pod
        return found

    @cached_property
    def services_by_name(self) -> dict[tuple[str, str], o.Service]:
        """(namespace, name) -> Service."""
        return {(s.metadata.namespace, s.metadata.name): s for s in self.services}

    @cached_property
    def services_in(self) -> dict[str, tuple[o.Service, ...]]:
        """Services by namespace."""
        return by_namespace(self.services)

    @cached_property
    def slices_of(self) -> dict[tuple[str, str], tuple[o.EndpointSlice, ...]]:
        """(namespace, Service name) -> its EndpointSlices."""
        found: dict[tuple[str, str], list[o.EndpointSlice]] = {}
        for piece in self.endpoint_slices:
            service = piece.metadata.labels.get("kubernetes.io/service-name", "")
            found.setdefault((piece.metadata.namespace, service), []).append(piece)
        return {key: tuple(value) for key, value in found.items()}

    def objects(self) -> Iterator[o.Object]:
        """Every object, kind by kind."""
        for field, _, _ in READ:
            yield from getattr(self, field)

    def find(self, ref: str) -> o.Object | None:
        """The object that `ref` (`Kind/namespace/name` or `Kind/name`) names."""
        return self._by_ref.get(ref)

    @cached_property
    def _by_ref(self) -> dict[str, o.Object]:
        return {obj.ref: obj for obj in self.objects()}


def by_namespace(objects: Iterable[T]) -> dict[str, tuple[T, ...]]:
    """Objects by namespace, in their order."""
    found: dict[str, list[T]] = {}
    for obj in objects:
        found.setdefault(obj.metadata.namespace, []).append(obj)
    return {key: tuple(value) for key, value in found.items()}


def pod_addresses(pod: o.Pod) -> tuple[str, ...]:
    """The addresses of a pod, first the one that Kubernetes calls its IP."""
    if pod.status.pod_ips:
        return tuple(entry.ip for entry in pod.status.pod_ips if entry.ip)
    return (pod.status.pod_ip,) if pod.status.pod_ip else ()
