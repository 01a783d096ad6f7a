"""The API alone, without nodes, for tests: a thread with its own event loop, a free loopback port, throw-away
certificates and tokens.

    with standalone() as api:                     # api.kubeconfig: a path; api.store, api.faults: call them through
    api.run
        subprocess.run(["kubectl", "--kubeconfig", api.kubeconfig, "get", "ns"])
"""
import asyncio
import base64
import contextlib
import datetime
import ipaddress
import os
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from meshtls.errors import LabError
from meshtls.lab.api.app import Api
from meshtls.lab.api.identity import ADMIN, Tokens, User
from meshtls.lab.api.logs import LogSource
from meshtls.lab.api.store import Event, Store

T = TypeVar("T")


def certificates(folder: Path, host: str = "127.0.0.1") -> tuple[Path, Path, Path]:
    """(CA, certificate, key) files for a server on `host` and localhost, one day valid; files are 0600."""
    now = datetime.datetime.now(datetime.UTC)

    def made(name: str, key: Any, issuer: x509.Name, signer: Any,
             extensions: list[tuple[x509.ExtensionType, bool]]) -> x509.Certificate:
        builder = x509.CertificateBuilder(
            subject_name=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]), issuer_name=issuer,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(), not_valid_before=now - datetime.timedelta(minutes=5),
            not_valid_after=now + datetime.timedelta(days=1))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(signer, hashes.SHA256())
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "meshtls lab API CA")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(root_key.public_key())
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    root = made("meshtls lab API CA", root_key, issuer, root_key,
                [(x509.BasicConstraints(True, None), True), (usage, True), (identifier, False)])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.DNSName("kubernetes.default.svc"),
                                         x509.IPAddress(ipaddress.ip_address(host))])
    leaf = made("kube-apiserver", key, issuer, root_key, [
        (names, False), (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False),
        (x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]), False)])
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                serialization.NoEncryption())
    files = {"ca.crt": root.public_bytes(serialization.Encoding.PEM),
             "server.crt": leaf.public_bytes(serialization.Encoding.PEM),
             "server.key": private}
    for name, data in files.items():
        write_private(folder / name, data)
    return folder / "ca.crt", folder / "server.crt", folder / "server.key"


def write_private(path: Path, data: bytes) -> None:
    """Raises LabError when the file cannot be written (full disk, no permission)."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
    except OSError as error:
        raise LabError(f"cannot write {path}: {error.strerror}", "free space or choose another directory") from error


def kubeconfig(server: str, ca: Path, token: str, name: str = "meshtls-lab", namespace: str = "default") -> bytes:
    """A kubeconfig with one context, the CA embedded."""
    return yaml.safe_dump({
        "apiVersion": "v1", "kind": "Config", "current-context": name,
        "clusters": [{"name": name,
                      "cluster": {"server": server,
                                  "certificate-authority-data": base64.b64encode(ca.read_bytes()).decode()}}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}}]}).encode()


class Standalone:
    """A running API. Store and API belong to its thread: use `run`."""

    def __init__(self, api: Api, loop: asyncio.AbstractEventLoop, folder: Path) -> None:
        self.api, self.store, self.faults = api, api.store, api.faults
        self._loop, self._folder = loop, folder
        self.kubeconfig, self.server, self.ca, self.token = "", "", "", ""

    def run(self, call: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Call something of the API's in its own thread and give back what it gives."""
        async def inside() -> T:
            return call(*arguments, **named)
        return asyncio.run_coroutine_threadsafe(inside(), self._loop).result(30)

    def kubeconfig_for(self, user: User) -> str:
        """A kubeconfig of another user."""
        token = secrets.token_urlsafe(24)
        self.run(self.api.tokens.add, token, user)
        path = self._folder / f"kubeconfig-{len(list(self._folder.iterdir()))}"
        write_private(path, kubeconfig(self.server, Path(self.ca), token))
        return str(path)


def caretaker(store: Store) -> Callable[[Event], None]:
    """The least that namespaces need when no controllers run: a default service account, and an end when they are
    deleted."""
    def hear(event: Event) -> None:
        if event.resource != "namespaces" or event.type == "DELETED":
            return
        name = event.object["metadata"]["name"]
        if "deletionTimestamp" not in event.object["metadata"]:
            if event.type == "ADDED" and store.get("serviceaccounts", name, "default") is None:
                store.create("serviceaccounts", {"apiVersion": "v1", "kind": "ServiceAccount",
                                                 "metadata": {"name": "default", "namespace": name}})
            return
        for resource in store.resources():
            for obj in store.list(resource, name) if resource != "namespaces" else ():
                store.remove(resource, name, obj["metadata"]["name"])
        store.mutate("namespaces", "", name, lambda obj: obj["spec"].pop("finalizers", None))
    return hear


@contextlib.contextmanager
def standalone(*, log_source: LogSource | None = None, caretaking: bool = True,
               prepare: Callable[[Store], None] = lambda store: None,
               **options: Any) -> Iterator[Standalone]:
    """Run an API in a thread until the block ends. `prepare` fills the store first; `options` go to Api."""
    ready: "threading.Event" = threading.Event()
    held: dict[str, Any] = {}
    token = secrets.token_urlsafe(24)
    with tempfile.TemporaryDirectory(prefix="meshtls-api-") as directory:
        folder = Path(directory)
        ca, certificate, key = certificates(folder)

        async def main() -> None:
            store = Store()
            api = Api(store, tokens=Tokens(store, {token: ADMIN}), log_source=log_source, **options)
            if caretaking:
                store.subscribe(caretaker(store))
            for name in ("default", "kube-system", "kube-public", "istio-system"):
                store.create("namespaces", {"apiVersion": "v1", "kind": "Namespace",
                                            "spec": {"finalizers": ["kubernetes"]}, "status": {
                    "phase": "Active"}, "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}})
            prepare(store)
            held["standalone"] = Standalone(api, asyncio.get_running_loop(), folder)

            def started(port: int) -> None:
                held["port"] = port
                ready.set()
            await api.serve("127.0.0.1", 0, str(certificate), str(key), started=started)

        def thread() -> None:
            try:
                asyncio.run(main())
            except BaseException as error:
                held["error"] = error
            ready.set()
        worker = threading.Thread(target=thread, name="lab-api", daemon=True)
        worker.start()
        ready.wait(30)
        if "error" in held or "port" not in held:
            raise LabError(f"the lab's API did not start: {held.get('error', 'no answer within 30 s')}")
        running: Standalone = held["standalone"]
        running.server, running.ca, running.token = f"https://127.0.0.1:{held['port']}", str(ca), token
        running.kubeconfig = str(folder / "kubeconfig")
        write_private(folder / "kubeconfig", kubeconfig(running.server, ca, token))
        try:
            yield running
        finally:
            running.run(running.api.stop)
            worker.join(10)
