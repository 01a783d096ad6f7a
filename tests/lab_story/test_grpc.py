"""A gRPC port, from a client's program to the server's by way of both proxies: HTTP/2 all along, counted as gRPC, refused in plaintext."""

from collections.abc import Iterator

import pytest
import scene
from scene import container, pod, policy, service, told, until

from meshtls.lab import Lab

pytestmark = pytest.mark.lab
# asks gRPC's health service again and again, by hand: headers that HPACK leaves as they are, an empty question, the answer's bytes
CALLER = """
import http.client, json, os, signal, socket, sys, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

def frame(kind, flags, stream, body=b""):
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body

def text(value):
    return bytes([len(value)]) + value

HEADERS = (b"\\x83\\x86\\x04" + text(b"/grpc.health.v1.Health/Check") + b"\\x01" + text(b"server.mesh") + b"\\x0f\\x10" + text(b"application/grpc")
           + b"\\x00" + text(b"te") + text(b"trailers"))

def ask():
    try:
        with socket.create_connection(("server.mesh", 8080), 5) as s:
            s.settimeout(5)
            s.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + frame(4, 0, 0) + frame(1, 4, 1, HEADERS) + frame(0, 1, 1, bytes(5)))
            data = b""
            while b"\\0\\0\\0\\0\\x02\\x08\\x01" not in data:
                more = s.recv(65536)
                if not more:
                    return "closed"
                data += more
            return "serving"
    except OSError as error:
        return type(error).__name__

def page(port):
    try:
        connection = http.client.HTTPConnection(sys.argv[1], port, timeout=5)
        connection.request("GET", "/stats/prometheus")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        return [line for line in lines if line.startswith("istio_requests_total{")]
    except OSError:
        return []

while True:
    print(json.dumps({"said": ask(), "pages": [page(port) for port in (15020, 15090)] if sys.argv[1:] else []}), flush=True)
    time.sleep(0.1)
"""
WANTED = ('reporter="destination"', 'request_protocol="grpc"', 'grpc_response_status="0"', 'response_code="200"', 'source_workload="meshed"',
          'destination_service="server.mesh.svc.cluster.local"', 'connection_security_policy="mutual_tls"')  # fmt: skip


@pytest.fixture
def lab() -> Iterator[Lab]:
    objects = [scene.MESHED, scene.BARE, policy("STRICT"), service("server", "mesh", ports={"grpc": 8080}), pod("server", "mesh", container(scene.HEALTH, "1"))]
    with Lab(manifests=objects, mesh={"accessLogFile": "/dev/stdout"}) as lab:
        yield lab


def test_a_grpc_call_is_http_2_over_mtls_and_counted_alike_on_both_ports(lab: Lab) -> None:
    with lab.client() as client:
        address = client.get("Pod", "server", "mesh")["status"]["podIP"]
        lab.apply(pod("meshed", "mesh", container(CALLER)), pod("bare", "bare", container(CALLER, address)))
        until(lambda: any(line["said"] == "serving" for line in told(client, "mesh", "meshed")))

        def pages() -> list[list[str]]:
            found = told(client, "bare", "bare", tail=2)
            return found[-1]["pages"] if found else [[], []]

        until(lambda: all(any(all(label in line for label in WANTED) for line in page) for page in pages()))
        assert {line["said"] for line in told(client, "bare", "bare")} == {"ConnectionResetError"}
        logged = until(lambda: [line for line in client.logs("mesh", "server", "istio-proxy") if '"POST /grpc.health.v1.Health/Check HTTP/2" 200 ' in line])
    assert all(line.split()[-2] == "outbound_.8080_._.server.mesh.svc.cluster.local" for line in logged)
