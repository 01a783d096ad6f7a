"""How fast the lab is, beside reference points of a bare prototype (two cores): `scripts/bench-lab [6 30 100]`.

A pod here is a real Python process and, but for two of the first six, a real Envoy; every pod has its Service and every proxy knows all.
Time runs from the first request to the API until the last pod is Ready. The switch: from the answer to the write of a PeerAuthentication
until a new plaintext connection is refused, seen from a pod beside, median of ten; the write itself is printed beside it. Where others
use the machine too, the processor seconds tell more than the time.
"""
import base64
import contextlib
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

from meshtls.cluster.client import Client
from meshtls.lab import Lab, state

REFERENCE_S = {6: 0.7, 30: 2.4, 100: 9.7}
SWITCH_S, ROUNDS = 0.012, 10
SERVER = """import http.server, os, signal
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version, wbufsize = "HTTP/1.1", -1
    def do_GET(self):
        self.send_response(200); self.send_header("content-length", "2"); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""
SWITCHER = """import json, os, socket, sys, time, urllib.request, ssl
token, api, target = open("/var/run/secrets/lab/token").read(), os.environ["API"], os.environ["TARGET"]
context = ssl.create_default_context(cafile="/var/run/secrets/lab/ca.crt")
def mode(to):
    body = json.dumps({"spec": {"mtls": {"mode": to}}}).encode()
    url = f"{api}/apis/security.istio.io/v1/namespaces/bench/peerauthentications/default"
    request = urllib.request.Request(url, body, {"Authorization": "Bearer " + token, "content-type": "application/merge-patch+json"}, method="PATCH")
    with opener.open(request) as answer: answer.read()
opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
def accepted():
    try:
        with socket.create_connection((target, 8080), 5) as s:
            s.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
            return bool(s.recv(100))
    except OSError: return False
for _ in range(int(os.environ["ROUNDS"])):
    mode("PERMISSIVE")
    while not accepted(): time.sleep(0.002)
    begun = time.monotonic(); mode("STRICT"); written = time.monotonic()
    while accepted(): pass
    print(json.dumps({"write": written - begun, "switch": time.monotonic() - written}), flush=True)
print("done", flush=True)
time.sleep(3600)
"""
Obj = dict[str, Any]


def _pod(name: str, injected: bool, program: str = "server.py", **more: Any) -> Obj:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "bench", "labels": {
        "app": name, "sidecar.istio.io/inject": str(injected).lower()}}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
            "name": "app", "image": "python:3.12", "command": ["python3", f"/programs/{program}"], **more,
            "ports": [{"containerPort": 8080}], "volumeMounts": [{"name": "programs", "mountPath": "/programs"}, *(
                [{"name": "api", "mountPath": "/var/run/secrets/lab"}] if program == "switch.py" else [])]}],
            "volumes": [{"name": "programs", "configMap": {"name": "programs"}}, *(
                [{"name": "api", "secret": {"secretName": "api"}}] if program == "switch.py" else [])]}}


def _service(name: str) -> Obj:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "bench"},
            "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 8080}]}}


def _prepare(client: Client) -> None:
    client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench", "labels": {"istio-injection": "enabled"}}})
    client.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "programs", "namespace": "bench"},
                   "data": {"server.py": SERVER, "switch.py": SWITCHER}})
    client.create({"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": "default", "namespace": "bench"},
                   "spec": {"mtls": {"mode": "PERMISSIVE"}}})


def pods_up(client: Client, count: int) -> float:
    """Seconds from the first create until all pods are Ready."""
    begun = time.monotonic()
    left = {f"p{number}" for number in range(count)}
    for name in sorted(left):
        client.create(_service(name))
    for number, name in enumerate(sorted(left)):
        client.create(_pod(name, injected=count > 6 or number >= 2))
    for _, pod in client.watch("Pod", "bench", timeout_s=120):
        if any(c["type"] == "Ready" and c["status"] == "True" for c in (pod.get("status") or {}).get("conditions") or []):
            left.discard(pod["metadata"]["name"])
            if not left:
                break
    if left:
        raise SystemExit(f"not ready after 120 s: {', '.join(sorted(left))}")
    return time.monotonic() - begun


def switch(lab: Lab, client: Client) -> tuple[float, float]:
    """Median seconds of a write that makes the namespace STRICT, and from its answer until that is enforced, seen from a pod beside."""
    config = yaml.safe_load(Path(lab.kubeconfig).read_text(encoding="utf-8"))
    client.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "api", "namespace": "bench"}, "data": {
        "ca.crt": config["clusters"][0]["cluster"]["certificate-authority-data"],
        "token": base64.b64encode(config["users"][0]["user"]["token"].encode()).decode()}})
    target = client.get("Pod", "p5", "bench")["status"]["podIP"]
    env = {"API": "https://kubernetes.default.svc", "TARGET": target, "ROUNDS": str(ROUNDS)}
    client.create(_pod("switcher", False, "switch.py", env=[{"name": key, "value": value} for key, value in env.items()]))
    until, lines = time.monotonic() + 60, []
    while "done" not in lines:
        if time.monotonic() > until:
            raise SystemExit(f"the switch was not seen: {lines[-3:]}")
        time.sleep(0.2)
        try:
            lines = list(client.logs("bench", "switcher", "app"))
        except Exception:
            continue
    rounds = [json.loads(line) for line in lines[:-1]]
    return statistics.median(one["write"] for one in rounds), statistics.median(one["switch"] for one in rounds)


def _processor_s(lab: Lab) -> dict[str, float]:
    """Processor seconds used by the lab's own process, its runner (the start of containers), the proxies and the containers, so far."""
    found = state.load(lab.name)
    assert found is not None
    out = dict.fromkeys(("lab", "runner", "proxies", "containers"), 0.0)
    process = psutil.Process(found.pid)
    out["lab"] = sum(process.cpu_times()[:2])
    for runner in process.children():
        out["runner"] += sum(runner.cpu_times()[:4])
        for child in runner.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                out["proxies" if child.name() == "envoy" else "containers"] += sum(child.cpu_times()[:2])
    return out


def _say(what: str, measured: float, reference: float) -> None:
    print(f"{what:28} {measured:8.3f} s   reference {reference:.3f} s   ratio {measured / reference:.2f}", flush=True)


def main(counts: list[int]) -> None:
    for count in counts:
        begun = time.monotonic()
        with Lab(f"bench-{count}") as lab, lab.client() as client:
            print(f"{'lab started':28} {time.monotonic() - begun:8.3f} s", flush=True)
            _prepare(client)
            used = _processor_s(lab)
            _say(f"{count} pods ready", pods_up(client, count), REFERENCE_S.get(count, count * 0.097))
            spent = {kind: seconds - used[kind] for kind, seconds in _processor_s(lab).items()}
            print(f"{'  of a processor':28} {sum(spent.values()):8.3f} s   " + ", ".join(f"{kind} {seconds:.2f}" for kind, seconds in spent.items())
                  + f"; load average {os.getloadavg()[0]:.1f}", flush=True)
            if count == 6:
                written, enforced = switch(lab, client)
                _say("mode switch enforced", enforced, SWITCH_S)
                print(f"{'  its write':28} {written:8.3f} s", flush=True)


if __name__ == "__main__":
    main([int(text) for text in sys.argv[1:]] or [6, 30, 100])
