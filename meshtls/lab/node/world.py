"""A world of the lab's own: user, network, mount and PID namespaces, entered once, before any thread exists.

The network namespace that the lab process lives in is the *node*: pods hang off it by veth pairs, Services are translated in it, the
kubelet's probes leave from it, and hostNetwork pods run in it. The host's network is never touched. The lab process is PID 1 of its
PID namespace, so that whatever ends it, also SIGKILL, ends everything it started.
"""
import os
import signal

from meshtls.lab.node import linux, netlink

_FLAGS = linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWPID


def _unshare() -> None:
    uid, gid = os.getuid(), os.getgid()
    if uid == 0:
        linux.unshare(_FLAGS)
        return
    linux.unshare(_FLAGS | linux.CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def refused() -> str:
    """Why this machine does not let us have namespaces ("" if it does). Tried in a child, so nothing changes here."""
    if not hasattr(os, "fork") or not os.path.exists("/proc/self/ns/net"):
        return "this system has no Linux namespaces"
    reader, writer = os.pipe()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})  # Python loses those that come while it forks
    child = os.fork()
    if child == 0:
        reason = ""
        try:
            _unshare()
            inner = os.fork()
            if inner == 0:
                try:
                    settle(os.getcwd())
                except OSError as error:
                    os.write(writer, str(error).encode())
                os._exit(0)
            os.waitpid(inner, 0)
        except OSError as error:
            reason = str(error)
        os.write(writer, reason.encode())
        os._exit(0)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said


def enter() -> int:
    """Leave the host's world. Returns twice, as fork does: the new PID 1's process id to the caller, and 0 inside."""
    _unshare()
    return os.fork()


def settle(run: str) -> None:
    """Inside, as PID 1: private mounts, a /proc of our own where allowed, and `run` on memory, gone when the lab is gone."""
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    try:
        linux.mount("proc", "/proc", "proc")
    except OSError:
        pass  # a masked /proc (containers) cannot be mounted again: the host's then stays visible
    linux.mount("tmpfs", run, "tmpfs", data="mode=0700")
    os.chdir(run)
    with netlink.open_socket(netlink.ROUTE) as links:
        netlink.talk(links, [netlink.link_up(1)])
