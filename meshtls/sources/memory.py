"""Reading takes what memory is free, and no more: an error of ours comes before the machine begins to swap."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from meshtls.errors import InputError

T = TypeVar("T")


def bounded(work: Callable[[], T]) -> T:
    """The result of `work`, while which the process may grow by the memory that is free now. Raises InputError where that is not enough."""
    with _limited():
        try:
            return work()
        except MemoryError:
            pass  # what was read goes with the traceback; chained, it would stay, and leave no memory to say so
    raise InputError("there is not enough memory to read this input", "read fewer or smaller files at a time")


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    limit = _limit()
    if limit is None:
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    if before[0] != resource.RLIM_INFINITY and before[0] <= limit:
        yield
        return
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _limit() -> int | None:
    """Bytes of address space; None where the system does not say what is free."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError, IndexError):
        return None
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        free = min(free, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return pages * os.sysconf("SC_PAGE_SIZE") + max(free, 256 << 20)
