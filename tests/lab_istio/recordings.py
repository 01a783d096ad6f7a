"""Istiod's recorded answers, and how the lab's configuration is asked the same questions.

`istiod*.jsonl.gz` in tests/data/conformance holds one mesh a line (objects, then answers `now` and after namespace a
went STRICT). By default every fourth mesh is asked; MESHTLS_CONFORMANCE=all asks all. Files of the same form beside
it, or in the directory named by MESHTLS_CONFORMANCE_DIR, are taken too.
"""

from __future__ import annotations

import copy
import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import simulate

from meshtls.lab.istio.objects import HTTP, age, pod_ip
from meshtls.lab.istio.world import World

Json = dict[str, Any]
DATA = Path(__file__).parents[1] / "data" / "conformance"
UNDECLARED = 7999  # a port that no recorded object names


def files(pattern: str) -> list[Path]:
    """The recordings that fit the pattern."""
    places = [DATA, *(Path(p) for p in os.environ.get("MESHTLS_CONFORMANCE_DIR", "").split(":") if p)]
    return sorted(path for place in places for path in place.glob(pattern))


def meshes(path: Path) -> Iterator[Json]:
    """The recorded meshes, all or every fourth."""
    step = 1 if os.environ.get("MESHTLS_CONFORMANCE") == "all" else 4
    with gzip.open(path) as lines:
        for number, line in enumerate(lines):
            if number % step == 0:
                yield json.loads(line)


def variant(mesh: Json, name: str) -> World:
    """The mesh as recorded, or with the policy that wins in namespace a patched to STRICT (created if there is
    none)."""
    objects = mesh["objects"]
    if name == "a-strict":
        objects = copy.deepcopy(objects)
        own = [o for o in objects if o["kind"] == "PeerAuthentication" and o["metadata"]["namespace"] == "a"]
        wide = sorted((o for o in own if not (o["spec"].get("selector") or {}).get("matchLabels")), key=age)
        if wide:
            wide[0]["spec"]["mtls"] = {"mode": "STRICT"}
        else:
            metadata = {"name": "default", "namespace": "a", "creationTimestamp": "2026-12-31T00:00:00Z"}
            objects.append({"kind": "PeerAuthentication", "metadata": metadata, "spec": {"mtls": {"mode": "STRICT"}}})
    return World.of(objects, config_domain="")


def modes(mesh: simulate.Mesh, pod: str, ports: Json) -> Json:
    """What the pod's proxy enforces on the asked ports; `*` is a port that nothing declares."""
    return {p: simulate.mode(mesh.proxy(pod), UNDECLARED if p == "*" else int(p)) for p in ports}


def call(mesh: simulate.Mesh, question: str) -> list[tuple[str, int, str, str, str]]:
    """Answers "client Service/ns/name port" or "client Pod/ns/name port": (pod, port, sends, verdict, cluster) per
    endpoint.

    A port that is not declared as HTTP is called with bytes that are not HTTP; so is 9000 of a pod's address."""
    client, server, number = question.split()
    kind, namespace, name = server.split("/")
    port, proxy, world = int(number), mesh.proxy(client), mesh.world
    behind: list[tuple[str, int]] = []
    if kind == "Service":
        service = world.by_hostname[f"{name}.{namespace}.svc.cluster.local"][namespace]
        declared = service.port(port)
        assert declared
        protocol, host = "http" if declared.protocol in HTTP else "tcp", service.hostname
        behind = [(e.address, e.port) for e in world.endpoints(service, port)]
        headless = service.resolution == "PASSTHROUGH"
        called = [(a, port) for a, _ in behind] if headless else [(service.addresses[0], port)]
        if not proxy.present and not headless:
            called = behind
    else:
        host = pod_ip(mesh.pods[f"{namespace}/{name}"])
        protocol, called = "tcp" if port == 9000 else "http", [(host, port)]
    out = []
    for address, target in called:
        for hop in simulate.outbound(proxy, simulate.Connection(address, target, protocol, host=host)):
            for ip, number_there in [(hop.address, hop.port)] if hop.address in mesh.by_ip else behind:
                pod = mesh.by_ip[ip]
                if pod != client:
                    reached = simulate.Hop(ip, number_there, hop.sends, hop.cluster, hop.alpn, hop.sni, hop.protocol)
                    out.append((pod, number_there, hop.sends, simulate.served(mesh.proxy(pod), reached), hop.cluster))
    return out


def comparable(answers: list[Any]) -> list[tuple[Any, ...]]:
    """Sorted; why nothing left the client is worded differently, so only that counts."""
    return sorted((*a[:4], "-" if a[2] == "none" else a[4]) for a in answers)
