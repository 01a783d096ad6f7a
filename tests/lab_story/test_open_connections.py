"""Changes that in a real mesh reach a proxy without ending a connection do so on the lab."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import scene

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


# keeps a connection to 9000, makes another to 9001 again and again, and counts what came back on both
ECHO = """
import json, os, signal, socket, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

def echoed(sock, number):
    sock.sendall(b"%d\\n" % number)
    return sock.recv(100) == b"%d\\n" % number

with socket.create_connection(("server.mesh", 9000), 5) as kept:
    for number in range(1 << 30):
        with socket.create_connection(("server.mesh", 9001), 5) as fresh:
            if not echoed(kept, number) or not echoed(fresh, number):
                break
        print(json.dumps({"number": number}), flush=True)
        time.sleep(0.05)
print(json.dumps({"ended": True}), flush=True)
signal.pause()
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


def test_a_connection_outlives_the_certificates_that_it_was_made_with() -> None:
    ports = {"tcp-kept": 9000, "tcp-fresh": 9001}
    objects = [scene.MESHED, scene.policy("STRICT"), scene.service("server", "mesh", ports=ports), scene.pod("server", "mesh", scene.container(scene.HTTP_AND_LINES))]
    form = "%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_PEER_SERIAL%\n"
    with Lab(manifests=objects, mesh={"accessLogFormat": form}) as lab, lab.client() as client:

        def serials(port: int) -> list[str]:
            """Of the client's certificate, in the connections to a port that have ended."""
            found = (line.split() for line in client.logs("mesh", "server", "istio-proxy"))
            return [words[1] for words in found if len(words) == 2 and words[0].endswith(f":{port}")]

        lab.apply(scene.pod("client", "mesh", scene.container(ECHO)))
        old = scene.until(lambda: serials(9001))[0]
        for name in ("server", "client"):
            client.patch("Pod", name, "mesh", {"metadata": {"annotations": {"lab.meshtls.dev/rotate": "again"}}})
        scene.until(lambda: serials(9001)[-1] != old)
        before = scene.told(client, "mesh", "client")[-1]["number"]
        scene.until(lambda: scene.told(client, "mesh", "client")[-1].get("number", 0) > before + 20)
        assert not serials(9000), "the kept connection is open"
        client.delete("Pod", "client", "mesh")
        assert scene.until(lambda: serials(9000)) == [old]
