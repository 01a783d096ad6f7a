"""A mesh on real Envoys with a server in each pod, and a witness that calls from one pod to another and watches the wire."""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshtls.lab import Lab, state

Json = dict[str, Any]
HERE = Path(__file__).parent
SERVER = (HERE / "server.py").read_text()


class Saw(msgspec.Struct, frozen=True):
    """One call: whose application answered ("" none), what the client read, and the connections between pods that it used:
    (pod, port, what the first bytes were, what came back)."""

    answered: str
    how: str
    flows: tuple[tuple[str, int, str, str], ...]


class Rig:
    """Pods are named `namespace/name`."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        held = state.load(lab.name)
        assert held is not None
        if held.mode == state.LOOPBACK:
            pytest.skip("namespaces are refused here, and the witness looks into them")
        command = [sys.executable, str(HERE / "inside.py"), str(held.pid)]
        self._witness = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addresses: dict[str, str] = {}
        self.services: dict[str, str] = {}

    def learn(self) -> None:
        """Look at the cluster: which pods and Services there are, and where. To be called after each change of pods."""
        with self.lab.client() as client:
            pods = client.list("Pod")
            self.services = {name_of(one): one["spec"].get("clusterIP", "") for one in client.list("Service")}
        self.addresses = {name_of(pod): pod["status"]["podIP"] for pod in pods}
        told = self._ask({"pods": {name: [token(self.lab, name), address] for name, address in self.addresses.items()}})
        assert not told["missing"], f"no process found for {told['missing']}"

    def call(self, client: str, address: str, port: int, protocol: str, host: str = "", path: str = "/") -> Saw:
        """One call on a connection of its own."""
        told = self._ask({"from": client, "to": [address, port], "protocol": protocol, "host": host, "path": path})
        return Saw(told["answered"], told["how"], tuple(tuple(flow) for flow in told["flows"]))

    def _ask(self, wish: Json) -> Json:
        assert self._witness.stdin and self._witness.stdout
        self._witness.stdin.write(json.dumps(wish) + "\n")
        self._witness.stdin.flush()
        line = self._witness.stdout.readline()
        assert line, f"the witness ended with {self._witness.wait(5)}"
        answer: Json = json.loads(line)
        return answer

    def close(self) -> None:
        assert self._witness.stdin and self._witness.stdout
        self._witness.stdin.close()
        self._witness.wait(10)
        self._witness.stdout.close()


@contextmanager
def rig(objects: Iterable[Json], pods: Iterable[Json], mesh: Json | None = None) -> Iterator[Rig]:
    """A lab with these objects, then with these pods, ready and learned."""
    with Lab(manifests=list(objects), mesh=mesh, timeout_s=60) as lab:
        one = Rig(lab)
        try:
            lab.apply(*(serving(pod, lab) for pod in pods))
            lab.wait()
            one.learn()
            yield one
        finally:
            one.close()


def serving(pod: Json, lab: Lab) -> Json:
    """The pod with the server in it: it listens on the `args` of its only container, or else on its `ports`."""
    metadata, given = pod["metadata"], pod["spec"]["containers"][0]
    name = name_of(pod)
    places = given.get("args") or [str(port["containerPort"]) for port in given["ports"]]
    ip, _, port = places[-1].rpartition(":")
    asked = f"import socket; socket.create_connection(({ip!r}, {port}))"
    probe = {"exec": {"command": ["python3", "-c", asked]}, "timeoutSeconds": 10} if ip else {"tcpSocket": {"port": int(port)}}
    container = {
        "name": "app",
        "image": "python:3",
        "command": ["python3", "-c", SERVER, *places, token(lab, name)],
        "env": [{"name": "NAME", "value": name}],
        "ports": given["ports"],
        # a container without a probe is ready before its program listens; asked until it does, and then hardly ever
        "readinessProbe": {**probe, "periodSeconds": 600},
    }
    spec = {"containers": [container], "terminationGracePeriodSeconds": 1}
    if account := pod["spec"].get("serviceAccountName"):
        spec["serviceAccountName"] = account
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def token(lab: Lab, pod: str) -> str:
    """What the command line of a pod's server ends with."""
    return f"{lab.name}:{pod}"


def name_of(obj: Mapping[str, Any]) -> str:
    return f"{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"


def account(namespace: str, name: str) -> Json:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": namespace, "name": name}}
