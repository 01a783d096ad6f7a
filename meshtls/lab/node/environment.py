"""A container's environment, command and volumes from its pod and the store. Pure but for `materialise`, which writes the volumes' files.

What is missing (a ConfigMap, a key) is a Problem with the kubelet's wording; the pod waits and is tried again.
"""
import base64
import contextlib
import json
import math
import os
import re
from collections.abc import Callable
from typing import Any

from meshtls.lab.api.quantities import amount
from meshtls.lab.api.store import Store

Obj = dict[str, Any]
Files = dict[str, tuple[bytes, int]]
TokenMaker = Callable[[Obj, str, int], str]
"""(pod, audience, seconds) -> a service account token."""

_REFERENCE = re.compile(r"\$(\$|\(([^)]+)\))")
_KEYED = ("configMap", "secret")
_FIELDS = ("metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.podIP", "status.podIPs",
           "status.hostIP", "status.hostIPs")


class Problem(Exception):
    """What a container or volume needs is not there."""


def _keyed(source: Obj, suffix: str = "") -> tuple[str, Obj]:
    """Whether a ConfigMap or a Secret is referred to, and the reference."""
    return next((kind, source[kind + suffix]) for kind in _KEYED if kind + suffix in source)


def _keys(store: Store, namespace: str, kind: str, reference: Obj) -> dict[str, bytes] | None:
    """The content of a ConfigMap or Secret; None for one that may be missing, and is."""
    name = reference.get("name") or reference.get("secretName") or ""
    obj = store.get(f"{kind.lower()}s", namespace, name)
    if obj is None:
        if reference.get("optional"):
            return None
        raise Problem(f'{kind.lower()} "{name}" not found')
    plain, coded = (obj.get("data"), obj.get("binaryData")) if kind == "configMap" else ({}, obj.get("data"))
    return {key: value.encode() for key, value in (plain or {}).items()} | {key: base64.b64decode(value) for key, value in (coded or {}).items()}


def field(pod: Obj, path: str, status: Obj) -> str:
    """A downward API field."""
    named = re.fullmatch(r"metadata\.(labels|annotations)(?:\['(.+)'\])?", path)
    if named:
        found = pod["metadata"].get(named[1]) or {}
        return str(found.get(named[2], "")) if named[2] else "\n".join(f"{key}={json.dumps(value)}" for key, value in sorted(found.items()))
    if path not in _FIELDS:
        raise Problem(f"unsupported fieldPath: {path}")
    section, key = path.split(".")
    value = (status if section == "status" else pod[section]).get(key)
    return ",".join(each["ip"] for each in value) if isinstance(value, list) else str(value or "")


def _resource(pod: Obj, container: Obj, reference: Obj) -> str:
    every = [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])]
    container = next((c for c in every if c["name"] == reference.get("containerName")), container)
    side, _, name = reference["resource"].partition(".")
    quantity = ((container.get("resources") or {}).get(side) or {}).get(name, "0")
    return str(math.ceil(amount(str(quantity)) / (amount(str(reference.get("divisor") or "1")) or 1)))


def variables(pod: Obj, container: Obj, store: Store, status: Obj, given: dict[str, str]) -> dict[str, str]:
    """The environment, in order: `given`, envFrom, env with $(NAME) expanded. Raises Problem."""
    env, namespace = dict(given), pod["metadata"]["namespace"]
    for source in container.get("envFrom") or []:
        found = _keys(store, namespace, *_keyed(source, "Ref"))
        env |= {source.get("prefix", "") + key: value.decode(errors="replace") for key, value in (found or {}).items()}
    for entry in container.get("env") or []:
        value = _value(pod, container, store, status, entry, env)
        if value is not None:
            env[entry["name"]] = value
    return env


def _value(pod: Obj, container: Obj, store: Store, status: Obj, entry: Obj, env: dict[str, str]) -> str | None:
    source, namespace = entry.get("valueFrom"), pod["metadata"]["namespace"]
    if not source:
        return expand(str(entry.get("value") or ""), env)
    if not any(kind + "KeyRef" in source for kind in _KEYED):
        return _downward(pod, container, status, source)
    kind, reference = _keyed(source, "KeyRef")
    found = _keys(store, namespace, kind, reference)
    if found is not None and reference["key"] in found:
        return found[reference["key"]].decode(errors="replace")
    if reference.get("optional"):
        return None
    raise Problem(f"couldn't find key {reference['key']} in {kind[0].upper()}{kind[1:]} {namespace}/{reference['name']}")


def _downward(pod: Obj, container: Obj, status: Obj, source: Obj) -> str:
    if "fieldRef" in source:
        return field(pod, source["fieldRef"]["fieldPath"], status)
    return _resource(pod, container, source["resourceFieldRef"])


def expand(text: str, env: dict[str, str]) -> str:
    """$(NAME) where NAME is known; $$ is a dollar sign."""
    return _REFERENCE.sub(lambda m: "$" if m[1] == "$" else env.get(m[2], m[0]), text)


def materialise(pod: Obj, store: Store, status: Obj, home: str, claims: str, token: TokenMaker) -> dict[str, str]:
    """Make every volume of the pod below `home`; name -> directory, absolute. Raises Problem."""
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
        out[name] = os.path.abspath(path)
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


def _files(pod: Obj, store: Store, status: Obj, volume: Obj, token: TokenMaker) -> Files:
    """Path -> content and mode. A volume of one source is a projection of one."""
    kind = next((key for key in volume if key != "name"), "nothing")
    if kind not in (*_KEYED, "downwardAPI", "projected"):
        raise Problem(f"volumes of type {kind} do not exist in the lab")
    out: Files = {}
    mode = volume[kind].get("defaultMode", 0o644)
    for source in volume[kind].get("sources") or [] if kind == "projected" else [volume]:
        for item in (source.get("downwardAPI") or {}).get("items") or []:
            out[item["path"]] = (_downward(pod, {}, status, item).encode(), item.get("mode", mode))
        if "serviceAccountToken" in source:
            wish = source["serviceAccountToken"]
            out[wish["path"]] = (token(pod, wish.get("audience", ""), int(wish.get("expirationSeconds", 3600))).encode(), mode)
        if any(each in source for each in _KEYED):
            out |= _from_keys(store, pod, *_keyed(source), mode)
    return out


def _from_keys(store: Store, pod: Obj, kind: str, source: Obj, mode: int) -> Files:
    found = _keys(store, pod["metadata"]["namespace"], kind, source)
    if found is None or not source.get("items"):
        return {key: (data, mode) for key, data in (found or {}).items()}
    missing = [item["key"] for item in source["items"] if item["key"] not in found]
    if missing and not source.get("optional"):
        raise Problem(f"references non-existent {'config' if kind == 'configMap' else 'secret'} key: {missing[0]}")
    return {item["path"]: (found[item["key"]], item.get("mode", mode)) for item in source["items"] if item["key"] in found}
