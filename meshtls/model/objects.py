"""The objects of Kubernetes and Istio as they are read: frozen, and with only the fields that an answer depends on.

Unknown fields are ignored, so a later Istio or Kubernetes never breaks parsing. JSON names are camelCase, attributes are
snake_case. `null` is read as absent (meshtls.sources.build strips it). Every top-level object is an `Object`: `ref` is
`Kind/namespace/name` (`Kind/name` without a namespace). Two kinds that share a name are told apart by group: Istio's
Gateway is `Gateway`, the Gateway API's is `K8sGateway`; the model of each is chosen in meshtls.model.kinds.
"""

from typing import Any, ClassVar, Literal

import msgspec

MtlsMode = Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]
ClientTlsMode = Literal["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"]


class Base(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False, omit_defaults=True):
    """What every part of an object has in common."""


class OwnerReference(Base):
    kind: str
    name: str
    api_version: str = ""
    uid: str = ""
    controller: bool | None = None


class Metadata(Base):
    """`creation_timestamp` is RFC 3339 in whole seconds ("" or None in manifests); it sorts as text."""

    name: str = ""
    namespace: str = ""
    generate_name: str = ""
    uid: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()
    resource_version: str = ""
    generation: int = 0


class Object(Base):
    """A top-level object. `kind` is what the API calls it (a class attribute, except where a subclass says otherwise)."""

    KIND: ClassVar[str] = ""

    api_version: str = ""
    metadata: Metadata = Metadata()

    @property
    def kind(self) -> str:
        return self.KIND or type(self).__name__

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        return self.metadata.namespace

    @property
    def labels(self) -> dict[str, str]:
        return self.metadata.labels

    @property
    def annotations(self) -> dict[str, str]:
        return self.metadata.annotations

    @property
    def ref(self) -> str:
        meta = self.metadata
        return f"{self.kind}/{meta.namespace}/{meta.name}" if meta.namespace else f"{self.kind}/{meta.name}"


class Requirement(Base):
    """One of `matchExpressions`. Operators: In, NotIn, Exists, DoesNotExist."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class LabelSelector(Base):
    match_labels: dict[str, str] = {}
    match_expressions: tuple[Requirement, ...] = ()


# --- core: namespaces, pods and what makes them -----------------------------------------------------------------------


class Namespace(Object):
    pass


class ContainerPort(Base):
    container_port: int = 0
    name: str = ""
    protocol: str = "TCP"
    host_port: int = 0


class HttpHeader(Base):
    name: str = ""
    value: str = ""


class HttpGet(Base):
    port: int | str = 0
    path: str = ""
    scheme: str = "HTTP"
    host: str = ""
    http_headers: tuple[HttpHeader, ...] = ()


class TcpSocket(Base):
    port: int | str = 0
    host: str = ""


class GrpcCheck(Base):
    port: int = 0
    service: str | None = None


class ExecAction(Base):
    command: tuple[str, ...] = ()


class Probe(Base):
    http_get: HttpGet | None = None
    tcp_socket: TcpSocket | None = None
    grpc: GrpcCheck | None = None
    exec: ExecAction | None = None


class Lifecycle(Base):
    post_start: Probe | None = None
    pre_stop: Probe | None = None


class Capabilities(Base):
    add: tuple[str, ...] = ()


class SecurityContext(Base):
    run_as_user: int | None = None
    run_as_group: int | None = None
    privileged: bool = False
    capabilities: Capabilities | None = None


class EnvVar(Base):
    name: str = ""
    value: str = ""


class Container(Base):
    name: str = ""
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    env: tuple[EnvVar, ...] = ()
    restart_policy: str = ""
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    startup_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    security_context: SecurityContext | None = None


class PodSpec(Base):
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    service_account_name: str = ""
    ephemeral_containers: tuple[Container, ...] = ()
    host_network: bool = False
    host_pid: bool = msgspec.field(name="hostPID", default=False)
    runtime_class_name: str = ""
    node_name: str = ""
    restart_policy: str = ""
    security_context: SecurityContext | None = None


class PodIP(Base):
    ip: str = ""


class Condition(Base):
    type: str = ""
    status: str = ""
    reason: str = ""


class PodStatus(Base):
    phase: str = ""
    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: tuple[PodIP, ...] = msgspec.field(name="podIPs", default=())
    host_ip: str = msgspec.field(name="hostIP", default="")
    conditions: tuple[Condition, ...] = ()


class Pod(Object):
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class PodTemplate(Base):
    metadata: Metadata = Metadata()
    spec: PodSpec = PodSpec()


class WorkloadSpec(Base):
    """`replicas` None: not set, which means 1."""

    replicas: int | None = None
    selector: LabelSelector | None = None
    template: PodTemplate = PodTemplate()
    service_name: str = ""


class Templated(Object):
    """Base of the kinds that make pods from a template; `template` is that template wherever it sits."""

    spec: WorkloadSpec = WorkloadSpec()

    @property
    def template(self) -> PodTemplate:
        return self.spec.template


class Deployment(Templated):
    pass


class StatefulSet(Templated):
    pass


class DaemonSet(Templated):
    pass


class ReplicaSet(Templated):
    pass


class ReplicationControllerSpec(Base):
    replicas: int | None = None
    selector: dict[str, str] = {}
    template: PodTemplate = PodTemplate()


class ReplicationController(Object):
    spec: ReplicationControllerSpec = ReplicationControllerSpec()

    @property
    def template(self) -> PodTemplate:
        return self.spec.template


class JobSpec(Base):
    template: PodTemplate = PodTemplate()
    suspend: bool = False
    parallelism: int | None = None


class JobStatus(Base):
    active: int = 0
    completion_time: str | None = None
    conditions: tuple[Condition, ...] = ()


class Job(Object):
    spec: JobSpec = JobSpec()
    status: JobStatus = JobStatus()

    @property
    def template(self) -> PodTemplate:
        return self.spec.template


class JobTemplate(Base):
    metadata: Metadata = Metadata()
    spec: JobSpec = JobSpec()


class CronJobSpec(Base):
    schedule: str = ""
    suspend: bool = False
    job_template: JobTemplate = JobTemplate()


class CronJob(Object):
    spec: CronJobSpec = CronJobSpec()

    @property
    def template(self) -> PodTemplate:
        return self.spec.job_template.spec.template


# --- services ---------------------------------------------------------------------------------------------------------


class ServicePort(Base):
    port: int = 0
    name: str = ""
    target_port: int | str | None = None
    protocol: str = "TCP"
    app_protocol: str = ""
    node_port: int = 0


class ServiceSpec(Base):
    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    cluster_ips: tuple[str, ...] = msgspec.field(name="clusterIPs", default=())
    external_ips: tuple[str, ...] = msgspec.field(name="externalIPs", default=())
    external_name: str = ""
    selector: dict[str, str] = {}
    ports: tuple[ServicePort, ...] = ()
    publish_not_ready_addresses: bool = False
    load_balancer_class: str = ""


class Service(Object):
    spec: ServiceSpec = ServiceSpec()


class ObjectReference(Base):
    kind: str = ""
    name: str = ""
    namespace: str = ""


class EndpointConditions(Base):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Endpoint(Base):
    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions = EndpointConditions()
    target_ref: ObjectReference | None = None
    hostname: str = ""
    node_name: str = ""


class EndpointPort(Base):
    name: str = ""
    port: int = 0
    protocol: str = "TCP"


class EndpointSlice(Object):
    address_type: str = "IPv4"
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[EndpointPort, ...] = ()


# --- Istio: security --------------------------------------------------------------------------------------------------


class MutualTls(Base):
    mode: MtlsMode = "UNSET"


class PeerAuthenticationSpec(Base):
    selector: LabelSelector | None = None
    mtls: MutualTls | None = None
    port_level_mtls: dict[str, MutualTls] = {}


class PeerAuthentication(Object):
    spec: PeerAuthenticationSpec = PeerAuthenticationSpec()


class TargetRef(Base):
    group: str = ""
    kind: str = ""
    name: str = ""
    namespace: str = ""
    section_name: str = ""


class AuthorizationSource(Base):
    principals: tuple[str, ...] = ()
    not_principals: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    not_namespaces: tuple[str, ...] = ()
    service_accounts: tuple[str, ...] = ()
    not_service_accounts: tuple[str, ...] = ()
    ip_blocks: tuple[str, ...] = ()
    not_ip_blocks: tuple[str, ...] = ()
    request_principals: tuple[str, ...] = ()
    not_request_principals: tuple[str, ...] = ()
    remote_ip_blocks: tuple[str, ...] = ()


class AuthorizationFrom(Base):
    source: AuthorizationSource = AuthorizationSource()


class AuthorizationOperation(Base):
    hosts: tuple[str, ...] = ()
    not_hosts: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    not_ports: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    not_methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    not_paths: tuple[str, ...] = ()


class AuthorizationTo(Base):
    operation: AuthorizationOperation = AuthorizationOperation()


class AuthorizationCondition(Base):
    key: str = ""
    values: tuple[str, ...] = ()
    not_values: tuple[str, ...] = ()


class AuthorizationRule(Base):
    from_: tuple[AuthorizationFrom, ...] = msgspec.field(name="from", default=())
    to: tuple[AuthorizationTo, ...] = ()
    when: tuple[AuthorizationCondition, ...] = ()


class AuthorizationPolicySpec(Base):
    selector: LabelSelector | None = None
    target_ref: TargetRef | None = None
    target_refs: tuple[TargetRef, ...] = ()
    action: str = "ALLOW"
    rules: tuple[AuthorizationRule, ...] = ()


class AuthorizationPolicy(Object):
    spec: AuthorizationPolicySpec = AuthorizationPolicySpec()


# --- Istio: traffic ---------------------------------------------------------------------------------------------------


class ClientTls(Base):
    """`said` is the mode as written; None, like DISABLE, is plaintext: the enumeration's zero value."""

    said: ClientTlsMode | None = msgspec.field(name="mode", default=None)
    sni: str = ""
    subject_alt_names: tuple[str, ...] = ()
    credential_name: str = ""
    ca_certificates: str = ""

    @property
    def mode(self) -> ClientTlsMode:
        return self.said or "DISABLE"


class PortSelector(Base):
    number: int = 0


class LoadBalancer(Base):
    simple: str = ""


class PortPolicy(Base):
    port: PortSelector | None = None
    tls: ClientTls | None = None
    load_balancer: LoadBalancer | None = None


class TrafficPolicy(Base):
    tls: ClientTls | None = None
    port_level_settings: tuple[PortPolicy, ...] = ()
    load_balancer: LoadBalancer | None = None


class Subset(Base):
    name: str = ""
    labels: dict[str, str] = {}
    traffic_policy: TrafficPolicy | None = None


class DestinationRuleSpec(Base):
    host: str = ""
    traffic_policy: TrafficPolicy | None = None
    subsets: tuple[Subset, ...] = ()
    export_to: tuple[str, ...] = ()
    workload_selector: LabelSelector | None = None


class DestinationRule(Object):
    spec: DestinationRuleSpec = DestinationRuleSpec()


class Destination(Base):
    host: str = ""
    subset: str = ""
    port: PortSelector | None = None


class RouteDestination(Base):
    destination: Destination = Destination()
    weight: int = 0


class StringMatch(Base):
    exact: str | None = None
    prefix: str | None = None
    regex: str | None = None


class HttpMatch(Base):
    name: str = ""
    uri: StringMatch | None = None
    scheme: StringMatch | None = None
    method: StringMatch | None = None
    authority: StringMatch | None = None
    headers: dict[str, StringMatch] = {}
    without_headers: dict[str, StringMatch] = {}
    query_params: dict[str, StringMatch] = {}
    port: int = 0
    source_labels: dict[str, str] = {}
    source_namespace: str = ""
    gateways: tuple[str, ...] = ()
    ignore_uri_case: bool = False


class Delegate(Base):
    name: str = ""
    namespace: str = ""


class HttpRoute(Base):
    name: str = ""
    match: tuple[HttpMatch, ...] = ()
    route: tuple[RouteDestination, ...] = ()
    redirect: dict[str, Any] | None = None
    direct_response: dict[str, Any] | None = None
    delegate: Delegate | None = None


class L4Match(Base):
    """A match of `tcp` or `tls` routes."""

    sni_hosts: tuple[str, ...] = ()
    destination_subnets: tuple[str, ...] = ()
    port: int = 0
    source_labels: dict[str, str] = {}
    source_namespace: str = ""
    gateways: tuple[str, ...] = ()


class L4Route(Base):
    match: tuple[L4Match, ...] = ()
    route: tuple[RouteDestination, ...] = ()


class VirtualServiceSpec(Base):
    hosts: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    http: tuple[HttpRoute, ...] = ()
    tls: tuple[L4Route, ...] = ()
    tcp: tuple[L4Route, ...] = ()
    export_to: tuple[str, ...] = ()


class VirtualService(Object):
    spec: VirtualServiceSpec = VirtualServiceSpec()


class WorkloadSelector(Base):
    labels: dict[str, str] = {}


class SidecarPort(Base):
    number: int = 0
    protocol: str = ""
    name: str = ""


class ServerTls(Base):
    mode: str = ""
    credential_name: str = ""
    https_redirect: bool = False


class SidecarIngress(Base):
    port: SidecarPort | None = None
    bind: str = ""
    capture_mode: str = "DEFAULT"
    default_endpoint: str = ""
    tls: ServerTls | None = None


class SidecarEgress(Base):
    hosts: tuple[str, ...] = ()
    port: SidecarPort | None = None
    bind: str = ""
    capture_mode: str = "DEFAULT"


class OutboundTrafficPolicy(Base):
    """Mode "" means that none is written; Istio then takes the mesh's."""

    mode: str = ""
    egress_proxy: Destination | None = None


class SidecarSpec(Base):
    workload_selector: WorkloadSelector | None = None
    ingress: tuple[SidecarIngress, ...] = ()
    egress: tuple[SidecarEgress, ...] = ()
    outbound_traffic_policy: OutboundTrafficPolicy | None = None


class Sidecar(Object):
    spec: SidecarSpec = SidecarSpec()


class ServiceEntryPort(Base):
    number: int = 0
    protocol: str = ""
    name: str = ""
    target_port: int = 0


class WorkloadEntrySpec(Base):
    address: str = ""
    ports: dict[str, int] = {}
    labels: dict[str, str] = {}
    service_account: str = ""
    network: str = ""
    locality: str = ""
    weight: int = 0


class WorkloadEntry(Object):
    spec: WorkloadEntrySpec = WorkloadEntrySpec()


class ServiceEntrySpec(Base):
    hosts: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    ports: tuple[ServiceEntryPort, ...] = ()
    location: str = "MESH_EXTERNAL"
    resolution: str = "NONE"
    endpoints: tuple[WorkloadEntrySpec, ...] = ()
    workload_selector: WorkloadSelector | None = None
    export_to: tuple[str, ...] = ()


class ServiceEntry(Object):
    spec: ServiceEntrySpec = ServiceEntrySpec()


class GatewayServer(Base):
    port: SidecarPort = SidecarPort()
    hosts: tuple[str, ...] = ()
    tls: ServerTls | None = None


class GatewaySpec(Base):
    selector: dict[str, str] = {}
    servers: tuple[GatewayServer, ...] = ()


class Gateway(Object):
    """networking.istio.io Gateway."""

    spec: GatewaySpec = GatewaySpec()


class EnvoyFilterMatch(Base):
    context: str = "ANY"
    listener: dict[str, Any] | None = None
    cluster: dict[str, Any] | None = None


class EnvoyFilterPatchValue(Base):
    operation: str = ""
    value: dict[str, Any] | None = None


class EnvoyFilterPatch(Base):
    apply_to: str = ""
    match: EnvoyFilterMatch | None = None
    patch: EnvoyFilterPatchValue | None = None


class EnvoyFilterSpec(Base):
    workload_selector: WorkloadSelector | None = None
    target_refs: tuple[TargetRef, ...] = ()
    config_patches: tuple[EnvoyFilterPatch, ...] = ()
    priority: int = 0


class EnvoyFilter(Object):
    spec: EnvoyFilterSpec = EnvoyFilterSpec()


class TelemetrySpec(Base):
    selector: LabelSelector | None = None
    target_refs: tuple[TargetRef, ...] = ()
    access_logging: tuple[dict[str, Any], ...] = ()
    metrics: tuple[dict[str, Any], ...] = ()


class Telemetry(Object):
    spec: TelemetrySpec = TelemetrySpec()


# --- Gateway API ------------------------------------------------------------------------------------------------------


class BackendRef(Base):
    group: str = ""
    kind: str = "Service"
    name: str = ""
    namespace: str = ""
    port: int = 0
    weight: int = 1


class ParentRef(Base):
    group: str = "gateway.networking.k8s.io"
    kind: str = "Gateway"
    name: str = ""
    namespace: str = ""
    section_name: str = ""
    port: int = 0


class RouteRule(Base):
    matches: tuple[dict[str, Any], ...] = ()
    filters: tuple[dict[str, Any], ...] = ()
    backend_refs: tuple[BackendRef, ...] = ()


class RouteSpec(Base):
    parent_refs: tuple[ParentRef, ...] = ()
    hostnames: tuple[str, ...] = ()
    rules: tuple[RouteRule, ...] = ()


class Route(Object):
    """Base of the Gateway API's routes."""

    spec: RouteSpec = RouteSpec()


class HTTPRoute(Route):
    pass


class GRPCRoute(Route):
    pass


class TCPRoute(Route):
    pass


class TLSRoute(Route):
    pass


class K8sGatewayListener(Base):
    name: str = ""
    port: int = 0
    protocol: str = ""
    hostname: str = ""
    tls: dict[str, Any] | None = None


class K8sGatewaySpec(Base):
    gateway_class_name: str = ""
    listeners: tuple[K8sGatewayListener, ...] = ()


class K8sGateway(Object):
    """gateway.networking.k8s.io Gateway."""

    KIND: ClassVar[str] = "Gateway"

    spec: K8sGatewaySpec = K8sGatewaySpec()


class BackendTLSValidation(Base):
    hostname: str = ""
    well_known_ca_certificates: str = msgspec.field(name="wellKnownCACertificates", default="")


class BackendTLSPolicySpec(Base):
    target_refs: tuple[TargetRef, ...] = ()
    validation: BackendTLSValidation = BackendTLSValidation()


class BackendTLSPolicy(Object):
    spec: BackendTLSPolicySpec = BackendTLSPolicySpec()


# --- what the API server calls, and the rest --------------------------------------------------------------------------


class ConfigMap(Object):
    """Only Istio's own ConfigMaps are kept; `data` values may be None in a broken manifest."""

    data: dict[str, str] = {}


class ServiceReference(Base):
    name: str = ""
    namespace: str = ""
    path: str = ""
    port: int = 443


class WebhookClientConfig(Base):
    service: ServiceReference | None = None
    url: str = ""


class RuleWithOperations(Base):
    operations: tuple[str, ...] = ()
    api_groups: tuple[str, ...] = ()
    api_versions: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    scope: str = "*"


class Webhook(Base):
    name: str = ""
    client_config: WebhookClientConfig = WebhookClientConfig()
    rules: tuple[RuleWithOperations, ...] = ()
    failure_policy: str = "Fail"
    namespace_selector: LabelSelector = LabelSelector()
    object_selector: LabelSelector = LabelSelector()
    reinvocation_policy: str = "Never"
    match_conditions: tuple[dict[str, Any], ...] = ()
    timeout_seconds: int = 10
    side_effects: str = ""


class MutatingWebhookConfiguration(Object):
    webhooks: tuple[Webhook, ...] = ()


class ValidatingWebhookConfiguration(Object):
    webhooks: tuple[Webhook, ...] = ()


class APIServiceSpec(Base):
    service: ServiceReference | None = None
    group: str = ""
    version: str = ""
    insecure_skip_tls_verify: bool = msgspec.field(name="insecureSkipTLSVerify", default=False)


class APIService(Object):
    spec: APIServiceSpec = APIServiceSpec()


class ConversionWebhook(Base):
    client_config: WebhookClientConfig = WebhookClientConfig()


class Conversion(Base):
    strategy: str = "None"
    webhook: ConversionWebhook | None = None


class CRDNames(Base):
    kind: str = ""
    plural: str = ""


class CRDSpec(Base):
    group: str = ""
    names: CRDNames = CRDNames()
    conversion: Conversion | None = None


class CustomResourceDefinition(Object):
    spec: CRDSpec = CRDSpec()


class IPBlock(Base):
    cidr: str = ""
    except_: tuple[str, ...] = msgspec.field(name="except", default=())


class NetworkPolicyPeer(Base):
    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IPBlock | None = None


class NetworkPolicyPort(Base):
    port: int | str | None = None
    end_port: int = 0
    protocol: str = "TCP"


class NetworkPolicyIngress(Base):
    from_: tuple[NetworkPolicyPeer, ...] = msgspec.field(name="from", default=())
    ports: tuple[NetworkPolicyPort, ...] = ()


class NetworkPolicyEgress(Base):
    to: tuple[NetworkPolicyPeer, ...] = ()
    ports: tuple[NetworkPolicyPort, ...] = ()


class NetworkPolicySpec(Base):
    pod_selector: LabelSelector = LabelSelector()
    policy_types: tuple[str, ...] = ()
    ingress: tuple[NetworkPolicyIngress, ...] = ()
    egress: tuple[NetworkPolicyEgress, ...] = ()


class NetworkPolicy(Object):
    spec: NetworkPolicySpec = NetworkPolicySpec()


class RuntimeClass(Object):
    handler: str = ""


class MonitorNamespaces(Base):
    any: bool = False
    match_names: tuple[str, ...] = ()


class MonitorEndpoint(Base):
    """An entry of ServiceMonitor `endpoints` or PodMonitor `podMetricsEndpoints`."""

    port: str = ""
    target_port: int | str | None = None
    port_number: int = 0
    scheme: str = ""
    path: str = ""
    tls_config: dict[str, Any] | None = None


class ServiceMonitorSpec(Base):
    selector: LabelSelector = LabelSelector()
    namespace_selector: MonitorNamespaces = MonitorNamespaces()
    endpoints: tuple[MonitorEndpoint, ...] = ()


class ServiceMonitor(Object):
    spec: ServiceMonitorSpec = ServiceMonitorSpec()


class PodMonitorSpec(Base):
    selector: LabelSelector = LabelSelector()
    namespace_selector: MonitorNamespaces = MonitorNamespaces()
    pod_metrics_endpoints: tuple[MonitorEndpoint, ...] = ()


class PodMonitor(Object):
    spec: PodMonitorSpec = PodMonitorSpec()


class IngressServicePort(Base):
    number: int = 0
    name: str = ""


class IngressService(Base):
    name: str = ""
    port: IngressServicePort = IngressServicePort()


class IngressBackend(Base):
    service: IngressService | None = None


class IngressPath(Base):
    path: str = ""
    backend: IngressBackend = IngressBackend()


class IngressHttp(Base):
    paths: tuple[IngressPath, ...] = ()


class IngressRule(Base):
    host: str = ""
    http: IngressHttp | None = None


class IngressSpec(Base):
    ingress_class_name: str = ""
    default_backend: IngressBackend | None = None
    rules: tuple[IngressRule, ...] = ()


class Ingress(Object):
    spec: IngressSpec = IngressSpec()


class IngressClassSpec(Base):
    controller: str = ""


class IngressClass(Object):
    spec: IngressClassSpec = IngressClassSpec()


class GatewayClassSpec(Base):
    controller_name: str = ""


class GatewayClass(Object):
    spec: GatewayClassSpec = GatewayClassSpec()


class ProxyConfigSpec(Base):
    selector: WorkloadSelector | None = None
    concurrency: int | None = None
    environment_variables: dict[str, str] = {}


class ProxyConfig(Object):
    spec: ProxyConfigSpec = ProxyConfigSpec()


class Node(Object):
    """Only counted and named: whether a mesh runs on one node decides how far a node-local result reaches."""
