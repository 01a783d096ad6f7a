"""Which workloads, Services and ports a pattern means.

`NAMESPACE/NAME` means any kind of workload, and a Service where a call goes to; kinds are compared without their case. A star
stays within its part.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from meshtls.expect.file import CallException, Exception_, ModeException


def matches(pattern: str, ref: str, kind: str = "*") -> bool:
    """Whether `Kind/namespace/name` is meant; `kind` counts where the pattern names none."""
    parts = ref.split("/")
    wanted = pattern.split("/") if pattern.count("/") == 2 else [kind, *pattern.split("/")]
    return len(parts) == 3 and fnmatchcase(parts[0].lower(), wanted[0].lower()) and all(map(fnmatchcase, parts[1:], wanted[1:]))


def is_service(pattern: str) -> bool:
    """Whether what is called is a Service; else the pods of a workload are, by their addresses."""
    return pattern.count("/") == 1 or pattern.partition("/")[0].lower() == "service"


def is_port(wanted: int | str | None, number: int, name: str = "") -> bool:
    """Whether a port is meant, by its number or its name."""
    return wanted is None or wanted in (number, name)


def named(pattern: str, refs: Iterable[str], kind: str = "*") -> list[str]:
    """Those of `refs` that are meant."""
    return [ref for ref in refs if matches(pattern, ref, kind)]


def leaves_out(exception: Exception_, client: str, server: str, port: str, name: str = "") -> bool:
    """Whether an exception is about this call, or this port of this workload."""
    number = int(port) if port.isdecimal() else 0
    if isinstance(exception, ModeException):
        return matches(exception.workload, server) and (exception.port is None or exception.port == number)
    if not isinstance(exception, CallException):
        return False
    to = exception.to is None or matches(exception.to, server, "Service" if is_service(exception.to) else "*")
    return matches(exception.from_, client) and to and is_port(exception.port, number, name)
