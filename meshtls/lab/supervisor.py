"""Wires the lab's parts in one event loop, says when it is ready, and ends when it is told to or its owner is gone."""
import argparse
import asyncio
import datetime
import gc
import ipaddress
import json
import os
import resource
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509

from meshtls.errors import LabError
from meshtls.lab import addresses, istio, state
from meshtls.lab.api.app import Api
from meshtls.lab.api.identity import ADMIN, Tokens
from meshtls.lab.api.store import Store
from meshtls.lab.controllers import Controllers
from meshtls.lab.node import images
from meshtls.lab.node.ca import Authority
from meshtls.lab.node.loopback import Loopback
from meshtls.lab.node.network import API_IP, Network
from meshtls.lab.node.node import Node
from meshtls.lab.node.plane import Plane
from meshtls.lab.node.runtime import Runtime
from meshtls.lab.node.xds import Xds

Obj = dict[str, Any]
OPEN_FILES = 10240  # macOS gives no limit and takes no more than this
NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
PLURALS = {"Namespace": "namespaces", "ConfigMap": "configmaps", "Service": "services",
           "MutatingWebhookConfiguration": "mutatingwebhookconfigurations.admissionregistration.k8s.io"}
"""Resources of what a lab holds from its first moment."""


class Supervisor:
    def __init__(self, folder: Path, wish: argparse.Namespace, control: socket.socket, listener: socket.socket, rootless: bool,
                 found: state.State, claim: addresses.Claim | None) -> None:
        self._folder, self._wish, self._control, self._listener = folder, wish, control, listener
        self._rootless, self._found, self._claim = rootless, found, claim

    async def run(self, report: Callable[[Obj], None]) -> None:
        """Serve until told to stop. `report` hears one message, when the lab is ready."""
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES if most == resource.RLIM_INFINITY else most, most))
        gc.freeze()
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        loop.add_signal_handler(signal.SIGCHLD, _reap)
        if self._wish.owner >= 0:
            loop.add_reader(self._wish.owner, stop.set)
        settings = json.loads(self._wish.settings)
        now = datetime.datetime.now(datetime.UTC)
        mesh = settings.get("mesh", {})
        installed = istio.installation(mesh=mesh or None, values=settings.get("values"))
        authority = Authority(now, mesh.get("trustDomain", "cluster.local"))
        certificate, key = self._certificates(authority, now)

        store = Store()
        token = secrets.token_urlsafe(24)
        tokens = Tokens(store, {token: ADMIN})
        xds = Xds()
        await xds.serve("xds.sock")
        network = Loopback(self._wish.nodes, self._claim) if self._claim else Network(self._wish.nodes)
        runtime = Runtime(self._control, lambda: _alone(stop))
        names = [f"lab-{number}" for number in range(1, self._wish.nodes + 1)]
        plane = Plane(store, authority, xds, names[0], network.fit)
        if isinstance(network, Loopback):
            network.changed = plane.again
        node = Node(store, network, runtime, plane, tokens, images.envoy(), names=names, rootless=self._rootless and not self._claim)
        api = Api(store, tokens=tokens, inject=lambda pod, namespace: istio.inject(pod, namespace, plane.world), log_source=node,
                  dial=_dialer(store, network))
        controllers = Controllers(store, authority.root_pem, api_ca_pem=(self._folder / "ca.crt").read_text())
        for obj in [*map(_namespace, NAMESPACES), *installed, _kubernetes()]:
            store.create(PLURALS[obj["kind"]], _namespace(obj["metadata"]["name"]) if obj["kind"] == "Namespace" else obj)
        await node.start()
        await controllers.start()

        server = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        state.write(self._folder / "kubeconfig", state.kubeconfig(server, self._folder / "ca.crt", token, f"meshtls-lab-{self._wish.name}"))
        serving = loop.create_task(api.serve("127.0.0.1", 0, certificate, key, sockets=[self._listener, *network.api(self._listener)],
                                             started=lambda _: self._ready(report, server)))
        stopping = loop.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            stopping.cancel()
            serving.result()
            raise LabError("the lab's API ended by itself", "the lab's log says more")
        api.stop()
        await asyncio.wait({serving}, timeout=2)
        await controllers.stop()
        plane.close()
        await asyncio.wait_for(node.stop(), 5)

    def _ready(self, report: Callable[[Obj], None], server: str) -> None:
        state.save(msgspec.structs.replace(self._found, server=server))
        report({"ready": server})

    def _certificates(self, authority: Authority, now: datetime.datetime) -> tuple[str, str]:
        """The API's certificate and key files, signed by an authority of the API's own."""
        own = Authority(now, "meshtls lab API")
        names: list[x509.GeneralName] = [x509.DNSName(name) for name in ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
                                                                       "kubernetes.default.svc.cluster.local")]
        names += [x509.IPAddress(ipaddress.ip_address(ip)) for ip in ("127.0.0.1", API_IP)]
        chain, key = own.issue_server(names, now)
        for name, text in (("ca.crt", own.root_pem), ("api.crt", chain), ("api.key", key)):
            state.write(self._folder / name, text.encode())
        return str(self._folder / "api.crt"), str(self._folder / "api.key")


def _alone(stop: asyncio.Event) -> None:
    print("the lab's runner was killed, and so the lab ends", file=sys.stderr, flush=True)
    stop.set()


def _reap() -> None:
    """PID 1 inherits orphans."""
    while True:
        try:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                return
        except ChildProcessError:
            return


def _namespace(name: str) -> Obj:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}


def _kubernetes() -> Obj:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kubernetes", "namespace": "default", "labels": {
        "component": "apiserver", "provider": "kubernetes"}}, "spec": {
            "type": "ClusterIP", "clusterIP": API_IP, "clusterIPs": [API_IP], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 443}]}}


def _dialer(store: Store, network: Network | Loopback) -> Any:
    """How the API reaches a webhook's Service: from the node's network, as a control plane on the node would."""

    async def dial(namespace: str, name: str, port: int) -> socket.socket:
        service = store.get("services", namespace, name)
        if service is None:
            raise LookupError(f'service "{name}" not found')
        ip: str = service["spec"].get("clusterIP") or ""
        try:
            return await network.dial(ip, port)
        except OSError as error:
            if isinstance(error, ConnectionRefusedError):
                raise
            raise OSError(error.errno, f"dial tcp {ip}:{port}: connect: {(error.strerror or str(error)).lower()}") from error

    return dial
