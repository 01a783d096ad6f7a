"""What the agent beside the proxy takes over from the application: its probes, its lifecycle hooks and its metrics
(pkg/kube/inject app_probe.go, webhook.go applyPrometheusMerge).

They go to the agent's port, and the agent is told the real ones in two environment variables.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from meshtls.errors import InputError
from meshtls.lab.istio.objects import Obj
from meshtls.lab.istio.refusals import BOOLEANS, number

STATUS_PORT = 15020
KINDS = ("httpGet", "tcpSocket", "grpc")
PROBES = (("readinessProbe", "readyz"), ("livenessProbe", "livez"), ("startupProbe", "startupz"))
HOOKS = (("preStop", "prestopz"), ("postStart", "poststartz"))
RESERVED = frozenset({15000, 15001, 15004, 15006, 15008, 15020, 15021, 15053, 15090})


def compact(value: Any) -> str:
    """JSON as Go writes it."""
    return json.dumps(value, separators=(",", ":"))


def _handlers(container: Obj) -> Iterator[tuple[Obj, str, str]]:
    """(probe or hook, its kind, the agent's path for it)."""
    name, hooks = container["name"], container.get("lifecycle") or {}
    found = [(container.get(field), f"/app-health/{name}/{path}") for field, path in PROBES]
    found += [(hooks.get(field), f"/app-lifecycle/{name}/{path}") for field, path in HOOKS]
    for handler, path in found:
        kind = next((k for k in KINDS if k in (handler or {})), None)
        if handler is not None and kind:
            yield handler, kind, path


def taken_over(containers: list[Obj], port: int) -> dict[str, str]:
    """Points the probes at the agent, in place; gives the variable that tells it the real ones by its paths, with
    numbers for named ports (DumpAppProbers, patchRewriteProbe)."""
    out: Obj = {}
    for container in containers:
        numbers: dict[Any, int] = {p.get("name"): p["containerPort"] for p in container.get("ports") or []}
        for handler, kind, path in _handlers(container):
            action = handler.pop(kind)
            real = numbers.get(action["port"], action["port"])
            if isinstance(real, int) and (kind == "grpc" or action["port"] != STATUS_PORT):
                limit = {"timeoutSeconds": handler["timeoutSeconds"]} if handler.get("timeoutSeconds") else {}
                out[path] = {kind: {**action, "port": real}, **limit}
            handler["httpGet"] = {**(action if kind == "httpGet" else {}), "path": path, "port": port}
            if handler["httpGet"].get("scheme") == "HTTPS":
                handler["httpGet"]["scheme"] = "HTTP"
    return {"ISTIO_KUBE_APP_PROBERS": compact(out)} if out else {}


def scraped(notes: dict[str, str], by_mesh: bool) -> dict[str, str]:
    """Points scraping at the agent, in the annotations; gives the variable that tells it the real target. Raises
    InputError for a target that cannot be scraped."""
    names = {key: re.sub("[^a-zA-Z0-9_]", "_", key) for key in notes}
    given = {field: [k for k, n in names.items() if n == f"prometheus_io_{field}"] for field in ("scrape", "path", "port")}
    real = {field: notes[keys[-1]] if keys else "" for field, keys in given.items()}
    merges = BOOLEANS.get(notes.get("prometheus.istio.io/merge-metrics", ""), by_mesh)
    if not merges or not BOOLEANS.get(real["scrape"], True) or real["port"] == str(STATUS_PORT):
        return {}
    if real["port"]:
        wrong = "failed to process pod: invalid prometheus scrape configuration: "
        if not number(1 << 16, real["port"]) or int(real["port"]) == 0:
            raise InputError(f"{wrong}invalid port \"{real['port']}\"")
        if int(real["port"]) in RESERVED:
            raise InputError(f"{wrong}port {real['port']} is reserved for Istio and cannot be scraped")
    for key in [k for keys in given.values() for k in keys]:
        del notes[key]
    notes |= {"prometheus.io/port": str(STATUS_PORT), "prometheus.io/path": "/stats/prometheus", "prometheus.io/scrape": "true"}
    return {"ISTIO_PROMETHEUS_ANNOTATIONS": compact(real)} if any(real.values()) else {}
