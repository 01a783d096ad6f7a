"""What a node does to pods, as in life: probes from outside, ports past the proxy, policies of the network, images that cannot run."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from meshtls.cluster.client import Client
from meshtls.lab import Lab

pytestmark = pytest.mark.lab

SERVER = """
import http.server, os, signal
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""
CALLER = """
import http.client, json, os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
while True:
    said = {}
    for host in sys.argv[1:]:
        try:
            connection = http.client.HTTPConnection(host, 8080, timeout=1)
            connection.request("GET", "/")
            said[host] = connection.getresponse().status
            connection.close()
        except (OSError, http.client.HTTPException) as error:
            said[host] = type(error).__name__
    print(json.dumps(said), flush=True)
    time.sleep(0.05)
"""
STRICT = {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": "default", "namespace": "mesh"},
          "spec": {"mtls": {"mode": "STRICT"}}}  # fmt: skip
PROBE = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1, "timeoutSeconds": 1}


def namespace(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def pod(name: str, where: str, *command: str, annotations: dict[str, str] | None = None, **container: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": where, "labels": {"app": name}, "annotations": annotations or {}}
    app = {"name": "app", "image": "python:3", "command": list(command), **container}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [app], "terminationGracePeriodSeconds": 1}}


def service(name: str, where: str) -> dict[str, Any]:
    spec = {"selector": {"app": name}, "ports": [{"name": "http", "port": 8080}], "publishNotReadyAddresses": True}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": where}, "spec": spec}


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(manifests=[namespace("mesh", **{"istio-injection": "enabled"}), namespace("bare"), STRICT]) as lab:
        yield lab


def until(what: Callable[[], Any], limit_s: float = 30.0) -> Any:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if answer := what():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"nothing within {limit_s} s")


def said(client: Client, name: str = "caller") -> dict[str, Any]:
    lines = [line for line in client.logs("bare", name, "app", tail=5) if line.startswith("{")]
    return json.loads(lines[-1]) if lines else {}


def ready(client: Client, name: str) -> bool:
    conditions = client.get("Pod", name, "mesh").get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def test_a_probe_that_is_not_rewritten_fails_under_strict(lab: Lab) -> None:
    server = ("python3", "-u", "-c", SERVER)
    off = {"sidecar.istio.io/rewriteAppHTTPProbers": "false"}
    lab.apply(pod("rewritten", "mesh", *server, readinessProbe=PROBE),
              pod("raw", "mesh", *server, annotations=off, readinessProbe=PROBE))  # fmt: skip
    with lab.client() as client:
        until(lambda: ready(client, "rewritten"))
        unhealthy = until(lambda: [one["message"] for one in client.list("Event", "mesh")
                                   if one["reason"] == "Unhealthy" and one["involvedObject"]["name"] == "raw"])  # fmt: skip
        assert not ready(client, "raw")
    assert any("Readiness probe failed" in message for message in unhealthy)


def test_an_excluded_port_answers_plaintext_under_strict(lab: Lab) -> None:
    server = ("python3", "-u", "-c", SERVER)
    excluded = {"traffic.sidecar.istio.io/excludeInboundPorts": "8080"}
    lab.apply(service("open", "mesh"), service("shut", "mesh"), pod("open", "mesh", *server, annotations=excluded), pod("shut", "mesh", *server),
              pod("caller", "bare", "python3", "-u", "-c", CALLER, "open.mesh", "shut.mesh"))  # fmt: skip
    lab.wait()
    with lab.client() as client:
        answers = until(lambda: (last := said(client)).get("open.mesh") == 200 and last)
    assert answers["shut.mesh"] == "ConnectionResetError"


def test_a_network_policy_is_a_timeout_not_a_refusal(lab: Lab) -> None:
    server = ("python3", "-u", "-c", SERVER)
    deny = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "deny", "namespace": "bare"},
            "spec": {"podSelector": {"matchLabels": {"app": "walled"}}, "policyTypes": ["Ingress"]}}  # fmt: skip
    lab.apply(service("walled", "bare"), pod("walled", "bare", *server), pod("caller", "bare", "python3", "-u", "-c", CALLER, "walled.bare"))
    lab.wait()
    with lab.client() as client:
        until(lambda: said(client).get("walled.bare") == 200)
        lab.apply(deny)
        until(lambda: said(client).get("walled.bare") == "TimeoutError")


def test_an_image_that_cannot_run_here_says_so_in_status_and_events(lab: Lab) -> None:
    lab.apply(pod("strange", "bare", "postgres", image="postgres:16"))
    with lab.client() as client:
        statuses = until(lambda: client.get("Pod", "strange", "bare").get("status", {}).get("containerStatuses"))
        waiting = until(lambda: client.get("Pod", "strange", "bare")["status"]["containerStatuses"][0]["state"].get("waiting"))
        events = until(lambda: [one for one in client.list("Event", "bare") if one["involvedObject"]["name"] == "strange" and one["type"] == "Warning"])
    assert statuses and waiting["reason"] and "python" in (waiting.get("message", "") + events[0]["message"]).lower()
