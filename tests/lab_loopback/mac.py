"""A machine that lacks what macOS lacks, for as far as Linux can play it.

Its loopback interface has 127.0.0.1/32 and no other address answers; /proc is empty, /dev is small and knows open files; the kernel refuses namespaces, mounts, memfds and pidfds;
the lab's Python has none of the names that Python has on Linux alone; `ifconfig lo0 [-]alias` works for who may. psutil, which asks macOS by
system calls, is told where the real /proc is. Not played: another kernel's sockets, signals, dynamic linker and file system.
"""

import contextlib
import ctypes
import os
import pathlib
import platform
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from meshtls.lab.node import linux, netlink

ROOT = pathlib.Path(__file__).parents[2]
WITHOUT = {
    "os": "eventfd memfd_create O_PATH O_TMPFILE pidfd_open pipe2 posix_fadvise sched_getaffinity setns setresgid setresuid splice unshare",
    "select": "epoll",
    "signal": "pidfd_send_signal",
    "socket": "AF_NETLINK AF_PACKET SOCK_CLOEXEC SOCK_NONBLOCK SOCK_SEQPACKET",
}
REFUSED = {"x86_64": (165, 272, 308, 319, 434), "aarch64": (40, 97, 268, 279, 434)}  # mount, unshare, setns, memfd_create, pidfd_open
PYTHON = """import os, psutil, select, signal, socket
psutil.PROCFS_PATH = {proc!r}
for module, names in {without!r}.items():
    for name in names.split():
        vars(globals()[module]).pop(name, None)
"""
IFCONFIG = """#!/bin/sh
case "$1 $2" in
    "lo0 alias") exec ip address add "$3/32" dev lo ;;
    "lo0 -alias") exec ip address del "$3/32" dev lo ;;
esac
exit 1
"""
NET_ADMIN = 12
_libc = ctypes.CDLL(None, use_errno=True)


class Mac:
    """`meshtls` runs the command line there, `sudo` a shell command with the power over addresses. State files have a path that no unix
    socket's name could have."""

    def __init__(self, folder: pathlib.Path, holder: int) -> None:
        self._holder, self._python = holder, folder / "venv" / "bin" / "python"
        self._environment = {"PATH": f"{folder}/bin:{os.environ['PATH']}", "HOME": str(folder), "XDG_STATE_HOME": str(folder / ("long-" * 24))}
        self.labs = pathlib.Path(self._environment["XDG_STATE_HOME"]) / "meshtls" / "lab"

    def meshtls(self, *args: str) -> subprocess.CompletedProcess[str]:
        return self._run([str(self._python), "-m", "meshtls.cli.main", *args], powerful=False)

    def sudo(self, command: str) -> subprocess.CompletedProcess[str]:
        return self._run(["sh", "-c", command], powerful=True)

    def addresses(self) -> set[str]:
        """Those on its loopback interface."""
        program = "import psutil; print(*[each.address for each in psutil.net_if_addrs()['lo']])"
        return {word for word in self._run([str(self._python), "-c", program], powerful=False).stdout.split() if word.count(".") == 3}

    def _run(self, command: list[str], powerful: bool) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, preexec_fn=lambda: self._enter(powerful), env=self._environment, cwd="/", capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=240, check=False)  # fmt: skip

    def _enter(self, powerful: bool) -> None:
        kinds = {"user": linux.CLONE_NEWUSER, "net": linux.CLONE_NEWNET, "mnt": linux.CLONE_NEWNS}
        for fd, flag in [(os.open(f"/proc/{self._holder}/ns/{kind}", os.O_RDONLY), flag) for kind, flag in kinds.items()]:
            linux.setns(fd, flag)
        if powerful:
            power = 1 << NET_ADMIN
            _libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(power, power, power))
            _libc.prctl(47, 2, NET_ADMIN, 0, 0)
        _refuse(REFUSED[platform.machine()])


def _refuse(calls: tuple[int, ...]) -> None:
    """From now on the kernel knows nothing of these system calls (ENOSYS)."""
    steps = [(0x20, 0, 0, 0), *((0x15, len(calls) - number, 0, call) for number, call in enumerate(calls)), (6, 0, 0, 0x7FFF0000), (6, 0, 0, 0x00050026)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
    if _libc.prctl(38, 1, 0, 0, 0) or _libc.prctl(22, 2, ctypes.byref(program), 0, 0):
        os._exit(77)


def _make(folder: pathlib.Path, uid: int) -> None:
    """In a child before it runs: its own users, network and mounts."""
    ids = {"setgroups": "deny", "uid_map": f"{uid} {os.getuid()} 1", "gid_map": f"{uid} {os.getgid()} 1"}
    linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS | linux.CLONE_NEWNET)
    for name, text in ids.items():
        pathlib.Path(f"/proc/self/{name}").write_text(text)
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    linux.bind("/proc", str(folder / "proc"), readonly=False)
    linux.mount("tmpfs", "/proc", "tmpfs")
    linux.bind("/dev", str(folder / "dev"), readonly=False)
    linux.mount("tmpfs", "/dev", "tmpfs")
    for name in ("null", "zero", "random", "urandom", "tty"):
        pathlib.Path("/dev", name).touch()
        linux.bind(str(folder / "dev" / name), f"/dev/{name}", readonly=False)
    for name, target in (("fd", f"{folder}/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(target, f"/dev/{name}")
    with netlink.open_socket(netlink.ROUTE) as links:
        netlink.talk(links, [netlink.link_up(1)])
        netlink.talk(links, [netlink.Message(21, netlink.address(1, "127.0.0.1", 8).body)])
        netlink.talk(links, [netlink.address(1, "127.0.0.1")])


@contextlib.contextmanager
def machine(folder: pathlib.Path, uid: int) -> Iterator[Mac]:
    """Such a machine, where one is `uid`, while the block lasts. Skips where this one does not allow it."""
    if not shutil.which("ip"):
        pytest.skip("the stand-in for macOS's ifconfig needs the program ip (iproute2)")
    for name in ("proc", "dev", "bin", "long-" * 24):
        (folder / name).mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    packages = next((folder / "venv" / "lib").glob("python3*/site-packages"))
    (packages / "as_there.py").write_text(PYTHON.format(proc=str(folder / "proc"), without=WITHOUT))
    (packages / "there.pth").write_text(f"{ROOT}\n{pathlib.Path(psutil.__file__).parents[1]}\nimport as_there\n")
    (folder / "bin" / "ifconfig").write_text(IFCONFIG)
    (folder / "bin" / "ifconfig").chmod(0o755)
    try:
        holder = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, preexec_fn=lambda: _make(folder, uid))
    except subprocess.SubprocessError:
        pytest.skip("this machine has no user namespaces to play macOS in")
    with holder:
        mac = Mac(folder, holder.pid)
        try:
            yield mac
        finally:
            mac.meshtls("lab", "down", "--all")
