"""The manifests of a rehearsal: a stand-in for each workload, and what decides about their calls as it is. Pure: dicts out.

A stand-in has its workload's name, namespace, labels, annotations, ServiceAccount, ports and place in the mesh; its program is ours. Kept
are Deployments, StatefulSets, DaemonSets and Pods; other kinds stand in as a Deployment of that name. Without probes, volumes, resources
and security settings, but with user 1337, which Istio lets past the sidecar.

Whether a pod has a sidecar is a fact of the source, so it is said by label where the lab's one injector would decide otherwise.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import yaml

from meshtls.errors import InputError
from meshtls.model.mesh import Mesh
from meshtls.model.objects import ConfigMap, Object, Pod, Service, ServiceEntry
from meshtls.policy.select import subset
from meshtls.policy.service import AUTO, HTTP, TLS, UDP, protocol_of, target_port
from meshtls.rehearse.scope import Scope, Stand

Obj = dict[str, Any]
IMAGE = "python:3-stand-in"
CONFIG, CODE, PLAN = "meshtls-stand-in", "/stand-in/code", "/stand-in/plan"
CONTAINER, VOLUME = "app", "stand-in-plan"
KEPT = ("Deployment", "StatefulSet", "DaemonSet", "Pod")
PER_SECOND, SLOWEST_S, FASTEST_S = 60, 4.0, 0.4

# field of Mesh -> apiVersion; what is laid into the lab as the source has it
AS_IS: Mapping[str, str] = {
    "peer_authentications": "security.istio.io/v1",
    "authorization_policies": "security.istio.io/v1",
    "destination_rules": "networking.istio.io/v1",
    "virtual_services": "networking.istio.io/v1",
    "sidecars": "networking.istio.io/v1",
    "service_entries": "networking.istio.io/v1",
    "workload_entries": "networking.istio.io/v1",
    "telemetries": "telemetry.istio.io/v1",
    "network_policies": "networking.k8s.io/v1",
}
_REV, _INJECT, _INJECTION = "istio.io/rev", "sidecar.istio.io/inject", "istio-injection"
# what controllers and the injector write into pods
_WRITTEN = ("pod-template-hash", "controller-revision-hash", "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index",
            "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name", "controller-uid", "job-name", "pod-template-generation",
            "security.istio.io/tlsMode", "service.istio.io/canonical-name", "service.istio.io/canonical-revision", _REV)  # fmt: skip
# annotations that another injector's templates answer, or that tell of what was injected
_FOREIGN = ("inject.istio.io/templates", "sidecar.istio.io/status", "sidecar.istio.io/bootstrapOverride", "sidecar.istio.io/userVolume",
            "sidecar.istio.io/userVolumeMount", "sidecar.istio.io/proxyImage", "kubectl.kubernetes.io/last-applied-configuration", _REV)  # fmt: skip
_BANNER_PORTS = frozenset({21, 22, 25, 110, 143, 587, 3306})
_BANNER_NAMES = frozenset({"mysql", "mariadb", "smtp", "ftp", "ssh", "sftp", "imap", "pop3"})


class Programs(msgspec.Struct, frozen=True):
    """The stand-in's program, and a certificate with its key (PEM) for those that bring TLS of their own."""

    code: str
    pem: str


def objects(mesh: Mesh, scope: Scope, programs: Programs) -> list[list[Obj]]:
    """What is applied, in order; each list begins in a later second than the one before, so that age decides as in the source."""
    own = [_namespace(mesh, name) for name in sorted(_homes(mesh, scope))]
    accounts = {(stand.namespace, stand.face.pod.spec.service_account_name or "default") for stand in scope.stands}
    own += [_object("v1", "ServiceAccount", name, home) for home, name in sorted(accounts) if name != "default"]
    own += [_service(s) for s in mesh.services if s.namespace in scope.namespaces]
    for home in sorted({stand.namespace for stand in scope.stands}):
        plans = {plan_file(stand): json.dumps(plan(mesh, scope, stand)) for stand in scope.stands if stand.namespace == home}
        own.append(_object("v1", "ConfigMap", CONFIG, home) | {"data": {"standin.py": programs.code, "stand-in.pem": programs.pem} | plans})
    first, *later = _by_age(mesh, scope)
    return [own + first, *later, [_workload(mesh, stand) for stand in scope.stands]]


def plan_file(stand: Stand) -> str:
    """The key of its plan in the ConfigMap of its namespace."""
    return f"{stand.workload.kind.lower()}-{name_of(stand)}.json"


def name_of(stand: Stand) -> str:
    """The name of the stand-in: the workload's; of a second one beside it, for the pods that are in the mesh otherwise, with a word more."""
    return stand.workload.name if stand.first else f"{stand.workload.name[:200]}-without-sidecar"


def kind_of(stand: Stand) -> str:
    return stand.workload.kind if stand.workload.kind in KEPT and stand.first else "Deployment"


def ref_of(stand: Stand) -> str:
    """The ref that the lab knows the stand-in by."""
    return f"{kind_of(stand)}/{stand.namespace}/{name_of(stand)}"


# --- what a stand-in does ---------------------------------------------------------------------------------------------------


def every_s(scope: Scope) -> float:
    """How often each call is made: all of them together at most PER_SECOND times a second."""
    return min(SLOWEST_S, max(FASTEST_S, len(scope.calls) / PER_SECOND))


def plan(mesh: Mesh, scope: Scope, stand: Stand) -> Obj:
    """The stand-in's plan: its ports, and its calls by their place among all calls."""
    every, count = every_s(scope), max(1, len(scope.calls))
    calls = []
    for number, call in enumerate(scope.calls):
        if call.client == stand.workload.ref:
            service = mesh.services_by_name[call.service]
            port = next(p for p in service.spec.ports if p.port == call.port)
            calls.append({"id": call_id(number, stand), "host": f"{service.name}.{service.namespace}.svc.cluster.local", "port": call.port,
                          "as": spoken(protocol_of(port), port.name, port.port), "every_s": every,
                          "after_s": round(every * number / count, 3)})  # fmt: skip
    return {"name": f"{stand.namespace}/{name_of(stand)}", "serve": [{"port": n, "as": how} for n, how in sorted(ports(mesh, stand).items())], "calls": calls}


def call_id(number: int, stand: Stand) -> str:
    """The id of a call: its place in the scope, and which of the client's stand-ins makes it."""
    return f"{number}" if stand.first else f"{number}b"


def ports(mesh: Mesh, stand: Stand) -> dict[int, str]:
    """The TCP ports that the workload declares or that Services send to, and how each is served."""
    pod, found = stand.face.pod, {}
    for container in pod.spec.containers:
        if container.name != "istio-proxy":
            for port in container.ports:
                if port.protocol == "TCP" and port.container_port:
                    found[port.container_port] = spoken(AUTO, port.name, port.container_port)
    for service in mesh.services_in.get(stand.namespace, ()):
        if service.spec.selector and subset(service.spec.selector, pod.labels):
            for each in service.spec.ports:
                number = target_port(pod, each)
                if number and each.protocol == "TCP" and protocol_of(each) != UDP:
                    found[number] = spoken(protocol_of(each), each.name, each.port)
    return found


def spoken(protocol: str, name: str, number: int) -> str:
    """How a port of this protocol (Istio's word) is served and asked, in the stand-in's words; HTTP where nothing is declared."""
    if protocol in TLS:
        return "tls"
    if protocol in HTTP:
        return "http"
    if protocol == "MySQL" or number in _BANNER_PORTS or _BANNER_NAMES & set(name.split("-")):
        return "banner"
    return "http" if protocol == AUTO else "tcp"


# --- workloads --------------------------------------------------------------------------------------------------------------


def _workload(mesh: Mesh, stand: Stand) -> Obj:
    kind, pod = kind_of(stand), stand.face.pod
    labels, annotations = _labels(mesh, stand), {k: v for k, v in _declared(stand).annotations.items() if k not in _FOREIGN}
    template = {"metadata": {"labels": labels, "annotations": annotations}, "spec": _spec(stand)}
    if kind == "Pod":
        made = _object("v1", "Pod", name_of(stand), stand.namespace)
        made["metadata"] |= template["metadata"]
        return made | {"spec": template["spec"]}
    made = _object("apps/v1", kind, name_of(stand), stand.namespace)
    made["metadata"]["labels"] = dict(stand.workload.owner.labels) if stand.workload.owner else dict(pod.labels)
    selector = getattr(getattr(stand.workload.owner, "spec", None), "selector", None)
    chosen = dict(getattr(selector, "match_labels", None) or {}) if kind == stand.workload.kind else {}
    spec: Obj = {"selector": {"matchLabels": chosen if chosen and chosen.items() <= labels.items() else labels}, "template": template}
    if kind != "DaemonSet":
        spec["replicas"] = stand.replicas
    if kind == "StatefulSet":
        spec |= {"serviceName": getattr(stand.workload.owner.spec, "service_name", "") if stand.workload.owner else "", "podManagementPolicy": "Parallel"}  # type: ignore[attr-defined]
    return made | {"spec": spec}


def _declared(stand: Stand) -> Any:
    """The metadata that a new pod would get: the template's, which nothing was injected into; of a pod without template its own."""
    return stand.workload.template.metadata if stand.workload.template else stand.face.pod.metadata


def _labels(mesh: Mesh, stand: Stand) -> dict[str, str]:
    """The labels of the pods, without what others write into them, and with the word on injection where it is needed."""
    pod = stand.face.pod
    labels = {k: v for k, v in pod.labels.items() if k not in _WRITTEN or (k == "security.istio.io/tlsMode" and _by_hand(stand))}
    home = mesh.namespace_labels.get(stand.namespace, {})
    said = labels.get(_INJECT) or _declared(stand).annotations.get(_INJECT)
    natural = home.get(_INJECTION) == "enabled" and said != "false" and not stand.face.pod.spec.host_network
    if natural != stand.sidecar or (said and (said == "true") != stand.sidecar):
        labels[_INJECT] = "true" if stand.sidecar else "false"
    if not stand.first:
        labels["meshtls.dev/beside"] = "without-sidecar"
    return labels


def _by_hand(stand: Stand) -> bool:
    """Whether its manifest sets the label by which clients know who takes mTLS."""
    return bool(stand.workload.template) and "security.istio.io/tlsMode" in stand.workload.template.metadata.labels  # type: ignore[union-attr]


def _spec(stand: Stand) -> Obj:
    pod: Pod = stand.face.pod
    container: Obj = {
        "name": CONTAINER, "image": IMAGE, "command": ["python3", "-u", f"{CODE}/standin.py", f"{PLAN}/plan.json"],
        "volumeMounts": [{"name": "stand-in-code", "mountPath": CODE, "readOnly": True}, {"name": VOLUME, "mountPath": PLAN, "readOnly": True}],
    }  # fmt: skip
    declared = {(p.container_port, p.protocol): p for c in pod.spec.containers if c.name != "istio-proxy" for p in c.ports if p.container_port}
    container["ports"] = [{"containerPort": p.container_port, "protocol": p.protocol, **({"name": p.name} if p.name else {})} for p in declared.values()]
    users = [c.security_context.run_as_user for c in pod.spec.containers if c.security_context and c.name != "istio-proxy"]
    users += [pod.spec.security_context.run_as_user] if pod.spec.security_context else []
    if 1337 in users:
        container["securityContext"] = {"runAsUser": 1337}
    volumes = [{"name": "stand-in-code", "configMap": {"name": CONFIG, "items": [{"key": "standin.py", "path": "standin.py"}]}},
               {"name": VOLUME, "configMap": {"name": CONFIG, "items": [{"key": plan_file(stand), "path": "plan.json"}, {"key": "stand-in.pem", "path": "stand-in.pem"}]}}]  # fmt: skip
    spec: Obj = {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": False,
                 "enableServiceLinks": False}  # fmt: skip
    if pod.spec.service_account_name:
        spec["serviceAccountName"] = pod.spec.service_account_name
    if pod.spec.host_network:
        spec["hostNetwork"] = True
    return spec


# --- what is as it is ---------------------------------------------------------------------------------------------------------


def carried(mesh: Mesh, scope: Scope) -> list[Object]:
    """The objects that decide: those of the namespaces that are brought up, and of the mesh's root."""
    homes = scope.namespaces | {mesh.root}
    return [obj for field in AS_IS for obj in getattr(mesh, field) if obj.namespace in homes and not (isinstance(obj, ServiceEntry) and is_outside(obj))]


def is_outside(entry: ServiceEntry) -> bool:
    """Whether it leads to names that are not of the cluster: no proxy is ready before it has looked them up, and here nobody has them."""
    places = [endpoint.address for endpoint in entry.spec.endpoints] or list(entry.spec.hosts)
    return entry.spec.resolution.startswith("DNS") and not all(place.endswith(".svc.cluster.local") for place in places)


def _homes(mesh: Mesh, scope: Scope) -> frozenset[str]:
    return scope.namespaces | {obj.namespace for obj in carried(mesh, scope)}


def _by_age(mesh: Mesh, scope: Scope) -> list[list[Obj]]:
    """They get new ages, to the second; equal ones are told apart by name. A batch ends where the name would decide otherwise than age did."""
    batches: list[list[Obj]] = [[]]
    versions = {type(obj): version for field, version in AS_IS.items() for obj in getattr(mesh, field)[:1]}
    newest: dict[tuple[str, str], str] = {}
    for obj in sorted(carried(mesh, scope), key=lambda o: (o.metadata.creation_timestamp or "", o.kind, o.namespace, o.name)):
        key = (obj.kind, obj.namespace)
        if obj.name < newest.get(key, "") and obj.kind in ("PeerAuthentication", "DestinationRule", "Sidecar", "VirtualService"):
            batches.append([])
            newest.clear()
        newest[key] = obj.name
        batches[-1].append(_as_is(obj, versions[type(obj)]))
    return batches


def _as_is(obj: Object, version: str) -> Obj:
    made = _object(version, obj.kind, obj.name, obj.namespace)
    made["metadata"]["labels"] = {k: v for k, v in obj.labels.items() if k != _REV}
    made["metadata"]["annotations"] = {k: v for k, v in obj.annotations.items() if k not in _FOREIGN}
    spec = msgspec.to_builtins(obj.spec)  # type: ignore[attr-defined]
    if obj.kind == "NetworkPolicy":
        spec.setdefault("podSelector", {})
    return made | {"spec": spec}


def _service(service: Service) -> Obj:
    """The Service, without what only its own cluster can give: addresses and ports of nodes."""
    spec = service.spec
    made = _object("v1", "Service", service.name, service.namespace)
    made["metadata"]["labels"] = dict(service.labels)
    made["metadata"]["annotations"] = {k: v for k, v in service.annotations.items() if k not in _FOREIGN}
    fields: Obj = {"ports": [msgspec.to_builtins(msgspec.structs.replace(port, node_port=0)) for port in spec.ports]}
    if spec.type == "ExternalName":
        fields |= {"type": "ExternalName", "externalName": spec.external_name}
    elif spec.cluster_ip == "None":
        fields["clusterIP"] = "None"
    if spec.selector:
        fields["selector"] = dict(spec.selector)
    if spec.publish_not_ready_addresses:
        fields["publishNotReadyAddresses"] = True
    return made | {"spec": {k: v for k, v in fields.items() if v}}


def _namespace(mesh: Mesh, name: str) -> Obj:
    """The namespace, without Pod Security (the lab has no istio-cni, so injected pods would be refused) and without revisions."""
    made: Obj = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    labels = mesh.namespace_labels.get(name, {})
    made["metadata"]["labels"] = {k: v for k, v in labels.items() if k != _REV and not k.startswith("pod-security.kubernetes.io/")
                                  and (k != _INJECTION or v == "enabled")}  # fmt: skip
    return made


def settings(mesh: Mesh) -> tuple[Obj, Obj]:
    """(MeshConfig, the injector's values) of the source, for the lab; empty where the source has none. Raises InputError."""
    found = mesh.find(mesh.config.ref)
    config: Obj = _read(found.data.get("mesh"), found.ref) if isinstance(found, ConfigMap) else {}
    injector = mesh.find(f"ConfigMap/{found.namespace}/{found.name.replace('istio', 'istio-sidecar-injector', 1)}") if found else None
    values: Obj = _read(injector.data.get("values"), injector.ref) if isinstance(injector, ConfigMap) else {}
    common = values.get("global")
    proxy = common.get("proxy") if isinstance(common, dict) else None
    kept: Obj = {"global": {"proxy": {k: v for k, v in proxy.items() if k not in ("image", "resources", "lifecycle")}}} if isinstance(proxy, dict) else {}
    kept |= {key: values[key] for key in ("sidecarInjectorWebhook", "pilot") if isinstance(values.get(key), dict)}
    return {"accessLogFile": "", **config} if config else {}, kept


def _read(text: str | None, ref: str) -> Obj:
    try:
        read = yaml.safe_load(text or "")
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{ref} is no YAML: {' '.join(str(error).split())[:200]}") from error
    return read if isinstance(read, dict) else {}


def deployed(stands: Iterable[Stand]) -> dict[str, str]:
    """The ref that the lab knows a stand-in by -> the ref of the workload, where they differ."""
    return {ref_of(stand): stand.workload.ref for stand in stands if ref_of(stand) != stand.workload.ref}


def _object(version: str, kind: str, name: str, namespace: str) -> Obj:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": namespace}}
