"""What a pod's spec demands beyond its schema, in a Pod and in every template; and what of a running pod may change."""
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from meshtls.lab.api import field
from meshtls.lab.api.field import FieldError, duplicate, forbidden, invalid, missing, required

Object = dict[str, Any]
_CHANGEABLE = ("pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
               "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
               "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)")
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


def _container(container: Object, path: str, volumes: set[str], spec: Object, initial: bool) -> Iterator[FieldError]:
    if not container.get("image"):
        yield required(f"{path}.image")
    elif container["image"] != container["image"].strip():
        yield invalid(f"{path}.image", container["image"], "must not have leading or trailing whitespace")
    port_names: set[str] = set()
    for place, port in enumerate(container.get("ports") or ()):
        at = f"{path}.ports[{place}]"
        if port.get("name") in port_names:
            yield duplicate(f"{at}.name", port["name"])
        if port.get("name"):
            port_names.add(port["name"])
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
    mounts: set[str] = set()
    for place, mount in enumerate(container.get("volumeMounts") or ()):
        at = f"{path}.volumeMounts[{place}]"
        if mount.get("name") and mount["name"] not in volumes:
            yield missing(f"{at}.name", mount["name"])
        if mount.get("mountPath") in mounts:
            yield invalid(f"{at}.mountPath", mount["mountPath"], "must be unique")
        mounts.add(mount.get("mountPath"))
    sidecar = container.get("restartPolicy") == "Always"
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(name)
        if probe is None:
            continue
        if initial and not sidecar:
            yield forbidden(f"{path}.{name}", "may not be set for init containers without restartPolicy=Always")
            continue
        yield from _handler(probe, f"{path}.{name}")
        if name != "readinessProbe" and probe.get("successThreshold", 1) != 1:
            yield invalid(f"{path}.{name}.successThreshold", probe["successThreshold"], "must be 1")
    for name, handler in (container.get("lifecycle") or {}).items():
        if isinstance(handler, dict):
            yield from _handler(handler, f"{path}.lifecycle.{name}", ("exec", "httpGet", "tcpSocket", "sleep"))
    resources = container.get("resources") or {}
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for key, text in requests.items():
        if key in limits and _amount(text) > _amount(limits[key]):
            yield invalid(f"{path}.resources.requests", text,
                          f"must be less than or equal to {key} limit of {limits[key]}")
    context = container.get("securityContext") or {}
    if context.get("allowPrivilegeEscalation") is False:
        if context.get("privileged"):
            yield invalid(f"{path}.securityContext", context,
                          "cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
        added = (context.get("capabilities") or {}).get("add") or ()
        if "SYS_ADMIN" in added or "CAP_SYS_ADMIN" in added:
            yield invalid(f"{path}.securityContext", context,
                          "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN")


def _handler(probe: Object, path: str, kinds: tuple[str, ...] = ("exec", "httpGet", "tcpSocket",
                                                                 "grpc")) -> Iterator[FieldError]:
    given = [kind for kind in kinds if kind in probe]
    if not given:
        yield required(path, "must specify a handler type")
    for extra in given[1:]:
        yield forbidden(f"{path}.{extra}", "may not specify more than 1 handler type")
    for kind in ("httpGet", "tcpSocket"):
        port = (probe.get(kind) or {}).get("port") if kind in probe else None
        if kind in probe and port is not None:
            told = field.port_number(port) if isinstance(port, int) else field.port_name(port)
            yield from (invalid(f"{path}.{kind}.port", port, text) for text in told)


def _amount(text: str) -> Decimal:
    """A canonical quantity as a number; 0 for what is none."""
    digits = text.rstrip("numkKMGTPEi")
    unit = text[len(digits):]
    if unit.endswith("i"):
        power = Decimal(1024) ** (" KMGTPE".index(unit[0]))
    else:
        power = Decimal(1000) ** ("num kMGTPE".index(unit or " ") - 3)
    try:
        return Decimal(digits) * power
    except ArithmeticError:
        return Decimal(0)


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
    if "tolerations" in before and any(item not in (after.get("tolerations") or ()) for item in before["tolerations"]):
        yield forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")


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
