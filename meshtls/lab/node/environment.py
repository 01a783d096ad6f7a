"""A container's environment, command and volumes from its pod and the store. Pure but for `materialise`, which writes the volumes' files.

What is missing (a ConfigMap, a key) is a Problem with the kubelet's wording; the pod waits and is tried again.
"""
import base64
import contextlib
import json
import os
import re
from collections.abc import Callable
from typing import Any

from meshtls.lab.api.store import Store

Obj = dict[str, Any]
TokenMaker = Callable[[Obj, str, int], str]
"""(pod, audience, seconds) -> a service account token."""

_REFERENCE = re.compile(r"\$(\$|\(([^)]+)\))")


class Problem(Exception):
    """What a container or volume needs is not there."""


def _keys(store: Store, kind: str, namespace: str, name: str, optional: bool) -> dict[str, bytes] | None:
    """The content of a ConfigMap or Secret."""
    obj = store.get("configmaps" if kind == "configmap" else "secrets", namespace, name)
    if obj is None:
        if optional:
            return None
        raise Problem(f'{kind} "{name}" not found')
    if kind == "configmap":
        plain = {key: value.encode() for key, value in (obj.get("data") or {}).items()}
        return plain | {key: base64.b64decode(value) for key, value in (obj.get("binaryData") or {}).items()}
    return {key: base64.b64decode(value) for key, value in (obj.get("data") or {}).items()}


def field(pod: Obj, path: str, status: Obj) -> str:
    """A downward API field."""
    metadata, spec = pod["metadata"], pod["spec"]
    whole = {"metadata.labels": metadata.get("labels"), "metadata.annotations": metadata.get("annotations")}
    if path in whole:
        return "".join(f"{key}={json.dumps(value)}\n" for key, value in sorted((whole[path] or {}).items())).rstrip("\n")
    one = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    if one:
        return str((metadata.get(one[1]) or {}).get(one[2], ""))
    named = {"metadata.name": metadata["name"], "metadata.namespace": metadata["namespace"], "metadata.uid": metadata["uid"],
             "spec.nodeName": spec.get("nodeName"), "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
             "status.podIP": status.get("podIP"), "status.podIPs": status.get("podIP"), "status.hostIP": status.get("hostIP"),
             "status.hostIPs": status.get("hostIP")}
    if path not in named:
        raise Problem(f"unsupported fieldPath: {path}")
    return str(named[path] or "")


def _resource(pod: Obj, container: Obj, reference: Obj) -> str:
    named = reference.get("containerName")
    if named:
        every = [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])]
        container = next((c for c in every if c["name"] == named), container)
    side, _, name = reference["resource"].partition(".")
    quantity = str(((container.get("resources") or {}).get(side) or {}).get(name, "0"))
    return _divide(quantity, str(reference.get("divisor") or "1"))


def _divide(quantity: str, divisor: str) -> str:
    def number(text: str) -> float:
        found = re.fullmatch(r"([0-9.]+)(m|[kMGTPE]i?)?", text)
        if not found:
            return 0.0
        unit = found[2] or ""
        scale = 0.001 if unit == "m" else 1024 ** ("KMGTPE".index(unit[0].upper()) + 1) if unit.endswith("i") else \
            1000 ** ("KMGTPE".index(unit[0].upper()) + 1) if unit else 1
        return float(found[1]) * scale
    return str(-int(-number(quantity) // (number(divisor) or 1)))


def variables(pod: Obj, container: Obj, store: Store, status: Obj, given: dict[str, str]) -> dict[str, str]:
    """The environment, in order: `given`, envFrom, env with $(NAME) expanded. Raises Problem."""
    env, namespace = dict(given), pod["metadata"]["namespace"]
    for source in container.get("envFrom") or []:
        kind, reference = ("configmap", source["configMapRef"]) if "configMapRef" in source else ("secret", source["secretRef"])
        found = _keys(store, kind, namespace, reference["name"], bool(reference.get("optional")))
        env |= {source.get("prefix", "") + key: value.decode(errors="replace") for key, value in (found or {}).items()}
    for entry in container.get("env") or []:
        value = _value(pod, container, store, status, entry, env)
        if value is not None:
            env[entry["name"]] = value
    return env


def _value(pod: Obj, container: Obj, store: Store, status: Obj, entry: Obj, env: dict[str, str]) -> str | None:
    source = entry.get("valueFrom")
    if not source:
        return expand(str(entry.get("value") or ""), env)
    if "fieldRef" in source:
        return field(pod, source["fieldRef"]["fieldPath"], status)
    if "resourceFieldRef" in source:
        return _resource(pod, container, source["resourceFieldRef"])
    kind, reference = ("configmap", source["configMapKeyRef"]) if "configMapKeyRef" in source else ("secret", source["secretKeyRef"])
    namespace = pod["metadata"]["namespace"]
    found = _keys(store, kind, namespace, reference["name"], bool(reference.get("optional")))
    if found is not None and reference["key"] in found:
        return found[reference["key"]].decode(errors="replace")
    if reference.get("optional"):
        return None
    label = "ConfigMap" if kind == "configmap" else "Secret"
    raise Problem(f"couldn't find key {reference['key']} in {label} {namespace}/{reference['name']}")


def expand(text: str, env: dict[str, str]) -> str:
    """$(NAME) where NAME is known; $$ is a dollar sign."""
    return _REFERENCE.sub(lambda m: "$" if m[1] == "$" else env.get(m[2], m[0]), text)


def materialise(pod: Obj, store: Store, status: Obj, home: str, claims: str, token: TokenMaker) -> dict[str, str]:
    """Make every volume of the pod below `home`; name -> directory. Raises Problem."""
    out = {}
    for volume in pod["spec"].get("volumes") or []:
        name = volume["name"]
        path = f"{home}/{name}"
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if claim:
            held = store.get("persistentvolumeclaims", pod["metadata"]["namespace"], claim)
            if held is None:
                raise Problem(f'persistentvolumeclaim "{claim}" not found')
            path = f"{claims}/{held['metadata']['uid']}"
        os.makedirs(path, exist_ok=True)
        if "emptyDir" in volume or claim or "ephemeral" in volume:
            os.chmod(path, 0o777)
        else:
            try:
                files = _files(pod, store, status, volume, token)
            except Problem as problem:
                raise Problem(f'MountVolume.SetUp failed for volume "{name}" : {problem}') from None
            group = (pod["spec"].get("securityContext") or {}).get("fsGroup")
            for relative, (data, mode) in files.items():
                _write(path, relative, data, mode, group)
        out[name] = path
    return out


def _write(root: str, relative: str, data: bytes, mode: int, group: int | None) -> None:
    if relative.startswith("/") or ".." in relative.split("/"):
        raise Problem(f"path {relative!r} leaves the volume")
    path = f"{root}/{relative}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, mode if group is None else mode | 0o440)
    if group is not None:
        with contextlib.suppress(OSError):  # an ordinary user's lab has no other groups, and all of its files are everybody's
            os.chown(path, -1, group)


Files = dict[str, tuple[bytes, int]]


def _files(pod: Obj, store: Store, status: Obj, volume: Obj, token: TokenMaker) -> Files:
    for kind, key in (("configmap", "configMap"), ("secret", "secret")):
        if key in volume:
            source = dict(volume[key])
            source.setdefault("name", source.pop("secretName", ""))
            return _from_keys(store, pod, kind, source, source.get("defaultMode", 0o644))
    if "downwardAPI" in volume:
        return _downward(pod, status, volume["downwardAPI"], volume["downwardAPI"].get("defaultMode", 0o644))
    if "projected" in volume:
        out: Files = {}
        mode = volume["projected"].get("defaultMode", 0o644)
        for source in volume["projected"].get("sources") or []:
            for kind, key in (("configmap", "configMap"), ("secret", "secret")):
                if key in source:
                    out |= _from_keys(store, pod, kind, source[key], mode)
            if "downwardAPI" in source:
                out |= _downward(pod, status, source["downwardAPI"], mode)
            if "serviceAccountToken" in source:
                wish = source["serviceAccountToken"]
                out[wish["path"]] = (token(pod, wish.get("audience", ""), int(wish.get("expirationSeconds", 3600))).encode(), mode)
        return out
    kind = next((key for key in volume if key != "name"), "nothing")
    raise Problem(f"volumes of type {kind} do not exist in the lab")


def _from_keys(store: Store, pod: Obj, kind: str, source: Obj, mode: int) -> Files:
    found = _keys(store, kind, pod["metadata"]["namespace"], source["name"], bool(source.get("optional")))
    if found is None:
        return {}
    if not source.get("items"):
        return {key: (data, mode) for key, data in found.items()}
    out = {}
    for item in source["items"]:
        if item["key"] in found:
            out[item["path"]] = (found[item["key"]], item.get("mode", mode))
        elif not source.get("optional"):
            raise Problem(f"references non-existent {'config' if kind == 'configmap' else 'secret'} key: {item['key']}")
    return out


def _downward(pod: Obj, status: Obj, source: Obj, mode: int) -> Files:
    out = {}
    for item in source.get("items") or []:
        if "fieldRef" in item:
            text = field(pod, item["fieldRef"]["fieldPath"], status)
        else:
            text = _resource(pod, {}, item["resourceFieldRef"])
        out[item["path"]] = (text.encode(), item.get("mode", mode))
    return out
