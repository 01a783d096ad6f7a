"""What a pod's spec demands beyond its schema, in a Pod and in every template; and what of a running pod may change."""
import json
import re
from collections.abc import Iterator
from typing import Any

from meshtls.lab.api import field
from meshtls.lab.api.field import FieldError, duplicate, forbidden, invalid, missing, required
from meshtls.lab.api.quantities import amount

Object = dict[str, Any]
_CHANGEABLE = ("pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
               "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
               "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)")
_RESOURCES = {"cpu", "memory", "ephemeral-storage"}
_SYSCTL = r"([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SOURCES_NEED = {"secret": "secretName", "hostPath": "path", "persistentVolumeClaim": "claimName", "configMap": "name"}


def spec(spec: Object, path: str) -> Iterator[FieldError]:
    """Everything wrong with a pod spec; paths start with `path`."""
    volumes = set()
    for place, volume in enumerate(spec.get("volumes") or ()):
        at = f"{path}.volumes[{place}]"
        if volume.get("name") in volumes:
            yield duplicate(f"{at}.name", volume["name"])
        volumes.add(volume.get("name"))
        sources = [key for key in volume if key != "name"]
        for extra in sources[1:]:
            yield forbidden(f"{at}.{extra}", "may not specify more than 1 volume type")
        yield from _source(volume, at)
        for source, key in _SOURCES_NEED.items():
            if isinstance(volume.get(source), dict) and not volume[source].get(key):
                yield required(f"{at}.{source}.{key}")
    if not spec.get("containers"):
        yield required(f"{path}.containers")
    names: set[str] = set()
    for group in ("containers", "initContainers"):
        for place, container in enumerate(spec.get(group) or ()):
            at = f"{path}.{group}[{place}]"
            if container.get("name") in names:
                yield duplicate(f"{at}.name", container["name"])
            elif container.get("name"):
                names.add(container["name"])
            yield from _container(container, at, volumes, spec, group == "initContainers")
    yield from _whole(spec, path)
    for label, text in (spec.get("nodeSelector") or {}).items():
        yield from (invalid(f"{path}.nodeSelector", label, told) for told in field.qualified(label))
        yield from (invalid(f"{path}.nodeSelector", text, told) for told in field.label_value(text))
    for place, toleration in enumerate(spec.get("tolerations") or ()):
        if toleration.get("operator") == "Exists" and toleration.get("value"):
            yield invalid(f"{path}.tolerations[{place}].operator", toleration,
                          "value must be empty when `operator` is 'Exists'")
        if toleration.get("operator", "Equal") not in ("Equal", "Exists", "", "Lt", "Gt"):
            yield field.unsupported(f"{path}.tolerations[{place}].operator", toleration["operator"],
                                    ("Equal", "Exists"))


def _source(volume: Object, path: str) -> Iterator[FieldError]:
    for source in ("configMap", "secret", "downwardAPI"):
        for place, item in enumerate((volume.get(source) or {}).get("items") or ()):
            at, text = f"{path}.{source}.items[{place}].path", item.get("path") or ""
            if text.startswith("/"):
                yield invalid(at, text, "must be a relative path")
            elif ".." in text.split("/"):
                yield invalid(at, text, "must not contain '..'")
    if ".." in ((volume.get("hostPath") or {}).get("path") or "").split("/"):
        yield invalid(f"{path}.hostPath.path", volume["hostPath"]["path"], "must not contain '..'")
    if amount((volume.get("emptyDir") or {}).get("sizeLimit") or "0") < 0:
        yield forbidden(f"{path}.emptyDir.sizeLimit", "SizeLimit field must be a valid resource quantity")


def _whole(spec: Object, path: str) -> Iterator[FieldError]:
    """What concerns the pod as one."""
    dns = spec.get("dnsConfig") or {}
    if spec.get("dnsPolicy") == "None" and not spec.get("dnsConfig"):
        yield required(f"{path}.dnsConfig", "must provide `dnsConfig` when `dnsPolicy` is None")
    if len(dns.get("nameservers") or ()) > 3:
        yield invalid(f"{path}.dnsConfig.nameservers", dns["nameservers"], "must not have more than 3 nameservers")
    for place, option in enumerate(dns.get("options") or ()):
        if not option.get("name"):
            yield required(f"{path}.dnsConfig.options[{place}]", "must not be empty")
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        yield invalid(f"{path}.securityContext.shareProcessNamespace", True,
                      "ShareProcessNamespace and HostPID cannot both be enabled")
    for place, alias in enumerate(spec.get("hostAliases") or ()):
        for at, name in enumerate(alias.get("hostnames") or ()):
            yield from (invalid(f"{path}.hostAliases[{place}].hostnames[{at}]", name, told)
                        for told in field.subdomain_1123(name))
    gates = [gate.get("name") for gate in spec.get("schedulingGates") or ()]
    yield from (duplicate(f"{path}.schedulingGates[{place}]", name) for place, name in enumerate(gates)
                if name in gates[:place])
    context = spec.get("securityContext") or {}
    sysctls = [item.get("name", "") for item in context.get("sysctls") or ()]
    for place, name in enumerate(sysctls):
        at = f"{path}.securityContext.sysctls[{place}].name"
        if len(name) > 253 or not re.fullmatch(_SYSCTL, name):
            yield invalid(at, name, f"must have at most 253 characters and match regex ^{_SYSCTL}$")
        elif name in sysctls[:place]:
            yield duplicate(at, name)
    yield from _profiles(context, f"{path}.securityContext")


def _profiles(context: Object, path: str) -> Iterator[FieldError]:
    for key, word in (("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")):
        profile = context.get(key) or {}
        at = f"{path}.{key}.localhostProfile"
        if profile.get("type") == "Localhost" and not profile.get("localhostProfile"):
            yield required(at, f"must be set when {word} type is Localhost")
        elif profile.get("type") != "Localhost" and profile.get("localhostProfile"):
            yield invalid(at, {"Type": profile.get("type"), "LocalhostProfile": profile["localhostProfile"]},
                          f"can only be set when {word} type is Localhost")


def _container(container: Object, path: str, volumes: set[str], spec: Object, initial: bool) -> Iterator[FieldError]:
    if not container.get("image"):
        yield required(f"{path}.image")
    elif container["image"] != container["image"].strip():
        yield invalid(f"{path}.image", container["image"], "must not have leading or trailing whitespace")
    port_names: set[str] = set()
    host_ports: set[str] = set()
    for place, port in enumerate(container.get("ports") or ()):
        at = f"{path}.ports[{place}]"
        if port.get("name") in port_names:
            yield duplicate(f"{at}.name", port["name"])
        if port.get("name"):
            port_names.add(port["name"])
        if port.get("hostPort"):
            taken = f"{port.get('protocol', 'TCP')}/{port.get('hostIP', '')}/{port['hostPort']}"
            if taken in host_ports:
                yield duplicate(f"{at}.hostPort", taken)
            host_ports.add(taken)
        if not port.get("containerPort"):
            if "containerPort" not in port:
                yield required(f"{at}.containerPort")
        elif spec.get("hostNetwork") and port.get("hostPort") not in (None, port["containerPort"]):
            yield invalid(f"{at}.hostPort", port["hostPort"], "must match `containerPort` when `hostNetwork` is true")
    for place, variable in enumerate(container.get("env") or ()):
        at, source = f"{path}.env[{place}]", variable.get("valueFrom")
        if source is not None and len(source) != 1:
            told = ("must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or "
                    "`fileKeyRef`")
            yield invalid(f"{at}.valueFrom", "",
                          told if not source else "may not have more than one field specified at a time")
        if source and variable.get("value"):
            yield invalid(f"{at}.valueFrom", "", "may not be specified when `value` is not empty")
    for source in container.get("envFrom") or ():
        given = [key for key in ("configMapRef", "secretRef") if source.get(key) is not None]
        if len(given) != 1:
            yield invalid(f"{path}.envFrom", "", "may not have more than one field specified at a time" if given
                          else "must specify one of: `configMapRef` or `secretRef`")
    mounts: set[str] = set()
    for place, mount in enumerate(container.get("volumeMounts") or ()):
        at = f"{path}.volumeMounts[{place}]"
        if mount.get("name") and mount["name"] not in volumes:
            yield missing(f"{at}.name", mount["name"])
        if mount.get("mountPath") in mounts:
            yield invalid(f"{at}.mountPath", mount["mountPath"], "must be unique")
        mounts.add(mount.get("mountPath"))
        yield from _mount(mount, f"{path}.volumeMounts", at, container)
    sidecar = container.get("restartPolicy") == "Always"
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(name)
        if probe is None:
            continue
        if initial and not sidecar:
            yield forbidden(f"{path}.{name}", "may not be set for init containers without restartPolicy=Always")
            continue
        yield from _handler(probe, f"{path}.{name}")
        if name == "readinessProbe" and probe.get("terminationGracePeriodSeconds") is not None:
            yield invalid(f"{path}.{name}.terminationGracePeriodSeconds", probe["terminationGracePeriodSeconds"],
                          "must not be set for readinessProbes")
        if name != "readinessProbe" and probe.get("successThreshold", 1) != 1:
            yield invalid(f"{path}.{name}.successThreshold", probe["successThreshold"], "must be 1")
    for name, handler in (container.get("lifecycle") or {}).items():
        if isinstance(handler, dict):
            yield from _handler(handler, f"{path}.lifecycle.{name}", ("exec", "httpGet", "tcpSocket", "sleep"))
    resources = container.get("resources") or {}
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for kind, held in (("limits", limits), ("requests", requests)):
        for key, text in held.items():
            at = f"{path}.resources.{kind}[{key}]"
            yield from (invalid(at, key, told) for told in field.qualified(key))
            if "/" not in key and not key.startswith("hugepages-") and key not in _RESOURCES:
                yield invalid(at, key, "must be a standard resource type or fully qualified")
                yield invalid(at, key, "must be a standard resource for containers")
            elif amount(text) < 0:
                yield invalid(at, text, "must be greater than or equal to 0")
            elif "/" in key and amount(text) % 1:
                yield invalid(at, text, "must be an integer")
    if any("/" in key and key not in limits for key in requests):
        yield required(f"{path}.resources.limits", "Limit must be set for non overcommitable resources")
    if any(key.startswith("hugepages-") for key in limits) and not {"cpu", "memory"} & {*limits, *requests}:
        yield forbidden(f"{path}.resources", "HugePages require cpu or memory")
    for key, text in requests.items():
        if key in limits and amount(text) > amount(limits[key]):
            yield invalid(f"{path}.resources.requests", text,
                          f"must be less than or equal to {key} limit of {limits[key]}")
    context = container.get("securityContext") or {}
    yield from _profiles(context, f"{path}.securityContext")
    if context.get("procMount") == "Unmasked" and spec.get("hostUsers") is not False:
        yield invalid(f"{path}.securityContext.procMount", "Unmasked", "`hostUsers` must be false to use `Unmasked`")
    if context.get("allowPrivilegeEscalation") is False:
        if context.get("privileged"):
            yield invalid(f"{path}.securityContext", context,
                          "cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
        added = (context.get("capabilities") or {}).get("add") or ()
        if "SYS_ADMIN" in added or "CAP_SYS_ADMIN" in added:
            yield invalid(f"{path}.securityContext", context,
                          "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN")


def _mount(mount: Object, path: str, place: str, container: Object) -> Iterator[FieldError]:
    for key in ("subPath", "subPathExpr"):
        text = mount.get(key) or ""
        if text.startswith("/"):
            yield invalid(f"{path}.{key}", text, "must be a relative path")
        elif ".." in text.split("/"):
            yield invalid(f"{path}.{key}", text, "must not contain '..'")
    if mount.get("subPath") and mount.get("subPathExpr"):
        yield invalid(f"{place}.subPathExpr", mount["subPathExpr"], "subPathExpr and subPath are mutually exclusive")
    if mount.get("mountPropagation") == "Bidirectional" and not (container.get("securityContext") or {}).get("privileged"):
        yield forbidden(f"{path}.mountPropagation",
                        "Bidirectional mount propagation is available only to privileged containers")
    if mount.get("recursiveReadOnly") in ("Enabled", "IfPossible") and not mount.get("readOnly"):
        yield forbidden(f"{path}.recursiveReadOnly", "may only be specified when readOnly is true")


def _handler(probe: Object, path: str, kinds: tuple[str, ...] = ("exec", "httpGet", "tcpSocket",
                                                                 "grpc")) -> Iterator[FieldError]:
    given = [kind for kind in kinds if kind in probe]
    if not given:
        yield required(path, "must specify a handler type")
    for extra in given[1:]:
        yield forbidden(f"{path}.{extra}", "may not specify more than 1 handler type")
    if "exec" in probe and not (probe["exec"] or {}).get("command"):
        yield required(f"{path}.exec.command")
    for header in (probe.get("httpGet") or {}).get("httpHeaders") or ():
        if not re.fullmatch("[-A-Za-z0-9]+", header.get("name", "")):
            yield invalid(f"{path}.httpGet.httpHeaders", header.get("name", ""),
                          "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', "
                          "regex used for validation is '[-A-Za-z0-9]+')")
    for kind in ("httpGet", "tcpSocket"):
        port = (probe.get(kind) or {}).get("port") if kind in probe else None
        if kind in probe and port is not None:
            told = field.port_number(port) if isinstance(port, int) else field.port_name(port)
            yield from (invalid(f"{path}.{kind}.port", port, text) for text in told)


def update(pod: Object, old: Object) -> Iterator[FieldError]:
    """A pod keeps its spec but for images, deadline, added tolerations and a lifted scheduling gate."""
    before, after = old["spec"], pod["spec"]
    for group in ("containers", "initContainers"):
        if len(before.get(group) or ()) != len(after.get(group) or ()):
            yield forbidden(f"spec.{group}", "pod updates may not add or remove containers")
            return
    if _fixed(before) != _fixed(after):
        yield forbidden("spec", _CHANGEABLE + "\n" + _difference(_fixed(before), _fixed(after)))
        return
    held = [_fixed_toleration(one) for one in after.get("tolerations") or ()]
    if any(_fixed_toleration(item) not in held for item in before.get("tolerations") or ()):
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


def _fixed_toleration(item: Object) -> Object:
    return {key: value for key, value in item.items() if key != "tolerationSeconds"}


def _fixed(spec: Object) -> Object:
    found = {key: value for key, value in spec.items() if key
             not in ("activeDeadlineSeconds", "tolerations", "schedulingGates",
                                                                      "ephemeralContainers", "serviceAccount")}
    for group in ("containers", "initContainers"):
        if group in found:
            found[group] = [{key: value for key, value in container.items() if key != "image"}
                            for container in found[group]]
    return found


def _difference(before: Object, after: Object) -> str:
    """The changed fields, one line each (the API server shows a diff of its internal structure)."""
    lines = []
    for key in sorted(set(before) | set(after)):
        if before.get(key) != after.get(key):
            name = json.dumps(key[:1].upper() + key[1:])
            lines += [f"- {name}: {json.dumps(before.get(key))},", f"+ {name}: {json.dumps(after.get(key))},"]
    return "\n".join(lines) + "\n"
