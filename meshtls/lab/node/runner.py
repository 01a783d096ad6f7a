"""The runner: a small single-threaded child of the lab that starts, signals and collects every process the lab runs.

It is forked before the lab has threads or heavy modules, so that forking again is cheap and safe. It speaks over one socket, a line of JSON
each way; descriptors come before their request:

    {"id", "spec", "fds"} + [output, netns]    start a process -> {"id", "pid"} or {"id", "failed": text}; later {"id", "exit": status}
    {"id", "spec", "fds", "of"} + [output]     the same inside the running container `of`
    {"kill": id, "signal": number}

When the lab is gone, whatever ended it, the runner ends what it has started and itself.

A container gets its own PID and mount namespaces, so that its first process is PID 1 (a SIGTERM without a handler does nothing, as in a
real pod) and ending it ends everything in it. `exit` is what os.waitstatus_to_exitcode says: negative for a signal.
"""
import contextlib
import json
import os
import re
import selectors
import signal
import socket
from typing import Any, NoReturn

from meshtls.lab.node import linux, rootfs

DEFAULT_CAPABILITIES = {"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "FSETID": 4, "KILL": 5, "SETGID": 6, "SETUID": 7, "SETPCAP": 8,
                        "NET_BIND_SERVICE": 10, "NET_RAW": 13, "SYS_CHROOT": 18, "MKNOD": 27, "AUDIT_WRITE": 29, "SETFCAP": 31}
NET_ADMIN = 12
MARK = "MESHTLS_LAB"


def start(isolated: bool) -> tuple[int, socket.socket]:
    """Fork the runner. Returns its pid and the lab's end of the socket; `isolated` is False where namespaces are refused."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid:
        theirs.close()
        return pid, ours
    ours.close()
    try:
        Runner(theirs, isolated).serve()
    finally:
        os._exit(1)


class Runner:
    def __init__(self, control: socket.socket, isolated: bool) -> None:
        self._control, self._text = control, b""
        self._fds: list[int] = []
        self._isolated = isolated
        self._own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC) if isolated else -1
        self._pids: dict[int, int] = {}  # pid -> id
        self._ids: dict[int, int] = {}
        self._starting: dict[int, int] = {}  # the error pipe's read end -> id
        self._chooser = selectors.DefaultSelector()
        self._root = os.path.abspath("root")

    def serve(self) -> None:
        os.makedirs(self._root, exist_ok=True)
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._chooser.register(self._control, selectors.EVENT_READ)
        self._chooser.register(reader, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in self._chooser.select()]
            for fileobj in ready:
                if fileobj is self._control:
                    if not self._hear():
                        for pid in self._pids:
                            self._signal(pid, signal.SIGKILL)
                        return
                elif fileobj == reader:
                    os.read(reader, 4096)
                elif isinstance(fileobj, int):
                    self._started(fileobj)
            self._collect()

    def _hear(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self._control, 1 << 16, 16)
        for fd in fds:
            os.set_inheritable(fd, False)
        self._fds += fds
        *lines, self._text = (self._text + data).split(b"\n")
        for line in lines:
            self._request(json.loads(line))
        return bool(data)

    def _request(self, request: dict[str, Any]) -> None:
        if "kill" in request:
            pid = self._ids.get(request["kill"])
            if pid:
                self._signal(pid, request["signal"])
            return
        fds, self._fds = self._fds[:request["fds"]], self._fds[request["fds"]:]
        try:
            self._spawn(request, request["spec"], fds[0], fds[1] if len(fds) > 1 else -1)
        except OSError as error:
            self._say({"id": request["id"], "failed": str(error)})
        finally:
            for fd in fds:
                os.close(fd)

    def _signal(self, pid: int, number: int) -> None:
        """SIGKILL ends all of a container: its PID namespace does it, or else its process group."""
        try:
            if number == signal.SIGKILL and not self._isolated:
                os.killpg(pid, number)
            else:
                os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            pass  # some systems answer so for a group whose last processes have ended

    def _spawn(self, request: dict[str, Any], spec: dict[str, Any], output: int, netns: int) -> None:
        reader, writer = os.pipe()
        target = self._ids.get(request["of"]) if "of" in request else None
        entering = os.pidfd_open(target) if target and self._isolated else -1
        try:
            if entering >= 0:
                linux.setns(entering, linux.CLONE_NEWPID)
            elif self._isolated and spec["root"] is not None:
                linux.unshare(linux.CLONE_NEWPID)
            pid = os.fork()
            if pid == 0:
                self._child(spec, output, netns, entering, writer)
        except OSError:
            os.close(reader)
            raise
        finally:
            os.close(writer)
            if self._isolated:
                linux.setns(self._own_pids, linux.CLONE_NEWPID)
            if entering >= 0:
                os.close(entering)
        self._pids[pid], self._ids[request["id"]] = request["id"], pid
        self._starting[reader] = request["id"]
        self._chooser.register(reader, selectors.EVENT_READ)

    def _started(self, reader: int) -> None:
        """The pipe closes when the program runs; anything in it is why it does not."""
        said = os.read(reader, 4096)
        self._chooser.unregister(reader)
        os.close(reader)
        number = self._starting.pop(reader)
        self._say({"id": number, "failed": said.decode()} if said else {"id": number, "pid": self._ids.get(number, 0)})

    def _collect(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            number = self._pids.pop(pid, None)
            if number is not None:
                if not self._isolated:
                    self._signal(pid, signal.SIGKILL)  # what it has left behind
                for reader in [fd for fd, of in self._starting.items() if of == number]:
                    self._started(reader)
                self._ids.pop(number, None)
                self._say({"id": number, "exit": os.waitstatus_to_exitcode(status)})

    def _say(self, answer: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the lab is gone: the next thing heard is its end
            self._control.sendall(json.dumps(answer).encode() + b"\n")

    def _child(self, spec: dict[str, Any], output: int, netns: int, entering: int, failures: int) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            null = os.open("/dev/null", os.O_RDONLY)
            for source, target in ((null, 0), (output, 1), (output, 2)):
                os.dup2(source, target)
            if netns >= 0:
                linux.setns(netns, linux.CLONE_NEWNET)
            if entering >= 0:
                linux.setns(entering, linux.CLONE_NEWNET | linux.CLONE_NEWNS)
            elif spec["root"] is not None and self._isolated:
                linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWUTS)
                socket.sethostname(spec["hostname"])
                rootfs.build(self._root, spec["root"])
            os.umask(0o022)
            argv, env = spec["argv"], spec["env"]
            if not self._isolated:
                argv, env = placed(argv, env, spec["paths"])
                env[MARK] = os.environ.get(MARK, "")
            os.chdir(spec["cwd"])
            _become(spec)
            os.execve(_program(argv[0], env, spec["interpreter"]), argv, env)
        except BaseException as error:
            reason = f"{error.strerror}: {error.filename or ''}" if isinstance(error, OSError) and error.filename else str(error)
            os.write(failures, reason.encode()[:4000] or b"failed")
        finally:
            os._exit(128)


def reroute(text: str, paths: list[tuple[str, str]]) -> str:
    """What is written as below a mount, as where it is: the whole text, or what follows = : or a comma."""
    where = dict(paths)
    mounts = "|".join(re.escape(written) for written in where)
    return re.sub(rf"(^|[=:,])({mounts})(?=/|$|[:,])", lambda found: str(found[1]) + where[found[2]], text) if where else text


def placed(argv: list[str], env: dict[str, str], paths: list[tuple[str, str]]) -> tuple[list[str], dict[str, str]]:
    """Arguments and variables that name mounts, as where these are. A Python program finds its files itself (see shim.py): of its words only
    those are changed that the interpreter reads, the script and PYTHONPATH."""
    if not _python(argv[0]):
        return [reroute(part, paths) for part in argv], {key: reroute(value, paths) for key, value in env.items()}
    argv = list(argv)
    for number, part in enumerate(argv[1:], 1):
        argv[number] = reroute(part, paths)
        if part in ("-c", "-m") or argv[number] != part:
            break
    return argv, {key: reroute(value, paths) if key == "PYTHONPATH" else value for key, value in env.items()}


def _python(name: str) -> bool:
    return os.path.basename(name).rstrip("0123456789.") == "python"


def _program(name: str, env: dict[str, str], interpreter: str) -> str:
    """The file to execute: by PATH, and any python that is not there is the lab's own."""
    places = [name] if "/" in name else [f"{place}/{name}" for place in env.get("PATH", "").split(":") if place]
    for place in places:
        if os.access(place, os.X_OK):
            return place
    if interpreter and _python(name):
        return interpreter
    if any(os.path.exists(place) for place in places):
        raise OSError(f'exec: "{name}": permission denied')
    raise OSError(f'exec: "{name}": executable file not found in $PATH')


def _become(spec: dict[str, Any]) -> None:
    """Capabilities, then user and group. An ordinary user's lab has one real uid: the container sees the one it asked for."""
    kept = {DEFAULT_CAPABILITIES[name] for name in spec["capabilities"] if name in DEFAULT_CAPABILITIES}
    if spec["root"] is None:
        return
    if spec["marks"]:
        kept.add(NET_ADMIN)
    uid, gid = spec["uid"], spec["gid"]
    if spec["rootless"]:
        if uid and not spec["marks"]:
            linux.unshare(linux.CLONE_NEWUSER)
            for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} 0 1"), ("gid_map", f"{gid} 0 1")):
                with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                    file.write(text)
            return
    for number in range(linux.last_capability() + 1):
        if number not in kept:
            linux.prctl(linux.PR_CAPBSET_DROP, number)
    if not spec["rootless"]:
        os.setgroups(spec["groups"])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    if spec["no_new_privileges"]:
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
