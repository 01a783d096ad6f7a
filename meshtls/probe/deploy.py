"""The manifests of a run: echo pods with their Services, agent pods with their cases.  Pure: dicts out.

A probe pod meets Pod Security `restricted`, mounts no token, never runs as uid or gid 1337 (Istio lets that one past the
sidecar), says whether it is injected by label, ends by itself (activeDeadlineSeconds), and has no label that a Service of
the cluster could select (`captured_by` tells).  Its code and its whole plan come by ConfigMap before it starts, because a
changed ConfigMap takes over a minute to arrive.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from meshtls.model.mesh import Mesh
from meshtls.probe.case import ISTIO_ALPN, PORT_NAMES, Case, Client, Handshake, Port, Server
from meshtls.probe.fingerprint import SILENT, WITH_ALPN

IMAGE = "docker.io/library/python:3.12-alpine"
USER = 65532  # "nonroot" by custom; never 1337
ROLE = "meshtls.dev/role"
CODE, CASES = "/meshtls/code", "/meshtls/cases"
CASES_EACH = 4000  # keeps a ConfigMap under 1 MiB and an agent's output under 5 MiB


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How probe pods are made. `run` is part of every name. `agent_s`: an agent stops after this; `deadline_s`:
    after this Kubernetes ends the pods itself; `timeout_s`: of one connection."""

    run: str
    image: str = IMAGE
    pull_secrets: tuple[str, ...] = ()
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, str], ...] = ()
    revision: str = ""
    user: int | None = USER
    deadline_s: int = 600
    agent_s: float = 240.0
    timeout_s: float = 5.0
    concurrency: int = 32


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where an echo server is. `name` is the pod's, which it also answers with."""

    pod_ip: str
    name: str


def name(settings: Settings, short: str, shard: int = 0) -> str:
    """The name of a thing of this run."""
    return f"meshtls-{settings.run}-{short}" + (f"-{shard}" if shard else "")


def code(settings: Settings, namespace: str, agent: str, echo: str) -> dict[str, Any]:
    """The ConfigMap that carries the two programs."""
    return _object("v1", "ConfigMap", name(settings, "code"), namespace) | {
        "data": {"agent.py": agent, "echo.py": echo}
    }


def echo_pod(settings: Settings, server: Server, ports: Sequence[Port]) -> dict[str, Any]:
    """An echo server's pod."""
    own = name(settings, server.short)
    kinds = {"http-echo": "--http", "tcp-echo": "--tcp", "tcp-banner": "--banner"}
    command = ["python3", f"{CODE}/echo.py", "--name", own]
    for port in ports:
        command += [kinds[PORT_NAMES[port]], str(port.number)]
    declared = [{"name": PORT_NAMES[port], "containerPort": port.number, "protocol": "TCP"} for port in ports]
    return _pod(
        settings,
        own,
        server.namespace,
        server.short,
        server.meshed,
        command,
        declared,
        {"code": name(settings, "code")},
    )


def echo_service(settings: Settings, server: Server, ports: Sequence[Port]) -> dict[str, Any]:
    """The Service of one echo server; its port names tell the mesh the protocols."""
    service = _object("v1", "Service", name(settings, server.short), server.namespace)
    service["spec"] = {
        "selector": {"meshtls.dev/run": settings.run, ROLE: server.short},
        "ports": [
            {"name": PORT_NAMES[port], "port": port.number, "targetPort": port.number, "protocol": "TCP"}
            for port in ports
        ],
    }
    return service


def host(settings: Settings, server: Server) -> str:
    """The Service's name, as a client in any namespace writes it."""
    return f"{name(settings, server.short)}.{server.namespace}.svc.cluster.local"


def agent_objects(
    settings: Settings, client: Client, shard: int, document: Mapping[str, Any], certs: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ConfigMap with an agent's cases and test certificates (PEM by name), and its pod."""
    own = name(settings, client.short, shard)
    data = {"cases.json": json.dumps(document, separators=(",", ":"))}
    used = {case["cert"] for case in document["cases"] if case.get("cert")}
    data |= {f"{cert}.pem": pem for cert, pem in certs.items() if f"{cert}.pem" in used}
    cases = _object("v1", "ConfigMap", own, client.namespace) | {"data": data}
    command = ["python3", f"{CODE}/agent.py", f"{CASES}/cases.json"]
    pod = _pod(
        settings,
        own,
        client.namespace,
        client.short,
        client.meshed,
        command,
        [],
        {"code": name(settings, "code"), "cases": own},
    )
    return cases, pod


def documents(
    settings: Settings,
    client: Client,
    cases: Sequence[Case],
    handshakes: Sequence[Handshake],
    addresses: Mapping[Server, Address],
) -> Iterator[dict[str, Any]]:
    """What the agents of `client` read: one document for at most CASES_EACH questions. Servers without address are left out."""
    lines = [_case(settings, case, addresses[case.server]) for case in cases if case.server in addresses]
    lines += [_handshake(shake) for shake in handshakes]
    warm = {case.server for case in cases if case.offer.by_service and case.server in addresses}
    warm_up = [
        {"host": host(settings, server), "port": 8080, "proof": "xfcc" if server.meshed else "wire"}
        for server in sorted(warm, key=lambda s: s.title)
    ]
    for first in range(0, len(lines), CASES_EACH):
        yield {
            "schema": "meshtls.dev/probe-cases/v1",
            "agent": client.title,
            "timeout_s": settings.timeout_s,
            "concurrency": settings.concurrency,
            "deadline_s": settings.agent_s,
            "warm_up": warm_up,
            "cases": lines[first : first + CASES_EACH],
        }


def _case(settings: Settings, case: Case, address: Address) -> dict[str, Any]:
    """A case in the agent's words. `proof`: what will show how the bytes travelled (see the agent's `judge`)."""
    offer = case.offer
    line: dict[str, Any] = {"id": case.id, "do": offer.do, "port": case.port.number, "echo": address.name}
    line["host"] = host(settings, case.server) if offer.by_service else address.pod_ip
    if offer.do != "silence":
        line["protocol"] = case.port.protocol
    if offer.alpn:
        line["alpn"] = list(offer.alpn)
    if offer.cert:
        line["cert"] = f"{offer.cert}.pem"
    if case.client.meshed:
        line["sidecar"] = True
    through_two = offer.by_service and case.server.meshed
    line["proof"] = "wire" if not through_two else "xfcc" if case.port.protocol == "http" else ""
    return line


def _handshake(shake: Handshake) -> dict[str, Any]:
    line: dict[str, Any] = {"id": shake.id, "do": "tls", "host": shake.target.address, "port": shake.target.port.number}
    if shake.kind == SILENT:
        line["do"] = "silence"
    elif shake.kind == WITH_ALPN:
        line["alpn"] = list(ISTIO_ALPN)
    return line


def captured_by(mesh: Mesh, labels: Mapping[str, str], namespace: str) -> str:
    """The Service (not ours) that would send traffic to a pod with `labels`, or ""."""
    for service in mesh.services_in.get(namespace, ()):
        selector = service.spec.selector
        if selector and all(labels.get(key) == value for key, value in selector.items()):
            return service.ref
    return ""


def _object(version: str, kind: str, name_: str, namespace: str) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name_, "namespace": namespace, "labels": {}}}


def _pod(
    settings: Settings,
    own: str,
    namespace: str,
    role: str,
    meshed: bool,
    command: list[str],
    ports: list[dict[str, Any]],
    volumes: Mapping[str, str],
) -> dict[str, Any]:
    pod = _object("v1", "Pod", own, namespace)
    pod["metadata"]["labels"] = {
        ROLE: role,
        "meshtls.dev/run": settings.run,
        "sidecar.istio.io/inject": "true" if meshed else "false",
    }
    if meshed:
        # small requests, so that a quota or a LimitRange made for the applications does not refuse the probe
        pod["metadata"]["annotations"] = {
            "proxy.istio.io/config": '{"holdApplicationUntilProxyStarts": true}',
            "sidecar.istio.io/proxyCPU": "10m",
            "sidecar.istio.io/proxyMemory": "64Mi",
            "sidecar.istio.io/proxyCPULimit": "500m",
            "sidecar.istio.io/proxyMemoryLimit": "256Mi",
        }
        if settings.revision:
            pod["metadata"]["labels"]["istio.io/rev"] = settings.revision
    else:
        pod["metadata"]["labels"]["istio.io/dataplane-mode"] = "none"
    container = {
        "name": "probe",
        "image": settings.image,
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "env": [{"name": "PYTHONDONTWRITEBYTECODE", "value": "1"}, {"name": "PYTHONUNBUFFERED", "value": "1"}],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "500m", "memory": "128Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": volume, "mountPath": f"/meshtls/{volume}", "readOnly": True} for volume in volumes],
    }
    if ports:
        container["ports"] = ports
    security: dict[str, Any] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if settings.user is not None:
        security |= {"runAsUser": settings.user, "runAsGroup": settings.user}
    pod["spec"] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 2,
        "activeDeadlineSeconds": settings.deadline_s,
        "securityContext": security,
        "containers": [container],
        "volumes": [{"name": volume, "configMap": {"name": source}} for volume, source in volumes.items()],
    }
    if settings.pull_secrets:
        pod["spec"]["imagePullSecrets"] = [{"name": secret} for secret in settings.pull_secrets]
    if settings.node_selector:
        pod["spec"]["nodeSelector"] = dict(settings.node_selector)
    if settings.tolerations:
        pod["spec"]["tolerations"] = [dict(toleration) for toleration in settings.tolerations]
    return pod
