"""What single kinds demand beyond their schema: one function a kind, `old` None for a create."""
import base64
import ipaddress
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from meshtls.lab.api import decode, field, validate_pod
from meshtls.lab.api.field import FieldError, forbidden, invalid, required, unsupported

Object = dict[str, Any]
IMMUTABLE = "field is immutable"


def workload(obj: Object, old: Object | None) -> Iterator[FieldError]:
    spec = obj.get("spec") or {}
    selector, labels = spec.get("selector"), ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if selector is not None and not selector:
        yield invalid("spec.selector", selector, f"empty selector is invalid for {obj['kind'].lower()}")
    matched = ((selector or {}).get("matchLabels") or {}).items() <= (labels or {}).items()
    if selector is None or not matched:
        yield invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    policy = ((spec.get("template") or {}).get("spec") or {}).get("restartPolicy")
    if policy in ("OnFailure", "Never"):
        yield unsupported("spec.template.spec.restartPolicy", policy, ("Always",))
    if old is not None and old["spec"].get("selector") != selector:
        yield invalid("spec.selector", selector, IMMUTABLE)
    if old is not None and obj["kind"] == "StatefulSet":
        free = ("replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
                "persistentVolumeClaimRetentionPolicy",
                "minReadySeconds")
        if {key: item for key, item in spec.items() if key not in free} != {
                key: item for key, item in old["spec"].items() if key not in free}:
            yield forbidden("spec",
                            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
                            "'updateStrategy', "
                                    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and "
                                    "'minReadySeconds' are forbidden")
    strategy = spec.get("strategy") or {}
    if strategy.get("type") == "Recreate" and "rollingUpdate" in strategy:
        yield forbidden("spec.strategy.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'")


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


def _job(obj: Object, old: Object | None) -> Iterator[FieldError]:
    spec = obj.get("spec") or {}
    template = (spec.get("template") or {}).get("spec") or {}
    if template.get("restartPolicy") not in ("OnFailure", "Never"):
        yield unsupported(
            "spec.template.spec.restartPolicy", template.get("restartPolicy"), ("OnFailure", "Never"))
    if spec.get("completionMode") == "Indexed" and spec.get("completions") is None:
        yield required("spec.completions", "when completion mode is Indexed")
    if old is not None:
        for name in ("completions", "selector", "template", "completionMode"):
            before, after = old["spec"].get(name), spec.get(name)
            if before != after and not (name == "completions" and spec.get("completionMode") == "Indexed"):
                yield invalid(f"spec.{name}", after, IMMUTABLE)


def _cronjob(obj: Object, old: Object | None) -> Iterator[FieldError]:
    spec = obj.get("spec") or {}
    text = spec.get("schedule") or ""
    if text and not text.startswith("@") and len(text.split()) != 5:
        yield invalid("spec.schedule", text, f"expected exactly 5 fields, found {len(text.split())}: [{text}]")
    template = ((((spec.get("jobTemplate") or {}).get("spec") or {}).get("template") or {}).get("spec")) or {}
    if template.get("restartPolicy") not in ("OnFailure", "Never"):
        yield unsupported("spec.jobTemplate.spec.template.spec.restartPolicy", template.get("restartPolicy"),
                          ("OnFailure", "Never"))
    if len(obj["metadata"].get("name") or "") > 52:
        yield invalid("metadata.name", obj["metadata"]["name"], "must be no more than 52 characters")


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


def _webhooks(obj: Object, old: Object | None) -> Iterator[FieldError]:
    names = set()
    for place, hook in enumerate(obj.get("webhooks") or ()):
        at = f"webhooks[{place}]"
        name = hook.get("name") or ""
        if name and (field.subdomain_1123(name) or name.count(".") < 2):
            told = (",".join(field.subdomain_1123(name))
                    or "should be a domain with at least three segments separated by dots")
            yield invalid(f"{at}.name", name, told)
        if name in names:
            yield field.duplicate(f"{at}.name", name)
        names.add(name)
        if hook.get("admissionReviewVersions") and not {"v1", "v1beta1"} & set(hook["admissionReviewVersions"]):
            yield invalid(f"{at}.admissionReviewVersions", hook["admissionReviewVersions"],
                          "must include at least one of v1, v1beta1")
        if not 1 <= hook.get("timeoutSeconds", 10) <= 30:
            yield invalid(f"{at}.timeoutSeconds", hook["timeoutSeconds"],
                          "the timeout value must be between 1 and 30 seconds")
        config = hook.get("clientConfig") or {}
        if ("url" in config) == ("service" in config):
            yield required(f"{at}.clientConfig", "exactly one of url or service is required")
        elif "url" in config and not config["url"].startswith("https://"):
            scheme = config["url"].partition("://")[0] if "://" in config["url"] else ""
            yield invalid(f"{at}.clientConfig.url", scheme or config["url"],
                          "'https' is the only allowed URL scheme; desired format: https://host[/path]")


def _namespace(obj: Object, old: Object | None) -> Iterator[FieldError]:
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


def _pod_update(obj: Object, old: Object | None) -> Iterator[FieldError]:
    if old is not None:
        yield from validate_pod.update(obj, old)


def _event(obj: Object, old: Object | None) -> Iterator[FieldError]:
    about, namespace = (obj.get("involvedObject") or {}).get("namespace", ""), obj["metadata"].get("namespace", "")
    if about != namespace and not (about == "" and namespace == "default"):
        yield invalid("involvedObject.namespace", about, "does not match event.namespace")


def _definition(obj: Object, old: Object | None) -> Iterator[FieldError]:
    spec = obj.get("spec") or {}
    names = spec.get("names") or {}
    wanted = f"{names.get('plural', '')}.{spec.get('group', '')}"
    if obj["metadata"].get("name") != wanted:
        yield invalid("metadata.name", obj["metadata"].get("name") or "", 'must be spec.names.plural+"."+spec.group')
    if sum(bool(version.get("storage")) for version in spec.get("versions") or ()) != 1:
        yield invalid("spec.versions", spec.get("versions"), "must have exactly one version marked as storage version")
    for place, version in enumerate(spec.get("versions") or ()):
        if not (version.get("schema") or {}).get("openAPIV3Schema"):
            yield required(f"spec.versions[{place}].schema.openAPIV3Schema", "schemas are required")


KINDS: dict[str, Callable[[Object, Object | None], Iterator[FieldError]]] = {
    "ConfigMap": _config, "Secret": _config, "Service": _service, "Job": _job, "CronJob": _cronjob, "Role": _role,
    "ClusterRole": _role,
    "RoleBinding": _binding, "ClusterRoleBinding": _binding, "MutatingWebhookConfiguration": _webhooks,
    "ValidatingWebhookConfiguration": _webhooks, "Namespace": _namespace, "Pod": _pod_update, "Event": _event,
    "CustomResourceDefinition": _definition}
