"""Real TLS servers on loopback, as a STRICT port answers, certificates to try on them, and the two programs as processes."""

import contextlib
import datetime
import json
import pathlib
import socket
import ssl
import subprocess
import sys
import threading

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PROBES = pathlib.Path(__file__).parents[2] / "probes"
HOST = "127.0.0.1"
IDENTITY = "spiffe://cluster.local/ns/shop/sa/cart"


class Authority:
    """A CA of a test."""

    def __init__(self, name):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.cert = self._sign(
            name,
            self.key.public_key(),
            self.key,
            x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)]),
            None,
        )

    def leaf(self, uri, path):
        """Write key and certificate with one URI name to `path`."""
        key = ec.generate_private_key(ec.SECP256R1())
        cert = self._sign("", key.public_key(), self.key, self.cert.subject, uri)
        pem = serialization.Encoding.PEM
        path.write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
            + cert.public_bytes(pem)
        )
        return path

    def _sign(self, name, public, key, issuer, uri):
        now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
        subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)] if name else [])
        builder = x509.CertificateBuilder(issuer, subject, public, x509.random_serial_number(), now - day, now + day)
        if uri:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), True)
        else:
            builder = builder.add_extension(x509.BasicConstraints(True, None), True)
        return builder.sign(key, hashes.SHA256())


class Pki:
    """The mesh's certificates and a stranger's, as files in one folder."""

    def __init__(self, folder):
        self.folder = folder
        mesh, stranger = Authority("cluster.local"), Authority("stranger")
        self.server = mesh.leaf(IDENTITY, folder / "server.pem")
        self.good = mesh.leaf("spiffe://cluster.local/ns/shop/sa/web", folder / "good.pem")
        self.unknown = stranger.leaf(IDENTITY, folder / "unknown-ca.pem")
        self.roots = folder / "roots.pem"
        self.roots.write_bytes(mesh.cert.public_bytes(serialization.Encoding.PEM))


@contextlib.contextmanager
def serving(handle):
    """A loopback server that gives each accepted socket to `handle` in a thread; its port."""
    listener = socket.create_server((HOST, 0))

    def accept():
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=run, args=(sock,), daemon=True).start()

    def run(sock):
        with sock, contextlib.suppress(OSError):
            handle(sock)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@contextlib.contextmanager
def strict_port(pki, newest=ssl.TLSVersion.TLSv1_3):
    """A port that takes only clients of the mesh's CA, and answers them as the echo server does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server)
    context.load_verify_locations(pki.roots)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = newest

    def handle(sock):
        with context.wrap_socket(sock, server_side=True) as tls:
            tls.recv(100)
            tls.sendall(b'meshtls-echo {"meshtls_echo":"x"}\n')

    with serving(handle) as port:
        yield port


@contextlib.contextmanager
def echo(*arguments, name="e1"):
    """The echo server as a process; its ports in the order asked for (http, tcp, banner, tls)."""
    command = [sys.executable, "-W", "error", str(PROBES / "echo.py"), "--bind", HOST, "--name", name, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield json.loads(process.stdout.readline())["ports"]
    finally:
        process.terminate()
        code = process.wait()
        process.stdout.close()
    assert code == 0


def ask(folder, *cases, **document):
    """Run the agent on `cases`; their lines by id, and all lines."""
    path = folder / "cases.json"
    document = {"schema": "meshtls.dev/probe-cases/v1", "agent": "t", "timeout_s": 2, "cases": list(cases)} | document
    path.write_text(json.dumps(document))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(PROBES / "agent.py"), str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["id"]: line for line in lines if "outcome" in line}, lines
