"""Turns the short form of named_cases.yaml into the objects of a mesh."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]
CASES: dict[str, list[Json]] = yaml.safe_load((Path(__file__).parent / "named_cases.yaml").read_text())
ROOT = "istio-system"
# name -> (port of the service, port of the pod)
PORTS = {"http": (80, 18080), "http2": (85, 18085), "https": (443, 18443), "tcp": (9090, 19090), "grpc": (7070, 17070)}
CLASSES = ("a", "b", "tproxy", "headless", "statefulset", "naked")


def at_rest(bootstrap: Json, listeners: list[Json], clusters: list[Json]) -> Json:
    """A bootstrap that holds its resources instead of asking for them."""
    static = bootstrap["static_resources"] | {"listeners": listeners}
    static["clusters"] = [*static["clusters"], *clusters]
    return {k: v for k, v in bootstrap.items() if k != "dynamic_resources"} | {"static_resources": static}


def policies(entries: list[Json]) -> Iterator[Json]:
    """PeerAuthentications from the short form; the first of two equally old ones is the older."""
    for number, entry in enumerate(entries):
        spec: Json = {}
        if "select" in entry:
            spec["selector"] = {"matchLabels": entry["select"]}
        if entry.get("mode"):
            spec["mtls"] = {"mode": entry["mode"]}
        if entry.get("ports"):
            spec["portLevelMtls"] = {str(p): {"mode": m} if m else {} for p, m in entry["ports"].items()}
        created = f"2026-01-01T00:00:{30 - 10 * entry.get('age', 0):02}Z"
        yield {
            "kind": "PeerAuthentication",
            "spec": spec,
            "metadata": {
                "name": f"p{number}",
                "namespace": ROOT if entry["in"] == "root" else entry["in"],
                "creationTimestamp": created,
            },
        }


def pod(namespace: str, name: str, number: int, app: str = "", proxy: bool = True, **labels: str) -> Json:
    marks = {"app": app or name, **labels, **({"security.istio.io/tlsMode": "istio"} if proxy else {})}
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": marks},
        "spec": {
            "serviceAccountName": app or name,
            "containers": [{"name": "app"}, *([{"name": "istio-proxy"}] if proxy else [])],
        },
        "status": {"podIP": f"10.1.0.{number}"},
    }


def service(
    namespace: str, name: str, ports: dict[str, tuple[int, int]], pods: list[Json], address: str
) -> Iterator[Json]:
    """A Service and its endpoints. Without an address clients call the pods, so its ports are the pods' (as in
    Istio's tests)."""
    if address == "None":
        ports = {n: (t, t) for n, (_, t) in ports.items()}
    yield {
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "clusterIP": address,
            "selector": {"app": name},
            "ports": [{"name": n, "port": p, "targetPort": t, "protocol": "TCP"} for n, (p, t) in ports.items()],
        },
    }
    yield {
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
        "ports": [{"name": n, "port": t} for n, (_, t) in ports.items()],
        "endpoints": [
            {
                "addresses": [p["status"]["podIP"]],
                "targetRef": {"kind": "Pod", "name": p["metadata"]["name"], "namespace": namespace},
            }
            for p in pods
        ],
    }


def inbound(case: Json) -> Iterator[Json]:
    """A pod `foo` under the case's policy, with its Service and Sidecar."""
    server = pod("my", "foo", 1)
    yield server
    yield from policies([{"in": "my", "select": {"app": "foo"}, "mode": case["mode"], "ports": case.get("ports")}])
    if "service" in case:
        yield from service("my", "foo", {n: (p, p) for n, p in case["service"].items()}, [server], "10.96.0.1")
    if "ingress" in case:
        ingress = [
            {"port": {"number": n, "protocol": "TCP", "name": f"p{n}"}, "defaultEndpoint": f"127.0.0.1:{n}"}
            for n in case["ingress"]
        ]
        yield {
            "kind": "Sidecar",
            "metadata": {"name": "s", "namespace": "my"},
            "spec": {
                "workloadSelector": {"labels": {"app": "foo"}},
                "ingress": ingress,
                "egress": [{"hosts": ["*/*"]}],
            },
        }


def injectors(case: Json) -> Iterator[Json]:
    """The webhooks of the case's installations, and their injectors' settings."""

    def rule(key: str, operator: str, *values: str) -> Json:
        return {"key": key, "operator": operator, **({"values": list(values)} if values else {})}

    inject, rev, old = "sidecar.istio.io/inject", "istio.io/rev", "istio-injection"
    silent, willing = [rule(rev, "DoesNotExist"), rule(old, "DoesNotExist")], rule(inject, "NotIn", "false")
    for entry in case["installed"]:
        own = entry.get("rev", "default")
        for name in [own, *entry.get("tags", ())]:
            selectors = [
                ("rev.namespace.", [rule(rev, "In", name), rule(old, "DoesNotExist")], [willing]),
                ("rev.object.", silent, [willing, rule(rev, "In", name)]),
            ]
            if name == "default":
                selectors.append(("namespace.", [rule(old, "In", "enabled")], [willing]))
                selectors.append(("object.", silent, [rule(inject, "In", "true"), rule(rev, "DoesNotExist")]))
            yield {
                "kind": "MutatingWebhookConfiguration",
                "metadata": {"name": f"{own}-{name}", "labels": {rev: own}},
                "webhooks": [
                    {
                        "name": f"{prefix}sidecar-injector.istio.io",
                        "namespaceSelector": {"matchExpressions": home},
                        "objectSelector": {"matchExpressions": pod},
                    }
                    for prefix, home, pod in selectors
                ],
            }
        settings = {
            "policy": entry.get("policy", "enabled"),
            "neverInjectSelector": [{"matchLabels": entry["never"]}] if "never" in entry else [],
            "alwaysInjectSelector": [{"matchLabels": entry["always"]}] if "always" in entry else [],
        }
        suffix = "" if own == "default" else f"-{own}"
        yield {
            "kind": "ConfigMap",
            "metadata": {"name": f"istio-sidecar-injector{suffix}", "namespace": ROOT},
            "data": {"config": yaml.safe_dump(settings), "values": "{}"},
        }


def reachability(case: Json) -> Iterator[Json]:
    """The workload classes in `echo`, each behind its service, under the case's policies and rules."""
    for number, name in enumerate(CLASSES, 1):
        member = pod("echo", name, number, proxy=name != "naked")
        if name == "tproxy":
            member["metadata"]["annotations"] = {"sidecar.istio.io/interceptionMode": "TPROXY"}
        yield member
        address = "None" if name in ("headless", "statefulset") else f"10.96.0.{number}"
        yield from service("echo", name, PORTS, [member], address)
    subsets = [
        pod("echo", f"migration-{v}", 20 + i, "migration", v == "vistio", version=v)
        for i, v in enumerate(("vistio", "vlegacy"))
    ]
    yield from subsets
    yield from service("echo", "migration", PORTS, subsets, "10.96.0.20")
    yield from _policies(case)
    yield from _rules(case)


def _policies(case: Json) -> Iterator[Json]:
    if "global" in case:
        yield from policies([{"in": "echo" if "migration" in case else "root", "mode": case["global"]}])
    if "each" in case:
        ports = {t: case["override"] for _, t in PORTS.values()} if "override" in case else None
        yield from policies(
            [{"in": "echo", "select": {"app": n}, "mode": case["each"], "ports": ports} for n in CLASSES]
        )


def _rule(name: str, namespace: str, host: str, **spec: Any) -> Json:
    return {
        "kind": "DestinationRule",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"host": host, **spec},
    }


def _rules(case: Json) -> Iterator[Json]:
    tls = {"tls": {"mode": case["tls"]}} if "tls" in case else {}
    if tls and "each" in case:
        for name in CLASSES:
            yield _rule(name, "echo", f"{name}.echo.svc.cluster.local", trafficPolicy=tls)
    elif tls or case.get("passthrough"):
        yield _rule("default", ROOT, "*", trafficPolicy=tls or {"loadBalancer": {"simple": "PASSTHROUGH"}})
        yield _rule(
            "eastwest-opt-out", ROOT, "*", exportTo=["."], trafficPolicy={"loadBalancer": {"simple": "UNSPECIFIED"}}
        )
    if "migration" in case:
        host, mode = "migration.echo.svc.cluster.local", case["migration"]
        policy = {"trafficPolicy": {"tls": {"mode": mode}}} if mode else {}
        subsets = [{"name": v, "labels": {"version": v}, **policy} for v in ("vistio", "vlegacy")]
        yield _rule("migration", "echo", host, subsets=subsets, **policy)
        routes = [
            {"match": [{"uri": {"prefix": "/vistio"}}], "route": [{"destination": {"host": host, "subset": "vistio"}}]},
            {"route": [{"destination": {"host": host, "subset": "vlegacy"}}]},
        ]
        yield {
            "kind": "VirtualService",
            "metadata": {"name": "migration", "namespace": "echo"},
            "spec": {"hosts": [host], "http": routes},
        }


def holds(condition: str, client: str, server: str) -> bool:
    """Whether a condition of the cases is true of a call; `server` is a class, or a path of migration."""
    return {
        "always": True,
        "never": False,
        "not naked": "naked" not in (client, server),
        "not to naked": server != "naked",
        "not from naked": client != "naked",
        "to vistio": server == "vistio",
        "to vlegacy": server == "vlegacy",
    }[condition]
