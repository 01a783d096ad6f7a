"""Changes that in a real mesh reach a proxy without ending a connection do so on the lab."""

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
    protocol_version, wbufsize = "HTTP/1.1", -1
    def do_GET(self):
        body = os.environ["HOSTNAME"].encode()
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""
# asks for ever on one connection, and says when an answer is unlike the one before
HOLDER = """
import http.client, json, os, signal, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
connection, last = http.client.HTTPConnection("server.mesh", 8080, timeout=5), None
while True:
    try:
        connection.request("GET", "/", headers={"host": "server.mesh"})
        answer = connection.getresponse()
        said = {"status": answer.status, "from": answer.read().decode(), "mark": answer.headers.get("mark"),
                "closes": answer.headers.get("connection") == "close", "socket": connection.sock.getsockname()[1] if connection.sock else 0}
    except (OSError, http.client.HTTPException) as error:
        said = {"status": 0, "error": repr(error)}
    if said != last:
        print(json.dumps(said), flush=True)
    last = said
    time.sleep(0.005)
"""


def pod(name: str, app: str, program: str) -> dict[str, Any]:
    container = {"name": "app", "image": "python:3", "command": ["python3", "-u", "-c", program]}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 1}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "mesh", "labels": {"app": app}}, "spec": spec}


def service(name: str) -> dict[str, Any]:
    spec = {"selector": {"app": name}, "ports": [{"name": "http", "port": 8080}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "mesh"}, "spec": spec}


def marked(value: str) -> dict[str, Any]:
    route = {"route": [{"destination": {"host": "server"}}], "headers": {"response": {"set": {"mark": value}}}}
    spec = {"hosts": ["server"], "http": [route]}
    return {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "v", "namespace": "mesh"}, "spec": spec}


@pytest.fixture
def lab() -> Iterator[Lab]:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "mesh", "labels": {"istio-injection": "enabled"}}}
    with Lab(manifests=[namespace, service("server"), pod("server", "server", SERVER)]) as lab:
        lab.wait()
        lab.apply(pod("holder", "holder", HOLDER))
        lab.wait()
        yield lab


def lines(client: Client) -> list[dict[str, Any]]:
    return [json.loads(line) for line in client.logs("mesh", "holder", "app")]


def until(what: Callable[[], Any], client: Client, limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < deadline, json.dumps(lines(client)[-6:])
        time.sleep(0.02)


def test_routes_services_and_endpoints_change_under_an_open_connection(lab: Lab) -> None:
    with lab.client() as client:

        def said(**wanted: Any) -> bool:
            return any(wanted.items() <= line.items() for line in lines(client))

        until(lambda: said(status=200, **{"from": "server"}), client)
        lab.apply(marked("one"))
        until(lambda: said(mark="one"), client)
        lab.apply(service("other"), pod("other", "other", SERVER), marked("two"))
        lab.wait()
        until(lambda: said(mark="two"), client)
        lab.apply(pod("second", "server", SERVER))
        until(lambda: said(**{"from": "second"}), client)
        client.delete("Pod", "server", "mesh")
        until(lambda: lines(client)[-1].get("from") == "second", client)
        lab.apply(marked("three"))
        until(lambda: said(mark="three"), client)

        good = [line for line in lines(client) if line["status"] == 200]
        assert len({line["socket"] for line in good}) == 1, good
        assert not any(line["closes"] for line in good)
