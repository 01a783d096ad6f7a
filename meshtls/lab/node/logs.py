"""Container logs: what a container writes, line by line with its time, in a file; and reading them as the log endpoint does.

A line in the file is `<RFC 3339 time with nanoseconds in UTC> <text>`. As on a kubelet, a file that passes 10 MiB is put away and only the
newest is served; a restarted container begins a new file, and the one before is `previous`. Followers get a line when it is written.
"""
import asyncio
import contextlib
import datetime
import os
import time
from collections import deque
from collections.abc import AsyncIterator

LIMIT = 10 * 1024 * 1024
LONGEST_LINE = 1 << 18
_CHUNK = 1 << 16


def stamp(ns: int) -> bytes:
    """A time as kubelets write it."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode() + b".%09dZ" % rest


class Log:
    """One run of one container. Reads from the pipe's end that it is given until everybody has closed the other."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.ended = False
        self.rotations = 0
        self._rest = b""
        self._size = 0
        self.news = asyncio.Event()
        self._file = self._open()
        self._reader = -1

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def attach(self, reader: int) -> None:
        """Take the pipe's reading end (and its ownership)."""
        os.set_blocking(reader, False)
        self._reader = reader
        asyncio.get_running_loop().add_reader(reader, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._reader, _CHUNK)
        except BlockingIOError:
            return
        if data:
            self.write(data)
        else:
            self.close()

    def write(self, data: bytes) -> None:
        """Bytes as the container wrote them; whole lines are kept."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LONGEST_LINE:
            lines.append(self._rest)
            self._rest = b""
        if not lines:
            return
        head = stamp(time.time_ns()) + b" "
        text = b"".join(head + line + b"\n" for line in lines)
        if self._size + len(text) > LIMIT:
            os.replace(self.path, f"{self.path}.old")
            os.close(self._file)
            self._file = self._open()
            self._size = 0
            self.rotations += 1
        try:
            os.write(self._file, text)
        except OSError:
            return  # no room left for logs: the container goes on, as it does on a full node
        self._size += len(text)
        self._wake()

    def close(self) -> None:
        """No more will come."""
        if self.ended:
            return
        if self._rest:
            self.write(b"\n")
        self.ended = True
        if self._reader >= 0:
            asyncio.get_running_loop().remove_reader(self._reader)
            os.close(self._reader)
        os.close(self._file)
        self._wake()

    def remove(self) -> None:
        """Its files go."""
        for path in (self.path, f"{self.path}.old"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _wake(self) -> None:
        self.news.set()
        self.news = asyncio.Event()


def _after(since_seconds: int | None, since_time: str | None) -> bytes:
    """The first time to be shown, comparable with a line's; b"" for all."""
    if since_time:
        when = datetime.datetime.fromisoformat(since_time.replace("Z", "+00:00"))
        return stamp(int(when.timestamp()) * 1_000_000_000 + when.microsecond * 1000)
    if since_seconds is not None:
        return stamp(time.time_ns() - since_seconds * 1_000_000_000)
    return b""


async def read(log: Log, *, follow: bool = False, tail: int | None = None, since_seconds: int | None = None,
               since_time: str | None = None, timestamps: bool = False, limit_bytes: int | None = None) -> AsyncIterator[bytes]:
    """Lines, each with its newline. With `follow` until the log has ended. Bounded by `limit_bytes`."""
    first, left, rotations = _after(since_seconds, since_time), limit_bytes, -1
    while rotations != log.rotations:
        rotations = log.rotations
        with open(log.path, "rb") as file:
            lines, tail = file.readlines(_CHUNK) if tail is None else list(deque(file, tail)), None
            while lines or (follow and not log.ended and rotations == log.rotations):
                for line in lines:
                    if line[:30] < first:
                        continue
                    shown = (line if timestamps else line[31:])[:left]
                    yield shown
                    if left is not None:
                        left -= len(shown)
                        if not left:
                            return
                if not lines:
                    await log.news.wait()
                lines = file.readlines(_CHUNK)
