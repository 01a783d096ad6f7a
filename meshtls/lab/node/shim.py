"""A pod's network and files for a Python program that has neither namespace: the lab's loopback mode copies this file into the
containers' PYTHONPATH as `sitecustomize`. Standard library only; imports nothing of ours.

A pod has three addresses of this machine's loopback: `ip`, which the cluster knows; `app`, where its programs listen when its proxy listens
on `ip` for them; `local`, its 127.0.0.1. The law:

    bind      all addresses or `ip`: `app` if the proxy captures the port, and the lab is told; else `ip`. 127.0.0.1: `local`
    connect   127.0.0.1, or the pod itself: past the proxy. What interception captures: to the proxy's outbound port, the destination told
              by a PROXY header. A pod: as it is. Anything else is a Service's address or nothing: the lab is asked. Source: `ip`
    names     the lab is asked; IPv4 only
    files     a path below a mount is the volume's; /tmp is the pod's own
"""
import builtins
import errno
import io
import json
import os
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

VARIABLE = "MESHTLS_LOOPBACK"
NOT_CAPTURED = (15008, 15020, 15021, 15090)
FILES = ("open", "stat", "lstat", "listdir", "scandir", "access", "readlink", "mkdir", "rmdir", "unlink", "remove", "rename", "replace",
         "chmod", "utime", "truncate")
ASK_S, ASKS = 1.0, 5
LOCAL_S = 5.0
Address = tuple[str, int]
_Socket: Any = socket.socket.__base__
_getaddrinfo = socket.getaddrinfo


def captured(rules: dict[str, Any] | None, port: int) -> bool:
    """Whether interception takes a TCP port of the pod to its proxy. `rules`: include (None: all), exclude; None for no interception."""
    if rules is None or port in NOT_CAPTURED:
        return False
    return port not in rules["exclude"] if rules["include"] is None else port in rules["include"]


def number(ip: str) -> int:
    """An IPv4 address as a number."""
    return int.from_bytes(socket.inet_aton(ip), "big")


def proxied(rules: dict[str, Any] | None, ip: str, port: int) -> bool:
    """Whether interception takes a TCP connection to this address to the proxy. `rules`: ports and ranges (number, mask), each with what is left
    out; None for no interception, and for programs that run as the proxy's user."""
    def within(ranges: list[tuple[int, int]]) -> bool:
        return any(number(ip) & mask == network for network, mask in ranges)
    if rules is None or port in rules["not_ports"] or within(rules["not_ranges"]):
        return False
    return port in rules["ports"] or within(rules["ranges"])


def header(source: Address, destination: Address) -> bytes:
    """A PROXY protocol header (version 2, TCP over IPv4)."""
    return b"\r\n\r\n\0\r\nQUIT\n!\x11\0\x0c" + b"".join(socket.inet_aton(ip) for ip, _ in (source, destination)) + struct.pack(
        ">HH", source[1], destination[1])


class Pod:
    """The pod that this program runs in, as the lab describes it."""

    def __init__(self, place: dict[str, Any]) -> None:
        self.ip: str = place["ip"]
        self.app: str = place["app"]
        self.local: str = place["local"]
        self.block: str = place["block"]
        self.inbound, self.outbound, self.proxy_port = place["inbound"], place["outbound"], place["proxy_port"]
        self.lab, self.search, self.hosts, self.hostname = tuple(place["lab"]), place["search"], place["hosts"], place["hostname"]
        self.paths = [(mount, source) for mount, source in place["paths"]]

    def ask(self, **question: Any) -> dict[str, Any]:
        """What the lab says. Raises TimeoutError when it is gone."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
            line.settimeout(ASK_S)
            _Socket.connect(line, self.lab)
            for _ in range(ASKS):
                line.send(json.dumps(question).encode())
                with suppress(TimeoutError):
                    said: dict[str, Any] = json.loads(line.recv(65536))
                    return said
        raise TimeoutError(errno.ETIMEDOUT, "the lab does not answer")

    def within(self, ip: str) -> bool:
        """Whether a call to this address stays in the pod: its 127.0.0.0/8, and what stands for it."""
        return ip in ("", "0.0.0.0") or ip.startswith("127.") and not ip.startswith(self.block)

    def listens(self, ip: str, port: int, stream: bool) -> str:
        """The address to bind in place of `ip`."""
        if ip in ("", "0.0.0.0", self.ip):
            return self.app if stream and captured(self.inbound, port) else self.ip
        return self.local if self.within(ip) else ip

    def route(self, ip: str, port: int, stream: bool) -> tuple[Address, bool]:
        """Where a connection goes, and whether that is the proxy. Raises OSError."""
        if self.within(ip) and _taken(self.local, port, stream):
            return (self.local, port), False
        if ip == self.ip or self.within(ip):
            return (self.listens("", port, stream), port), False
        if stream and proxied(self.outbound, ip, port):
            return (self.local, self.proxy_port), True
        if ip.startswith(self.block):
            return (ip, port), False
        said = self.ask(ip=ip, port=port, protocol="TCP" if stream else "UDP")
        if "errno" in said:
            raise OSError(said["errno"], os.strerror(said["errno"]))
        return (said["ip"], said["port"]), False

    def resolve(self, name: str) -> list[str]:
        """IPv4 addresses of a name; [] if there is none."""
        if name in ("localhost", "localhost."):
            return ["127.0.0.1"]
        if name in self.hosts:
            return [self.hosts[name]]
        found: list[str] = self.ask(name=name, search=self.search)["addresses"]
        return found

    # in place of the socket module's

    def four(self, sock: socket.socket, address: Any) -> Address | None:
        """The IPv4 address and port that are meant; None for what is no IP socket. Raises OSError for IPv6, of which there is none."""
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            return None
        host, port = address[0], address[1]
        ip = {"::": "0.0.0.0", "::1": "127.0.0.1"}.get(host, host.removeprefix("::ffff:"))
        if ":" in ip:
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
        if ip and not _numeric(ip):
            ip = next(iter(self.resolve(ip)), "")
            if not ip:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return ip, port

    def shown(self, sock: socket.socket, address: Address) -> Any:
        """An IPv4 address for the kernel, in an IPv6 socket as a mapped one."""
        if sock.family == socket.AF_INET:
            return address
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        return ("::ffff:" + address[0], address[1])

    def bind(self, sock: socket.socket, address: Any) -> None:
        wanted = self.four(sock, address)
        if wanted is None:
            return _Socket.bind(sock, address)  # type: ignore[no-any-return]
        ip = self.listens(*wanted, sock.type == socket.SOCK_STREAM)
        _Socket.bind(sock, self.shown(sock, (ip, wanted[1])))
        if ip == self.app != self.ip:
            self.ask(listens=sock.getsockname()[1], ip=self.ip)

    def connect(self, sock: socket.socket, address: Any) -> None:
        wanted = self.four(sock, address)
        if wanted is None:
            return _Socket.connect(sock, address)  # type: ignore[no-any-return]
        target, proxy = self.route(*wanted, sock.type == socket.SOCK_STREAM)
        with suppress(OSError):  # bound already: then that is what it wants
            _Socket.bind(sock, self.shown(sock, (self.local if self.within(wanted[0]) and not proxy else self.ip, 0)))
        if not proxy:
            return _Socket.connect(sock, self.shown(sock, target))  # type: ignore[no-any-return]
        patience = sock.gettimeout()
        sock.settimeout(LOCAL_S)  # answered at once by the kernel: also a socket that never waits may wait for it
        try:
            _Socket.connect(sock, self.shown(sock, target))
            sock.sendall(header(sock.getsockname()[:2], wanted))
        finally:
            sock.settimeout(patience)

    def connect_ex(self, sock: socket.socket, address: Any) -> int:
        try:
            self.connect(sock, address)
        except OSError as error:
            if error.errno is None or isinstance(error, socket.gaierror):
                raise
            return error.errno
        return 0

    def getaddrinfo(self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else host
        if not name or _numeric(name) or ":" in name or flags & socket.AI_NUMERICHOST:
            return _getaddrinfo(host, port, family if name else family or socket.AF_INET, type, proto, flags)
        addresses = self.resolve(name) if family != socket.AF_INET6 else []
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [entry for ip in addresses for entry in _getaddrinfo(ip, port, socket.AF_INET, type, proto, 0)]

    def gethostbyname(self, name: str) -> str:
        return str(self.getaddrinfo(name, None)[0][4][0])

    def gethostbyname_ex(self, name: str) -> tuple[str, list[str], list[str]]:
        return name, [], list(dict.fromkeys(str(entry[4][0]) for entry in self.getaddrinfo(name, None)))

    def gethostbyaddr(self, _: str) -> NoReturn:
        raise socket.herror(1, "Unknown host")

    # files

    def path(self, value: Any) -> Any:
        """A path below a mount as the volume's file; anything else as it is."""
        if not isinstance(value, (str, os.PathLike)):
            return value
        text = os.fspath(value)
        if not isinstance(text, str) or not text.startswith("/"):
            return value
        for mount, source in self.paths:
            if text == mount or text.startswith(mount + "/"):
                return source + text[len(mount):]
        return value

    def through(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with every argument that is a path below a mount put right."""
        def call(*args: Any, **named: Any) -> Any:
            return function(*map(self.path, args), **{key: self.path(value) for key, value in named.items()})
        return call


def _numeric(text: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET, text)
    except OSError:
        return False
    return True


def _taken(ip: str, port: int, stream: bool) -> bool:
    """Whether a program listens there. Found by binding: not every kernel lets a socket that was refused once connect again."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as sock:
        if stream:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what has been closed does not count
        try:
            _Socket.bind(sock, (ip, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def install(pod: Pod) -> None:
    """From now on this process is in the pod."""
    for name in ("bind", "connect", "connect_ex"):
        setattr(socket.socket, name, _method(getattr(pod, name)))
    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr"):
        setattr(socket, name, getattr(pod, name))
    socket.gethostname = lambda: pod.hostname
    for name in FILES:
        setattr(os, name, pod.through(getattr(os, name)))
    for name in ("load_cert_chain", "load_verify_locations"):
        setattr(ssl.SSLContext, name, pod.through(getattr(ssl.SSLContext, name)))
    builtins.open = io.open = pod.through(io.open)


def _method(function: Callable[[socket.socket, Any], Any]) -> Callable[[socket.socket, Any], Any]:
    """As a method of every socket, which a bound method would not be."""
    return lambda sock, address: function(sock, address)


if __name__ == "sitecustomize" and VARIABLE in os.environ:
    install(Pod(json.loads(os.environ[VARIABLE])))
