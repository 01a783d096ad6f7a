"""What a client without sidecar gets from real Envoys, and what their logs say of it: cell by cell as measured on a real mesh
(istiod and pilot-agent of Istio 1.32-dev, Helm defaults)."""

import datetime
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import scene
import stranger
from scene import Json, container, lines, namespace, pod, policy, service, told, until

from meshtls.lab import Lab
from meshtls.pki import workload
from meshtls.pki.authority import Authority
from meshtls.pki.identity import Identity

pytestmark = pytest.mark.lab
MODES = ("PERMISSIVE", "STRICT", "DISABLE")
PORTS = {"http": 8080, "tcp": 9000, "https": 9300, "unknown name": 9100, "no Service": 9200}

# What is sent -> what comes back under PERMISSIVE, STRICT, DISABLE.
MEASURED = """
request             | http         | answer    | refused   | answer
request             | tcp          | answer    | refused   | answer
request             | https        | answer    | refused   | answer
request             | unknown name | answer    | refused   | answer
request             | no Service   | answer    | refused   | answer
five                | http         | waits     | refused   | waits
five                | tcp          | answer    | refused   | answer
five                | https        | answer    | refused   | answer
five                | unknown name | waits     | refused   | waits
five                | no Service   | waits     | refused   | waits
one                 | http         | waits     | waits     | waits
one                 | tcp          | waits     | waits     | answer
one                 | https        | waits     | waits     | answer
one                 | no Service   | waits     | waits     | waits
nothing             | tcp          | waits     | waits     | answer
nothing             | https        | waits     | waits     | answer
nothing             | no Service   | waits     | waits     | waits
tls                 | http         | refused   | mesh cert | app
tls                 | tcp          | app       | mesh cert | app
tls                 | https        | app       | mesh cert | app
tls                 | unknown name | app       | mesh cert | app
tls                 | no Service   | app       | mesh cert | app
tls http/1.1        | http         | refused   | mesh cert | app
tls http/1.1        | tcp          | app       | mesh cert | app
tls http/1.1        | https        | app       | mesh cert | app
tls http/1.1        | unknown name | app       | mesh cert | app
tls http/1.1        | no Service   | app       | mesh cert | app
tls h2              | http         | refused   | mesh cert | app
tls h2              | tcp          | app       | mesh cert | app
tls h2              | https        | app       | mesh cert | app
tls h2              | unknown name | app       | mesh cert | app
tls h2              | no Service   | app       | mesh cert | app
tls istio           | http         | mesh cert | mesh cert | app
tls istio           | tcp          | mesh cert | mesh cert | app
tls istio           | https        | mesh cert | mesh cert | app
tls istio           | unknown name | mesh cert | mesh cert | app
tls istio           | no Service   | mesh cert | mesh cert | app
tls istio-http/1.1  | http         | mesh cert | mesh cert | app
tls istio-http/1.1  | tcp          | mesh cert | mesh cert | app
tls istio-http/1.1  | https        | mesh cert | mesh cert | app
tls istio-http/1.1  | unknown name | mesh cert | mesh cert | app
tls istio-http/1.1  | no Service   | mesh cert | mesh cert | app
forged              | http         | mesh cert | mesh cert | app
forged              | tcp          | mesh cert | mesh cert | app
forged              | https        | mesh cert | mesh cert | app
forged              | unknown name | mesh cert | mesh cert | app
forged              | no Service   | mesh cert | mesh cert | app
"""

# an HTTP server, and servers that speak first and then answer whatever comes
SERVER = """
import asyncio, os, signal

async def http(reader, writer):
    try:
        await reader.readuntil(b"\\r\\n\\r\\n")
        writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\nconnection: close\\r\\n\\r\\nok")
        await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    writer.close()

async def first(reader, writer):
    try:
        writer.write(b"220 welcome\\r\\n")
        await writer.drain()
        while await reader.read(100):
            writer.write(b"250 yes\\r\\n")
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()

async def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os._exit, 0)
    await asyncio.start_server(http, "0.0.0.0", 8080)
    for port in (9000, 9100, 9200, 9300):
        await asyncio.start_server(first, "0.0.0.0", port)
    await asyncio.Event().wait()

asyncio.run(main())
"""
# a client behind a sidecar of its own: one request over HTTP, one exchange over TCP, to each server
MESHED = """
import http.client, os, signal, socket, sys, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
for host in sys.argv[1:]:
    connection = http.client.HTTPConnection(host, 8080, timeout=10)
    connection.request("GET", "/meshed")
    status = connection.getresponse().status
    connection.close()
    with socket.create_connection((host, 9000), 10) as s:
        s.settimeout(10)
        banner = s.recv(100)
        s.sendall(b"hello")
        answer = s.recv(100)
    print(host, status, banner, answer, flush=True)
print("done", flush=True)
time.sleep(3600)
"""


def server(mode: str) -> list[Json]:
    """A namespace of that mode, named after it, with a server in it."""
    where = mode.lower()
    ports = {"http": 8080, "tcp-first": 9000, "data": 9100, "https": 9300}
    return [namespace(where, **{"istio-injection": "enabled"}), service("server", where, ports=ports), policy(mode, where),
            pod("server", where, container(SERVER))]  # fmt: skip


class Seen:
    """All cells asked once, by a stranger and by a meshed client, with the servers' logs of it."""

    def __init__(self, lab: Lab) -> None:
        cells = [line.split("|")[:2] for line in MEASURED.strip().splitlines()]
        now = datetime.datetime.now(datetime.UTC)
        foreign = Authority.new(now, datetime.timedelta(hours=1), os.urandom)
        forged = workload.issue(foreign, Identity("cluster.local", "strict", "default"), now, os.urandom, datetime.timedelta(minutes=30))
        with lab.client() as client:
            self.address = {mode: client.get("Pod", "server", mode.lower())["status"]["podIP"] for mode in MODES}
            plan = {"certificate": forged.key_pem + forged.certificate_pem,
                    "cells": [[mode, self.address[mode], PORTS[port.strip()], offer.strip()] for offer, port in cells for mode in MODES]}  # fmt: skip
            lab.apply(pod("stranger", "bare", container(Path(stranger.__file__).read_text(), json.dumps(plan))),
                      pod("meshed", "permissive", container(MESHED, *(f"server.{mode.lower()}" for mode in MODES))))  # fmt: skip
            said = until(lambda: (found := told(client, "bare", "stranger")) and "done" in found[-1] and found)
            self.cells = {(one["server"], one["port"], one["offer"]): one for one in said if "got" in one}
            self.meshed = until(lambda: (found := lines(client, "permissive", "meshed")) and found[-1] == "done" and found[:-1])
            self.stranger_ip = client.get("Pod", "stranger", "bare")["status"]["podIP"]
            self.logs = {mode: [line.partition("] ")[2] for line in client.logs(mode.lower(), "server", "istio-proxy") if re.match(r"\[\S+Z\] \"", line)]
                         for mode in MODES}  # fmt: skip

    def lines(self, mode: str, port: str, offer: str) -> list[str]:
        """What the server's proxy logged of a cell: found by the client's address."""
        local = self.cells[mode, PORTS[port], offer]["local"]
        return [line for line in self.logs[mode] if f" {self.stranger_ip}:{local} " in line]

    def refusal(self, mode: str, port: str, offer: str, sni: str = "-") -> str:
        """The listener's line of a connection that no filter chain took."""
        number = PORTS[port]
        client = f"{self.stranger_ip}:{self.cells[mode, number, offer]['local']}"
        return f'"- - -" 0 NR filter_chain_not_found - "-" 0 0 0 - "-" "-" "-" "-" "-" - - {self.address[mode]}:{number} {client} {sni} -'


@pytest.fixture(scope="module")
def seen() -> Iterator[Seen]:
    objects = [one for mode in MODES for one in server(mode)]
    with Lab(manifests=[*objects, scene.BARE], mesh={"accessLogFile": "/dev/stdout"}) as lab:
        yield Seen(lab)


@pytest.mark.parametrize("row", MEASURED.strip().splitlines(), ids=lambda row: " ".join(row.split()[:4]))
def test_a_stranger_gets_what_a_real_mesh_gave(row: str, seen: Seen) -> None:
    offer, port, *expected = (part.strip() for part in row.split("|"))
    assert [seen.cells[mode, PORTS[port], offer]["got"] for mode in MODES] == expected


def test_a_meshed_client_reaches_every_mode_also_where_the_server_speaks_first(seen: Seen) -> None:
    assert seen.meshed == [f"server.{mode.lower()} 200 b'220 welcome\\r\\n' b'250 yes\\r\\n'" for mode in MODES]


@pytest.mark.parametrize("port", PORTS)
def test_refused_plaintext_is_one_line_that_names_the_client(port: str, seen: Seen) -> None:
    assert _timeless(seen.lines("STRICT", port, "request")) == [seen.refusal("STRICT", port, "request")]


def test_tls_without_a_chain_is_logged_alike_but_with_its_server_name(seen: Seen) -> None:
    sni = stranger.sni("PERMISSIVE", 8080, "tls")
    assert _timeless(seen.lines("PERMISSIVE", "http", "tls")) == [seen.refusal("PERMISSIVE", "http", "tls", sni)]


@pytest.mark.parametrize("offer", ["tls", "tls istio", "forged"])
def test_a_refused_certificate_leaves_no_line_on_an_http_port(offer: str, seen: Seen) -> None:
    assert seen.lines("STRICT", "http", offer) == []


@pytest.mark.parametrize("offer", ["tls", "tls istio", "forged"])
def test_a_refused_certificate_looks_like_success_on_a_tcp_port(offer: str, seen: Seen) -> None:
    (line,) = seen.lines("STRICT", "tcp", offer)
    # nothing received; sent counts the greeting of this server, which never reached the client
    assert re.match(r'"- - -" 0 - - - "-" 0 (0|13) \d+ - ', line)
    assert " inbound|9000|| " in line and line.endswith(f" {stranger.sni('STRICT', 9000, offer)} -")


def test_accepted_plaintext_over_http_has_no_server_name(seen: Seen) -> None:
    (line,) = seen.lines("PERMISSIVE", "http", "request")
    assert line.startswith('"GET /seen HTTP/1.1" 200 - via_upstream') and line.endswith(" - default")


def test_accepted_plaintext_over_tcp_has_bytes_and_no_server_name(seen: Seen) -> None:
    (line,) = seen.lines("PERMISSIVE", "tcp", "five")
    assert line.startswith('"- - -" 0 - - - "-" 5 ') and " inbound|9000|| " in line and line.endswith(" - -")


def test_tls_of_the_application_passes_through_with_a_foreign_server_name(seen: Seen) -> None:
    (line,) = seen.lines("PERMISSIVE", "tcp", "tls")
    assert line.startswith('"- - -" 0 ') and line.endswith(f" {stranger.sni('PERMISSIVE', 9000, 'tls')} -")


@pytest.mark.parametrize("mode, tls", [("PERMISSIVE", True), ("STRICT", True), ("DISABLE", False)])
def test_a_meshed_client_is_logged_with_istios_server_name(mode: str, tls: bool, seen: Seen) -> None:
    (http,) = [line for line in seen.logs[mode] if line.startswith('"GET /meshed ')]
    (tcp,) = [line for line in seen.logs[mode] if line.startswith('"- - -" 0 - - - "-" 5 ') and f"{seen.stranger_ip}:" not in line and "outbound|" not in line]
    names = [f"outbound_.{port}_._.server.{mode.lower()}.svc.cluster.local" for port in (8080, 9000)] if tls else ["-", "-"]
    assert http.split()[-2:] == [names[0], "default"]
    assert tcp.split()[-2:] == [names[1], "-"]


def test_tls_on_a_plaintext_http_port_is_a_protocol_error(seen: Seen) -> None:
    (line,) = seen.lines("DISABLE", "http", "tls")
    assert line.startswith('"- - HTTP/1.1" 400 DPE http1.codec_error')


def _timeless(lines: list[str]) -> list[str]:
    """With a duration of 0 ms: the time that it took is not compared."""
    return [re.sub(r'("-" 0 0) \d+ - ', r"\1 0 - ", line) for line in lines]
