"""Manifests into a lab, and waiting until what they declare runs. Works through the API like any client.

Applied in order of the files' names, namespaces first, by server-side apply; everything is read before anything is applied.
"""
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from meshtls.cluster.client import Client
from meshtls.cluster.kinds import find
from meshtls.cluster.nesting import shallow
from meshtls.errors import InputError, LabError

Obj = dict[str, Any]
_SUFFIXES = (".yaml", ".yml", ".json")
PROXIES, PENDING = "lab.meshtls.dev/proxies", "pending"
_PAUSE_S = 0.05


def read(paths: Iterable[str | Path | Obj]) -> list[Obj]:
    """Objects from files, directories (their *.yaml, *.yml, *.json) or as they are. Raises InputError."""
    out: list[Obj] = []
    for path in paths:
        if isinstance(path, dict):
            out.append(path)
            continue
        place = Path(path)
        files = sorted(f for f in place.iterdir() if f.suffix in _SUFFIXES) if place.is_dir() else [place]
        if not files:
            raise InputError(f"no manifests in {place}", "name files, or a directory that holds *.yaml")
        for file in files:
            for document in _documents(file):
                items = document.get("items") or [] if isinstance(document, dict) and document.get("kind") == "List" else [document]
                out += [_checked(obj, file) for obj in (items if isinstance(items, list) else [items]) if obj is not None]
    return out


def _documents(file: Path) -> list[Any]:
    try:
        text = file.read_bytes().decode()
        shallow(text, str(file))
        return list(yaml.load_all(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", "name a file or a directory of manifests", file=str(file)) from error
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text (byte {error.start})", "save the file as UTF-8", file=str(file)) from error
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        words = " ".join(str(getattr(error, "problem", "") or error).split())
        raise InputError(f"broken YAML: {words}", "correct the file", file=str(file), line=mark.line + 1 if mark else 0,
                         column=mark.column + 1 if mark else 0) from error


def _checked(obj: Any, file: Path) -> Obj:
    """The object, if it has what applying it needs. Raises InputError."""
    def wrong(what: str, hint: str = "is this a manifest?") -> InputError:
        return InputError(what, hint, file=str(file))

    if not isinstance(obj, dict) or not all(isinstance(obj.get(key), str) and obj[key] for key in ("apiVersion", "kind")):
        raise wrong("a document without apiVersion and kind")
    if not isinstance(obj.get("metadata"), dict):
        raise wrong(f"{obj['kind']} without metadata")
    try:
        find(obj["apiVersion"], obj["kind"])
    except InputError as error:
        raise wrong(f"{obj['apiVersion']} {obj['kind']}: the lab has no objects of this kind", "leave it out") from error
    for key in ("name", "namespace"):
        if not isinstance(obj["metadata"].get(key, ""), str):
            raise wrong(f"{obj['kind']}: metadata.{key} is no text", "quote it")
    return obj


def apply(client: Client, objects: Iterable[Obj]) -> int:
    """Apply every object; how many. Raises what the API answers, as meshtls errors."""
    ordered = sorted(objects, key=lambda obj: obj["kind"] not in ("Namespace", "CustomResourceDefinition"))
    kinds = [find(obj["apiVersion"], obj["kind"]) for obj in ordered]
    for kind, obj in zip(kinds, ordered, strict=True):
        metadata = obj.get("metadata") or {}
        namespace = (metadata.get("namespace") or client.namespace) if kind.namespaced else None
        if metadata.get("name"):
            client.patch(obj["kind"], metadata["name"], namespace, obj, type="apply", field_manager="kubectl")
        else:
            client.create(obj, namespace)
    return len(ordered)


def unready(client: Client) -> list[str]:
    """Everything that is not yet as declared, each as one line."""
    out = []
    for kind in ("Deployment", "StatefulSet", "DaemonSet"):
        for obj in client.list(kind):
            status = obj.get("status") or {}
            want = status.get("desiredNumberScheduled", 0) if kind == "DaemonSet" else (obj.get("spec") or {}).get("replicas", 1)
            have = status.get("numberReady" if kind == "DaemonSet" else "readyReplicas", 0)
            if status.get("observedGeneration", 0) < obj["metadata"].get("generation", 0) or have < want:
                out.append(f"{kind} {_name(obj)}: {have} of {want} ready")
    for pod in client.list("Pod"):
        status = pod.get("status") or {}
        ready = any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions") or ())
        if not ready and status.get("phase") not in ("Succeeded", "Failed") and "deletionTimestamp" not in pod["metadata"]:
            out.append(f"pod {_name(pod)}: {_why(status)}")
    if any(node["metadata"].get("annotations", {}).get(PROXIES) == PENDING for node in client.list("Node")):
        out.append("proxies: not all have accepted the newest configuration")
    return out


def _name(obj: Obj) -> str:
    return f"{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"


def _why(status: Obj) -> str:
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        if waiting := container.get("state", {}).get("waiting"):
            return f"container {container['name']} waits: {waiting.get('reason', '')} {waiting.get('message', '')}".rstrip()
    unsaid = (one["message"] for one in status.get("conditions") or () if one["status"] == "False" and one.get("message"))
    return str(next(unsaid, status.get("phase", "not scheduled yet")))


def wait(client: Client, timeout_s: float) -> None:
    """Until everything declared is ready. Raises LabError naming what is not."""
    until = time.monotonic() + timeout_s
    while left := unready(client):
        if time.monotonic() > until:
            more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
            first = next((line for line in left if line.startswith("pod ")), left[0])
            raise LabError(f"not ready after {timeout_s:g} s: {first}{more}", "look at its events and logs with kubectl")
        time.sleep(_PAUSE_S)
