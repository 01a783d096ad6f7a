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


class OwnerReference(Base, frozen=True):
    kind: str
    name: str
    api_version: str = ""
    uid: str = ""
    controller: bool | None = None


class Metadata(Base, frozen=True):
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


class Object(Base, frozen=True):
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


class Requirement(Base, frozen=True):
    """One of `matchExpressions`. Operators: In, NotIn, Exists, DoesNotExist."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class LabelSelector(Base, frozen=True):
    match_labels: dict[str, str] = {}
    match_expressions: tuple[Requirement, ...] = ()


# --- core: namespaces, pods and what makes them -----------------------------------------------------------------------


class Namespace(Object, frozen=True):
    pass


class ContainerPort(Base, frozen=True):
    container_port: int = 0
    name: str = ""
    protocol: str = "TCP"
    host_port: int = 0


class HttpHeader(Base, frozen=True):
    name: str = ""
    value: str = ""


class HttpGet(Base, frozen=True):
    port: int | str = 0
    path: str = ""
    scheme: str = "HTTP"
    host: str = ""
    http_headers: tuple[HttpHeader, ...] = ()


class TcpSocket(Base, frozen=True):
    port: int | str = 0
    host: str = ""


class GrpcCheck(Base, frozen=True):
    port: int = 0
    service: str | None = None


class ExecAction(Base, frozen=True):
    command: tuple[str, ...] = ()


class Probe(Base, frozen=True):
    http_get: HttpGet | None = None
    tcp_socket: TcpSocket | None = None
    grpc: GrpcCheck | None = None
    exec: ExecAction | None = None


class Lifecycle(Base, frozen=True):
    post_start: Probe | None = None
    pre_stop: Probe | None = None


class Capabilities(Base, frozen=True):
    add: tuple[str, ...] = ()


class SecurityContext(Base, frozen=True):
    run_as_user: int | None = None
    run_as_group: int | None = None
    privileged: bool = False
    capabilities: Capabilities | None = None


class EnvVar(Base, frozen=True):
    name: str = ""
    value: str = ""


class Container(Base, frozen=True):
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


class PodSpec(Base, frozen=True):
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


class PodIP(Base, frozen=True):
    ip: str = ""


class Condition(Base, frozen=True):
    type: str = ""
    status: str = ""
    reason: str = ""


class PodStatus(Base, frozen=True):
    phase: str = ""
    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: tuple[PodIP, ...] = msgspec.field(name="podIPs", default=())
    host_ip: str = msgspec.field(name="hostIP", default="")
    conditions: tuple[Condition, ...] = ()


class Pod(Object, frozen=True):
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def has_sidecar(self) -> bool:
        """Whether an Istio proxy runs in it, as a container or as a native sidecar."""
        return any(c.name == "istio-proxy" for c in (*self.spec.containers, *self.spec.init_containers))

    @property
    def captured(self) -> bool:
        """Whether ztunnel takes its traffic."""
        return self.metadata.annotations.get("ambient.istio.io/redirection") == "enabled"


class PodTemplate(Base, frozen=True):
    metadata: Metadata = Metadata()
    spec: PodSpec = PodSpec()


class WorkloadSpec(Base, frozen=True):
    """`replicas` None: not set, which means 1."""

    replicas: int | None = None
    selector: LabelSelector | None = None
    template: PodTemplate = PodTemplate()
    service_name: str = ""


class Templated(Object, frozen=True):
    """Base of the kinds that make pods from a template; `template` is that template wherever it sits."""

    spec: WorkloadSpec = WorkloadSpec()

    @property
    def template(self) -> PodTemplate:
        return self.spec.template


class Deployment(Templated, frozen=True):
    pass


class StatefulSet(Templated, frozen=True):
    pass


class DaemonSet(Templated, frozen=True):
    pass


class ReplicaSet(Templated, frozen=True):
    pass


class ReplicationControllerSpec(Base, frozen=True):
    replicas: int | None = None
    selector: dict[str, str] = {}
    template: PodTemplate = PodTemplate()


class ReplicationController(Object, frozen=True):
    spec: ReplicationControllerSpec = ReplicationControllerSpec()

    @property
    def template(self) -> PodTemplate:
        return self.spec.template


class JobSpec(Base, frozen=True):
    template: PodTemplate = PodTemplate()
    suspend: bool = False
    parallelism: int | None = None


class JobStatus(Base, frozen=True):
    active: int = 0
    completion_time: str | None = None
    conditions: tuple[Condition, ...] = ()


class Job(Object, frozen=True):
    spec: JobSpec = JobSpec()
    status: JobStatus = JobStatus()

    @property
    def template(self) -> PodTemplate:
        return self.spec.template


class JobTemplate(Base, frozen=True):
    metadata: Metadata = Metadata()
    spec: JobSpec = JobSpec()


class CronJobSpec(Base, frozen=True):
    schedule: str = ""
    suspend: bool = False
    job_template: JobTemplate = JobTemplate()


class CronJob(Object, frozen=True):
    spec: CronJobSpec = CronJobSpec()

    @property
    def template(self) -> PodTemplate:
        return self.spec.job_template.spec.template


# --- services ---------------------------------------------------------------------------------------------------------


class ServicePort(Base, frozen=True):
    port: int = 0
    name: str = ""
    target_port: int | str | None = None
    protocol: str = "TCP"
    app_protocol: str = ""
    node_port: int = 0


class ServiceSpec(Base, frozen=True):
    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    cluster_ips: tuple[str, ...] = msgspec.field(name="clusterIPs", default=())
    external_ips: tuple[str, ...] = msgspec.field(name="externalIPs", default=())
    external_name: str = ""
    selector: dict[str, str] = {}
    ports: tuple[ServicePort, ...] = ()
    publish_not_ready_addresses: bool = False
    load_balancer_class: str = ""


class Service(Object, frozen=True):
    spec: ServiceSpec = ServiceSpec()


class ObjectReference(Base, frozen=True):
    kind: str = ""
    name: str = ""
    namespace: str = ""


class EndpointConditions(Base, frozen=True):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Endpoint(Base, frozen=True):
    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions = EndpointConditions()
    target_ref: ObjectReference | None = None
    hostname: str = ""
    node_name: str = ""


class EndpointPort(Base, frozen=True):
    name: str = ""
    port: int = 0
    protocol: str = "TCP"


class EndpointSlice(Object, frozen=True):
    address_type: str = "IPv4"
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[EndpointPort, ...] = ()


# --- Istio: security --------------------------------------------------------------------------------------------------


class MutualTls(Base, frozen=True):
    mode: MtlsMode = "UNSET"


class PeerAuthenticationSpec(Base, frozen=True):
    selector: LabelSelector | None = None
    mtls: MutualTls | None = None
    port_level_mtls: dict[str, MutualTls] = {}


class PeerAuthentication(Object, frozen=True):
    spec: PeerAuthenticationSpec = PeerAuthenticationSpec()


class TargetRef(Base, frozen=True):
    group: str = ""
    kind: str = ""
    name: str = ""
    namespace: str = ""
    section_name: str = ""


class AuthorizationSource(Base, frozen=True):
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


class AuthorizationFrom(Base, frozen=True):
    source: AuthorizationSource = AuthorizationSource()


class AuthorizationOperation(Base, frozen=True):
    hosts: tuple[str, ...] = ()
    not_hosts: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    not_ports: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    not_methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    not_paths: tuple[str, ...] = ()


class AuthorizationTo(Base, frozen=True):
    operation: AuthorizationOperation = AuthorizationOperation()


class AuthorizationCondition(Base, frozen=True):
    key: str = ""
    values: tuple[str, ...] = ()
    not_values: tuple[str, ...] = ()


class AuthorizationRule(Base, frozen=True):
    from_: tuple[AuthorizationFrom, ...] = msgspec.field(name="from", default=())
    to: tuple[AuthorizationTo, ...] = ()
    when: tuple[AuthorizationCondition, ...] = ()


class AuthorizationPolicySpec(Base, frozen=True):
    selector: LabelSelector | None = None
    target_ref: TargetRef | None = None
    target_refs: tuple[TargetRef, ...] = ()
    action: str = "ALLOW"
    rules: tuple[AuthorizationRule, ...] = ()


class AuthorizationPolicy(Object, frozen=True):
    spec: AuthorizationPolicySpec = AuthorizationPolicySpec()


# --- Istio: traffic ---------------------------------------------------------------------------------------------------


class ClientTls(Base, frozen=True):
    """`said` is the mode as written; None, like DISABLE, is plaintext: the enumeration's zero value."""

    said: ClientTlsMode | None = msgspec.field(name="mode", default=None)
    sni: str = ""
    subject_alt_names: tuple[str, ...] = ()
    credential_name: str = ""
    ca_certificates: str = ""

    @property
    def mode(self) -> ClientTlsMode:
        return self.said or "DISABLE"


class PortSelector(Base, frozen=True):
    number: int = 0


class LoadBalancer(Base, frozen=True):
    simple: str = ""


class PortPolicy(Base, frozen=True):
    port: PortSelector | None = None
    tls: ClientTls | None = None
    load_balancer: LoadBalancer | None = None


class TrafficPolicy(Base, frozen=True):
    tls: ClientTls | None = None
    port_level_settings: tuple[PortPolicy, ...] = ()
    load_balancer: LoadBalancer | None = None


class Subset(Base, frozen=True):
    name: str = ""
    labels: dict[str, str] = {}
    traffic_policy: TrafficPolicy | None = None


class DestinationRuleSpec(Base, frozen=True):
    host: str = ""
    traffic_policy: TrafficPolicy | None = None
    subsets: tuple[Subset, ...] = ()
    export_to: tuple[str, ...] = ()
    workload_selector: LabelSelector | None = None


class DestinationRule(Object, frozen=True):
    spec: DestinationRuleSpec = DestinationRuleSpec()


class Destination(Base, frozen=True):
    host: str = ""
    subset: str = ""
    port: PortSelector | None = None


class RouteDestination(Base, frozen=True):
    destination: Destination = Destination()
    weight: int = 0


class StringMatch(Base, frozen=True):
    exact: str | None = None
    prefix: str | None = None
    regex: str | None = None


class HttpMatch(Base, frozen=True):
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


class Delegate(Base, frozen=True):
    name: str = ""
    namespace: str = ""


class Mirror(Base, frozen=True):
    destination: Destination = Destination()


class HttpRoute(Base, frozen=True):
    """`mirror` and `mirrors` send copies; what they name is known to clients as what is routed to is."""

    name: str = ""
    match: tuple[HttpMatch, ...] = ()
    route: tuple[RouteDestination, ...] = ()
    mirror: Destination | None = None
    mirrors: tuple[Mirror, ...] = ()
    redirect: dict[str, Any] | None = None
    direct_response: dict[str, Any] | None = None
    delegate: Delegate | None = None


class L4Match(Base, frozen=True):
    """A match of `tcp` or `tls` routes."""

    sni_hosts: tuple[str, ...] = ()
    destination_subnets: tuple[str, ...] = ()
    port: int = 0
    source_labels: dict[str, str] = {}
    source_namespace: str = ""
    gateways: tuple[str, ...] = ()


class L4Route(Base, frozen=True):
    match: tuple[L4Match, ...] = ()
    route: tuple[RouteDestination, ...] = ()


class VirtualServiceSpec(Base, frozen=True):
    hosts: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    http: tuple[HttpRoute, ...] = ()
    tls: tuple[L4Route, ...] = ()
    tcp: tuple[L4Route, ...] = ()
    export_to: tuple[str, ...] = ()


class VirtualService(Object, frozen=True):
    spec: VirtualServiceSpec = VirtualServiceSpec()


class WorkloadSelector(Base, frozen=True):
    labels: dict[str, str] = {}


class SidecarPort(Base, frozen=True):
    number: int = 0
    protocol: str = ""
    name: str = ""


class ServerTls(Base, frozen=True):
    mode: str = ""
    credential_name: str = ""
    https_redirect: bool = False


class SidecarIngress(Base, frozen=True):
    port: SidecarPort | None = None
    bind: str = ""
    capture_mode: str = "DEFAULT"
    default_endpoint: str = ""
    tls: ServerTls | None = None


class SidecarEgress(Base, frozen=True):
    hosts: tuple[str, ...] = ()
    port: SidecarPort | None = None
    bind: str = ""
    capture_mode: str = "DEFAULT"


class OutboundTrafficPolicy(Base, frozen=True):
    """Mode "" means that none is written; Istio then takes the mesh's."""

    mode: str = ""
    egress_proxy: Destination | None = None


class SidecarSpec(Base, frozen=True):
    workload_selector: WorkloadSelector | None = None
    ingress: tuple[SidecarIngress, ...] = ()
    egress: tuple[SidecarEgress, ...] = ()
    outbound_traffic_policy: OutboundTrafficPolicy | None = None


class Sidecar(Object, frozen=True):
    spec: SidecarSpec = SidecarSpec()


class ServiceEntryPort(Base, frozen=True):
    number: int = 0
    protocol: str = ""
    name: str = ""
    target_port: int = 0


class WorkloadEntrySpec(Base, frozen=True):
    address: str = ""
    ports: dict[str, int] = {}
    labels: dict[str, str] = {}
    service_account: str = ""
    network: str = ""
    locality: str = ""
    weight: int = 0


class WorkloadEntry(Object, frozen=True):
    spec: WorkloadEntrySpec = WorkloadEntrySpec()


class ServiceEntrySpec(Base, frozen=True):
    hosts: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    ports: tuple[ServiceEntryPort, ...] = ()
    location: str = "MESH_EXTERNAL"
    resolution: str = "NONE"
    endpoints: tuple[WorkloadEntrySpec, ...] = ()
    workload_selector: WorkloadSelector | None = None
    export_to: tuple[str, ...] = ()


class ServiceEntry(Object, frozen=True):
    spec: ServiceEntrySpec = ServiceEntrySpec()


class GatewayServer(Base, frozen=True):
    port: SidecarPort = SidecarPort()
    hosts: tuple[str, ...] = ()
    tls: ServerTls | None = None


class GatewaySpec(Base, frozen=True):
    selector: dict[str, str] = {}
    servers: tuple[GatewayServer, ...] = ()


class Gateway(Object, frozen=True):
    """networking.istio.io Gateway."""

    spec: GatewaySpec = GatewaySpec()


class EnvoyFilterMatch(Base, frozen=True):
    context: str = "ANY"
    listener: dict[str, Any] | None = None
    cluster: dict[str, Any] | None = None


class EnvoyFilterPatchValue(Base, frozen=True):
    operation: str = ""
    value: dict[str, Any] | None = None


class EnvoyFilterPatch(Base, frozen=True):
    apply_to: str = ""
    match: EnvoyFilterMatch | None = None
    patch: EnvoyFilterPatchValue | None = None


class EnvoyFilterSpec(Base, frozen=True):
    workload_selector: WorkloadSelector | None = None
    target_refs: tuple[TargetRef, ...] = ()
    config_patches: tuple[EnvoyFilterPatch, ...] = ()
    priority: int = 0


class EnvoyFilter(Object, frozen=True):
    spec: EnvoyFilterSpec = EnvoyFilterSpec()


class TelemetrySpec(Base, frozen=True):
    selector: LabelSelector | None = None
    target_refs: tuple[TargetRef, ...] = ()
    access_logging: tuple[dict[str, Any], ...] = ()
    metrics: tuple[dict[str, Any], ...] = ()


class Telemetry(Object, frozen=True):
    spec: TelemetrySpec = TelemetrySpec()


# --- Gateway API ------------------------------------------------------------------------------------------------------


class RouteHeader(Base, frozen=True):
    """A header or a query parameter, matched or set."""

    name: str = ""
    value: str = ""
    type: str = "Exact"


class HeaderModifier(Base, frozen=True):
    set: tuple[RouteHeader, ...] = ()
    add: tuple[RouteHeader, ...] = ()


class MirrorFilter(Base, frozen=True):
    backend_ref: "BackendRef"


class RouteFilter(Base, frozen=True):
    type: str = ""
    request_header_modifier: HeaderModifier | None = None
    response_header_modifier: HeaderModifier | None = None
    request_mirror: MirrorFilter | None = None


class BackendRef(Base, frozen=True):
    """`port` 0: not written; `namespace` "": the route's own."""

    group: str = ""
    kind: str = "Service"
    name: str = ""
    namespace: str = ""
    port: int = 0
    weight: int = 1
    filters: tuple[RouteFilter, ...] = ()


class ParentRef(Base, frozen=True):
    group: str = "gateway.networking.k8s.io"
    kind: str = "Gateway"
    name: str = ""
    namespace: str = ""
    section_name: str = ""
    port: int = 0


class RoutePath(Base, frozen=True):
    type: str = "PathPrefix"
    value: str = "/"


class GrpcMethod(Base, frozen=True):
    type: str = "Exact"
    service: str = ""
    method: str = ""


class RouteMatch(Base, frozen=True):
    """A match of an HTTPRoute or GRPCRoute: `path` and a method's name are of the former, a GrpcMethod of the latter."""

    path: RoutePath = RoutePath()
    headers: tuple[RouteHeader, ...] = ()
    query_params: tuple[RouteHeader, ...] = ()
    method: str | GrpcMethod | None = None


class RouteRule(Base, frozen=True):
    name: str = ""
    matches: tuple[RouteMatch, ...] = ()
    filters: tuple[RouteFilter, ...] = ()
    backend_refs: tuple[BackendRef, ...] = ()


class RouteSpec(Base, frozen=True):
    parent_refs: tuple[ParentRef, ...] = ()
    hostnames: tuple[str, ...] = ()
    rules: tuple[RouteRule, ...] = ()


class Route(Object, frozen=True):
    """Base of the Gateway API's routes."""

    spec: RouteSpec = RouteSpec()


class HTTPRoute(Route, frozen=True):
    pass


class GRPCRoute(Route, frozen=True):
    pass


class TCPRoute(Route, frozen=True):
    pass


class TLSRoute(Route, frozen=True):
    pass


class K8sGatewayListener(Base, frozen=True):
    name: str = ""
    port: int = 0
    protocol: str = ""
    hostname: str = ""
    tls: dict[str, Any] | None = None


class K8sGatewaySpec(Base, frozen=True):
    gateway_class_name: str = ""
    listeners: tuple[K8sGatewayListener, ...] = ()


class K8sGateway(Object, frozen=True):
    """gateway.networking.k8s.io Gateway."""

    KIND: ClassVar[str] = "Gateway"

    spec: K8sGatewaySpec = K8sGatewaySpec()


class BackendTLSValidation(Base, frozen=True):
    hostname: str = ""
    well_known_ca_certificates: str = msgspec.field(name="wellKnownCACertificates", default="")
    ca_certificate_refs: tuple[TargetRef, ...] = msgspec.field(name="caCertificateRefs", default=())


class BackendTLSPolicySpec(Base, frozen=True):
    target_refs: tuple[TargetRef, ...] = ()
    validation: BackendTLSValidation = BackendTLSValidation()


class PolicyAncestor(Base, frozen=True):
    """What one controller says of a policy, for one of its targets."""

    controller_name: str = ""
    conditions: tuple[Condition, ...] = ()


class PolicyStatus(Base, frozen=True):
    ancestors: tuple[PolicyAncestor, ...] = ()


class BackendTLSPolicy(Object, frozen=True):
    spec: BackendTLSPolicySpec = BackendTLSPolicySpec()
    status: PolicyStatus = PolicyStatus()


# --- what the API server calls, and the rest --------------------------------------------------------------------------


class ConfigMap(Object, frozen=True):
    """Only Istio's own ConfigMaps are kept; `data` values may be None in a broken manifest."""

    data: dict[str, str] = {}


class ServiceReference(Base, frozen=True):
    name: str = ""
    namespace: str = ""
    path: str = ""
    port: int = 443


class WebhookClientConfig(Base, frozen=True):
    service: ServiceReference | None = None
    url: str = ""


class RuleWithOperations(Base, frozen=True):
    operations: tuple[str, ...] = ()
    api_groups: tuple[str, ...] = ()
    api_versions: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    scope: str = "*"


class Webhook(Base, frozen=True):
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


class MutatingWebhookConfiguration(Object, frozen=True):
    webhooks: tuple[Webhook, ...] = ()


class ValidatingWebhookConfiguration(Object, frozen=True):
    webhooks: tuple[Webhook, ...] = ()


class APIServiceSpec(Base, frozen=True):
    service: ServiceReference | None = None
    group: str = ""
    version: str = ""
    insecure_skip_tls_verify: bool = msgspec.field(name="insecureSkipTLSVerify", default=False)


class APIService(Object, frozen=True):
    spec: APIServiceSpec = APIServiceSpec()


class ConversionWebhook(Base, frozen=True):
    client_config: WebhookClientConfig = WebhookClientConfig()


class Conversion(Base, frozen=True):
    strategy: str = "None"
    webhook: ConversionWebhook | None = None


class CRDNames(Base, frozen=True):
    kind: str = ""
    plural: str = ""


class CRDSpec(Base, frozen=True):
    group: str = ""
    names: CRDNames = CRDNames()
    conversion: Conversion | None = None


class CustomResourceDefinition(Object, frozen=True):
    spec: CRDSpec = CRDSpec()


class IPBlock(Base, frozen=True):
    cidr: str = ""
    except_: tuple[str, ...] = msgspec.field(name="except", default=())


class NetworkPolicyPeer(Base, frozen=True):
    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IPBlock | None = None


class NetworkPolicyPort(Base, frozen=True):
    port: int | str | None = None
    end_port: int = 0
    protocol: str = "TCP"


class NetworkPolicyIngress(Base, frozen=True):
    from_: tuple[NetworkPolicyPeer, ...] = msgspec.field(name="from", default=())
    ports: tuple[NetworkPolicyPort, ...] = ()


class NetworkPolicyEgress(Base, frozen=True):
    to: tuple[NetworkPolicyPeer, ...] = ()
    ports: tuple[NetworkPolicyPort, ...] = ()


class NetworkPolicySpec(Base, frozen=True):
    pod_selector: LabelSelector = LabelSelector()
    policy_types: tuple[str, ...] = ()
    ingress: tuple[NetworkPolicyIngress, ...] = ()
    egress: tuple[NetworkPolicyEgress, ...] = ()


class NetworkPolicy(Object, frozen=True):
    spec: NetworkPolicySpec = NetworkPolicySpec()


class RuntimeClass(Object, frozen=True):
    handler: str = ""


class MonitorNamespaces(Base, frozen=True):
    any: bool = False
    match_names: tuple[str, ...] = ()


class MonitorEndpoint(Base, frozen=True):
    """An entry of ServiceMonitor `endpoints` or PodMonitor `podMetricsEndpoints`."""

    port: str = ""
    target_port: int | str | None = None
    port_number: int = 0
    scheme: str = ""
    path: str = ""
    tls_config: dict[str, Any] | None = None


class ServiceMonitorSpec(Base, frozen=True):
    selector: LabelSelector = LabelSelector()
    namespace_selector: MonitorNamespaces = MonitorNamespaces()
    endpoints: tuple[MonitorEndpoint, ...] = ()


class ServiceMonitor(Object, frozen=True):
    spec: ServiceMonitorSpec = ServiceMonitorSpec()


class PodMonitorSpec(Base, frozen=True):
    selector: LabelSelector = LabelSelector()
    namespace_selector: MonitorNamespaces = MonitorNamespaces()
    pod_metrics_endpoints: tuple[MonitorEndpoint, ...] = ()


class PodMonitor(Object, frozen=True):
    spec: PodMonitorSpec = PodMonitorSpec()


class IngressServicePort(Base, frozen=True):
    number: int = 0
    name: str = ""


class IngressService(Base, frozen=True):
    name: str = ""
    port: IngressServicePort = IngressServicePort()


class IngressBackend(Base, frozen=True):
    service: IngressService | None = None


class IngressPath(Base, frozen=True):
    path: str = ""
    backend: IngressBackend = IngressBackend()


class IngressHttp(Base, frozen=True):
    paths: tuple[IngressPath, ...] = ()


class IngressRule(Base, frozen=True):
    host: str = ""
    http: IngressHttp | None = None


class IngressSpec(Base, frozen=True):
    ingress_class_name: str = ""
    default_backend: IngressBackend | None = None
    rules: tuple[IngressRule, ...] = ()


class Ingress(Object, frozen=True):
    spec: IngressSpec = IngressSpec()


class IngressClassSpec(Base, frozen=True):
    controller: str = ""


class IngressClass(Object, frozen=True):
    spec: IngressClassSpec = IngressClassSpec()


class GatewayClassSpec(Base, frozen=True):
    controller_name: str = ""


class GatewayClass(Object, frozen=True):
    spec: GatewayClassSpec = GatewayClassSpec()


class ProxyConfigSpec(Base, frozen=True):
    selector: WorkloadSelector | None = None
    concurrency: int | None = None
    environment_variables: dict[str, str] = {}


class ProxyConfig(Object, frozen=True):
    spec: ProxyConfigSpec = ProxyConfigSpec()


class Node(Object, frozen=True):
    """Only counted and named: whether a mesh runs on one node decides how far a node-local result reaches."""


# --- admission policies: only what says whether a guard of ours stands, and what it does ---------------------------------


class GuardSpec(Base, frozen=True):
    """`policyName` is a binding's; actions are called `validationActions` but by Gatekeeper."""

    policy_name: str = ""
    validation_actions: tuple[str, ...] = ()
    enforcement_action: str = ""


class Guard(Object, frozen=True):
    """Base of what can stand guard at admission."""

    spec: GuardSpec = GuardSpec()


class ValidatingAdmissionPolicy(Guard, frozen=True):
    pass


class ValidatingAdmissionPolicyBinding(Guard, frozen=True):
    pass


class ValidatingPolicy(Guard, frozen=True):
    """Kyverno's."""


class MeshtlsGuardPolicies(Guard, frozen=True):
    """Gatekeeper's constraints have kinds of their own, one for each template."""


class MeshtlsGuardCalls(Guard, frozen=True):
    pass


class MeshtlsGuardPods(Guard, frozen=True):
    pass


class MeshtlsGuardWorkloads(Guard, frozen=True):
    pass


class MeshtlsGuardCronjobs(Guard, frozen=True):
    pass


class MeshtlsGuardLabels(Guard, frozen=True):
    pass
