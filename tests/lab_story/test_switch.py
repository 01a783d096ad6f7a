"""A switch as a real mesh makes it: no mTLS request fails, plaintext is refused at once, old connections end when the drain is over,
and only those of the port that changed. Measured on a real mesh: 0 failed of 8,770 requests in ten rounds; drain after 45.0 s."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import scene
from scene import container, pod, policy, service, told, until

from meshtls.lab import Lab

pytestmark = pytest.mark.lab
DRAIN_S = 3

# asks for ever, by HTTP and TCP on new connections and by HTTP on a kept one; a line for each change of outcome and every hundred rounds
CALLER = """
import http.client, json, os, signal, socket, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
ok = failed = 0
last, kept = None, http.client.HTTPConnection("server.mesh", 8080, timeout=5)

def asked(connection):
    connection.request("GET", "/")
    answer = connection.getresponse()
    return answer.read() == b"ok" and answer.status == 200

def called():
    with socket.create_connection(("server.mesh", 9000), 5) as s:
        s.settimeout(5)
        s.sendall(b"anybody?\\n")
        return s.recv(100) == b"anybody?\\n"

while True:
    try:
        connection = http.client.HTTPConnection("server.mesh", 8080, timeout=5)
        good = asked(connection) and called() and asked(kept)
    except (OSError, http.client.HTTPException):
        good = False
        kept.close()
    connection.close()
    ok, failed = ok + good, failed + (not good)
    if good != last or (ok + failed) % 100 == 0:
        print(json.dumps({"accepted": good, "ok": ok, "failed": failed}), flush=True)
    last = good
    time.sleep(0.005)
"""
# holds a connection to each port, and says how each ends
HOLDER = """
import json, os, signal, socket, threading, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

def say(**line):  # one write a line: two threads speak
    os.write(1, json.dumps(line).encode() + b"\\n")

def hold(port):
    with socket.create_connection(("server.mesh", port), 5) as s:
        told = False
        while True:
            try:
                s.sendall(b"still here\\n")
                data = s.recv(100)
            except OSError:
                data = b""
            if not data:
                say(closed=port)
                return
            if not told:
                say(open=port)
                told = True
            time.sleep(0.05)

def keep():  # asks again and again on one HTTP connection, and says what the answer says of it
    with socket.create_connection(("server.mesh", 8080), 5) as s:
        file, answers = s.makefile("rb"), 0
        while True:
            s.sendall(b"GET / HTTP/1.1\\r\\nhost: server.mesh\\r\\n\\r\\n")
            head = b"".join(iter(file.readline, b"\\r\\n"))
            if b"200" not in head.split(b"\\r\\n")[0]:
                return say(kept=answers, ended="without an answer")
            file.read(2)
            answers += 1
            if answers == 1:
                say(kept=1)
            if b"connection: close" in head.lower():
                return say(kept=answers, ended="connection: close")
            time.sleep(0.05)

threading.Thread(target=keep).start()
for port in (9000, 9001):
    threading.Thread(target=hold, args=(port,)).start()
signal.pause()
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    objects = [scene.MESHED, scene.BARE, policy("PERMISSIVE"), service("server", "mesh", ports={"http": 8080, "tcp-a": 9000, "tcp-b": 9001}),
               pod("server", "mesh", container(scene.HTTP_AND_LINES))]  # fmt: skip
    with Lab(manifests=objects, mesh={"defaultConfig": {"drainDuration": f"{DRAIN_S}s"}}) as lab:
        yield lab


def test_ten_rounds_fail_no_mtls_request_and_refuse_plaintext_exactly_while_strict(lab: Lab) -> None:
    lab.apply(pod("meshed", "mesh", container(CALLER)), pod("outside", "bare", container(CALLER)))
    lab.wait()
    with lab.client() as client:
        for name, where in (("meshed", "mesh"), ("outside", "bare")):
            until(lambda name=name, where=where: any(line["accepted"] for line in told(client, where, name)))
        before = told(client, "mesh", "meshed")[-1]
        for mode, accepted in [("STRICT", False), ("PERMISSIVE", True)] * 10:
            client.patch("PeerAuthentication", "default", "mesh", {"spec": {"mtls": {"mode": mode}}})
            until(lambda accepted=accepted: told(client, "bare", "outside")[-1]["accepted"] is accepted)
        after = until(lambda: (last := told(client, "mesh", "meshed")[-1])["ok"] > before["ok"] + 100 and last)

    assert after["failed"] == before["failed"]


def test_only_the_changed_ports_connections_end_and_only_after_the_drain(lab: Lab) -> None:
    lab.apply(pod("holder", "bare", container(HOLDER)))
    lab.wait()
    with lab.client() as client:
        until(lambda: {line.get("open") for line in told(client, "bare", "holder")} >= {9000, 9001})
        begun = time.monotonic()
        lab.apply(policy("", name="one-port", selector={"matchLabels": {"app": "server"}}, portLevelMtls={"9000": {"mode": "STRICT"}}))
        until(lambda: {"closed": 9000} in told(client, "bare", "holder"))
        took = time.monotonic() - begun

        assert took > DRAIN_S - 0.5
        assert {"closed": 9001} not in told(client, "bare", "holder")
        # the other port ends when it is its turn: the test could have seen it
        client.patch("PeerAuthentication", "default", "mesh", {"spec": {"mtls": {"mode": "STRICT"}}})
        until(lambda: {"closed": 9001} in told(client, "bare", "holder"))


TELEMETRY = {"apiVersion": "telemetry.istio.io/v1", "kind": "Telemetry", "metadata": {"name": "plaintext", "namespace": "mesh"},
             "spec": {"accessLogging": [{"match": {"mode": "SERVER"}, "providers": [{"name": "envoy"}], "filter": {"expression": "!connection.mtls"}}]}}  # fmt: skip
DRY_RUN = {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": "dry", "namespace": "mesh", "annotations": {"istio.io/dry-run": "true"}},
           "spec": {"action": "DENY", "rules": [{"from": [{"source": {"notPrincipals": ["*"]}}]}]}}  # fmt: skip


@pytest.mark.parametrize("extra", [TELEMETRY, DRY_RUN], ids=lambda one: one["kind"])
def test_watching_for_plaintext_ends_long_connections_too_when_it_begins_and_when_it_ends(extra: dict[str, Any], lab: Lab) -> None:
    with lab.client() as client:
        for number, change in enumerate((lambda: lab.apply(extra), lambda: client.delete(extra["kind"], extra["metadata"]["name"], "mesh"))):
            lab.apply(pod(f"holder-{number}", "bare", container(HOLDER)), pod(f"holder-{number}", "mesh", container(HOLDER)))
            for where in ("bare", "mesh"):
                until(lambda where=where, number=number: {"open": 9000} in told(client, where, f"holder-{number}"))
            begun = time.monotonic()
            change()
            until(lambda number=number: all({"closed": 9000} in told(client, where, f"holder-{number}") for where in ("bare", "mesh")))
            assert time.monotonic() - begun > DRAIN_S - 0.5


def test_a_switch_ends_kept_connections_politely_and_long_ones_after_the_drain_mtls_too(lab: Lab) -> None:
    lab.apply(pod("outside", "bare", container(HOLDER)), pod("meshed", "mesh", container(HOLDER)))
    lab.wait()
    with lab.client() as client:

        def has(where: str, name: str, line: dict[str, object]) -> bool:
            return line in told(client, where, name)

        for where, name in (("bare", "outside"), ("mesh", "meshed")):
            until(lambda where=where, name=name: has(where, name, {"open": 9000}) and has(where, name, {"kept": 1}))
        begun = time.monotonic()
        client.patch("PeerAuthentication", "default", "mesh", {"spec": {"mtls": {"mode": "STRICT"}}})
        until(lambda: any(line.get("ended") == "connection: close" for line in told(client, "bare", "outside")))
        polite = time.monotonic() - begun
        until(lambda: has("bare", "outside", {"closed": 9000}) and has("mesh", "meshed", {"closed": 9000}))
        took = time.monotonic() - begun

        assert polite < took, "a kept HTTP connection is told at once, an open TCP connection ends with the drain"
        assert took > DRAIN_S - 0.5
        # between two proxies a kept connection is renewed, and the application hears nothing of it
        assert not any("ended" in line for line in told(client, "mesh", "meshed"))
