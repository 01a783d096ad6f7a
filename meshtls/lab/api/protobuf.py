"""Request bodies in Kubernetes' protobuf, which kubectl's own clients send for built-in kinds; answers are always JSON.

The body is "k8s\\0" and an envelope that names apiVersion and kind; the object follows as one message. MESSAGES gives
each message's fields as `name=number` with a mark: `:i` integer, `:b` boolean, `:y` bytes, `:Type` a message, nothing
for text; `*` before the name means a list, `%` a map from text, `^` that the field's own fields stand in the parent's
place in JSON. A field that the table does not know is refused, not dropped.
"""
import base64
import datetime
from typing import Any

from meshtls.lab.api import status

MAGIC = b"k8s\x00"
MEDIA = "application/vnd.kubernetes.protobuf"
Object = dict[str, Any]

_TABLE = """
ObjectMeta name=1 generateName=2 namespace=3 selfLink=4 uid=5 resourceVersion=6 generation=7:i
    creationTimestamp=8:Time deletionTimestamp=9:Time deletionGracePeriodSeconds=10:i %labels=11 %annotations=12
    *ownerReferences=13:OwnerReference *finalizers=14 *managedFields=17:ManagedFields
ManagedFields manager=1 operation=2 apiVersion=3 time=4:Time fieldsType=6 fieldsV1=7:FieldsV1 subresource=8
OwnerReference kind=1 name=3 uid=4 apiVersion=5 controller=6:b blockOwnerDeletion=7:b
LabelSelector %matchLabels=1 *matchExpressions=2:Requirement
Requirement key=1 operator=2 *values=3
DeleteOptions gracePeriodSeconds=1:i preconditions=2:Preconditions orphanDependents=3:b propagationPolicy=4 *dryRun=5
Preconditions uid=1 resourceVersion=2
Namespace metadata=1:ObjectMeta spec=2:NamespaceSpec status=3:NamespaceStatus
NamespaceSpec *finalizers=1
NamespaceStatus phase=1
ConfigMap metadata=1:ObjectMeta %data=2 %binaryData=3:y immutable=4:b
Secret metadata=1:ObjectMeta %data=2:y type=3 %stringData=4 immutable=5:b
ServiceAccount metadata=1:ObjectMeta *secrets=2:ObjectReference *imagePullSecrets=3:Local
    automountServiceAccountToken=4:b
ObjectReference kind=1 namespace=2 name=3 uid=4 apiVersion=5 resourceVersion=6 fieldPath=7
Local name=1
Service metadata=1:ObjectMeta spec=2:ServiceSpec status=3:Ignored
ServiceSpec *ports=1:ServicePort %selector=2 clusterIP=3 type=4 *externalIPs=5 sessionAffinity=7 loadBalancerIP=8
    *loadBalancerSourceRanges=9 externalName=10 externalTrafficPolicy=11 healthCheckNodePort=12:i
    publishNotReadyAddresses=13:b sessionAffinityConfig=14:SessionAffinity ipFamilyPolicy=17 *clusterIPs=18
    *ipFamilies=19 allocateLoadBalancerNodePorts=20:b loadBalancerClass=21 internalTrafficPolicy=22
    trafficDistribution=23
ServicePort name=1 protocol=2 port=3:i targetPort=4:IntOrString nodePort=5:i appProtocol=6
SessionAffinity clientIP=1:ClientIP
ClientIP timeoutSeconds=1:i
Pod metadata=1:ObjectMeta spec=2:PodSpec status=3:Ignored
PodTemplateSpec metadata=1:ObjectMeta spec=2:PodSpec
PodSpec *volumes=1:Volume *containers=2:Container restartPolicy=3 terminationGracePeriodSeconds=4:i
    activeDeadlineSeconds=5:i dnsPolicy=6 %nodeSelector=7 serviceAccountName=8 serviceAccount=9 nodeName=10
    hostNetwork=11:b hostPID=12:b hostIPC=13:b securityContext=14:PodSecurityContext *imagePullSecrets=15:Local
    hostname=16 subdomain=17 schedulerName=19 *initContainers=20:Container automountServiceAccountToken=21:b
    *tolerations=22:Toleration *hostAliases=23:HostAlias priorityClassName=24 priority=25:i dnsConfig=26:DnsConfig
    shareProcessNamespace=27:b *readinessGates=28:ReadinessGate runtimeClassName=29 enableServiceLinks=30:b
    preemptionPolicy=31 %overhead=32:Quantity *topologySpreadConstraints=33:Spread setHostnameAsFQDN=35:b
    hostUsers=37:b
Container name=1 image=2 *command=3 *args=4 workingDir=5 *ports=6:ContainerPort *env=7:EnvVar resources=8:Resources
    *volumeMounts=9:VolumeMount livenessProbe=10:Probe readinessProbe=11:Probe lifecycle=12:Lifecycle
    terminationMessagePath=13 imagePullPolicy=14 securityContext=15:SecurityContext stdin=16:b stdinOnce=17:b tty=18:b
    *envFrom=19:EnvFrom terminationMessagePolicy=20 startupProbe=22:Probe *resizePolicy=23:ResizePolicy
    restartPolicy=24
ContainerPort name=1 hostPort=2:i containerPort=3:i protocol=4 hostIP=5
EnvVar name=1 value=2 valueFrom=3:EnvSource
EnvSource fieldRef=1:FieldRef resourceFieldRef=2:ResourceRef configMapKeyRef=3:KeyRef secretKeyRef=4:KeyRef
EnvFrom prefix=1 configMapRef=2:OptionalRef secretRef=3:OptionalRef
OptionalRef ^local=1:Local optional=2:b
KeyRef ^local=1:Local key=2 optional=3:b
FieldRef apiVersion=1 fieldPath=2
ResourceRef containerName=1 resource=2 divisor=3:Quantity
Resources %limits=1:Quantity %requests=2:Quantity
VolumeMount name=1 readOnly=2:b mountPath=3 subPath=4 mountPropagation=5 subPathExpr=6 recursiveReadOnly=7
Probe ^handler=1:Handler initialDelaySeconds=2:i timeoutSeconds=3:i periodSeconds=4:i successThreshold=5:i
    failureThreshold=6:i terminationGracePeriodSeconds=7:i
Handler exec=1:Exec httpGet=2:HttpGet tcpSocket=3:TcpSocket grpc=4:Grpc
Lifecycle postStart=1:Hook preStop=2:Hook stopSignal=3
Hook exec=1:Exec httpGet=2:HttpGet tcpSocket=3:TcpSocket sleep=4:Sleep
Exec *command=1
HttpGet path=1 port=2:IntOrString host=3 scheme=4 *httpHeaders=5:Header
Header name=1 value=2
TcpSocket port=1:IntOrString host=2
Grpc port=1:i service=2
Sleep seconds=1:i
SecurityContext capabilities=1:Capabilities privileged=2:b seLinuxOptions=3:SeLinux runAsUser=4:i runAsNonRoot=5:b
    readOnlyRootFilesystem=6:b allowPrivilegeEscalation=7:b runAsGroup=8:i procMount=9 seccompProfile=11:Profile
    appArmorProfile=12:Profile
PodSecurityContext seLinuxOptions=1:SeLinux runAsUser=2:i runAsNonRoot=3:b *supplementalGroups=4:i fsGroup=5:i
    runAsGroup=6:i *sysctls=7:Header fsGroupChangePolicy=9 seccompProfile=10:Profile appArmorProfile=11:Profile
    supplementalGroupsPolicy=12
Capabilities *add=1 *drop=2
SeLinux user=1 role=2 type=3 level=4
Profile type=1 localhostProfile=2
Volume name=1 ^source=2:VolumeSource
VolumeSource hostPath=1:HostPath emptyDir=2:EmptyDir secret=6:SecretVolume persistentVolumeClaim=10:Claim
    downwardAPI=16:DownwardVolume configMap=19:ConfigVolume projected=26:Projected
HostPath path=1 type=2
EmptyDir medium=1 sizeLimit=2:Quantity
SecretVolume secretName=1 *items=2:KeyToPath defaultMode=3:i optional=4:b
ConfigVolume ^local=1:Local *items=2:KeyToPath defaultMode=3:i optional=4:b
Projection ^local=1:Local *items=2:KeyToPath optional=4:b
Claim claimName=1 readOnly=2:b
DownwardVolume *items=1:DownwardFile defaultMode=2:i
DownwardItems *items=1:DownwardFile
DownwardFile path=1 fieldRef=2:FieldRef resourceFieldRef=3:ResourceRef mode=4:i
KeyToPath key=1 path=2 mode=3:i
Projected *sources=1:ProjectedSource defaultMode=2:i
ProjectedSource secret=1:Projection downwardAPI=2:DownwardItems configMap=3:Projection
    serviceAccountToken=4:TokenVolume
TokenVolume audience=1 expirationSeconds=2:i path=3
Toleration key=1 operator=2 value=3 effect=4 tolerationSeconds=5:i
HostAlias ip=1 *hostnames=2
DnsConfig *nameservers=1 *searches=2 *options=3:Header
ReadinessGate conditionType=1
ResizePolicy resourceName=1 restartPolicy=2
Spread maxSkew=1:i topologyKey=2 whenUnsatisfiable=3 labelSelector=4:LabelSelector minDomains=5:i nodeAffinityPolicy=6
    nodeTaintsPolicy=7 *matchLabelKeys=8
Deployment metadata=1:ObjectMeta spec=2:DeploymentSpec status=3:Ignored
DeploymentSpec replicas=1:i selector=2:LabelSelector template=3:PodTemplateSpec strategy=4:Strategy
    minReadySeconds=5:i revisionHistoryLimit=6:i paused=7:b progressDeadlineSeconds=9:i
Strategy type=1 rollingUpdate=2:RollingUpdate
RollingUpdate maxUnavailable=1:IntOrString maxSurge=2:IntOrString
Job metadata=1:ObjectMeta spec=2:JobSpec status=3:Ignored
JobSpec parallelism=1:i completions=2:i activeDeadlineSeconds=3:i selector=4:LabelSelector manualSelector=5:b
    template=6:PodTemplateSpec backoffLimit=7:i ttlSecondsAfterFinished=8:i completionMode=9 suspend=10:b
    backoffLimitPerIndex=12:i maxFailedIndexes=13:i podReplacementPolicy=14
CronJob metadata=1:ObjectMeta spec=2:CronJobSpec status=3:Ignored
CronJobSpec schedule=1 startingDeadlineSeconds=2:i concurrencyPolicy=3 suspend=4:b jobTemplate=5:JobTemplate
    successfulJobsHistoryLimit=6:i failedJobsHistoryLimit=7:i timeZone=8
JobTemplate metadata=1:ObjectMeta spec=2:JobSpec
Role metadata=1:ObjectMeta *rules=2:PolicyRule
ClusterRole metadata=1:ObjectMeta *rules=2:PolicyRule aggregationRule=3:Aggregation
Aggregation *clusterRoleSelectors=1:LabelSelector
PolicyRule *verbs=1 *apiGroups=2 *resources=3 *resourceNames=4 *nonResourceURLs=5
RoleBinding metadata=1:ObjectMeta *subjects=2:Subject roleRef=3:RoleRef
ClusterRoleBinding metadata=1:ObjectMeta *subjects=2:Subject roleRef=3:RoleRef
RoleRef apiGroup=1 kind=2 name=3
Subject kind=1 apiGroup=2 name=3 namespace=4
SelfSubjectAccessReview metadata=1:ObjectMeta spec=2:AccessSpec status=3:Ignored
SubjectAccessReview metadata=1:ObjectMeta spec=2:AccessSpec status=3:Ignored
LocalSubjectAccessReview metadata=1:ObjectMeta spec=2:AccessSpec status=3:Ignored
AccessSpec resourceAttributes=1:ResourceAttributes nonResourceAttributes=2:NonResourceAttributes user=3 *groups=4
    uid=6
ResourceAttributes namespace=1 verb=2 group=3 version=4 resource=5 subresource=6 name=7
NonResourceAttributes path=1 verb=2
SelfSubjectRulesReview metadata=1:ObjectMeta spec=2:RulesSpec status=3:Ignored
RulesSpec namespace=1
SelfSubjectReview metadata=1:ObjectMeta status=2:Ignored
TokenReview metadata=1:ObjectMeta spec=2:TokenReviewSpec status=3:Ignored
TokenReviewSpec token=1 *audiences=2
TokenRequest metadata=1:ObjectMeta spec=2:TokenSpec status=3:Ignored
TokenSpec *audiences=1 boundObjectRef=3:BoundRef expirationSeconds=4:i
BoundRef kind=1 apiVersion=2 name=3 uid=4
Eviction metadata=1:ObjectMeta deleteOptions=2:DeleteOptions
PodDisruptionBudget metadata=1:ObjectMeta spec=2:BudgetSpec status=3:Ignored
BudgetSpec minAvailable=1:IntOrString selector=2:LabelSelector maxUnavailable=3:IntOrString
    unhealthyPodEvictionPolicy=4
PriorityClass metadata=1:ObjectMeta value=2:i globalDefault=3:b description=4 preemptionPolicy=5
ResourceQuota metadata=1:ObjectMeta spec=2:QuotaSpec status=3:Ignored
QuotaSpec %hard=1:Quantity *scopes=2
Lease metadata=1:ObjectMeta spec=2:LeaseSpec
LeaseSpec holderIdentity=1 leaseDurationSeconds=2:i acquireTime=3:MicroTime renewTime=4:MicroTime leaseTransitions=5:i
    strategy=6 preferredHolder=7
Event metadata=1:ObjectMeta involvedObject=2:ObjectReference reason=3 message=4 source=5:EventSource
    firstTimestamp=6:Time lastTimestamp=7:Time count=8:i type=9 eventTime=10:MicroTime action=12
    related=13:ObjectReference reportingComponent=14 reportingInstance=15
EventSource component=1 host=2
Scale metadata=1:ObjectMeta spec=2:ScaleSpec status=3:Ignored
ScaleSpec replicas=1:i
"""

_ZERO_IS_ABSENT = {"generation", "hostPort", "nodePort", "healthCheckNodePort", "minReadySeconds",
                   "initialDelaySeconds", "timeoutSeconds",
                   "periodSeconds", "successThreshold", "failureThreshold", "count"}
"""Numbers that are always sent and mean nothing when zero."""


def _read_table() -> dict[str, dict[int, tuple[str, str, str]]]:
    """Message -> number -> (name, mark, type)."""
    found: dict[str, dict[int, tuple[str, str, str]]] = {}
    for line in _TABLE.strip().replace("\n    ", " ").splitlines():
        message, *fields = line.split()
        table = found.setdefault(message, {})
        for text in fields:
            name, _, rest = text.partition("=")
            number, _, kind = rest.partition(":")
            table[int(number)] = (name.lstrip("*%^"), name[0] if name[0] in "*%^" else "", kind or "s")
    return found


MESSAGES = _read_table()


def decode(body: bytes) -> Object:
    """The object in a protobuf body. Raises ApiError 400 (malformed) or 415 (a message or field that is not known
    here)."""
    try:
        envelope = {number: value for number, value in fields(body[len(MAGIC):])}
        named = {number: bytes(value).decode() for number, value in fields(envelope.get(1, b""))}
        kind = named.get(2, "")
        if kind not in MESSAGES:
            raise status.unsupported_media(f"the lab reads {kind or 'this'} as JSON or YAML only, not as protobuf")
        return {"apiVersion": named.get(1, ""), "kind": kind, **_message(kind, envelope.get(2, b""))}
    except (IndexError, UnicodeDecodeError, TypeError, ValueError) as error:
        raise status.bad_request(f"the object provided is unrecognized: malformed protobuf: {error}") from error


def fields(data: Any) -> Any:
    """(number, value) of a message: integers and bytes."""
    view, place = memoryview(bytes(data)), 0
    while place < len(view):
        tag, place = _varint(view, place)
        match tag & 7:
            case 0:
                value, place = _varint(view, place)
                yield tag >> 3, value
            case 2:
                size, place = _varint(view, place)
                if place + size > len(view):
                    raise ValueError("a field is longer than the message")
                yield tag >> 3, bytes(view[place:place + size])
                place += size
            case 1 | 5:
                size = 8 if tag & 7 == 1 else 4
                yield tag >> 3, int.from_bytes(view[place:place + size], "little")
                place += size
            case _:
                raise ValueError(f"unknown wire type {tag & 7}")


def _varint(view: memoryview, place: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = view[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
        if shift > 63:
            raise ValueError("a number is too long")


def _message(name: str, data: bytes) -> Object:
    found: Object = {}
    table = MESSAGES[name]
    for number, raw in fields(data):
        if number not in table:
            raise status.unsupported_media(f"the lab does not know field {number} of {name} in protobuf; send it as "
                                           "JSON or YAML")
        key, mark, kind = table[number]
        if mark == "%":
            entry = dict(fields(raw))
            found.setdefault(key, {})[entry.get(1, b"").decode()] = _value(kind, entry.get(2, b""))
            continue
        value = _value(kind, raw)
        if mark == "*":
            found.setdefault(key, []).append(value)
        elif mark == "^":
            found.update(value)
        elif value is not None and value != "" and not (value == 0 and value is not False and key in _ZERO_IS_ABSENT):
            found[key] = value
    return found


def _value(kind: str, raw: Any) -> Any:
    match kind:
        case "s":
            return raw.decode()
        case "i":
            return raw - (1 << 64) if raw >= 1 << 63 else raw
        case "b":
            return bool(raw)
        case "y":
            return base64.b64encode(raw).decode()
        case "Quantity":
            return dict(fields(raw)).get(1, b"").decode() or "0"
        case "IntOrString":
            held = dict(fields(raw))
            return held.get(3, b"").decode() if held.get(1) else _value("i", held.get(2, 0))
        case "Time" | "MicroTime":
            return _time(dict(fields(raw)), kind == "MicroTime")
        case "FieldsV1" | "Ignored":
            return None
    return _message(kind, raw)


def _time(held: dict[int, Any], micro: bool) -> str | None:
    seconds = _value("i", held.get(1, 0))
    if seconds <= 0:
        return None
    when = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return when.strftime("%Y-%m-%dT%H:%M:%S") + (f".{held.get(2, 0) // 1000:06d}Z" if micro else "Z")
