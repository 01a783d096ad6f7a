"""Meshes for tests of the policy engine: recorded ones, and small ones written as objects."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from meshtls.model.kinds import BY_KIND
from meshtls.model.mesh import Mesh
from meshtls.policy.engine import Engine
from meshtls.sources.build import build
from meshtls.sources.document import parse

Json = dict[str, Any]
DATA = Path(__file__).parents[1] / "data" / "conformance"
GROUPS = {kind: group for group, kind in reversed(BY_KIND)}


def mesh(objects: list[Json], domain: str = "cluster.local") -> Mesh:
    """The objects as a Mesh; a missing apiVersion is filled in. `domain` completes short host names."""
    items = [{"apiVersion": f"{GROUPS[o['kind']]}/v1".lstrip("/"), **o} for o in objects]
    found = build(parse(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}).encode(), "test"))
    Engine.of(found, domain)
    return found


def recorded(name: str) -> Iterator[Json]:
    """The meshes of a recording, one by one."""
    with gzip.open(DATA / name) as lines:
        for line in lines:
            yield json.loads(line)


def workload(pod: str) -> str:
    """`ns/name-h1-0` of a recording -> its Deployment's ref."""
    namespace, name = pod.split("/")
    return f"Deployment/{namespace}/{name.removesuffix('-h1-0')}"


def pod(name: str, namespace: str = "shop", *, ip: str = "10.1.0.1", proxy: bool = True, ports: tuple[int, ...] = (8080,),
        labels: dict[str, str] | None = None, annotations: dict[str, str] | None = None, **spec: Any) -> Json:  # fmt: skip
    """A pod that runs; its workload is itself."""
    marks = {"app": name, **({"security.istio.io/tlsMode": "istio"} if proxy else {}), **(labels or {})}
    containers = [{"name": "app", "ports": [{"containerPort": p} for p in ports]}, *([{"name": "istio-proxy"}] if proxy else [])]
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": marks, "annotations": annotations or {}, "uid": name},
        "spec": {"containers": containers, **spec},
        "status": {"phase": "Running", "podIP": ip},
    }


def service(name: str, namespace: str = "shop", *, ip: str = "10.96.0.1", port: str = "http", number: int = 8080, **spec: Any) -> Json:
    """A Service with one port over the pods with the label `app` of its name."""
    return {
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": ip, "selector": {"app": name}, "ports": [{"name": port, "port": number, "targetPort": number}], **spec},
    }


def policy(namespace: str, mode: str = "", *, name: str = "default", app: str = "", ports: dict[int, str] | None = None, age: int = 0) -> Json:
    """A PeerAuthentication; greater `age` is older."""
    spec: Json = {}
    if app:
        spec["selector"] = {"matchLabels": {"app": app}}
    if mode:
        spec["mtls"] = {"mode": mode}
    if ports:
        spec["portLevelMtls"] = {str(p): {"mode": m} for p, m in ports.items()}
    created = f"2026-01-01T00:00:{30 - age:02}Z"
    return {"kind": "PeerAuthentication", "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created}, "spec": spec}


def rule(namespace: str, host: str, name: str = "rule", **spec: Any) -> Json:
    return {"kind": "DestinationRule", "metadata": {"name": name, "namespace": namespace}, "spec": {"host": host, **spec}}


def calls(found: Mesh, direct: bool = False) -> dict[tuple[str, str, int], tuple[str, str]]:
    """(client, server, port) -> (sends, verdict)."""
    from meshtls.policy.predict import groups

    return {(c, g.server, g.port): (g.sends, g.verdict) for g in groups(found, direct=direct) for c in g.clients}
