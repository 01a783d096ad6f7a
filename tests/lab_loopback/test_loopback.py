"""The main job in a lab without namespaces: the same story on the same Envoys, chosen where this machine refuses, and nothing left."""

import ctypes
import json
import os
import pathlib
import platform
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from meshtls.lab import Lab, state
from meshtls.lab.launch import LOST

pytestmark = pytest.mark.lab
SHOP = pathlib.Path(__file__).parents[2] / "examples" / "shop"
UNSHARE = {"x86_64": 272, "aarch64": 97}


def meshtls(*args: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "meshtls.cli.main", *args], capture_output=True, text=True, timeout=120, check=False, **more)


def on(lab: Lab, *args: str) -> subprocess.CompletedProcess[str]:
    return meshtls(*args, env={**os.environ, "KUBECONFIG": lab.kubeconfig})


def until(what: Callable[[], Any], limit_s: float = 30.0) -> Any:
    """The first true answer of `what`; fails after `limit_s` seconds."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if answer := what():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"nothing within {limit_s} s")


@pytest.fixture(scope="module")
def shop() -> Iterator[Lab]:
    with Lab(manifests=[SHOP], mode=state.LOOPBACK) as lab:
        yield lab


def test_every_probe_cell_is_as_predicted(shop: Lab) -> None:
    done = on(shop, "probe", "-n", "shop,legacy", "-o", "json")

    assert done.returncode == 0, done.stderr[-500:]
    cells = [cell for matrix in json.loads(done.stdout)["matrices"] for cell in matrix["cells"]]
    assert len(cells) > 40
    assert all(cell["ok"] is True for cell in cells)


def test_a_refused_client_is_named_and_the_step_taken_back(shop: Lab) -> None:
    until(lambda: "billing" in on(shop, "observe", "-n", "payments", "-o", "json").stdout)
    done = on(shop, "migrate", "apply", "-n", "payments", "--yes", "--soak", "20s", "--force")

    assert done.returncode == 4, done.stdout + done.stderr
    assert "REFUSED Deployment/legacy/billing" in done.stderr
    assert "rolled back" in done.stderr


def test_a_program_finds_the_api_its_token_and_its_files(shop: Lab) -> None:
    program = """
import json, os, ssl, tempfile, urllib.request
secrets = "/var/run/secrets/kubernetes.io/serviceaccount/"
context = ssl.create_default_context(cafile=secrets + "ca.crt")
request = urllib.request.Request("https://kubernetes.default.svc/version", headers={"Authorization": "Bearer " + open(secrets + "token").read()})
with urllib.request.urlopen(request, context=context, timeout=5) as answer:
    version = json.load(answer)["gitVersion"]
with open("/data/kept", "w") as file, tempfile.NamedTemporaryFile(prefix="mine-") as own:
    file.write(" ".join(name for name in os.listdir("/tmp")))
print(json.dumps([version, open("/data/kept").read(), os.listdir("/tmp"), os.environ["POD"], open(os.path.realpath(secrets + "namespace")).read()]), flush=True)
"""
    container = {
        "name": "app", "image": "python:3", "command": ["python3", "-c", program], "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
    }  # fmt: skip
    shop.apply({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "teller", "namespace": "legacy"},
        "spec": {"restartPolicy": "Never", "containers": [container], "volumes": [{"name": "data", "emptyDir": {}}]},
    })  # fmt: skip
    with shop.client() as client:
        pod = until(lambda: (found := client.get("Pod", "teller", "legacy"))["status"]["phase"] in ("Succeeded", "Failed") and found)
        said = list(client.logs("legacy", "teller", "app"))
    assert pod["status"]["phase"] == "Succeeded", said[-3:]

    version, during, after, address, namespace = json.loads(said[-1])
    assert namespace == "legacy"
    assert version.startswith("v1.")
    assert during.startswith("mine-") and " " not in during and not after
    assert address == pod["status"]["podIP"] and address.startswith("127.")


OPENER = """
import socketserver, threading
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            if line == b"open 7002\\n":
                threading.Thread(target=socketserver.ThreadingTCPServer(("", 7002), Echo).serve_forever).start()
            self.wfile.write(line)
socketserver.ThreadingTCPServer(("", 7001), Echo).serve_forever()
"""


def test_a_port_that_a_program_opens_later_gets_a_listener_and_the_others_keep_their_connections(shop: Lab) -> None:
    container = {"name": "app", "image": "python:3", "command": ["python3", "-c", OPENER]}
    shop.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "opener", "namespace": "shop"}, "spec": {"containers": [container]}})
    shop.wait()
    with shop.client() as client:
        ip = client.get("Pod", "opener", "shop")["status"]["podIP"]

    def called(port: int) -> socket.socket | None:
        """A connection to this port on which a line comes back."""
        try:
            connection = socket.create_connection((ip, port), timeout=5)
        except ConnectionRefusedError:
            return None
        return connection if said(connection, b"is it you, application?\n") else connection.close()

    def said(connection: socket.socket, line: bytes) -> bool:
        connection.sendall(line)
        return connection.recv(100) == line

    with until(lambda: called(7001)) as kept:
        assert called(7002) is None
        assert said(kept, b"open 7002\n")
        with until(lambda: called(7002)):
            assert said(kept, b"and you are there still?\n")


def test_two_labs_side_by_side_and_nothing_after_kill_and_down(shop: Lab) -> None:
    name = f"killed-{os.getpid()}"
    up = meshtls("lab", "up", "--name", name, "--mode", "loopback", "-f", str(SHOP), "--wait")
    assert up.returncode == 0, up.stderr
    found = state.load(name)
    assert found is not None and found.mode == state.LOOPBACK and list(state.marked(found.mark))
    os.kill(found.pid, signal.SIGKILL)
    assert meshtls("lab", "down", "--name", name).returncode == 0

    assert not state.directory(name).exists()
    assert not list(state.marked(found.mark))
    assert ", 0 not ready" in meshtls("lab", "status", "--name", shop.name).stdout


def _no_namespaces() -> None:
    """In a child before it runs: the kernel answers unshare with EPERM, as it does in many containers (seccomp)."""
    steps = [(0x20, 0, 0, 0), (0x15, 0, 1, UNSHARE[platform.machine()]), (6, 0, 0, 0x00050001), (6, 0, 0, 0x7FFF0000)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(program), 0, 0):
        os._exit(77)


def _none_left() -> None:
    """In a child before it runs: an ordinary user where no namespace is left to have (user.max_user_namespaces and max_net_namespaces 0)."""
    uid, gid = os.getuid(), os.getgid()
    if ctypes.CDLL(None).unshare(0x10000000):
        os._exit(77)
    for name, text in (("setgroups", "deny"), ("uid_map", f"1000 {uid} 1"), ("gid_map", f"1000 {gid} 1")):
        pathlib.Path(f"/proc/self/{name}").write_text(text)
    for name in ("user", "net"):
        pathlib.Path(f"/proc/sys/user/max_{name}_namespaces").write_text("0")


@pytest.mark.skipif(not os.path.exists("/proc/self/ns"), reason="macOS: it has no namespaces that could be refused")
@pytest.mark.parametrize(("refusal", "said"), [(_no_namespaces, "not permitted"), (_none_left, "No space left")])
def test_where_namespaces_are_refused_the_lab_says_what_is_lost(refusal: Callable[[], None], said: str) -> None:
    name = f"refused-{os.getpid()}"
    try:
        up = meshtls("lab", "up", "--name", name, preexec_fn=refusal)
        if up.returncode == 77:
            pytest.skip("this machine cannot be made to refuse")
        insists = meshtls("lab", "up", "--name", f"{name}-2", "--mode", "namespaces", preexec_fn=refusal)
        status = meshtls("lab", "status", "--name", name)
    finally:
        meshtls("lab", "down", "--name", name)

    assert up.returncode == 0, up.stderr
    assert all(line in up.stderr and line in status.stdout for line in LOST)
    assert insists.returncode == 3 and said in insists.stderr and "Traceback" not in insists.stderr
