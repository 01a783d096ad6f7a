"""What the structures of a pod demand beyond their schema, in a Pod and in every template; and what of a running pod may
change."""
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from meshtls.lab.api import field
from meshtls.lab.api.field import FieldError, duplicate, forbidden, invalid, missing
from meshtls.lab.api.parts import Change, Part, Rule, bad, each, labels, needs, never, unique
from meshtls.lab.api.quantities import amount

Object = dict[str, Any]
_CHANGEABLE = ("pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
               "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
               "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)")
_RESOURCES = {"cpu", "memory", "ephemeral-storage"}
_SYSTEMS, _RESTARTS = ("linux", "windows"), ("NotRequired", "RestartContainer")
_SYSCTL = r"([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_HEADER = "[-A-Za-z0-9]+"
_IN_ENV = ("metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP",
           "status.hostIPs", "status.podIP", "status.podIPs")
_IN_FILES = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
_POD_FIELDS = {*_IN_ENV, *_IN_FILES, "spec.restartPolicy", "spec.schedulerName", "spec.host", "status.phase"}
_ONE = "may not have more than one field specified at a time"
_NOT_BESIDE = "may not be set for init containers without restartPolicy=Always"
_LIMITED = "cannot set `allowPrivilegeEscalation` to false and "


def _names(part: Part) -> Iterator[FieldError]:
    """All containers share their names; an ephemeral one may name one of the others."""
    names: list[str] = []
    for group in ("containers", "initContainers", "ephemeralContainers"):
        for place, container in enumerate(part[group] or ()):
            name, whose = container.get("name") or "", container.get("targetContainerName") or ""
            if name and name in names:
                yield duplicate(part.at(f"{group}[{place}].name"), name)
            if whose and whose not in [one.get("name") for key in ("containers", "initContainers") for one in part[key] or ()]:
                yield missing(part.at(f"{group}[{place}].targetContainerName"), whose)
            names.append(name)


def _restarts(part: Part) -> Iterator[FieldError]:
    workload = part.above.above.model if part.above and part.above.above else ""
    policy = part["restartPolicy"]
    if workload == "V1JobSpec" and policy not in ("OnFailure", "Never"):
        yield field.required(part.at("restartPolicy"), 'valid values: "OnFailure", "Never"')
    elif workload not in ("", "V1JobSpec", "V1PodTemplate") and policy in ("OnFailure", "Never"):
        yield field.unsupported(part.at("restartPolicy"), policy, ("Always",))


def _toleration(part: Part) -> Iterator[FieldError]:
    operator = part.value.get("operator", "Equal")
    if not part["key"] and operator != "Exists":
        yield invalid(part.at("operator"), operator,
                      'operator must be Exists when `key` is empty, which means "match all values and all keys"')
    if part["tolerationSeconds"] is not None and part["effect"] != "NoExecute":
        yield invalid(part.at("effect"), part["effect"] or "", "effect must be 'NoExecute' when `tolerationSeconds` is set")
    if operator not in ("Equal", "Exists", "", "Lt", "Gt"):
        yield field.unsupported(part.at("operator"), operator, ("Equal", "Exists"))


def _profile(word: str) -> tuple[Rule, ...]:
    return (needs("localhostProfile", f"must be set when {word} type is Localhost",
                  lambda one: one["type"] == "Localhost" and not one["localhostProfile"]),
            bad("localhostProfile", f"can only be set when {word} type is Localhost",
                lambda one: one["type"] != "Localhost" and one["localhostProfile"],
                value=lambda one: {"Type": one["type"], "LocalhostProfile": one["localhostProfile"]}))


def _extra(part: Part, kinds: Sequence[str], what: str) -> Iterator[FieldError]:
    yield from (forbidden(part.at(key), f"may not specify more than 1 {what} type") for key in kinds[1:])


def _inside(text: str, *, relative: bool = True) -> list[str]:
    """A path that stays below where it begins."""
    if relative and text.startswith("/"):
        return ["must be a relative path"]
    return ["must not contain '..'"] if ".." in text.split("/") else []


def _mount(part: Part) -> Iterator[FieldError]:
    """Told of the list, not of its item, as the API server does."""
    listed = part.path.rpartition("[")[0]
    for key in ("subPath", "subPathExpr"):
        yield from field.told(f"{listed}.{key}", part[key] or "", _inside)
    claims = part.within("V1StatefulSetSpec").get("volumeClaimTemplates") or ()
    volumes = [*(part.within("V1PodSpec").get("volumes") or ()), *(claim.get("metadata") or {} for claim in claims)]
    if part["name"] not in [volume.get("name") for volume in volumes]:
        yield missing(part.at("name"), part["name"])
    if part["mountPropagation"] == "Bidirectional" and not (part.above and part.above["securityContext.privileged"]):
        yield forbidden(f"{listed}.mountPropagation",
                        "Bidirectional mount propagation is available only to privileged containers")
    if part["recursiveReadOnly"] in ("Enabled", "IfPossible") and not part["readOnly"]:
        yield forbidden(f"{listed}.recursiveReadOnly", "may only be specified when readOnly is true")


def _device(part: Part) -> Iterator[FieldError]:
    if part["name"] not in [volume.get("name") for volume in part.within("V1PodSpec").get("volumes") or ()]:
        yield missing(part.at("name"), part["name"])


def _variables(part: Part) -> Iterator[FieldError]:
    given = [key for key in ("configMapRef", "secretRef") if part[key] is not None]
    if len(given) != 1:
        yield invalid(part.path.rpartition("[")[0], "", _ONE if given
                      else "must specify one of: `configMapRef` or `secretRef`")


def _own_field(known: tuple[str, ...], within: str = "") -> Rule:
    """A reference to a field of the pod itself; told of the place up to `within`."""
    def rule(part: Part) -> Iterator[FieldError]:
        ref = part["valueFrom.fieldRef" if not within else "fieldRef"]
        path = (ref or {}).get("fieldPath")
        at = part.at("valueFrom.fieldRef") if not within else part.path.rpartition(within)[0] + ".fieldRef"
        name, bracket, key = (path or "").partition("['")
        if ref is None:
            return
        if not path:
            yield field.required(f"{at}.fieldPath")
        elif bracket and key.endswith("']"):
            if name not in ("metadata.annotations", "metadata.labels"):
                yield invalid(f"{at}.fieldPath", path, f"error converting fieldPath: field label does not support subscript: {path}")
            else:
                yield from field.told(at, key[:-2], field.qualified)
        elif path not in _POD_FIELDS:
            yield invalid(f"{at}.fieldPath", path, f"error converting fieldPath: field label not supported: {path}")
        elif path not in known and path != "spec.host":
            yield field.unsupported(f"{at}.fieldPath", path, known)
    return rule


def _beside(part: Part) -> bool:
    """Does it hang on a container that runs beside others?"""
    return not (part.above and part.above.key == "initContainers" and part.above["restartPolicy"] != "Always")


def _probe(part: Part) -> Iterator[FieldError]:
    yield from _handler(part) if _beside(part) else [forbidden(part.path, _NOT_BESIDE)]


def _token(part: Part) -> Iterator[FieldError]:
    """Of its path is told as if it were the volume's."""
    seconds, at = part["expirationSeconds"], part.path.rpartition(".sources")[0] + ".path"
    if seconds is not None and not 600 <= seconds <= 2 ** 32:
        yield invalid(part.at("expirationSeconds"), seconds,
                      f"may not specify a duration {'less than 10 minutes' if seconds < 600 else 'larger than 2^32 seconds'}")
    yield from field.told(at, part["path"], _inside) if part["path"] else [field.required(at)]


def _sleep(part: Part) -> bool:
    grace = part.within("V1PodSpec").get("terminationGracePeriodSeconds", 30)
    return not 0 <= (part["seconds"] or 0) <= grace


def _handler(part: Part) -> Iterator[FieldError]:
    kinds = [kind for kind in ("exec", "httpGet", "tcpSocket", "grpc", "sleep") if kind in part.value]
    if not kinds:
        yield field.required(part.path, "must specify a handler type")
    yield from _extra(part, kinds, "handler")


def _headers(part: Part) -> Iterator[FieldError]:
    for header in part["httpHeaders"] or ():
        if not re.fullmatch(_HEADER, header.get("name", "")):
            yield invalid(part.at("httpHeaders"), header.get("name", ""), "a valid HTTP header must consist of alphanumeric "
                          f"characters or '-' (e.g. 'X-Header-Name', regex used for validation is '{_HEADER}')")


def _resources(part: Part) -> Iterator[FieldError]:
    if part.above and part.above.model == "V1PodSpec":
        return
    limits, requests = part["limits"] or {}, part["requests"] or {}
    for kind, held in (("limits", limits), ("requests", requests)):
        for key, text in held.items():
            at = part.at(f"{kind}[{key}]")
            yield from field.told(at, key, field.qualified)
            if "/" not in key and not key.startswith("hugepages-") and key not in _RESOURCES:
                yield invalid(at, key, "must be a standard resource type or fully qualified")
                yield invalid(at, key, "must be a standard resource for containers")
            elif amount(text) < 0:
                yield invalid(at, text, "must be greater than or equal to 0")
            elif "/" in key and amount(text) % 1:
                yield invalid(at, text, "must be an integer")
    if any("/" in key and key not in limits for key in requests):
        yield field.required(part.at("limits"), "Limit must be set for non overcommitable resources")
    if any(key.startswith("hugepages-") for key in limits) and not {"cpu", "memory"} & {*limits, *requests}:
        yield forbidden(part.path, "HugePages require cpu or memory")
    for key, text in requests.items():
        if key in limits and amount(text) > amount(limits[key]):
            yield invalid(part.at("requests"), text, f"must be less than or equal to {key} limit of {limits[key]}")


def _update(part: Part) -> Iterator[FieldError]:
    """A pod keeps its spec but for images, deadline, added tolerations and a lifted scheduling gate."""
    before, after = (part.old or {})["spec"], part["spec"]
    for group in ("containers", "initContainers"):
        if len(before.get(group) or ()) != len(after.get(group) or ()):
            yield forbidden(f"spec.{group}", "pod updates may not add or remove containers")
            return
    if _fixed(before) != _fixed(after):
        yield forbidden("spec", _CHANGEABLE + "\n" + _difference(_fixed(before), _fixed(after)))
        return
    held = [_but(one, "tolerationSeconds") for one in after.get("tolerations") or ()]
    if any(_but(one, "tolerationSeconds") not in held for one in before.get("tolerations") or ()):
        yield forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")
    deadline, limit = after.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds")
    if limit is not None and deadline is None:
        yield invalid("spec.activeDeadlineSeconds", None, "must not update from a positive integer to nil value")
    elif limit is not None and deadline > limit:
        yield invalid("spec.activeDeadlineSeconds", deadline, "must be less than or equal to previous value")
    gates = [gate["name"] for gate in before.get("schedulingGates") or ()]
    for place, gate in enumerate(after.get("schedulingGates") or ()):
        if gate["name"] not in gates:
            yield forbidden(f"spec.schedulingGates[{place}].name",
                            f"only deletion is allowed, but found new scheduling gate '{gate['name']}'")


def _but(held: Object, *keys: str) -> Object:
    return {key: value for key, value in held.items() if key not in keys}


def _fixed(spec: Object) -> Object:
    found = _but(spec, "activeDeadlineSeconds", "tolerations", "schedulingGates", "serviceAccount")
    return {**found, **{group: [_but(container, "image") for container in found[group]]
                        for group in ("containers", "initContainers") if group in found}}


def _difference(before: Object, after: Object) -> str:
    """The changed fields, one line each (the API server shows a diff of its internal structure)."""
    lines = []
    for key in sorted(set(before) | set(after)):
        if before.get(key) != after.get(key):
            name = json.dumps(key[:1].upper() + key[1:])
            lines += [f"- {name}: {json.dumps(before.get(key))},", f"+ {name}: {json.dumps(after.get(key))},"]
    return "\n".join(lines) + "\n"


def ephemeral(pod: Object, old: Object) -> Iterator[FieldError]:
    """What is wrong with a change of the containers that came later: none may change or go."""
    after = {one.get("name"): one for one in pod["spec"].get("ephemeralContainers") or ()}
    for one in old["spec"].get("ephemeralContainers") or ():
        name = one["name"]
        if name not in after:
            yield forbidden("spec.ephemeralContainers", f"existing ephemeral containers {field.quote(name)} may not be removed\n")
        elif one != after[name]:
            yield forbidden("spec.ephemeralContainers", f"existing ephemeral containers {field.quote(name)} may not be changed\n"
                            + _difference(one, after[name]))


RULES: dict[str, tuple[Rule, ...]] = {
    "V1Pod": (
        Change(_update),
        never("spec.ephemeralContainers", "cannot be set on create",
              lambda pod: pod.old is None and pod["spec.ephemeralContainers"])),
    "V1PodSpec": (
        needs("containers"), _names,
        needs("dnsConfig", "must provide `dnsConfig` when `dnsPolicy` is None",
              lambda pod: pod["dnsPolicy"] == "None" and not pod["dnsConfig"]),
        bad("securityContext.shareProcessNamespace", "ShareProcessNamespace and HostPID cannot both be enabled",
            lambda pod: pod["shareProcessNamespace"] and pod["hostPID"], value=lambda pod: True),
        unique("schedulingGates", lambda gate: gate.get("name")), labels("nodeSelector"), _restarts),
    "V1Toleration": (
        bad("operator", "value must be empty when `operator` is 'Exists'",
            lambda one: one["operator"] == "Exists" and one["value"], value=lambda one: one["value"]), _toleration),
    "V1PodDNSConfig": (
        bad("nameservers", "must not have more than 3 nameservers", lambda dns: len(dns["nameservers"] or ()) > 3),),
    "V1PodDNSConfigOption": (needs("", "must not be empty", lambda option: not option["name"]),),
    "V1HostAlias": (each("hostnames", field.subdomain_1123),),
    "V1Sysctl": (bad("name", f"must have at most 253 characters and match regex ^{_SYSCTL}$", lambda one: (
        len(one["name"] or "") > 253 or not re.fullmatch(_SYSCTL, one["name"] or ""))),),
    "V1PodSchedulingGate": (lambda gate: field.told(gate.path, gate["name"] or "", field.qualified),),
    "V1PodOS": (lambda os: [] if os["name"] in _SYSTEMS else [field.unsupported(os.path, os["name"], _SYSTEMS)],),
    "V1NodeSelector": (needs("nodeSelectorTerms", "must have at least one node selector term"),),
    "V1PodAffinityTerm": (needs("topologyKey", "can not be empty"), each("topologyKey", field.qualified, blank=True)),
    "V1TopologySpreadConstraint": (needs("topologyKey", "can not be empty"),),
    "V1ServiceAccountTokenProjection": (_token,), "V1VolumeDevice": (_device,),
    "V1Lifecycle": (never("", _NOT_BESIDE, lambda one: not _beside(one)),),
    "V1SleepAction": (lambda one: [invalid(one.path, one["seconds"] or 0, "must be non-negative and less than terminationGracePeriodSeconds "
                                           f"({one.within('V1PodSpec').get('terminationGracePeriodSeconds', 30)})")] if _sleep(one) else [],),
    "V1ContainerResizePolicy": (lambda one: [] if one["restartPolicy"] in _RESTARTS else [
        field.unsupported(one.path.rpartition("[")[0], one["restartPolicy"], _RESTARTS)],),
    "V1SeccompProfile": _profile("seccomp"), "V1AppArmorProfile": _profile("AppArmor"),
    "V1SecurityContext": (
        bad("procMount", "`hostUsers` must be false to use `Unmasked`", lambda one: (
            one["procMount"] == "Unmasked" and one.within("V1PodSpec").get("hostUsers") is not False)),
        bad("", f"{_LIMITED}`privileged` to true",
            lambda one: one["allowPrivilegeEscalation"] is False and one["privileged"]),
        bad("", f"{_LIMITED}`capabilities.Add` CAP_SYS_ADMIN", lambda one: (
            one["allowPrivilegeEscalation"] is False
            and "CAP_SYS_ADMIN" in (one["capabilities.add"] or ())))),
    "V1Volume": (lambda volume: _extra(volume, [key for key in volume.value if key != "name"], "volume"),),
    "V1SecretVolumeSource": (needs("secretName"),), "V1ConfigMapVolumeSource": (needs("name"),),
    "V1HostPathVolumeSource": (each("path", lambda text: _inside(text, relative=False)),),
    "V1KeyToPath": (each("path", _inside),), "V1DownwardAPIVolumeFile": (
        each("path", _inside), _own_field(_IN_FILES, ".items")),
    "V1EmptyDirVolumeSource": (never("sizeLimit", "SizeLimit field must be a valid resource quantity",
                                     lambda source: amount(source["sizeLimit"] or "0") < 0),),
    "V1Container": (
        needs("image"),
        bad("image", "must not have leading or trailing whitespace",
            lambda one: one["image"] and one["image"] != one["image"].strip()),
        unique("ports", lambda port: "{}/{}/{}".format(port.get("protocol", "TCP"), port.get("hostIP", ""), port["hostPort"])
               if port.get("hostPort") else None, ".hostPort")),
    "V1ContainerPort": (
        needs("containerPort"),
        bad("hostPort", "must match `containerPort` when `hostNetwork` is true", lambda port: (
            port["containerPort"] and port.within("V1PodSpec").get("hostNetwork")
            and port["hostPort"] not in (None, port["containerPort"])))),
    "V1EnvVar": (
        _own_field(_IN_ENV),
        bad("valueFrom", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or "
            "`fileKeyRef`", lambda one: one["valueFrom"] == {}, value=lambda one: ""),
        bad("valueFrom", _ONE, lambda one: len(one["valueFrom"] or ()) > 1, value=lambda one: ""),
        bad("valueFrom", "may not be specified when `value` is not empty",
            lambda one: one["valueFrom"] and one["value"], value=lambda one: "")),
    "V1EnvFromSource": (_variables,),
    **dict.fromkeys(("V1ConfigMapKeySelector", "V1SecretKeySelector"), (
        each("name", field.subdomain_1123, blank=True), needs("key"), each("key", field.config_key))),
    **dict.fromkeys(("V1ConfigMapEnvSource", "V1SecretEnvSource"), (each("name", field.subdomain_1123, blank=True),)),
    "V1VolumeMount": (
        bad("mountPath", "must be unique", lambda mount: (
            mount["mountPath"] in [other.get("mountPath") for other in mount.before])),
        bad("subPathExpr", "subPathExpr and subPath are mutually exclusive",
            lambda mount: mount["subPath"] and mount["subPathExpr"]), _mount),
    "V1Probe": (
        _probe,
        bad("terminationGracePeriodSeconds", "must not be set for readinessProbes", lambda probe: (
            probe.key == "readinessProbe" and probe["terminationGracePeriodSeconds"] is not None)),
        bad("successThreshold", "must be 1",
            lambda probe: probe.key != "readinessProbe" and probe["successThreshold"] not in (None, 1))),
    "V1LifecycleHandler": (_handler,), "V1ExecAction": (needs("command"),),
    "V1HTTPGetAction": (_headers, each("port", field.port, blank=True)), "V1TCPSocketAction": (each("port", field.port, blank=True),),
    "V1ResourceRequirements": (_resources,)}
