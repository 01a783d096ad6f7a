"""Small meshes, each for one rule of Istio that both the policy engine and the lab's translation must hold: laws.yaml, and its short form.

    pods:      {ns/name: {proxy, ready, ports: {name: number}, labels, annotations}}; its `app` is its name
    services:  {ns/name: {headless, ports: [{name, port, target}], selects: app or none, exports, endpoints: [{pod, ref, ready, ports: {name: number}}]}}
    objects:   [{kind, in, spec, name, labels, annotations, status, group}], the first the oldest
    calls:     {"client server port": [sends, verdict]}     modes: {"pod port": mode}
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]
DATA = Path(__file__).parent / "data"
LAWS: list[Json] = yaml.safe_load((DATA / "laws.yaml").read_text())
GROUPS = {
    "PeerAuthentication": "security.istio.io/v1",
    **dict.fromkeys(("HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute", "BackendTLSPolicy", "GatewayClass"), "gateway.networking.k8s.io/v1"),
}


def _meta(name: str, namespace: str, number: int, **more: Any) -> Json:
    created = f"2026-01-01T00:{number // 60:02}:{number % 60:02}Z"
    return {"name": name, "namespace": namespace, "creationTimestamp": created, "uid": f"{namespace}-{name}-{number}", **more}


def objects(law: Json) -> list[Json]:
    """The mesh of a law, as a cluster holds it."""
    return [{**o, "metadata": _meta(number=n, **o["metadata"])} for n, o in enumerate(_declared(law))]


def _declared(law: Json) -> Iterator[Json]:
    yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"}, "data": {"mesh": law.get("mesh", "{}")}}
    for name, labels in law.get("namespaces", {}).items():
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "namespace": "", "labels": labels}}
    pods = {full: _pod(full, number, body or {}) for number, (full, body) in enumerate(law["pods"].items(), 11)}
    yield from pods.values()
    for number, (full, body) in enumerate(law.get("services", {}).items(), 11):
        yield from _service(full, number, body, pods)
    for number, entry in enumerate(law.get("objects", ())):
        name = entry.get("name", f"{entry['kind'].lower()}-{number}")
        metadata = {"name": name, "namespace": entry["in"], "labels": entry.get("labels", {}), "annotations": entry.get("annotations", {})}
        group = entry.get("group") or GROUPS.get(entry["kind"], "networking.istio.io/v1")
        yield {"apiVersion": group, "kind": entry["kind"], "metadata": metadata, "spec": entry["spec"], "status": entry.get("status", {})}


def _pod(full: str, number: int, body: Json) -> Json:
    namespace, name = full.split("/")
    proxy = body.get("proxy", True)
    ports = [{"name": n, "containerPort": p, "protocol": "TCP"} for n, p in body.get("ports", {"http": 8080}).items()]
    containers = [{"name": "app", "ports": ports}, *([{"name": "istio-proxy", "args": ["proxy", "sidecar"]}] if proxy else [])]
    labels = {"app": name, **({"security.istio.io/tlsMode": "istio"} if proxy else {}), **body.get("labels", {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels, "annotations": body.get("annotations", {})},
        "spec": {"containers": containers, "serviceAccountName": name},
        "status": {
            "phase": "Running",
            "podIP": f"10.1.0.{number}",
            "podIPs": [{"ip": f"10.1.0.{number}"}],
            "conditions": [{"type": "Ready", "status": "True" if body.get("ready", True) else "False"}],
        },
    }


def _service(full: str, number: int, body: Json, pods: dict[str, Json]) -> Iterator[Json]:
    namespace, name = full.split("/")
    app = body.get("selects", name)
    address = "None" if body.get("headless") else f"10.96.0.{number}"
    ports = [{"name": p.get("name", ""), "port": p["port"], "targetPort": p.get("target", p["port"]), "protocol": "TCP"} for p in body["ports"]]
    spec: Json = {"clusterIP": address, "clusterIPs": [address], "type": "ClusterIP", "ports": ports}
    if app != "none":
        spec["selector"] = {"app": app}
    notes = {"networking.istio.io/exportTo": body["exports"]} if "exports" in body else {}
    yield {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace, "annotations": notes}, "spec": spec}
    chosen = [p for p, o in pods.items() if p.startswith(f"{namespace}/") and o["metadata"]["labels"]["app"] == app]
    numbers = {p["name"]: p["targetPort"] for p in ports if isinstance(p["targetPort"], int)}
    for index, entry in enumerate(body.get("endpoints", [{"pod": p} for p in chosen])):
        pod = pods[entry["pod"]]
        endpoint: Json = {"addresses": [pod["status"]["podIP"]], "conditions": {"ready": entry.get("ready", True), "terminating": False}}
        if entry.get("ref", True):
            endpoint["targetRef"] = {"kind": "Pod", "name": pod["metadata"]["name"], "namespace": pod["metadata"]["namespace"]}
        yield {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": f"{name}-{index}", "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "endpoints": [endpoint],
            "ports": [{"name": n, "port": p, "protocol": "TCP"} for n, p in entry.get("ports", numbers).items()],
        }
