"""A pod's program on this machine's loopback: what it binds, whom it calls, which files it opens, with nothing in it changed."""

import errno
import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from meshtls.lab import addresses
from meshtls.lab.node import runner, shim

LOW = f"{1 + os.getpid() // 250 % 250}.{1 + os.getpid() % 250}"  # two test runs at a time have addresses of their own
IP, APP, LOCAL = (f"127.{first}.{LOW}" for first in (30, 31, 32))
OTHER, SERVICE = f"127.30.0.{1 + os.getpid() % 99}", "10.96.0.77"
everywhere = pytest.mark.skipif(not addresses.there(addresses.BLOCKS.stop), reason="macOS: its loopback interface has 127.0.0.1 only")
EVERYTHING = {"ports": [], "not_ports": [9999], "ranges": [[0, 0]], "not_ranges": [[shim.number("10.0.0.0"), 0xFFFF0000]]}


def place(**changes: Any) -> dict[str, Any]:
    """A pod behind a proxy, unless said otherwise."""
    return {"ip": IP, "app": APP, "local": LOCAL, "block": "127.30.", "lab": ["127.0.0.1", 1], "inbound": {"include": None, "exclude": [7000]},
            "outbound": EVERYTHING, "proxy_port": 15001, "hostname": "web-0", "hosts": {"web-0": IP}, "search": ["shop.svc.cluster.local"],
            "paths": []} | changes


BARE = {"app": IP, "inbound": None, "outbound": None}


class Told(shim.Pod):
    """A pod whose lab knows one Service and one name."""

    def ask(self, **question: Any) -> dict[str, Any]:
        if "name" in question:
            return {"addresses": [SERVICE] if question["name"] == "cart" else []}
        return {"ip": OTHER, "port": 8080} if question["ip"] == SERVICE else {"errno": errno.EHOSTUNREACH}


@pytest.mark.parametrize(
    ("rules", "taken", "left"),
    [
        (None, [], [8080, 15021]),
        ({"include": None, "exclude": [9100]}, [80, 8080], [9100, 15008, 15020, 15021, 15090]),
        ({"include": [8080], "exclude": []}, [8080], [80, 9100, 15021]),
    ],
)
def test_interception_takes_a_port_to_the_proxy_or_leaves_it(rules: Any, taken: list[int], left: list[int]) -> None:
    assert all(shim.captured(rules, port) for port in taken)
    assert not any(shim.captured(rules, port) for port in left)


@pytest.mark.parametrize(
    ("ip", "port", "told"),
    [
        ("10.96.0.1", 443, True),
        ("127.30.4.5", 8080, True),
        ("10.0.3.4", 8080, False),  # an excluded range
        ("10.96.0.1", 9999, False),  # an excluded port
    ],
)
def test_outbound_calls_are_taken_by_range_and_port(ip: str, port: int, told: bool) -> None:
    assert shim.proxied(EVERYTHING, ip, port) is told
    assert not shim.proxied(None, ip, port)


def test_a_port_may_be_taken_whatever_its_range() -> None:
    assert shim.proxied({"ports": [25], "not_ports": [], "ranges": [], "not_ranges": []}, "10.0.0.1", 25)


@pytest.mark.parametrize(
    ("changes", "asked", "bound"),
    [
        ({}, ("0.0.0.0", 8080), APP),
        ({}, ("", 8080), APP),
        ({}, (IP, 8080), APP),
        ({}, ("0.0.0.0", 7000), IP),  # excluded from interception
        ({}, ("127.0.0.1", 8080), LOCAL),
        (BARE, ("0.0.0.0", 8080), IP),
        (BARE, ("127.0.0.1", 8080), LOCAL),
        (BARE, (OTHER, 8080), OTHER),  # another's: for the kernel to judge
    ],
)
def test_a_program_listens_behind_its_proxy_or_at_the_pods_address(changes: Any, asked: tuple[str, int], bound: str) -> None:
    assert Told(place(**changes)).listens(*asked, True) == bound


def test_no_proxy_takes_udp() -> None:
    pod = Told(place())

    assert pod.listens("0.0.0.0", 53, False) == IP
    assert pod.route(OTHER, 53, False) == ((OTHER, 53), False)


@pytest.mark.parametrize(
    ("changes", "called", "goes"),
    [
        ({}, (OTHER, 8080), ((LOCAL, 15001), True)),
        ({}, (SERVICE, 80), ((LOCAL, 15001), True)),
        ({}, (OTHER, 9999), ((OTHER, 9999), False)),
        ({}, (SERVICE, 9999), ((OTHER, 8080), False)),
        ({}, (IP, 8080), ((APP, 8080), False)),
        ({}, ("127.0.0.1", 8080), ((APP, 8080), False)),
        (BARE, (OTHER, 8080), ((OTHER, 8080), False)),
        (BARE, (SERVICE, 80), ((OTHER, 8080), False)),
        (BARE, ("127.0.0.1", 8080), ((IP, 8080), False)),
    ],
)
def test_a_call_goes_where_the_network_would_have_taken_it(changes: Any, called: tuple[str, int], goes: Any) -> None:
    assert Told(place(**changes)).route(*called, True) == goes


@everywhere
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_program_that_listens_on_the_pods_own_loopback_comes_before_one_that_listens_on_all_addresses(kind: socket.SocketKind) -> None:
    pod, stream = Told(place(**BARE)), kind == socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as server:
        server.bind((LOCAL, 0))
        if stream:
            server.listen()
        port = server.getsockname()[1]

        assert pod.route("127.0.0.1", port, stream) == ((LOCAL, port), False)
    assert pod.route("127.0.0.1", port, stream) == ((IP, port), False)


def test_what_is_neither_pod_nor_service_is_unreachable() -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EHOSTUNREACH)):
        Told(place(**BARE)).route("192.0.2.1", 80, True)


def test_names_come_from_the_lab_and_have_ipv4_addresses_only() -> None:
    pod = Told(place())

    assert {entry[4] for entry in pod.getaddrinfo("cart", 80)} == {(SERVICE, 80)}
    assert pod.gethostbyname("web-0") == IP
    assert pod.gethostbyname("localhost") == "127.0.0.1"
    for ask in (("nowhere", 80), ("cart", 80, socket.AF_INET6)):
        with pytest.raises(socket.gaierror):
            pod.getaddrinfo(*ask)
    assert {entry[0] for entry in pod.getaddrinfo(None, 80, flags=socket.AI_PASSIVE)} == {socket.AF_INET}


def test_a_header_says_who_calls_whom() -> None:
    told = shim.header((IP, 40000), (SERVICE, 80))

    assert told[:12] == b"\r\n\r\n\0\r\nQUIT\n" and told[12:16] == b"\x21\x11\x00\x0c"
    assert told[16:] == socket.inet_aton(IP) + socket.inet_aton(SERVICE) + struct.pack(">HH", 40000, 80)


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("/programs/server.py", "/run/1/server.py"),
        ("--config=/programs/a", "--config=/run/1/a"),
        ("/lib:/programs", "/lib:/run/1"),
        ("/programs2/server.py", "/programs2/server.py"),
        ("http://host/programs/x", "http://host/programs/x"),
    ],
)
def test_arguments_that_name_a_mount_name_its_volume(text: str, becomes: str) -> None:
    assert runner.reroute(text, [("/programs", "/run/1")]) == becomes


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("/programs/server.py", "/tmp/lab/run/1/server.py"),
        ("/tmp/lab/run/shim:/tmp/own", "/tmp/lab/run/shim:/tmp/lab/run/tmp/ip/own"),
        ("/tmp", "/tmp/lab/run/tmp/ip"),
    ],
)
def test_what_is_in_place_stays_where_the_lab_itself_is_below_a_mount(text: str, becomes: str) -> None:
    paths = [("/tmp/lab/run", "/tmp/lab/run"), ("/programs", "/tmp/lab/run/1"), ("/tmp", "/tmp/lab/run/tmp/ip")]

    assert runner.reroute(text, paths) == becomes
    assert runner.reroute(becomes, paths) == becomes


@pytest.mark.parametrize(
    ("argv", "becomes"),
    [
        ("python3 -u /programs/a.py /programs/b", "python3 -u /run/1/a.py /programs/b"),
        ("python -W ignore /programs/a.py", "python -W ignore /run/1/a.py"),
        ("python3.12 -c pass /programs/b", "python3.12 -c pass /programs/b"),
        ("cat /programs/a /programs/b", "cat /run/1/a /run/1/b"),
    ],
)
def test_a_python_program_keeps_the_words_that_its_interpreter_does_not_read(argv: str, becomes: str) -> None:
    env = {"PYTHONPATH": "/programs", "CONFIG": "/programs/c"}
    words, variables = runner.placed(argv.split(), env, [("/programs", "/run/1")])

    assert " ".join(words) == becomes
    assert variables == {"PYTHONPATH": "/run/1", "CONFIG": "/programs/c" if "python" in argv else "/run/1/c"}


PROGRAM = """
import asyncio, http.server, json, os, pathlib, socket, threading, urllib.request
server = http.server.ThreadingHTTPServer(("", 0), http.server.SimpleHTTPRequestHandler)
said = {"server": server.server_address[0], "host": socket.gethostname()}
said["mount"] = [open("/mnt/volume/key").read(), pathlib.Path("/mnt/volume/key").read_text(), os.listdir("/mnt/volume")]
for name, url in (("service", "http://cart/"), ("pod", os.environ["OTHER"])):
    said[name] = urllib.request.urlopen(url, timeout=5).read().decode()
six = socket.socket(socket.AF_INET6)
six.bind(("::", 0))
said["six"] = six.getsockname()[0]
class Line(asyncio.Protocol):
    def connection_made(self, transport): transport.write(b"hello"), transport.close()
async def turn():
    served = await asyncio.start_server(lambda r, w: w.write(b"x"), None, 0)
    said["asyncio"] = [each.getsockname()[0] for each in served.sockets]
    reader, writer = await asyncio.open_connection("127.0.0.1", served.sockets[0].getsockname()[1])
    said["itself"] = (await reader.read(1)).decode()
    reader, writer = await asyncio.open_connection("cart", 80)
    writer.write(b"GET / HTTP/1.0\\r\\n\\r\\n")
    said["by asyncio"] = (await reader.read()).decode().rpartition("\\r\\n")[2]
    writer.close(), served.close()
asyncio.run(turn())
probe = socket.socket()
said["refused"] = probe.connect_ex(("127.0.0.1", 1))
print(json.dumps(said))
"""


class World:
    """What a lab and a proxy are to one program: answers to its questions, and an end of its calls that reads the header."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []
        self.lab = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.lab.bind(("127.0.0.1", 0))
        self.proxy = socket.create_server((LOCAL, 0))
        self.server = socket.create_server((OTHER, 0))
        for work in (self._names, lambda: self._answer(self.proxy, 28), lambda: self._answer(self.server, 0)):
            threading.Thread(target=work, daemon=True).start()

    def _names(self) -> None:
        while True:
            try:
                data, peer = self.lab.recvfrom(4096)
            except OSError:
                return
            asked = json.loads(data)
            if "listens" in asked:
                self.told.append((asked["ip"], asked["listens"]))
            said = {"addresses": [SERVICE]} if asked.get("name") == "cart" else {"errno": errno.EHOSTUNREACH}
            self.lab.sendto(json.dumps(said).encode(), peer)

    def _answer(self, listener: socket.socket, header: int) -> None:
        """HTTP: who called, and by the header, whom."""
        while True:
            try:
                connection, peer = listener.accept()
            except OSError:
                return
            with connection:
                data = b""
                while b"\r\n\r\n" not in data[header:]:
                    data += connection.recv(4096)
                said = peer[0].encode()
                if header:
                    said += b" for " + socket.inet_ntoa(data[16:20]).encode() + b" to " + socket.inet_ntoa(data[20:24]).encode()
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + said)

    def close(self) -> None:
        for sock in (self.lab, self.proxy, self.server):
            if sock is not self.lab:
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def run(world: World, tmp_path: pathlib.Path, program: str = PROGRAM, **changes: Any) -> dict[str, Any]:
    """What a program says in a pod."""
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "key").write_text("secret")
    (tmp_path / "shim").mkdir()
    shutil.copy(shim.__file__, tmp_path / "shim" / "sitecustomize.py")
    told = place(lab=world.lab.getsockname(), proxy_port=world.proxy.getsockname()[1], paths=[["/mnt/volume", str(volume)]], **changes)
    env = {"PYTHONPATH": str(tmp_path / "shim"), shim.VARIABLE: json.dumps(told), "PATH": os.environ["PATH"],
           "OTHER": f"http://{OTHER}:{world.server.getsockname()[1]}/"}  # fmt: skip
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@everywhere
def test_an_unchanged_program_lives_in_its_pod_behind_a_proxy(world: World, tmp_path: pathlib.Path) -> None:
    said = run(world, tmp_path)

    assert said == {
        "server": APP, "host": "web-0", "mount": ["secret", "secret", ["key"]],
        "service": f"{IP} for {IP} to {SERVICE}", "by asyncio": f"{IP} for {IP} to {SERVICE}", "pod": f"{IP} for {IP} to {OTHER}",
        "six": f"::ffff:{APP}", "asyncio": [APP], "itself": "x", "refused": errno.ECONNREFUSED,
    }  # fmt: skip
    assert [ip for ip, port in world.told if port] == [IP] * 3  # three servers: the proxy is to listen for them


@everywhere
def test_an_unchanged_program_without_a_proxy_calls_by_itself(world: World, tmp_path: pathlib.Path) -> None:
    here = world.server.getsockname()
    program = PROGRAM.replace("http://cart/", f"http://cart:{here[1]}/").replace('"cart", 80', f'"cart", {here[1]}')
    said = run(world, tmp_path, program, **BARE, hosts={"cart": OTHER})

    assert (said["server"], said["service"], said["pod"], said["by asyncio"]) == (IP, IP, IP, IP)
    assert not world.told
