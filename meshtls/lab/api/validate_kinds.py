"""What single kinds demand beyond their schema: one function a kind, `old` None for a create."""
import base64
import ipaddress
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from meshtls.lab.api import decode, field, validate_admission, validate_pod, validate_work
from meshtls.lab.api.field import IMMUTABLE, FieldError, duplicate, forbidden, invalid, required, unsupported

Object = dict[str, Any]


def _config(obj: Object, old: Object | None) -> Iterator[FieldError]:
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    for name, held in (("data", data), ("binaryData", binary)):
        for key in held:
            yield from (invalid(f"{name}[{key}]", key, told) for told in field.config_key(key))
    for key in data:
        if key in binary:
            yield invalid(f"data[{key}]", key, "duplicate of key present in binaryData")
    if sum(len(text) for text in [*data.values(), *binary.values()] if isinstance(text, str)) > 1024 * 1024:
        yield field.too_long("" if obj["kind"] == "ConfigMap" else "data", 1048576)
    if obj["kind"] == "Secret" and old is not None and old.get("type") != obj.get("type"):
        yield invalid("type", obj.get("type"), IMMUTABLE)
    if obj["kind"] == "Secret":
        yield from _secret(obj, data)
    if old is not None and old.get("immutable"):
        if not obj.get("immutable"):
            yield forbidden("immutable", "field is immutable when `immutable` is set")
        for name in ("data", "binaryData"):
            if (obj.get(name) or {}) != (old.get(name) or {}):
                yield forbidden(name, "field is immutable when `immutable` is set")


def _secret(obj: Object, data: Object) -> Iterator[FieldError]:
    kind = obj.get("type") or ""
    for key in _SECRET_KEYS.get(kind, ()):
        if key not in data:
            yield required(f"data[{key}]")
        elif "docker" in key:
            body = base64.b64decode(data[key])
            try:
                json.loads(body)
            except ValueError as error:
                yield invalid(f"data[{key}]", "<secret contents redacted>", decode.syntax(body, error))
    if kind == "kubernetes.io/basic-auth" and not {"username", "password"} & set(data):
        yield required("data[username]")
        yield required("data[password]")
    account = "kubernetes.io/service-account.name"
    if kind == "kubernetes.io/service-account-token" and not (obj["metadata"].get("annotations") or {}).get(account):
        yield required(f"metadata.annotations[{account}]")


def _service(obj: Object, old: Object | None) -> Iterator[FieldError]:
    spec = obj.get("spec") or {}
    ports, kind = spec.get("ports") or [], spec.get("type")
    headless = spec.get("clusterIP") == "None"
    yield from _service_addresses(spec, kind)
    if not ports and not headless and kind != "ExternalName":
        yield required("spec.ports")
    if kind == "ExternalName" and not spec.get("externalName"):
        yield required("spec.externalName")
    names, pairs = set(), set()
    for place, port in enumerate(ports):
        at = f"spec.ports[{place}]"
        if "port" not in port:
            yield invalid(f"{at}.port", 0, "must be between 1 and 65535, inclusive")
        if len(ports) > 1 and not port.get("name"):
            yield required(f"{at}.name")
        elif port.get("name") in names:
            yield field.duplicate(f"{at}.name", port["name"])
        names.add(port.get("name"))
        pair = (port.get("protocol"), port.get("port"))
        if pair in pairs:
            yield field.duplicate(at, {key: port[key] for key in ("port", "protocol") if key in port})
        pairs.add(pair)
        if port.get("nodePort") and kind not in ("NodePort", "LoadBalancer"):
            yield forbidden(f"{at}.nodePort", f"may not be used when `type` is '{kind}'")
        target = port.get("targetPort")
        told = field.port_number(target) if isinstance(target, int) else field.port_name(target) if target else []
        yield from (invalid(f"{at}.targetPort", target, text) for text in told)
    for label, text in (spec.get("selector") or {}).items():
        yield from (invalid("spec.selector", label, told) for told in field.qualified(label))
        yield from (invalid("spec.selector", text, told) for told in field.label_value(text))
    before = old["spec"] if old is not None else spec
    if before.get("type") == kind == "ClusterIP" and before.get("clusterIP") != spec.get("clusterIP"):
        yield invalid("spec.clusterIPs[0]", [spec.get("clusterIP")] if spec.get("clusterIP") else None,
                      "may not change once set")


def _service_addresses(spec: Object, kind: str | None) -> Iterator[FieldError]:
    given, listed = spec.get("clusterIP"), spec.get("clusterIPs") or []
    if kind == "ExternalName" and (given or listed):
        yield forbidden("spec.clusterIPs", "may not be set for ExternalName services")
    elif listed and not given:
        yield invalid("spec.clusterIPs", listed, "must be empty when `clusterIP` is not specified")
    elif listed and listed[0] != given:
        yield invalid("spec.clusterIPs", listed, "first value must match `clusterIP`")
    for place, family in enumerate(spec.get("ipFamilies") or ()):
        if family != "IPv4":
            yield invalid(f"spec.ipFamilies[{place}]", family, "not configured on this cluster")
    if spec.get("ipFamilyPolicy") == "RequireDualStack":
        yield invalid("spec.ipFamilyPolicy", "RequireDualStack",
                      "this cluster is not configured for dual-stack services")
    if spec.get("externalTrafficPolicy") and kind not in ("NodePort", "LoadBalancer") and not spec.get("externalIPs"):
        yield invalid("spec.externalTrafficPolicy", spec["externalTrafficPolicy"],
                      "may only be set for externally-accessible services")
    for place, text in enumerate(spec.get("externalIPs") or ()):
        if not field.address(text) and ipaddress.ip_address(text).is_loopback:
            yield invalid(f"spec.externalIPs[{place}]", text, "may not be in the loopback range (127.0.0.0/8, ::1/128)")
    for place, text in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        yield from (invalid(f"spec.LoadBalancerSourceRanges[{place}]", text, told) for told in field.cidr(text))


_SECRET_KEYS = {"kubernetes.io/tls": ("tls.crt", "tls.key"), "kubernetes.io/ssh-auth": ("ssh-privatekey",),
                "kubernetes.io/dockercfg": (".dockercfg",), "kubernetes.io/dockerconfigjson": (".dockerconfigjson",)}


def _role(obj: Object, old: Object | None) -> Iterator[FieldError]:
    for place, rule in enumerate(obj.get("rules") or ()):
        at = f"rules[{place}]"
        if not rule.get("verbs"):
            yield required(f"{at}.verbs", "verbs must contain at least one value")
        if rule.get("nonResourceURLs"):
            if obj["kind"] == "Role":
                yield invalid(f"{at}.nonResourceURLs", rule["nonResourceURLs"],
                              "namespaced rules cannot apply to non-resource URLs")
            if rule.get("apiGroups") or rule.get("resources"):
                yield invalid(f"{at}.nonResourceURLs", rule["nonResourceURLs"],
                              "rules cannot apply to both regular resources and non-resource URLs")
            continue
        for key, told in (("apiGroups", "resource rules must supply at least one api group"),
                          ("resources", "resource rules must supply at least one resource")):
            if not rule.get(key):
                yield required(f"{at}.{key}", told)


def _binding(obj: Object, old: Object | None) -> Iterator[FieldError]:
    ref = obj.get("roleRef") or {}
    kinds = ("ClusterRole", "Role") if obj["kind"] == "RoleBinding" else ("ClusterRole",)
    if ref.get("apiGroup") != "rbac.authorization.k8s.io":
        yield unsupported("roleRef.apiGroup", ref.get("apiGroup"), ("rbac.authorization.k8s.io",))
    if ref.get("kind") not in kinds:
        yield unsupported("roleRef.kind", ref.get("kind", ""), kinds)
    for place, subject in enumerate(obj.get("subjects") or ()):
        if subject.get("kind") == "ServiceAccount" and not subject.get("namespace"):
            yield required(f"subjects[{place}].namespace")
    if old is not None and old.get("roleRef") != ref:
        yield invalid("roleRef", ref, "cannot change roleRef")


def _namespace(obj: Object, old: Object | None) -> Iterator[FieldError]:
    yield from _finalizers(obj)
    levels = ("privileged", "baseline", "restricted")
    labels, before = (one["metadata"].get("labels") or {} for one in (obj, old or {"metadata": {}}))
    for mode in ("enforce", "audit", "warn"):
        key = f"pod-security.kubernetes.io/{mode}-version"
        value = labels.get(key, "latest")
        if not re.fullmatch(r"latest|v1\.(0|[1-9]\d*)", value) and before.get(key) != value:
            yield invalid(f"metadata.labels[{key}]", value, 'must be "latest" or "v1.x"')
        key = f"pod-security.kubernetes.io/{mode}"
        value = (obj["metadata"].get("labels") or {}).get(key)
        if value is not None and value not in levels and (old is None
                                                          or (old["metadata"].get("labels") or {}).get(key) != value):
            yield invalid(f"metadata.labels[{key}]", value, "must be one of privileged, baseline, restricted")


def _finalizers(obj: Object) -> Iterator[FieldError]:
    for name in (obj.get("spec") or {}).get("finalizers") or ():
        if "/" not in name and name not in ("kubernetes", "orphan", "foregroundDeletion"):
            yield invalid("spec.finalizers", name, "name is neither a standard finalizer name nor is it fully qualified")


def _pod(obj: Object, old: Object | None) -> Iterator[FieldError]:
    if old is not None:
        yield from validate_pod.update(obj, old)
    elif (obj.get("spec") or {}).get("ephemeralContainers"):
        yield forbidden("spec.ephemeralContainers", "cannot be set on create")


def _event(obj: Object, old: Object | None) -> Iterator[FieldError]:
    about, namespace = (obj.get("involvedObject") or {}).get("namespace", ""), obj["metadata"].get("namespace", "")
    if about != namespace and not (about == "" and namespace == "default"):
        yield invalid("involvedObject.namespace", about, "does not match event.namespace")
    if obj.get("eventTime"):
        for key in ("reportingComponent", "reportingInstance", "action", "reason"):
            if not obj.get(key):
                yield required(key)
        if obj.get("type") not in ("Normal", "Warning"):
            yield invalid("type", obj.get("type") or "", "has invalid value: " + (obj.get("type") or ""))


def _loopback(path: str, text: str) -> Iterator[FieldError]:
    if not field.address(text) and ipaddress.ip_address(text).is_loopback:
        yield invalid(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)")


def _slice(obj: Object, old: Object | None) -> Iterator[FieldError]:
    kind = obj.get("addressType")
    for place, endpoint in enumerate(obj.get("endpoints") or ()):
        at, addresses = f"endpoints[{place}].addresses", endpoint.get("addresses") or []
        if not addresses:
            yield required(at, "must contain at least 1 address")
        for here, text in enumerate(addresses):
            if kind == "FQDN":
                yield from (invalid(f"{at}[{here}]", text, told) for told in field.subdomain_1123(text))
                continue
            version = 6 if kind == "IPv6" else 4
            if field.address(text) or ipaddress.ip_address(text).version != version:
                yield invalid(f"{at}[{here}]", text, f"must be an IPv{version} address" if not field.address(text) else
                              field.address(text)[0])
            yield from _loopback(f"{at}[{here}]", text)
    names: set[str] = set()
    for place, port in enumerate(obj.get("ports") or ()):
        if port.get("name") in names:
            yield duplicate(f"ports[{place}].name", port["name"])
        names.add(port.get("name") or "")
    if old is not None and old.get("addressType") != kind:
        yield invalid("addressType", kind, IMMUTABLE)


def _endpoints(obj: Object, old: Object | None) -> Iterator[FieldError]:
    for place, subset in enumerate(obj.get("subsets") or ()):
        at, ports = f"subsets[{place}]", subset.get("ports") or []
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            yield required(at, "must specify `addresses` or `notReadyAddresses`")
        for group in ("addresses", "notReadyAddresses"):
            for here, address in enumerate(subset.get(group) or ()):
                text = address.get("ip") or ""
                yield from (invalid(f"{at}.{group}[{here}].ip", text, told) for told in field.address(text))
                yield from _loopback(f"{at}.{group}[{here}].ip", text)
        for here, port in enumerate(ports):
            if len(ports) > 1 and not port.get("name"):
                yield required(f"{at}.ports[{here}].name")
            yield from (invalid(f"{at}.ports[{here}].port", port.get("port"), told)
                        for told in field.port_number(port.get("port")))


def _network_policy(obj: Object, old: Object | None) -> Iterator[FieldError]:
    spec = obj.get("spec") or {}
    if len(spec.get("policyTypes") or ()) > 2:
        yield invalid("spec.policyTypes", spec["policyTypes"], "may not specify more than two policyTypes")
    for direction, way in (("ingress", "from"), ("egress", "to")):
        for place, rule in enumerate(spec.get(direction) or ()):
            for here, peer in enumerate(rule.get(way) or ()):
                yield from _peer(peer, f"spec.{direction}[{place}].{way}[{here}]")
            for here, port in enumerate(rule.get("ports") or ()):
                yield from _policy_port(port, f"spec.{direction}[{place}].ports[{here}]")


def _peer(peer: Object, path: str) -> Iterator[FieldError]:
    block = peer.get("ipBlock")
    if not peer:
        yield required(path, "must specify a peer")
    elif block is not None and len(peer) > 1:
        yield forbidden(path, "may not specify both ipBlock and another peer")
    elif block is not None:
        wrong = field.cidr(block.get("cidr") or "")
        yield from (invalid(f"{path}.ipBlock.cidr", block.get("cidr"), told) for told in wrong)
        for place, text in enumerate(() if wrong else block.get("except") or ()):
            inner = field.cidr(text)
            yield from (invalid(f"{path}.ipBlock.except[{place}]", text, told) for told in inner)
            outer = ipaddress.ip_network(block["cidr"], strict=False)
            part = outer if inner else ipaddress.ip_network(text, strict=False)
            if not inner and (part.version != outer.version or part == outer or not part.subnet_of(outer)):  # type: ignore[arg-type]
                yield invalid(f"{path}.ipBlock.except[{place}]", text, "must be a strict subset of `cidr`")


def _policy_port(port: Object, path: str) -> Iterator[FieldError]:
    number, end = port.get("port"), port.get("endPort")
    if number is not None:
        told = field.port_number(number) if isinstance(number, int) else field.port_name(number)
        yield from (invalid(f"{path}.port", number, text) for text in told)
    if end is not None:
        if number is None:
            yield invalid(f"{path}.endPort", end, "may not be specified when `port` is not specified")
        elif isinstance(number, str):
            yield invalid(f"{path}.endPort", end, "may not be specified when `port` is non-numeric")
        elif end < number:
            yield invalid(f"{path}.endPort", number, "must be greater than or equal to `port`")


def _ingress(obj: Object, old: Object | None) -> Iterator[FieldError]:
    spec = obj.get("spec") or {}
    if not spec.get("rules") and not spec.get("defaultBackend"):
        yield invalid("spec", None, "either `defaultBackend` or `rules` must be specified")
    for place, rule in enumerate(spec.get("rules") or ()):
        host = rule.get("host") or ""
        if host and not field.address(host):
            yield invalid(f"spec.rules[{place}].host", host, "must be a DNS name, not an IP address")
        for here, path in enumerate((rule.get("http") or {}).get("paths") or ()):
            at, kind, text = f"spec.rules[{place}].http.paths[{here}]", path.get("pathType"), path.get("path") or ""
            if kind is None:
                yield required(f"{at}.pathType", "pathType must be specified")
            if kind in ("Exact", "Prefix") and not text.startswith("/"):
                yield invalid(f"{at}.path", text, "must be an absolute path")


def _budget(obj: Object, old: Object | None) -> Iterator[FieldError]:
    spec = obj.get("spec") or {}
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        yield invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set")
    for key in ("minAvailable", "maxUnavailable"):
        yield from field.share(f"spec.{key}", spec.get(key))


def _autoscaler(obj: Object, old: Object | None) -> Iterator[FieldError]:
    spec = obj.get("spec") or {}
    most, least, target = spec.get("maxReplicas") or 0, spec.get("minReplicas", 1), spec.get("scaleTargetRef") or {}
    if most < 1:
        yield required("spec.maxReplicas", "must be set and greater than 0")
    if most < least:
        yield invalid("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`")
    if not target.get("apiVersion"):
        yield invalid("spec.scaleTargetRef.apiVersion", "", "apiVersion must specify API group")


def _runtime_class(obj: Object, old: Object | None) -> Iterator[FieldError]:
    handler = obj.get("handler") or ""
    if handler:
        yield from (invalid("handler", handler, told) for told in field.label_1123(handler))
    if old is not None and old.get("handler") != handler:
        yield invalid("handler", handler, IMMUTABLE)
    for label, text in ((obj.get("scheduling") or {}).get("nodeSelector") or {}).items():
        yield from (invalid("scheduling.nodeSelector", label, told) for told in field.qualified(label))
        yield from (invalid("scheduling.nodeSelector", text, told) for told in field.label_value(text))


def _priority_class(obj: Object, old: Object | None) -> Iterator[FieldError]:
    if (obj.get("value") or 0) > 1_000_000_000 and not (obj["metadata"].get("name") or "").startswith("system-"):
        yield forbidden("value", "maximum allowed value of a user defined priority is 1000000000")
    if old is not None and (obj.get("value") or 0) != (old.get("value") or 0):
        yield forbidden("value", "may not be changed in an update.")


def _claim(obj: Object, old: Object | None) -> Iterator[FieldError]:
    spec = obj.get("spec") or {}
    if not spec.get("accessModes"):
        yield required("spec.accessModes", "at least 1 access mode is required")
    if not ((spec.get("resources") or {}).get("requests") or {}).get("storage"):
        yield required("spec.resources[storage]")


def _revision(obj: Object, old: Object | None) -> Iterator[FieldError]:
    if obj.get("data") is None:
        yield required("data", "data is mandatory")
    if old is not None and obj.get("data") != old.get("data"):
        yield invalid("data", obj.get("data"), IMMUTABLE)


def _ingress_class(obj: Object, old: Object | None) -> Iterator[FieldError]:
    if not (obj.get("spec") or {}).get("controller"):
        yield required("spec.controller")


def _volume(obj: Object, old: Object | None) -> Iterator[FieldError]:
    spec = obj.get("spec") or {}
    for key in ("accessModes", "capacity"):
        if not spec.get(key):
            yield required(f"spec.{key}")
    plain = {"accessModes", "capacity", "claimRef", "mountOptions", "nodeAffinity", "persistentVolumeReclaimPolicy",
             "storageClassName", "volumeMode", "volumeAttributesClassName"}
    if not set(spec) - plain:
        yield required("spec", "must specify a volume type")


def _replication(obj: Object, old: Object | None) -> Iterator[FieldError]:
    spec = obj.get("spec") or {}
    yield from (required(f"spec.{key}") for key in ("selector", "template") if not spec.get(key))


def _limits(obj: Object, old: Object | None) -> Iterator[FieldError]:
    kinds = [limit.get("type") for limit in (obj.get("spec") or {}).get("limits") or ()]
    yield from (duplicate(f"spec.limits[{place}].type", kind) for place, kind in enumerate(kinds)
                if kind in kinds[:place])


KINDS: dict[str, Callable[[Object, Object | None], Iterator[FieldError]]] = {
    "ConfigMap": _config, "Secret": _config, "Service": _service, "Job": validate_work.job, "CronJob": validate_work.cronjob, "Role": _role,
    "ClusterRole": _role,
    "RoleBinding": _binding, "ClusterRoleBinding": _binding, "MutatingWebhookConfiguration": validate_admission.webhooks,
    "ValidatingWebhookConfiguration": validate_admission.webhooks, "Namespace": _namespace, "Pod": _pod, "Event": _event,
    "CustomResourceDefinition": validate_admission.definition,
    "ValidatingAdmissionPolicy": validate_admission.policy,
    "ValidatingAdmissionPolicyBinding": validate_admission.binding, "EndpointSlice": _slice, "Endpoints": _endpoints,
    "NetworkPolicy": _network_policy, "Ingress": _ingress, "PodDisruptionBudget": _budget,
    "HorizontalPodAutoscaler": _autoscaler, "RuntimeClass": _runtime_class, "PriorityClass": _priority_class,
    "PersistentVolumeClaim": _claim, "ControllerRevision": _revision, "LimitRange": _limits,
    "IngressClass": _ingress_class, "PersistentVolume": _volume, "ReplicationController": _replication,
    "DaemonSet": validate_work.daemonset}
