"""The same client against a real TLS server: trust, client certificates, gzip, hanging, followed logs."""

import gzip
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme
import yaml

from meshtls import errors
from meshtls.cluster.client import Client


class Server:
    """An API server of a few paths on loopback; `release` lets the hanging ones go."""

    def __init__(self, folder: Path) -> None:
        self.ca, self.release = trustme.CA(), threading.Event()
        self.folder = folder
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None: ...

            def do_GET(self) -> None:
                if "hang" in self.path:
                    outer.release.wait(10)
                    return
                if "/log" in self.path:
                    self.send_response(200)
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    self.wfile.write(b"6\r\nhello\n\r\n")
                    self.wfile.flush()
                    outer.release.wait(10)
                    self.close_connection = True
                    return
                peer = self.connection.getpeercert()
                body = gzip.compress(json.dumps({"metadata": {"name": "x"}, "peer": bool(peer)}).encode())
                self.send_response(200)
                self.send_header("Content-Encoding", "gzip")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None: ...

        self.httpd = Quiet(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert("127.0.0.1", "api.inside").configure_cert(context)
        context.verify_mode = ssl.CERT_OPTIONAL
        self.ca.configure_trust(context)
        self.httpd.socket = context.wrap_socket(self.httpd.socket, server_side=True)
        self.thread = threading.Thread(target=self.httpd.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def kubeconfig(self, cluster: dict | None = None, user: dict | None = None) -> str:
        (self.folder / "ca.pem").write_bytes(self.ca.cert_pem.bytes())
        content = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}],
            "clusters": [{"name": "c", "cluster": {
                "server": f"https://127.0.0.1:{self.httpd.server_port}", "certificate-authority": "ca.pem", **(cluster or {}),
            }}],
            "users": [{"name": "u", "user": user or {"token": "t"}}],
        }
        path = self.folder / "config"
        path.write_text(yaml.safe_dump(content))
        return str(path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.release.set()
    server.httpd.shutdown()
    server.thread.join()
    server.httpd.server_close()


def test_a_server_of_the_kubeconfigs_authority_is_trusted_and_gzip_read(server: Server) -> None:
    with Client.connect(server.kubeconfig()) as client:
        assert client.get("ConfigMap", "x", "shop") == {"metadata": {"name": "x"}, "peer": False}
        assert client.namespace == "shop"


def test_a_client_certificate_is_shown(server: Server) -> None:
    leaf = server.ca.issue_cert("ann@example.test")
    (server.folder / "c.pem").write_bytes(leaf.cert_chain_pems[0].bytes())
    (server.folder / "k.pem").write_bytes(leaf.private_key_pem.bytes())

    with Client.connect(server.kubeconfig(user={"client-certificate": "c.pem", "client-key": "k.pem"})) as client:
        assert client.get("ConfigMap", "x", "shop")["peer"] is True


def test_a_server_of_another_authority_is_unreachable_with_the_reason(server: Server) -> None:
    config = server.kubeconfig()
    (server.folder / "ca.pem").write_bytes(trustme.CA().cert_pem.bytes())

    with Client.connect(config) as client, pytest.raises(errors.Unreachable, match="certificate is not trusted"):
        client.get("ConfigMap", "x", "shop")


def test_a_name_that_the_certificate_lacks_is_not_trusted_and_one_that_it_has_is(server: Server) -> None:
    with Client.connect(server.kubeconfig({"tls-server-name": "api.inside"})) as client:
        assert client.get("ConfigMap", "x", "shop")["metadata"]["name"] == "x"
    with (
        Client.connect(server.kubeconfig({"tls-server-name": "api.elsewhere"})) as client,
        pytest.raises(errors.Unreachable, match="not trusted"),
    ):
        client.get("ConfigMap", "x", "shop")


def test_insecure_skip_tls_verify_is_obeyed(server: Server) -> None:
    config = server.kubeconfig({"insecure-skip-tls-verify": True})
    (server.folder / "ca.pem").write_bytes(trustme.CA().cert_pem.bytes())

    with Client.connect(config) as client:
        assert client.get("ConfigMap", "x", "shop")["metadata"]["name"] == "x"


def test_a_server_that_hangs_is_given_up_after_the_timeout(server: Server) -> None:
    with (
        Client.connect(server.kubeconfig(), timeout_s=0.2) as client,
        pytest.raises(errors.Unreachable, match=r"no answer within 0\.2 s"),
    ):
        client.get("ConfigMap", "hang", "shop")


def test_a_port_where_nobody_listens_is_unreachable(server: Server) -> None:
    config = server.kubeconfig({"server": "https://127.0.0.1:1"})

    with Client.connect(config, timeout_s=0.2) as client, pytest.raises(errors.Unreachable, match="no connection"):
        client.get("ConfigMap", "x", "shop")


def test_a_followed_log_gives_lines_as_they_come_and_ends_with_its_time(server: Server) -> None:
    with Client.connect(server.kubeconfig()) as client:
        assert list(client.logs("shop", "a", follow=True, timeout_s=0.3)) == ["hello"]


def test_closing_the_client_wakes_a_thread_that_follows(server: Server) -> None:
    client = Client.connect(server.kubeconfig())
    first, lines = threading.Event(), []

    def follow() -> None:
        for line in client.logs("shop", "a", follow=True):
            lines.append(line)
            first.set()

    reader = threading.Thread(target=follow)
    reader.start()
    assert first.wait(10)

    client.close()
    reader.join(10)

    assert not reader.is_alive()
    assert lines == ["hello"]
