"""How an idle HTTP/2 connection ends after a switch. Measured on a real mesh with the default of 45 s: GOAWAY without error after 39.6 s, the last one 5.0 s
later, closed after 45.2 s.

Envoy waits for a random time between two thirds of the drain and its end less the 5 s that it leaves between the two; a drain that has no such time
ends without a word."""

import time

import pytest
import scene
from scene import Json, container, pod, policy, service, told, until

from meshtls.lab import Lab

pytestmark = pytest.mark.lab
EVERY_STREAM, NO_STREAM = 2**31 - 1, 0
PAUSE_S = 5

# opens HTTP/2 connections in plaintext, asks nothing, and says what comes and when; every other one sends PINGs
IDLE = """
import json, os, signal, socket, threading, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

def say(**line):
    os.write(1, json.dumps({**line, "at": time.monotonic()}).encode() + b"\\n")

def frame(kind, flags, body=b""):
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + bytes(4) + body

def ping(sock):
    try:
        while True:
            sock.sendall(frame(6, 0, b"anybody?"))
            time.sleep(0.5)
    except OSError:
        pass

def hold(number):
    sock = socket.create_connection(("server.mesh", 8080))
    sock.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + frame(4, 0))
    file = sock.makefile("rb")
    try:
        while head := file.read(9):
            body = file.read(int.from_bytes(head[:3], "big"))
            if head[3] == 4 and not head[4]:
                sock.sendall(frame(4, 1))
                say(number=number, open=True)
                if number % 2:
                    threading.Thread(target=ping, args=(sock,)).start()
            elif head[3] == 7:
                say(number=number, last=int.from_bytes(body[:4], "big"), error=int.from_bytes(body[4:8], "big"))
    except OSError:
        pass
    say(number=number, ended=True)

for number in range(4):
    threading.Thread(target=hold, args=(number,)).start()
signal.pause()
"""


@pytest.mark.parametrize("drain_s, farewell", [(3, []), (16, [EVERY_STREAM, NO_STREAM])], ids=["a short drain", "a longer one"])
def test_an_idle_http2_connection_is_told_that_it_will_end_if_the_drain_is_long_enough(drain_s: int, farewell: list[int]) -> None:
    objects = [scene.MESHED, scene.BARE, policy("PERMISSIVE"), service("server", "mesh", ports={"http2": 8080}), pod("server", "mesh", container(scene.SERVER))]
    with Lab(manifests=objects, mesh={"defaultConfig": {"drainDuration": f"{drain_s}s"}}) as lab, lab.client() as client:
        lab.apply(pod("idle", "bare", container(IDLE)))

        def said(key: str) -> list[Json]:
            return [line for line in told(client, "bare", "idle") if key in line]

        until(lambda: len(said("open")) == 4)
        begun = time.monotonic()
        client.patch("PeerAuthentication", "default", "mesh", {"spec": {"mtls": {"mode": "STRICT"}}})
        until(lambda: len(said("ended")) == 4)

        for number in range(4):
            mine = [line for line in told(client, "bare", "idle") if line["number"] == number]
            goaways = [line for line in mine if "last" in line]
            assert [line["last"] for line in goaways] == farewell[: len(goaways)] and len(goaways) >= min(1, len(farewell)), mine
            assert {line["error"] for line in goaways} <= {0}
            assert mine[-1].get("ended"), mine
            if goaways:
                assert goaways[0]["at"] - begun >= drain_s * 2 / 3 - 0.5, mine
                after = goaways[1] if len(goaways) > 1 else mine[-1]  # the drain may end before the second farewell is due
                assert (after["at"] - goaways[0]["at"] >= PAUSE_S - 0.5) if after in goaways else (after["at"] - begun >= drain_s - 0.5), mine
            else:
                assert mine[-1]["at"] - begun >= drain_s - 0.5, mine
