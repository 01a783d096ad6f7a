"""Istio's custom resources as the lab serves them: names, printed columns, fields and rules.

The table is written in a short notation (from Istio's API reference): `name: type`, where a type is s string, i
integer, u integer >= 0, U the same in 64 bits, t time, n number, b boolean, d duration, `A|B` one of, [T] list, {T} map of, (fields) object, Name
another line, * anything. A leading `!` makes a field required, `~` nullable; an indented line goes on with the line
before. What a type or field may hold besides stands in _LIMITS and _ONE_OF; what Istio states in CEL, in `istio_rules`.
"""
import re
from collections.abc import Iterator
from typing import Any

from meshtls.lab.api.istio_rules import ENDPOINTS, RULES
from meshtls.lab.api.resources import Resource

_TYPES = """
Selector        matchLabels: {s}
Workload        labels: {s}
TargetRef       group: s, !kind: s, !name: s, namespace: s
Mtls            mode: UNSET|DISABLE|PERMISSIVE|STRICT
Port            number: u, protocol: s, name: s, targetPort: u
PortNumber      number: u
Destination     !host: s, subset: s, port: PortNumber
StringMatch     exact: s, prefix: s, regex: s
HeaderOps       set: {s}, add: {s}, remove: [s]
Headers         request: HeaderOps, response: HeaderOps
Percent         value: n
Provider        !name: s
Mode            mode: CLIENT_AND_SERVER|CLIENT|SERVER
ClientTls       mode: DISABLE|SIMPLE|MUTUAL|ISTIO_MUTUAL, clientCertificate: s, privateKey: s, caCertificates: s,
    caCrl: s, credentialName: s, subjectAltNames: [s], sni: s, ~insecureSkipVerify: b
ServerTls       httpsRedirect: b, mode: PASSTHROUGH|SIMPLE|MUTUAL|AUTO_PASSTHROUGH|ISTIO_MUTUAL|OPTIONAL_MUTUAL,
    serverCertificate: s, privateKey: s, caCertificates: s, caCrl: s, caCertCredentialName: s, credentialName: s,
    credentialNames: [s], tlsCertificates: [(serverCertificate: s, privateKey: s, caCertificates: s)],
    subjectAltNames: [s], verifyCertificateSpki: [s], verifyCertificateHash: [s],
    minProtocolVersion: TLS_AUTO|TLSV1_0|
    TLSV1_1|TLSV1_2|TLSV1_3, maxProtocolVersion: TLS_AUTO|TLSV1_0|TLSV1_1|TLSV1_2|TLSV1_3, cipherSuites: [s],
    ecdhCurves: [s], ~insecureSkipVerify: b
Keepalive       probes: u, time: d, interval: d
ConnectionPool  tcp: (maxConnections: i, connectTimeout: d, tcpKeepalive: Keepalive, maxConnectionDuration: d,
    idleTimeout: s), http: (http1MaxPendingRequests: i, http2MaxRequests: i, maxRequestsPerConnection: i,
    maxRetries: i, idleTimeout: d, h2UpgradePolicy: DEFAULT|DO_NOT_UPGRADE|UPGRADE, useClientProtocol: b,
    maxConcurrentStreams: i, http2KeepAlive: (interval: d, timeout: d))
Failover        from: s, to: s
LocalityLb      distribute: [(from: s, to: {u})], failover: [Failover], failoverPriority: [s], ~enabled: b
LoadBalancer    simple: UNSPECIFIED|LEAST_CONN|RANDOM|PASSTHROUGH|ROUND_ROBIN|LEAST_REQUEST,
    consistentHash: (httpHeaderName: s, httpCookie: (!name: s, path: s, ttl: s, attributes: [(!name: s, value: s)]),
    useSourceIp: b, httpQueryParameterName: s, ringHash: (minimumRingSize: U), maglev: (tableSize: U),
    minimumRingSize: U), backendUtilization: (errorUtilizationPenaltyPercent: u,
    metricNamesForComputingUtilization: [s], weightExpirationPeriod: s, weightStabilizationPeriod: s,
    weightUpdatePeriod: s), localityLbSetting: LocalityLb, zoneAwareLbSetting: (~enabled: b, failover: [Failover],
    failoverPriority: [s], ~minClusterSize: u),
    warmupDurationSecs: d, warmup: (!duration: d, ~minimumPercent: n, ~aggression: n)
Outliers        splitExternalLocalOriginErrors: b, ~consecutiveLocalOriginFailures: u, ~consecutiveGatewayErrors: u,
    ~consecutive5xxErrors: u, consecutiveErrors: i, interval: d, baseEjectionTime: d, maxEjectionPercent: i,
    minHealthPercent: i, outlierDetectionHttpErrorCodes: [i]
PortPolicy      port: PortNumber, loadBalancer: LoadBalancer, connectionPool: ConnectionPool,
    outlierDetection: Outliers, tls: ClientTls
TrafficPolicy   loadBalancer: LoadBalancer, connectionPool: ConnectionPool, outlierDetection: Outliers,
    tls: ClientTls, portLevelSettings: [PortPolicy], tunnel: (protocol: s, !targetHost: s, !targetPort: u),
    proxyProtocol: (version: V1|V2), retryBudget: (~percent: n, minRetryConcurrency: u, budgetInterval: s)
Source          principals: [s], notPrincipals: [s], requestPrincipals: [s], notRequestPrincipals: [s],
    namespaces: [s], notNamespaces: [s], serviceAccounts: [s], notServiceAccounts: [s], trustDomains: [s],
    notTrustDomains: [s], ipBlocks: [s], notIpBlocks: [s], remoteIpBlocks: [s], notRemoteIpBlocks: [s]
Operation       hosts: [s], notHosts: [s], ports: [s], notPorts: [s], methods: [s], notMethods: [s], paths: [s],
    notPaths: [s]
JwtRule         issuer: s, audiences: [s], jwksUri: s, jwks_uri: s, jwks: s, fromHeaders: [(!name: s, prefix: s)],
    fromParams: [s], fromCookies: [s], outputPayloadToHeader: s, forwardOriginalToken: b,
    outputClaimToHeaders: [(!header: s, !claim: s)], timeout: d, spaceDelimitedClaims: [s], presence: OPTIONAL|
    REQUIRED
Endpoint        address: s, ports: {u}, labels: {s}, network: s, locality: s, weight: u, serviceAccount: s
HttpMatch       name: s, uri: StringMatch, scheme: StringMatch, method: StringMatch, authority: StringMatch,
    headers: {StringMatch}, port: u, sourceLabels: {s}, gateways: [s], queryParams: {StringMatch}, ignoreUriCase: b,
    withoutHeaders: {StringMatch}, sourceNamespace: s, statPrefix: s
HttpRoute       name: s, match: [HttpMatch], route: [(!destination: Destination, weight: i, headers: Headers)],
    redirect: (uri: s, authority: s, port: u, derivePort: FROM_PROTOCOL_DEFAULT|FROM_REQUEST_PORT, scheme: s,
    redirectCode: u, prefixRewrite: s), directResponse: (!status: u, body: (string: s, bytes: s)), delegate: (name: s,
    namespace: s), rewrite: (uri: s, authority: s, uriRegexRewrite: (match: s, rewrite: s)), timeout: d,
    retries: (attempts: i, perTryTimeout: d, retryOn: s, ~retryRemoteLocalities: b, ~retryIgnorePreviousHosts: b,
    backoff: d), fault: (delay: (percent: i, fixedDelay: d, exponentialDelay: d, percentage: Percent),
    abort: (httpStatus: i, grpcStatus: s, http2Error: s, percentage: Percent)), mirror: Destination,
    mirrors: [(!destination: Destination, percentage: Percent)], ~mirrorPercent: u, ~mirror_percent: u,
    mirrorPercentage: Percent, corsPolicy: (allowOrigin: [s], allowOrigins: [StringMatch], allowMethods: [s],
    allowHeaders: [s], exposeHeaders: [s], maxAge: d, ~allowCredentials: b, unmatchedPreflights: UNSPECIFIED|FORWARD|
    IGNORE), headers: Headers
L4Match         destinationSubnets: [s], port: u, sourceLabels: {s}, gateways: [s], sourceNamespace: s, sourceSubnet: s
L4Route         [(!destination: Destination, weight: i)]
Listener        !port: Port, bind: s, captureMode: DEFAULT|IPTABLES|NONE, defaultEndpoint: s, tls: ServerTls,
    connectionPool: ConnectionPool
Egress          port: Port, bind: s, captureMode: DEFAULT|IPTABLES|NONE, !hosts: [s]
MetricMatch     metric: ALL_METRICS|REQUEST_COUNT|REQUEST_DURATION|REQUEST_SIZE|RESPONSE_SIZE|TCP_OPENED_CONNECTIONS|
    TCP_CLOSED_CONNECTIONS|TCP_SENT_BYTES|TCP_RECEIVED_BYTES|GRPC_REQUEST_MESSAGES|GRPC_RESPONSE_MESSAGES,
    customMetric: s, mode: CLIENT_AND_SERVER|CLIENT|SERVER
Tag             literal: (!value: s), environment: (!name: s, defaultValue: s), header: (!name: s, defaultValue: s),
    formatter: (!value: s)
SubFilter       name: s, subFilter: (name: s)
EnvoyMatch      context: ANY|SIDECAR_INBOUND|SIDECAR_OUTBOUND|GATEWAY|WAYPOINT, proxy: (proxyVersion: s,
    metadata: {s}), listener: (portNumber: u, portName: s, filterChain: (name: s, sni: s, transportProtocol: s,
    transportSocket: s, applicationProtocols: s, filter: SubFilter, destinationPort: u), listenerFilter: s, name: s),
    routeConfiguration: (portNumber: u, portName: s, gateway: s, vhost: (name: s, domainName: s, route: (name: s,
    action: ANY|ROUTE|REDIRECT|DIRECT_RESPONSE)), name: s), cluster: (portNumber: u, service: s, subset: s, name: s),
    waypoint: (filter: SubFilter, portNumber: u, route: (name: s))
Status          conditions: [(type: s, status: s, lastProbeTime: t, lastTransitionTime: t, reason: s, message: s,
    observedGeneration: x)], validationMessages: [(documentationUrl: s, level: UNKNOWN|ERROR|WARNING|INFO,
    type: (code: s, name: s))], observedGeneration: x
Tracing         match: Mode, providers: [Provider], ~randomSamplingPercentage: n, ~disableSpanReporting: b,
    customTags: {Tag}, ~useRequestIdForTraceSampling: b, ~enableIstioTags: b, ~disableContextPropagation: b
"""

_KINDS = """
security.istio.io   v1,v1beta1          PeerAuthentication     peerauthentications     pa  Mode=.spec.mtls.mode,Age
    selector: Selector, mtls: Mtls, portLevelMtls: {Mtls}
security.istio.io   v1,v1beta1          AuthorizationPolicy    authorizationpolicies   ap  Action=.spec.action,Age
    selector: Selector, targetRef: TargetRef, targetRefs: [TargetRef], rules: [(from: [(source: Source)],
    to: [(operation: Operation)], when: [(!key: s, values: [s], notValues: [s])])], action: ALLOW|DENY|AUDIT|CUSTOM,
    provider: (name: s)
security.istio.io   v1,v1beta1          RequestAuthentication  requestauthentications  ra  -
    selector: Selector, targetRef: TargetRef, targetRefs: [TargetRef], jwtRules: [JwtRule]
networking.istio.io v1,v1alpha3,v1beta1 DestinationRule        destinationrules        dr  Host=.spec.host,Age
    !host: s, trafficPolicy: TrafficPolicy, subsets: [(!name: s, labels: {s}, trafficPolicy: TrafficPolicy)],
    exportTo: [s], workloadSelector: Selector
networking.istio.io v1,v1alpha3,v1beta1 VirtualService         virtualservices         vs
    Gateways=.spec.gateways,Hosts=.spec.hosts,Age hosts: [s], gateways: [s], http: [HttpRoute],
    tls: [(!match: [(!sniHosts: [s], destinationSubnets: [s], port: u, sourceLabels: {s}, gateways: [s],
    sourceNamespace: s)], route: L4Route)], tcp: [(match: [L4Match], route: L4Route)], exportTo: [s]
networking.istio.io v1,v1alpha3,v1beta1 ServiceEntry           serviceentries          se
    Hosts=.spec.hosts,Location=.spec.location,Resolution=.spec.resolution,Age !hosts: [s], addresses: [s],
    ports: [(!number: u, protocol: s, !name: s, targetPort: u)], location: MESH_EXTERNAL|MESH_INTERNAL,
    resolution: NONE|STATIC|DNS|DNS_ROUND_ROBIN|DYNAMIC_DNS, endpoints: [Endpoint], workloadSelector: Workload,
    exportTo: [s], subjectAltNames: [s]
networking.istio.io v1,v1alpha3,v1beta1 Sidecar                sidecars                -   -
    workloadSelector: Workload, ingress: [Listener], egress: [Egress], inboundConnectionPool: ConnectionPool,
    outboundTrafficPolicy: (mode: REGISTRY_ONLY|ALLOW_ANY, egressProxy: Destination)
networking.istio.io v1,v1alpha3,v1beta1 Gateway                gateways                gw  -
    servers: [(!port: (!number: u, !protocol: s, !name: s, targetPort: u), bind: s, !hosts: [s], tls: ServerTls,
    defaultEndpoint: s, name: s)], selector: {s}
networking.istio.io v1,v1alpha3,v1beta1 WorkloadEntry          workloadentries         we  Age,Address=.spec.address
    address: s, ports: {u}, labels: {s}, network: s, locality: s, weight: u, serviceAccount: s
networking.istio.io v1,v1alpha3,v1beta1 WorkloadGroup          workloadgroups          wg  Age
    metadata: (labels: {s}, annotations: {s}), !template: (address: s, ports: {u},
    labels: {s}, network: s, locality: s, weight: u, serviceAccount: s), probe: (exec: (!command: [s]),
    failureThreshold: U, grpc: (port: u, service: s), httpGet: (host: s, httpHeaders: [(name: s, value: s)], path: s,
    !port: u, scheme: s), initialDelaySeconds: U, periodSeconds: U, successThreshold: U, tcpSocket: (host: s,
    !port: u), timeoutSeconds: U)
networking.istio.io v1alpha3            EnvoyFilter            envoyfilters            -   -
    workloadSelector: Workload, targetRefs: [TargetRef],
    configPatches: [(applyTo: INVALID|LISTENER|FILTER_CHAIN|NETWORK_FILTER|HTTP_FILTER|ROUTE_CONFIGURATION|
    VIRTUAL_HOST|HTTP_ROUTE|CLUSTER|EXTENSION_CONFIG|BOOTSTRAP|LISTENER_FILTER, match: EnvoyMatch,
    patch: (operation: INVALID|MERGE|ADD|REMOVE|INSERT_BEFORE|INSERT_AFTER|INSERT_FIRST|REPLACE|
    MERGE_AND_REPLACE_LIST, value: *, filterClass: UNSPECIFIED|AUTHN|AUTHZ|STATS))], priority: i
networking.istio.io v1beta1             ProxyConfig            proxyconfigs            -   -
    selector: Selector, ~concurrency: U, environmentVariables: {s}, image: (imageType: s)
telemetry.istio.io  v1,v1alpha1         Telemetry              telemetries             telemetry Age
    selector: Selector, targetRef: TargetRef, targetRefs: [TargetRef], tracing: [Tracing],
    metrics: [(providers: [Provider], overrides: [(match: MetricMatch, ~disabled: b,
    tagOverrides: {(operation: UPSERT|REMOVE, value: s)})], reportingInterval: d)], accessLogging: [(match: Mode,
    providers: [Provider], ~disabled: b, filter: (expression: s))]
extensions.istio.io v1alpha1            WasmPlugin             wasmplugins             -   Age
    selector: Selector, targetRef: TargetRef, targetRefs: [TargetRef], !url: s, sha256: s,
    imagePullPolicy: UNSPECIFIED_POLICY|IfNotPresent|Always, imagePullSecret: s, pluginConfig: *, pluginName: s,
    phase: UNSPECIFIED_PHASE|AUTHN|AUTHZ|STATS, failStrategy: FAIL_CLOSE|FAIL_OPEN|FAIL_RELOAD, ~priority: i,
    vmConfig: (env: [(!name: s, value: s, valueFrom: INLINE|HOST)]), verificationKey: s, match: [(mode: UNDEFINED|CLIENT|SERVER|CLIENT_AND_SERVER, ports: [(!number: u)])],
    type: UNSPECIFIED_PLUGIN_TYPE|HTTP|NETWORK
"""

_NEEDS_SPEC = {"ServiceEntry", "WorkloadEntry", "WorkloadGroup", "WasmPlugin"}
_STORED_ALPHA = {"Telemetry": "v1alpha1"}
_LIMITS = r"""
Selector.matchLabels maxProperties=4096
Selector.matchLabels.* maxLength=63
Workload.labels maxProperties=256
Workload.labels.* maxLength=63
TargetRef.group maxLength=253 pattern=^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$
TargetRef.kind minLength=1 maxLength=63 pattern=^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$
TargetRef.name minLength=1 maxLength=253
Provider.name minLength=1
PeerAuthentication.portLevelMtls minProperties=1
AuthorizationPolicy.rules maxItems=512
AuthorizationPolicy.rules.*.from maxItems=512
AuthorizationPolicy.targetRefs maxItems=16
RequestAuthentication.targetRefs maxItems=16
Telemetry.targetRefs maxItems=16
WasmPlugin.targetRefs maxItems=16
EnvoyFilter.targetRefs maxItems=16
Source.serviceAccounts maxItems=16
Source.serviceAccounts.* maxLength=320
Source.notServiceAccounts maxItems=16
Source.notServiceAccounts.* maxLength=320
RequestAuthentication.jwtRules maxItems=4096
JwtRule.issuer minLength=1
JwtRule.audiences.* minLength=1
JwtRule.jwksUri minLength=1 maxLength=2048
JwtRule.jwks_uri minLength=1 maxLength=2048
JwtRule.fromHeaders.*.name minLength=1
JwtRule.fromParams.* minLength=1
JwtRule.fromCookies.* minLength=1
JwtRule.outputClaimToHeaders.*.header minLength=1 pattern=^[-_A-Za-z0-9]+$
JwtRule.outputClaimToHeaders.*.claim minLength=1
JwtRule.spaceDelimitedClaims maxItems=64
JwtRule.spaceDelimitedClaims.* minLength=1
LoadBalancer.warmup.minimumPercent minimum=0 maximum=100
LoadBalancer.warmup.aggression minimum=0
LoadBalancer.zoneAwareLbSetting.minClusterSize minimum=1
Outliers.outlierDetectionHttpErrorCodes.* minimum=100 maximum=599
TrafficPolicy.portLevelSettings maxItems=4096
TrafficPolicy.retryBudget.percent minimum=0 maximum=100
ServerTls.credentialNames minItems=1 maxItems=2
ServerTls.tlsCertificates minItems=1 maxItems=2
ServiceEntry.hosts minItems=1 maxItems=256
ServiceEntry.addresses maxItems=256
ServiceEntry.addresses.* maxLength=64
ServiceEntry.endpoints maxItems=4096
ServiceEntry.ports maxItems=256 keys=name
ServiceEntry.ports.*.name maxLength=256
ServiceEntry.ports.*.protocol maxLength=256
WorkloadGroup.metadata.labels maxProperties=256
WorkloadGroup.metadata.annotations maxProperties=256
WorkloadGroup.probe.exec.command.* minLength=1
WorkloadGroup.probe.httpGet.httpHeaders.*.name pattern=^[-_A-Za-z0-9]+$
ProxyConfig.environmentVariables.* maxLength=2048
MetricMatch.customMetric minLength=1
Tag.literal.value minLength=1
Tag.environment.name minLength=1
Tag.header.name minLength=1
Tag.formatter.value minLength=1
Tracing.randomSamplingPercentage minimum=0 maximum=100
WasmPlugin.url minLength=1
WasmPlugin.sha256 pattern=(^$|^[a-f0-9]{64}$)
WasmPlugin.imagePullSecret minLength=1 maxLength=253
WasmPlugin.pluginName minLength=1 maxLength=256
WasmPlugin.match.*.ports keys=number
WasmPlugin.match.*.ports.*.number minimum=1 maximum=65535
WasmPlugin.vmConfig.env maxItems=256 keys=name
WasmPlugin.vmConfig.env.*.name minLength=1 maxLength=256
WasmPlugin.vmConfig.env.*.value maxLength=2048
"""
_ENDPOINT_LIMITS = """
address maxLength=256
labels maxProperties=256
locality maxLength=2048
network maxLength=2048
ports maxProperties=128
serviceAccount maxLength=253
"""
_ONE_OF = {
    "StringMatch": ("exact", "prefix", "regex"), "LoadBalancer": ("simple", "consistentHash", "backendUtilization"),
    "HttpRoute.directResponse.body": ("string", "bytes"), "HttpRoute.redirect": ("port", "derivePort"),
    "HttpRoute.fault.abort": ("httpStatus", "grpcStatus", "http2Error"),
    "HttpRoute.fault.delay": ("fixedDelay", "exponentialDelay"), "MetricMatch": ("metric", "customMetric"),
    "Tag": ("literal", "environment", "header", "formatter"),
    "EnvoyMatch": ("listener", "routeConfiguration", "cluster", "waypoint"),
    "WorkloadGroup.probe": ("httpGet", "tcpSocket", "exec", "grpc")}
_ALL_OF = {"LoadBalancer.consistentHash": (("httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"),
                                           ("ringHash", "maglev"))}
"""Fields of which at most one may be given; for _ALL_OF, of each group."""
_SCALARS: dict[str, dict[str, Any]] = {
    "s": {"type": "string"}, "i": {"type": "integer", "format": "int32"},
    "u": {"type": "integer", "minimum": 0, "maximum": 4294967295},
    "U": {"type": "integer", "minimum": 0}, "t": {"type": "string", "format": "date-time"},
    "x": {"x-kubernetes-int-or-string": True},
    "n": {"type": "number", "format": "double"}, "b": {"type": "boolean"},
    "*": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}


class _Reader:
    """Reads the notation into JSON schema; `x-rules` names the rules of a node."""

    def __init__(self, lines: dict[str, str]) -> None:
        self._lines = lines
        self._made: dict[str, dict[str, Any]] = {}
        self._limits = _read_limits()

    def fields(self, text: str, owner: str) -> dict[str, Any]:
        node: dict[str, Any] = {"type": "object", "properties": {}}
        for part in _parts(text):
            name, _, kind = part.partition(":")
            bare = name.strip().lstrip("!~")
            child = dict(self.kind(kind.strip(), f"{owner}.{bare}"))
            if "~" in name:
                child["nullable"] = True
            if name.strip().startswith("!"):
                node.setdefault("required", []).append(bare)
            node["properties"][bare] = child
        if owner in _ONE_OF:
            node["oneOf"] = _at_most_one(_ONE_OF[owner])
        if owner in _ALL_OF:
            node["allOf"] = [{"oneOf": _at_most_one(names)} for names in _ALL_OF[owner]]
        return _ruled(node, owner)

    def kind(self, text: str, owner: str) -> dict[str, Any]:
        """The schema of a type that stands at `owner`, with what may be there."""
        return {**self._bare(text, owner), **self._limits.get(owner, {})}

    def _bare(self, text: str, owner: str) -> dict[str, Any]:
        if text in _SCALARS:
            return _ruled(dict(_SCALARS[text]), owner)
        if text == "d":
            return {"type": "string", "x-rules": ["d"]}
        if text[0] == "[":
            return _ruled({"type": "array", "items": self.kind(text[1:-1], f"{owner}.*")}, owner)
        if text[0] == "{":
            return _ruled({"type": "object", "additionalProperties": self.kind(text[1:-1], f"{owner}.*")}, owner)
        if text[0] == "(":
            return self.fields(text[1:-1], owner)
        if "|" in text:
            return {"type": "string", "enum": text.split("|")}
        if text not in self._made:
            line = self._lines[text]
            self._made[text] = self.kind(line, text) if line[0] == "[" else self.fields(line, text)
        return self._made[text]


def _at_most_one(names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [{"not": {"anyOf": [{"required": [name]} for name in names]}}, *({"required": [name]} for name in names)]


def _read_limits() -> dict[str, dict[str, Any]]:
    """Of each place its limits, as JSON schema has them."""
    lines = _LIMITS.strip().splitlines()
    lines += [f"{owner}.{line}" for owner in ENDPOINTS for line in _ENDPOINT_LIMITS.strip().splitlines()]
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        owner, *parts = line.split()
        limits: dict[str, Any] = {}
        for name, _, value in (part.partition("=") for part in parts):
            if name == "keys":
                limits |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [value]}
            else:
                limits[name] = value if name == "pattern" else int(value)
        found[owner] = limits
    return found


def _ruled(node: dict[str, Any], owner: str) -> dict[str, Any]:
    return {**node, "x-rules": [owner]} if owner in RULES else node


def _parts(text: str) -> Iterator[str]:
    """Split at commas that stand in no bracket."""
    depth, start = 0, 0
    for place, char in enumerate(text):
        depth += char in "([{"
        depth -= char in ")]}"
        if char == "," and depth == 0:
            yield text[start:place]
            start = place + 1
    yield text[start:]


def _lines(table: str) -> list[str]:
    """The lines of a table; an indented one goes on with the line before."""
    return re.sub(r"(?<=\|)\n +", "", table.strip()).replace("\n    ", " ").splitlines()


def _column(text: str) -> dict[str, Any]:
    name, _, path = text.partition("=")
    return {"name": name, "type": "string", "jsonPath": path} if path else {
        "name": name, "type": "date", "jsonPath": ".metadata.creationTimestamp"}


def resources() -> Iterator[Resource]:
    """Istio's kinds, as if their definitions had been applied."""
    reader = _Reader(dict(line.split(None, 1) for line in _lines(_TYPES)))
    for line in _lines(_KINDS):
        group, versions, kind, plural, short, columns, fields = line.split(None, 6)
        schema = {"type": "object", "properties": {"spec": reader.fields(fields, kind), "status": {
            **reader.kind("Status", ""), "x-kubernetes-preserve-unknown-fields": True}}}
        if kind in _NEEDS_SPEC:
            schema["required"] = ["spec"]
        names = tuple(versions.split(","))
        printed = {"additionalPrinterColumns": [] if columns == "-" else [_column(text) for text in columns.split(",")]}
        yield Resource(group, names, plural, kind, True, ("status",), () if short == "-" else (short,),
                       ("istio-io", group.replace(".", "-")), singular=kind.lower(), list_kind=kind + "List",
                       storage=_STORED_ALPHA.get(kind, names[0]), schemas=dict.fromkeys(names, schema),
                       columns=dict.fromkeys(names, printed))
