"""Istio's custom resources as the lab serves them: names, printed columns, fields and rules.

The table is written in a short notation (from Istio's API reference): `name: type`, where a type is s string, i
integer, u integer >= 0, n number, b boolean, d duration, `A|B` one of, [T] list, {T} map of, (fields) object, Name
another line, * anything. A leading `!` makes a field required, `~` nullable; an indented line goes on with the line
before. Rules that Istio states in CEL are Python here: RULES names them by the type that they hold for.
"""
import re
from collections.abc import Callable, Iterator
from typing import Any

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
    useSourceIp: b, httpQueryParameterName: s, ringHash: (minimumRingSize: u), maglev: (tableSize: u),
    minimumRingSize: u), backendUtilization: *, localityLbSetting: LocalityLb, zoneAwareLbSetting: *,
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
L4Match         destinationSubnets: [s], port: u, sourceLabels: {s}, gateways: [s], sourceNamespace: s
L4Route         [(!destination: Destination, weight: i)]
Listener        !port: Port, bind: s, captureMode: DEFAULT|IPTABLES|NONE, defaultEndpoint: s, tls: ServerTls,
    connectionPool: ConnectionPool
Egress          port: Port, bind: s, captureMode: DEFAULT|IPTABLES|NONE, !hosts: [s]
MetricMatch     metric: ALL_METRICS|REQUEST_COUNT|REQUEST_DURATION|REQUEST_SIZE|RESPONSE_SIZE|TCP_OPENED_CONNECTIONS|
    TCP_CLOSED_CONNECTIONS|TCP_SENT_BYTES|TCP_RECEIVED_BYTES|GRPC_REQUEST_MESSAGES|GRPC_RESPONSE_MESSAGES,
    customMetric: s, mode: CLIENT_AND_SERVER|CLIENT|SERVER
Tag             literal: (!value: s), environment: (!name: s, defaultValue: s), header: (!name: s, defaultValue: s),
    formatter: (!value: s)
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
    host: s, trafficPolicy: TrafficPolicy, subsets: [(!name: s, labels: {s}, trafficPolicy: TrafficPolicy)],
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
    metadata: (labels: {s}, annotations: {s}), !template: Endpoint, probe: *
networking.istio.io v1alpha3            EnvoyFilter            envoyfilters            -   -
    workloadSelector: Workload, targetRefs: [TargetRef],
    configPatches: [(applyTo: INVALID|LISTENER|FILTER_CHAIN|NETWORK_FILTER|HTTP_FILTER|ROUTE_CONFIGURATION|
    VIRTUAL_HOST|HTTP_ROUTE|CLUSTER|EXTENSION_CONFIG|BOOTSTRAP|LISTENER_FILTER, match: *,
    patch: (operation: INVALID|MERGE|ADD|REMOVE|INSERT_BEFORE|INSERT_AFTER|INSERT_FIRST|REPLACE|
    MERGE_AND_REPLACE_LIST, value: *, filterClass: UNSPECIFIED|AUTHN|AUTHZ|STATS))], priority: i
networking.istio.io v1beta1             ProxyConfig            proxyconfigs            -   -
    selector: Selector, ~concurrency: u, environmentVariables: {s}, image: (imageType: s)
telemetry.istio.io  v1,v1alpha1         Telemetry              telemetries             telemetry Age
    selector: Selector, targetRef: TargetRef, targetRefs: [TargetRef], tracing: [Tracing],
    metrics: [(providers: [Provider], overrides: [(match: MetricMatch, ~disabled: b,
    tagOverrides: {(operation: UPSERT|REMOVE, value: s)})], reportingInterval: d)], accessLogging: [(match: Mode,
    providers: [Provider], ~disabled: b, filter: (expression: s))]
extensions.istio.io v1alpha1            WasmPlugin             wasmplugins             -   Age
    selector: Selector, targetRef: TargetRef, targetRefs: [TargetRef], !url: s, sha256: s,
    imagePullPolicy: UNSPECIFIED_POLICY|IfNotPresent|Always, imagePullSecret: s, pluginConfig: *, pluginName: s,
    phase: UNSPECIFIED_PHASE|AUTHN|AUTHZ|STATS, failStrategy: FAIL_CLOSE|FAIL_OPEN|FAIL_RELOAD, ~priority: i,
    vmConfig: *, match: [(mode: UNDEFINED|CLIENT|SERVER|CLIENT_AND_SERVER, ports: [(!number: u)])],
    type: UNSPECIFIED_PLUGIN_TYPE|HTTP|NETWORK
"""

_NEEDS_SPEC = {"ServiceEntry", "WorkloadEntry", "WorkloadGroup", "WasmPlugin"}
_STORED_ALPHA = {"Telemetry": "v1alpha1"}
_LIMITS: dict[tuple[str, str], dict[str, Any]] = {
    ("TargetRef", "kind"): {"minLength": 1, "maxLength": 63}, ("TargetRef", "name"): {"minLength": 1, "maxLength": 253},
    ("ServiceEntry", "hosts"): {"minItems": 1, "maxItems": 256}, ("Provider", "name"): {"minLength": 1},
    ("JwtRule", "issuer"): {"minLength": 1}, ("AuthorizationPolicy", "rules"): {"maxItems": 512},
    ("AuthorizationPolicy", "targetRefs"): {"maxItems": 16}}
_ONE_OF = {"StringMatch": ("exact", "prefix", "regex")}
_SCALARS: dict[str, dict[str, Any]] = {
    "s": {"type": "string"}, "i": {"type": "integer", "format": "int32"},
    "u": {"type": "integer", "minimum": 0, "maximum": 4294967295},
    "n": {"type": "number", "format": "double"}, "b": {"type": "boolean"},
    "*": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}

Rule = tuple[Callable[[Any], bool], str]


def _labels_plain(labels: dict[str, str]) -> bool:
    return not any("*" in key for key in labels)


def _count(spec: dict[str, Any], *names: str) -> int:
    return sum(name in spec for name in names)


def _selected(spec: dict[str, Any]) -> bool:
    return bool(((spec.get("selector") or {}).get("matchLabels")) or {})


def duration_s(text: str) -> float | None:
    """Seconds of a Go duration ("1h2m", "100ms"), None when it is none."""
    units = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
    if not re.fullmatch(r"([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+", text):
        return None
    return sum(float(number) * units[unit] for number, _,
               unit in re.findall(r"([0-9]+(\.[0-9]*)?)(ns|us|µs|ms|s|m|h)", text))


_PORT = "port must be between 1-65535"
_ONE_TARGET = ("selector", "targetRef", "targetRefs")
_TARGETS: Rule = (lambda spec: _count(spec, *_ONE_TARGET) <= 1, "only one of targetRefs or selector can be set")
_KEY_EMPTY: Rule = (lambda labels: all(labels), "key must not be empty")
_UDS: list[Rule] = [
    (lambda text: not text.startswith("unix://") or text[7:8] in ("/", "@"),
     "UDS must be an absolute path or abstract socket"),
    (lambda text: not (text.startswith("unix://") and text.endswith("/")), "UDS may not be a dir")]

RULES: dict[str, list[Rule]] = {
    "PeerAuthentication": [(lambda spec: "portLevelMtls" not in spec or _selected(spec),
                            "portLevelMtls requires selector")],
    "PeerAuthentication.portLevelMtls": [(lambda ports: all(re.fullmatch(r"[-+]?\d+", key) and 0 < int(key) <= 65535
                                                            for key in ports), _PORT)],
    "Selector.matchLabels": [(_labels_plain, "wildcard not allowed in label key match"), _KEY_EMPTY],
    "Selector.matchLabels.*": [(lambda value: "*" not in value, "wildcard not allowed in label value match")],
    "Workload.labels.*": [(lambda value: "*" not in value, "wildcard is not supported in selector")],
    "TargetRef.namespace": [(lambda value: not value, "cross namespace referencing is not currently supported")],
    "AuthorizationPolicy": [_TARGETS], "RequestAuthentication": [_TARGETS], "Telemetry": [_TARGETS],
    "WasmPlugin": [_TARGETS],
    "EnvoyFilter": [(lambda spec: _count(spec, "workloadSelector", "targetRefs") <= 1,
                     "only one of targetRefs or workloadSelector can be set")],
    "Source": [(lambda source: not _count(source, "serviceAccounts", "notServiceAccounts") or not _count(
        source, "principals", "notPrincipals", "namespaces", "notNamespaces"),
                "Cannot set serviceAccounts with namespaces or principals")],
    "JwtRule": [(lambda rule: _count(rule, "jwksUri", "jwks_uri", "jwks") <= 1,
                 "only one of jwks or jwksUri can be set")],
    "JwtRule.jwksUri": [(lambda text: text.startswith(("http://", "https://")),
                         "url must have scheme http:// or https://")],
    "ServiceEntry": [
        (lambda spec: _count(spec, "workloadSelector", "endpoints") <= 1,
         "only one of WorkloadSelector or Endpoints can be set"),
        (lambda spec: not any("/" in text for text in spec.get("addresses", []))
         or spec.get("resolution", "NONE") in ("STATIC", "NONE"),
         "CIDR addresses are allowed only for NONE/STATIC resolution types"),
        (lambda spec: spec.get("resolution", "NONE") != "NONE" or "endpoints" not in spec,
         "NONE mode cannot set endpoints"),
        (lambda spec: spec.get("resolution") != "DNS_ROUND_ROBIN" or len(spec.get("endpoints", [])) <= 1,
         "DNS_ROUND_ROBIN mode cannot have multiple endpoints")],
    "ServiceEntry.hosts.*": [(lambda host: host != "*", "hostname cannot be wildcard")],
    "ServiceEntry.ports": [(lambda ports: len({port.get("number") for port in ports}) == len(ports),
                            "port number cannot be duplicated")],
    "ServiceEntry.ports.*.number": [(lambda port: 0 < port <= 65535, _PORT)],
    "ServiceEntry.ports.*.targetPort": [(lambda port: 0 < port <= 65535, _PORT)],
    "Endpoint": [(lambda end: "address" in end or "network" in end, "Address is required"),
                 (lambda end: not end.get("address", "").startswith("unix://") or "ports" not in end,
                  "UDS may not include ports")],
    "Endpoint.address": _UDS, "Endpoint.ports.*": [(lambda port: 0 < port <= 65535, _PORT)],
    "WorkloadEntry": [(lambda end: "address" in end or "network" in end, "Address is required"),
                      (lambda end: not end.get("address", "").startswith("unix://") or "ports" not in end,
                       "UDS may not include ports")],
    "WorkloadEntry.address": _UDS, "WorkloadEntry.ports.*": [(lambda port: 0 < port <= 65535, _PORT)],
    "d": [(lambda text: (duration_s(text) or 0) >= 0.001, "must be a valid duration greater than 1ms")]}


class _Reader:
    """Reads the notation into JSON schema; `x-rules` names the rules of a node."""

    def __init__(self, lines: dict[str, str]) -> None:
        self._lines = lines
        self._made: dict[str, dict[str, Any]] = {}

    def fields(self, text: str, owner: str) -> dict[str, Any]:
        node: dict[str, Any] = {"type": "object", "properties": {}}
        for part in _parts(text):
            name, _, kind = part.partition(":")
            bare = name.strip().lstrip("!~")
            child = dict(self.kind(kind.strip(), f"{owner}.{bare}"))
            child.update(_LIMITS.get((owner, bare), {}))
            if "~" in name:
                child["nullable"] = True
            if name.strip().startswith("!"):
                node.setdefault("required", []).append(bare)
            node["properties"][bare] = child
        return _ruled(node, owner)

    def kind(self, text: str, owner: str) -> dict[str, Any]:
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
            if text in _ONE_OF:
                names = _ONE_OF[text]
                self._made[text]["oneOf"] = [{"not": {"anyOf": [{"required": [name]} for name in names]}},
                                             *({"required": [name]} for name in names)]
        return self._made[text]


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


_STATUS = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def resources() -> Iterator[Resource]:
    """Istio's kinds, as if their definitions had been applied."""
    reader = _Reader(dict(line.split(None, 1) for line in _lines(_TYPES)))
    for line in _lines(_KINDS):
        group, versions, kind, plural, short, columns, fields = line.split(None, 6)
        schema = {"type": "object", "properties": {"spec": reader.fields(fields, kind), "status": _STATUS}}
        if kind in _NEEDS_SPEC:
            schema["required"] = ["spec"]
        names = tuple(versions.split(","))
        printed = {"additionalPrinterColumns": [] if columns == "-" else [_column(text) for text in columns.split(",")]}
        yield Resource(group, names, plural, kind, True, ("status",), () if short == "-" else (short,),
                       ("istio-io", group.replace(".", "-")), singular=kind.lower(), list_kind=kind + "List",
                       storage=_STORED_ALPHA.get(kind, names[0]), schemas=dict.fromkeys(names, schema),
                       columns=dict.fromkeys(names, printed))
