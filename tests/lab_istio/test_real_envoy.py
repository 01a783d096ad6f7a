"""One stock Envoy on loopback carries the lab's own chains: what arrives, what is logged, what is counted.

The client's listener and the server's stand side by side in one proxy, without namespaces: only their addresses are
changed, and the server's no longer asks for the original destination.
"""

import contextlib
import copy
import datetime
import http.client
import http.server
import json
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import named_cases
import pytest

from meshtls.lab import istio
from meshtls.lab.istio import envoy, metrics
from meshtls.lab.istio.world import World
from meshtls.lab.node.ca import Authority

ENVOY = Path(sys.executable).with_name("envoy")
pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(not ENVOY.exists(), reason="the proxy of the lab extra is not installed"),
]
DRY_RUN = {
    "kind": "AuthorizationPolicy",
    "metadata": {"name": "dry", "namespace": "my", "annotations": {"istio.io/dry-run": "true"}},
    "spec": {"action": "DENY", "rules": [{"from": [{"source": {"notPrincipals": ["*"]}}]}]},
}
MESH = {
    "kind": "ConfigMap",
    "metadata": {"name": "istio", "namespace": "istio-system"},
    "data": {"mesh": "accessLogFile: /dev/stdout"},
}


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with the headers of the request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = json.dumps({k.lower(): v for k, v in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def from_files(value, directory):
    """The same configuration with secrets from files instead of xDS."""
    if isinstance(value, list):
        return [from_files(v, directory) for v in value]
    if not isinstance(value, dict):
        return value
    if "sds_config" in value:
        source = {
            "path_config_source": {"path": str(directory / f"{value['name']}.json")},
            "resource_api_version": "V3",
        }
        return {"name": value["name"], "sds_config": source}
    return {k: from_files(v, directory) for k, v in value.items()}


def secrets(directory):
    authority = Authority(datetime.datetime.now(datetime.UTC))
    chain, key = authority.issue("spiffe://cluster.local/ns/my/sa/foo", datetime.datetime.now(datetime.UTC))
    bodies = {
        "default": {
            "tls_certificate": {"certificate_chain": {"inline_string": chain}, "private_key": {"inline_string": key}}
        },
        "ROOTCA": {"validation_context": {"trusted_ca": {"inline_string": authority.root_pem}}},
    }
    for name, body in bodies.items():
        resource = {"@type": istio.TYPE_SECRET, "name": name, **body}
        (directory / f"{name}.json").write_text(json.dumps({"version_info": "1", "resources": [resource]}))


class Rig:
    """A proxy whose pod `foo` is both ends: `through` is the client's side, `server` the server's."""

    def __init__(self, directory, protocol, mode):
        self.directory, self.server, self.through, app = directory, free_port(), free_port(), free_port()
        member = named_cases.pod("my", "foo", 1)
        member["status"]["podIP"] = "127.0.0.1"
        policy = named_cases.policies([{"in": "my", "mode": mode}])
        service = named_cases.service("my", "foo", {protocol: (80, self.server)}, [member], "10.96.0.1")
        self.world = World.of([member, *service, *policy, DRY_RUN, MESH])
        self.pod = self.world.pods_by_name["my", "foo"]
        secrets(directory)
        sockets = {"xds_socket": str(directory / "x"), "admin_socket": str(directory / "admin")}
        bootstrap = istio.bootstrap(self.pod, self.world, **sockets)
        config = named_cases.at_rest(bootstrap, list(self._listeners()), list(self._clusters(app)))
        (directory / "envoy.json").write_text(json.dumps(from_files(config, directory)))
        self.app = http.server.ThreadingHTTPServer(("127.0.0.1", app), Echo)

    def _listeners(self):
        for listener in copy.deepcopy(istio.listeners(self.world, self.pod).items):
            if listener["name"] == "virtualInbound":
                listener["listener_filters"] = listener["listener_filters"][1:]
                yield listener | {"address": envoy.address("127.0.0.1", self.server)}
            elif listener["name"] in ("0.0.0.0_80", "10.96.0.1_80"):
                yield listener | {"address": envoy.address("127.0.0.1", self.through), "bind_to_port": True}

    def _clusters(self, app):
        for cluster in copy.deepcopy(istio.clusters(self.world, self.pod).items):
            if cluster["name"].startswith("inbound|"):
                where = [{"lb_endpoints": [{"endpoint": {"address": envoy.address("127.0.0.1", app)}}]}]
                assignment = {"cluster_name": cluster["name"], "endpoints": where}
                cluster = {k: v for k, v in cluster.items() if k != "cleanup_interval"}
                cluster |= {"type": "STATIC", "lb_policy": "ROUND_ROBIN", "load_assignment": assignment}
            yield cluster | {"upstream_bind_config": {"source_address": {"address": "127.0.0.1", "port_value": 0}}}

    def get(self, port):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as client:
            client.request("GET", "/x", headers={"Host": "foo.my", "Connection": "close"})
            answer = client.getresponse()
            return answer.status, json.loads(answer.read() or "{}")

    def admin(self, path):
        with socket.socket(socket.AF_UNIX) as pipe:
            pipe.settimeout(10)
            pipe.connect(str(self.directory / "admin"))
            pipe.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            return b"".join(iter(lambda: pipe.recv(65536), b"")).decode()

    def lines(self):
        return [line for line in (self.directory / "log").read_text().splitlines() if re.match(r"\[\S+Z\] \"", line)]

    def eventually(self, found, seconds=10.0):
        """The first true answer of `found`; Envoy writes its log and counters a moment after the fact."""
        deadline = time.monotonic() + seconds
        while not (answer := found()):
            assert time.monotonic() < deadline, self.lines()
            time.sleep(0.05)
        return answer


@contextlib.contextmanager
def running(directory, protocol, mode):
    rig = Rig(directory, protocol, mode)
    thread = threading.Thread(target=rig.app.serve_forever, daemon=True)
    thread.start()
    with (directory / "log").open("wb") as log:
        command = [ENVOY, "-c", directory / "envoy.json", *istio.arguments(rig.world, rig.pod)]
        proxy = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            rig.eventually(lambda: (directory / "admin").exists() and "LIVE" in rig.admin("/ready"))
            rig.eventually(lambda: f"127.0.0.1:{rig.server}" in rig.admin("/listeners") and f"127.0.0.1:{rig.through}" in rig.admin("/listeners"))
            yield rig
        finally:
            proxy.terminate()
            proxy.wait(20)
            rig.app.shutdown()
            rig.app.server_close()
            thread.join(10)


@pytest.mark.parametrize("protocol", ["http", "auto", "tcp"])
@pytest.mark.parametrize("mode", ["PERMISSIVE", "STRICT"])
def test_a_call_through_the_clients_proxy_is_mesh_mtls(protocol, mode, tmp_path):
    with running(tmp_path, protocol, mode) as rig:
        status, seen = rig.get(rig.through)
        assert status == 200
        # A connection manager forwards who the client was; bytes of a TCP port carry nothing.
        spoken_for = "URI=spiffe://cluster.local/ns/my/sa/foo" in seen.get("x-forwarded-client-cert", "")
        assert spoken_for is (protocol != "tcp")
        line = rig.eventually(lambda: next((x for x in rig.lines() if f" inbound|{rig.server}|| " in x), ""))
        assert "outbound_.80_._.foo.my.svc.cluster.local" in line
        name = "tcp_connections_closed" if protocol == "tcp" else "requests"
        text = rig.eventually(
            lambda: next(
                (
                    x
                    for x in metrics.istio_metrics(rig.admin(metrics.QUERY), rig.world, rig.pod).splitlines()
                    if x.startswith(f'istio_{name}_total{{reporter="dest')
                ),
                "",
            )
        )
        assert (
            'connection_security_policy="mutual_tls"' in text
            and 'source_principal="spiffe://cluster.local/ns/my/sa/foo"' in text
        )


def test_plaintext_is_served_and_counted_under_permissive(tmp_path):
    with running(tmp_path, "http", "PERMISSIVE") as rig:
        status, seen = rig.get(rig.server)
        assert status == 200 and "x-forwarded-client-cert" not in seen
        line = rig.eventually(lambda: next(iter(rig.lines()), ""))
        assert '"GET /x HTTP/1.1" 200 - via_upstream' in line and line.endswith(" - default")
        assert f"http.inbound_0.0.0.0_{rig.server};.rbac.istio_dry_run_deny_.shadow_denied: 1" in rig.admin(
            "/stats?filter=shadow_denied"
        )


def test_plaintext_is_refused_under_strict_and_logged_by_the_listener(tmp_path):
    with running(tmp_path, "http", "STRICT") as rig:
        with socket.create_connection(("127.0.0.1", rig.server), timeout=10) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(100) == b""
            here = client.getsockname()[1]
        line = rig.eventually(lambda: next(iter(rig.lines()), ""))
        assert line.partition("] ")[2] == (
            '"- - -" 0 NR filter_chain_not_found - "-" 0 0 0 - "-" "-" "-" "-" "-" - - '
            f"127.0.0.1:{rig.server} 127.0.0.1:{here} - -"
        )


@pytest.mark.parametrize(
    "mode, alpn, mesh_certificate",
    [
        ("PERMISSIVE", ["istio"], True),
        ("PERMISSIVE", [], False),
        ("STRICT", ["istio"], True),
        ("STRICT", [], True),
        ("DISABLE", ["istio"], False),
        ("DISABLE", [], False),
    ],
)
def test_two_handshakes_tell_the_mode(mode, alpn, mesh_certificate, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    if alpn:
        context.set_alpn_protocols(alpn)
    shown = b""
    with (
        running(tmp_path, "http", mode) as rig,
        socket.create_connection(("127.0.0.1", rig.server), timeout=10) as client,contextlib.suppress(OSError), context.wrap_socket(client) as tls
    ):
        shown = tls.getpeercert(binary_form=True) or b""
    assert (b"spiffe://cluster.local/ns/my/sa/foo" in shown) is mesh_certificate
