"""Istio's custom resources as the lab serves them: names, printed columns, fields and rules.

The table is written in a short notation (from Istio's API reference): `name: type`, where a type is s string, i
integer, u integer >= 0, U the same in 64 bits, t time, n number, b boolean, d duration, `A|B` one of, [T] list, {T} map of, (fields) object, Name
another line, * anything, or one of _SCALARS. After a type `#least-most` limits a number, or how long a text, list or map is, and
`@key` says that no two items of a list share the key. A leading `!` makes a field required (of a kind: its spec), `~`
nullable; of the fields with `?` at most one may be given, and so of those with `??`. A version with `*` is the stored
one. An indented line goes on with the line before. What Istio states in CEL stands in `istio_rules`.
"""
import re
from collections.abc import Iterator
from typing import Any

from meshtls.lab.api.istio_rules import RULES
from meshtls.lab.api.resources import Resource

_TYPES = """
Selector        matchLabels: {s#-63}#-4096
Workload        labels: {s#-63}#-256
TargetRef       group: group#-253, !kind: kind#1-63, !name: s#1-253, namespace: s
Mtls            mode: UNSET|DISABLE|PERMISSIVE|STRICT
Port            number: u, protocol: s, name: s, targetPort: u
PortNumber      number: u
Destination     !host: s, subset: s, port: PortNumber
StringMatch     ?exact: s, ?prefix: s, ?regex: s
HeaderOps       set: {s}, add: {s}, remove: [s]
Headers         request: HeaderOps, response: HeaderOps
Percent         value: n
Provider        !name: s#1-
Mode            mode: CLIENT_AND_SERVER|CLIENT|SERVER
ClientTls       mode: DISABLE|SIMPLE|MUTUAL|ISTIO_MUTUAL, clientCertificate: s, privateKey: s, caCertificates: s,
    caCrl: s, credentialName: s, subjectAltNames: [s], sni: s, ~insecureSkipVerify: b
ServerTls       httpsRedirect: b, mode: PASSTHROUGH|SIMPLE|MUTUAL|AUTO_PASSTHROUGH|ISTIO_MUTUAL|OPTIONAL_MUTUAL,
    serverCertificate: s, privateKey: s, caCertificates: s, caCrl: s, caCertCredentialName: s, credentialName: s,
    credentialNames: [s]#1-2, tlsCertificates: [(serverCertificate: s, privateKey: s, caCertificates: s)]#1-2,
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
LoadBalancer    ?simple: UNSPECIFIED|LEAST_CONN|RANDOM|PASSTHROUGH|ROUND_ROBIN|LEAST_REQUEST,
    ?consistentHash: (?httpHeaderName: s, ?httpCookie: (!name: s, path: s, ttl: s, attributes: [(!name: s, value: s)]),
    ?useSourceIp: b, ?httpQueryParameterName: s, ??ringHash: (minimumRingSize: U), ??maglev: (tableSize: U),
    minimumRingSize: U), ?backendUtilization: (errorUtilizationPenaltyPercent: u,
    metricNamesForComputingUtilization: [s], weightExpirationPeriod: s, weightStabilizationPeriod: s,
    weightUpdatePeriod: s), localityLbSetting: LocalityLb, zoneAwareLbSetting: (~enabled: b, failover: [Failover],
    failoverPriority: [s], ~minClusterSize: u#1-),
    warmupDurationSecs: d, warmup: (!duration: d, ~minimumPercent: n#0-100, ~aggression: n#0-)
Outliers        splitExternalLocalOriginErrors: b, ~consecutiveLocalOriginFailures: u, ~consecutiveGatewayErrors: u,
    ~consecutive5xxErrors: u, consecutiveErrors: i, interval: d, baseEjectionTime: d, maxEjectionPercent: i,
    minHealthPercent: i, outlierDetectionHttpErrorCodes: [i#100-599]
PortPolicy      port: PortNumber, loadBalancer: LoadBalancer, connectionPool: ConnectionPool,
    outlierDetection: Outliers, tls: ClientTls
TrafficPolicy   loadBalancer: LoadBalancer, connectionPool: ConnectionPool, outlierDetection: Outliers,
    tls: ClientTls, portLevelSettings: [PortPolicy]#-4096, tunnel: (protocol: s, !targetHost: s, !targetPort: u),
    proxyProtocol: (version: V1|V2), retryBudget: (~percent: n#0-100, minRetryConcurrency: u, budgetInterval: s)
Source          principals: [s], notPrincipals: [s], requestPrincipals: [s], notRequestPrincipals: [s],
    namespaces: [s], notNamespaces: [s], serviceAccounts: [s#-320]#-16, notServiceAccounts: [s#-320]#-16, trustDomains: [s],
    notTrustDomains: [s], ipBlocks: [s], notIpBlocks: [s], remoteIpBlocks: [s], notRemoteIpBlocks: [s]
Operation       hosts: [s], notHosts: [s], ports: [s], notPorts: [s], methods: [s], notMethods: [s], paths: [s],
    notPaths: [s]
JwtRule         issuer: s#1-, audiences: [s#1-], jwksUri: s#1-2048, jwks_uri: s#1-2048, jwks: s, fromHeaders: [(!name: s#1-, prefix: s)],
    fromParams: [s#1-], fromCookies: [s#1-], outputPayloadToHeader: s, forwardOriginalToken: b,
    outputClaimToHeaders: [(!header: header#1-, !claim: s#1-)], timeout: d, spaceDelimitedClaims: [s#1-]#-64, presence: OPTIONAL|
    REQUIRED
Endpoint        address: s#-256, ports: {u}#-128, labels: {s}#-256, network: s#-2048, locality: s#-2048, weight: u, serviceAccount: s#-253
HttpMatch       name: s, uri: StringMatch, scheme: StringMatch, method: StringMatch, authority: StringMatch,
    headers: {StringMatch}, port: u, sourceLabels: {s}, gateways: [s], queryParams: {StringMatch}, ignoreUriCase: b,
    withoutHeaders: {StringMatch}, sourceNamespace: s, statPrefix: s
HttpRoute       name: s, match: [HttpMatch], route: [(!destination: Destination, weight: i, headers: Headers)],
    redirect: (uri: s, authority: s, ?port: u, ?derivePort: FROM_PROTOCOL_DEFAULT|FROM_REQUEST_PORT, scheme: s,
    redirectCode: u, prefixRewrite: s), directResponse: (!status: u, body: (?string: s, ?bytes: s)), delegate: (name: s,
    namespace: s), rewrite: (uri: s, authority: s, uriRegexRewrite: (match: s, rewrite: s)), timeout: d,
    retries: (attempts: i, perTryTimeout: d, retryOn: s, ~retryRemoteLocalities: b, ~retryIgnorePreviousHosts: b,
    backoff: d), fault: (delay: (percent: i, ?fixedDelay: d, ?exponentialDelay: d, percentage: Percent),
    abort: (?httpStatus: i, ?grpcStatus: s, ?http2Error: s, percentage: Percent)), mirror: Destination,
    mirrors: [(!destination: Destination, percentage: Percent)], ~mirrorPercent: u, ~mirror_percent: u,
    mirrorPercentage: Percent, corsPolicy: (allowOrigin: [s], allowOrigins: [StringMatch], allowMethods: [s],
    allowHeaders: [s], exposeHeaders: [s], maxAge: d, ~allowCredentials: b, unmatchedPreflights: UNSPECIFIED|FORWARD|
    IGNORE), headers: Headers
L4Match         destinationSubnets: [s], port: u, sourceLabels: {s}, gateways: [s], sourceNamespace: s, sourceSubnet: s
L4Route         [(!destination: Destination, weight: i)]
Listener        !port: Port, bind: s, captureMode: DEFAULT|IPTABLES|NONE, defaultEndpoint: s, tls: ServerTls,
    connectionPool: ConnectionPool
Egress          port: Port, bind: s, captureMode: DEFAULT|IPTABLES|NONE, !hosts: [s]
MetricMatch     ?metric: ALL_METRICS|REQUEST_COUNT|REQUEST_DURATION|REQUEST_SIZE|RESPONSE_SIZE|TCP_OPENED_CONNECTIONS|
    TCP_CLOSED_CONNECTIONS|TCP_SENT_BYTES|TCP_RECEIVED_BYTES|GRPC_REQUEST_MESSAGES|GRPC_RESPONSE_MESSAGES,
    ?customMetric: s#1-, mode: CLIENT_AND_SERVER|CLIENT|SERVER
Tag             ?literal: (!value: s#1-), ?environment: (!name: s#1-, defaultValue: s),
    ?header: (!name: s#1-, defaultValue: s), ?formatter: (!value: s#1-)
SubFilter       name: s, subFilter: (name: s)
EnvoyMatch      context: ANY|SIDECAR_INBOUND|SIDECAR_OUTBOUND|GATEWAY|WAYPOINT, proxy: (proxyVersion: s,
    metadata: {s}), ?listener: (portNumber: u, portName: s, filterChain: (name: s, sni: s, transportProtocol: s,
    transportSocket: s, applicationProtocols: s, filter: SubFilter, destinationPort: u), listenerFilter: s, name: s),
    ?routeConfiguration: (portNumber: u, portName: s, gateway: s, vhost: (name: s, domainName: s, route: (name: s,
    action: ANY|ROUTE|REDIRECT|DIRECT_RESPONSE)), name: s), ?cluster: (portNumber: u, service: s, subset: s, name: s),
    ?waypoint: (filter: SubFilter, portNumber: u, route: (name: s))
Status          conditions: [(type: s, status: s, lastProbeTime: t, lastTransitionTime: t, reason: s, message: s,
    observedGeneration: x)], validationMessages: [(documentationUrl: s, level: UNKNOWN|ERROR|WARNING|INFO,
    type: (code: s, name: s))], observedGeneration: x
VmConfig        env: [(!name: s#1-256, value: s#-2048, valueFrom: INLINE|HOST)]#-256@name
TrafficMatch    mode: UNDEFINED|CLIENT|SERVER|CLIENT_AND_SERVER, ports: [(!number: u#1-65535)]@number
Tracing         match: Mode, providers: [Provider], ~randomSamplingPercentage: n#0-100, ~disableSpanReporting: b,
    customTags: {Tag}, ~useRequestIdForTraceSampling: b, ~enableIstioTags: b, ~disableContextPropagation: b
"""

_KINDS = """
security.istio.io   v1,v1beta1          PeerAuthentication     peerauthentications     pa  Mode=.spec.mtls.mode,Age
    selector: Selector, mtls: Mtls, portLevelMtls: {Mtls}#1-
security.istio.io   v1,v1beta1          AuthorizationPolicy    authorizationpolicies   ap  Action=.spec.action,Age
    selector: Selector, targetRef: TargetRef, targetRefs: [TargetRef]#-16, rules: [(from: [(source: Source)]#-512,
    to: [(operation: Operation)], when: [(!key: s, values: [s], notValues: [s])])]#-512, action: ALLOW|DENY|AUDIT|CUSTOM,
    provider: (name: s)
security.istio.io   v1,v1beta1          RequestAuthentication  requestauthentications  ra  -
    selector: Selector, targetRef: TargetRef, targetRefs: [TargetRef]#-16, jwtRules: [JwtRule]#-4096
networking.istio.io v1,v1alpha3,v1beta1 DestinationRule        destinationrules        dr  Host=.spec.host,Age
    !host: s, trafficPolicy: TrafficPolicy, subsets: [(!name: s, labels: {s}, trafficPolicy: TrafficPolicy)],
    exportTo: [s], workloadSelector: Selector
networking.istio.io v1,v1alpha3,v1beta1 VirtualService         virtualservices         vs
    Gateways=.spec.gateways,Hosts=.spec.hosts,Age hosts: [s], gateways: [s], http: [HttpRoute],
    tls: [(!match: [(!sniHosts: [s], destinationSubnets: [s], port: u, sourceLabels: {s}, gateways: [s],
    sourceNamespace: s)], route: L4Route)], tcp: [(match: [L4Match], route: L4Route)], exportTo: [s]
networking.istio.io v1,v1alpha3,v1beta1 !ServiceEntry          serviceentries          se
    Hosts=.spec.hosts,Location=.spec.location,Resolution=.spec.resolution,Age !hosts: [s]#1-256, addresses: [s#-64]#-256,
    ports: [(!number: u, protocol: s#-256, !name: s#-256, targetPort: u)]#-256@name, location: MESH_EXTERNAL|MESH_INTERNAL,
    resolution: NONE|STATIC|DNS|DNS_ROUND_ROBIN|DYNAMIC_DNS, endpoints: [Endpoint]#-4096, workloadSelector: Workload,
    exportTo: [s], subjectAltNames: [s]
networking.istio.io v1,v1alpha3,v1beta1 Sidecar                sidecars                -   -
    workloadSelector: Workload, ingress: [Listener], egress: [Egress], inboundConnectionPool: ConnectionPool,
    outboundTrafficPolicy: (mode: REGISTRY_ONLY|ALLOW_ANY, egressProxy: Destination)
networking.istio.io v1,v1alpha3,v1beta1 Gateway                gateways                gw  -
    servers: [(!port: (!number: u, !protocol: s, !name: s, targetPort: u), bind: s, !hosts: [s], tls: ServerTls,
    defaultEndpoint: s, name: s)], selector: {s}
networking.istio.io v1,v1alpha3,v1beta1 !WorkloadEntry         workloadentries         we  Age,Address=.spec.address
    Endpoint
networking.istio.io v1,v1alpha3,v1beta1 !WorkloadGroup         workloadgroups          wg  Age
    metadata: (labels: {s}#-256, annotations: {s}#-256), !template: Endpoint, probe: (?exec: (!command: [s#1-]),
    failureThreshold: U, ?grpc: (port: u, service: s), ?httpGet: (host: s, httpHeaders: [(name: header, value: s)], path: s,
    !port: u, scheme: s), initialDelaySeconds: U, periodSeconds: U, successThreshold: U, ?tcpSocket: (host: s,
    !port: u), timeoutSeconds: U)
networking.istio.io v1alpha3            EnvoyFilter            envoyfilters            -   -
    workloadSelector: Workload, targetRefs: [TargetRef]#-16,
    configPatches: [(applyTo: INVALID|LISTENER|FILTER_CHAIN|NETWORK_FILTER|HTTP_FILTER|ROUTE_CONFIGURATION|
    VIRTUAL_HOST|HTTP_ROUTE|CLUSTER|EXTENSION_CONFIG|BOOTSTRAP|LISTENER_FILTER, match: EnvoyMatch,
    patch: (operation: INVALID|MERGE|ADD|REMOVE|INSERT_BEFORE|INSERT_AFTER|INSERT_FIRST|REPLACE|
    MERGE_AND_REPLACE_LIST, value: *, filterClass: UNSPECIFIED|AUTHN|AUTHZ|STATS))], priority: i
networking.istio.io v1beta1             ProxyConfig            proxyconfigs            -   -
    selector: Selector, ~concurrency: U, environmentVariables: {s#-2048}, image: (imageType: s)
telemetry.istio.io  v1,v1alpha1*        Telemetry              telemetries             telemetry Age
    selector: Selector, targetRef: TargetRef, targetRefs: [TargetRef]#-16, tracing: [Tracing],
    metrics: [(providers: [Provider], overrides: [(match: MetricMatch, ~disabled: b,
    tagOverrides: {(operation: UPSERT|REMOVE, value: s)})], reportingInterval: d)], accessLogging: [(match: Mode,
    providers: [Provider], ~disabled: b, filter: (expression: s))]
extensions.istio.io v1alpha1            !WasmPlugin            wasmplugins             -   Age
    selector: Selector, targetRef: TargetRef, targetRefs: [TargetRef]#-16, !url: s#1-, sha256: sha256,
    imagePullPolicy: UNSPECIFIED_POLICY|IfNotPresent|Always, imagePullSecret: s#1-253, pluginConfig: *, pluginName: s#1-256,
    phase: UNSPECIFIED_PHASE|AUTHN|AUTHZ|STATS, failStrategy: FAIL_CLOSE|FAIL_OPEN|FAIL_RELOAD, ~priority: i,
    vmConfig: VmConfig, verificationKey: s, match: [TrafficMatch], type: UNSPECIFIED_PLUGIN_TYPE|HTTP|NETWORK
extensions.istio.io v1alpha1            !TrafficExtension      trafficextensions       -   Age
    selector: Selector, targetRefs: [TargetRef]#-16, match: [TrafficMatch], phase: UNSPECIFIED|AUTHN|AUTHZ|STATS, ~priority: i,
    ?wasm: (!url: s#1-, sha256: sha256, imagePullPolicy: UNSPECIFIED_POLICY|IfNotPresent|Always, imagePullSecret: s#1-253,
    pluginConfig: *, pluginName: s#1-256, failStrategy: FAIL_CLOSE|FAIL_OPEN|FAIL_RELOAD, vmConfig: VmConfig, verificationKey: s,
    type: UNSPECIFIED_PLUGIN_TYPE|HTTP|NETWORK), ?lua: (!inlineCode: s#1-65536)
"""

_NAME = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SCALARS: dict[str, dict[str, Any]] = {
    "s": {"type": "string"}, "i": {"type": "integer", "format": "int32"},
    "u": {"type": "integer", "minimum": 0, "maximum": 4294967295}, "d": {"type": "string", "x-rules": ["d"]},
    "U": {"type": "integer", "minimum": 0}, "t": {"type": "string", "format": "date-time"},
    "x": {"x-kubernetes-int-or-string": True}, "n": {"type": "number", "format": "double"}, "b": {"type": "boolean"},
    "*": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    "group": {"type": "string", "pattern": rf"^$|^{_NAME}(\.{_NAME})*$"},
    "kind": {"type": "string", "pattern": "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"},
    "header": {"type": "string", "pattern": "^[-_A-Za-z0-9]+$"},
    "sha256": {"type": "string", "pattern": "(^$|^[a-f0-9]{64}$)"}}
_LIMITS = {"string": ("minLength", "maxLength"), "array": ("minItems", "maxItems"),
           "object": ("minProperties", "maxProperties")}


class _Reader:
    """Reads the notation into JSON schema; `x-rules` names the rules of a node."""

    def __init__(self, lines: dict[str, str]) -> None:
        self._lines = lines
        self._made: dict[str, dict[str, Any]] = {}

    def fields(self, text: str, owner: str) -> dict[str, Any]:
        node: dict[str, Any] = {"type": "object", "properties": {}}
        alone: dict[int, list[str]] = {}
        for part in _parts(text):
            marked, _, kind = part.strip().partition(": ")
            name = marked.lstrip("!~?")
            child = dict(self.kind(kind, f"{owner}.{name}"))
            if "~" in marked:
                child["nullable"] = True
            if "!" in marked:
                node.setdefault("required", []).append(name)
            if "?" in marked:
                alone.setdefault(marked.count("?"), []).append(name)
            node["properties"][name] = child
        groups = [{"oneOf": [{"not": {"anyOf": [{"required": [name]} for name in names]}},
                             *({"required": [name]} for name in names)]} for names in alone.values()]
        return {**node, **(groups[0] if len(groups) == 1 else {"allOf": groups} if groups else {})}

    def kind(self, text: str, owner: str) -> dict[str, Any]:
        """The schema of a type that stands at `owner`, with what may be there."""
        bare, least, most, key = re.findall(r"^(.*?)(?:#(\d*)-(\d*))?(?:@(\w+))?$", text)[0]
        node = self._bare(bare, owner)
        names = _LIMITS.get(node["type"], ("minimum", "maximum")) if "type" in node else ("", "")
        limits: dict[str, Any] = {name: int(value) for name, value in zip(names, (least, most), strict=True) if value}
        if key:
            limits |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
        rules = {"x-rules": [owner, *node.get("x-rules", ())]} if owner in RULES else {}
        return {**node, **limits, **rules}

    def _bare(self, text: str, owner: str) -> dict[str, Any]:
        if text in _SCALARS:
            return _SCALARS[text]
        if text[0] == "[":
            return {"type": "array", "items": self.kind(text[1:-1], f"{owner}.*")}
        if text[0] == "{":
            return {"type": "object", "additionalProperties": self.kind(text[1:-1], f"{owner}.*")}
        if text[0] == "(":
            return self.fields(text[1:-1], owner)
        if "|" in text:
            return {"type": "string", "enum": text.split("|")}
        if text not in self._made:
            line = self._lines[text]
            self._made[text] = self.kind(line if line[0] == "[" else f"({line})", text)
        return self._made[text]


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


def _public(node: Any) -> Any:
    """A schema without what is ours alone."""
    if isinstance(node, dict):
        return {key: _public(child) for key, child in node.items() if key != "x-rules"}
    return [_public(child) for child in node] if isinstance(node, list) else node


def definition(resource: Resource) -> dict[str, Any]:
    """The definition that a cluster has of one of Istio's kinds; its rules in CEL are `istio_rules`."""
    names = {"kind": resource.kind, "listKind": resource.list_kind, "plural": resource.plural, "singular": resource.singular,
             "shortNames": list(resource.short), "categories": list(resource.categories)}
    schema = _public((resource.schemas or {})[resource.storage])  # the same in all versions
    versions = [{"name": version, "served": True, "storage": version == resource.storage, "subresources": {"status": {}},
                 "schema": {"openAPIV3Schema": schema}, **(resource.columns or {})[version]} for version in resource.versions]
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {
        "name": resource.name, "labels": {"app": "istio-pilot", "istio": resource.group.partition(".")[0]}},
        "spec": {"group": resource.group, "scope": "Namespaced", "conversion": {"strategy": "None"},
                 "names": {key: value for key, value in names.items() if value}, "versions": versions}}


def resources() -> Iterator[Resource]:
    """Istio's kinds, as if their definitions had been applied."""
    reader = _Reader(dict(line.split(None, 1) for line in _lines(_TYPES)))
    for line in _lines(_KINDS):
        group, versions, marked, plural, short, columns, fields = line.split(None, 6)
        kind = marked.lstrip("!")
        spec = reader.kind(f"({fields})" if ":" in fields else fields, kind)
        schema = {"type": "object", "properties": {"spec": spec, "status": {
            **reader.kind("Status", ""), "x-kubernetes-preserve-unknown-fields": True}}}
        if kind != marked:
            schema["required"] = ["spec"]
        names = tuple(name.rstrip("*") for name in versions.split(","))
        stored = next((name.rstrip("*") for name in versions.split(",") if "*" in name), names[0])
        printed = {"additionalPrinterColumns": [] if columns == "-" else [_column(text) for text in columns.split(",")]}
        yield Resource(group, names, plural, kind, True, ("status",), () if short == "-" else (short,),
                       ("istio-io", group.replace(".", "-")), singular=kind.lower(), list_kind=kind + "List",
                       storage=stored, schemas=dict.fromkeys(names, schema),
                       columns=dict.fromkeys(names, printed))
