"""Faults on demand, for tests of what talks to the API: refuse, throttle, fail, hang or hang up on requests that match
a rule."""
import re
from typing import Any

import msgspec


class Fault(msgspec.Struct):
    """`method` and `path` (regular expressions, whole match; path without query) choose requests; `times` how many (0:
    all, after letting `after` through). `act`: a status code, "hang" or "close"."""

    act: int | str
    method: str = ".*"
    path: str = ".*"
    times: int = 0
    after: int = 0
    retry_after_s: int = 1
    message: str = ""
    hits: int = 0


class Faults:
    """The rules in force. In process: `add` and `clear`; over HTTP: POST and DELETE /lab/faults by an administrator."""

    def __init__(self) -> None:
        self._rules: list[Fault] = []

    def add(self, act: int | str, **more: Any) -> Fault:
        """Raises ValueError for a rule that cannot be read."""
        try:
            fault = msgspec.convert({"act": act, **more}, Fault)
            re.compile(fault.method), re.compile(fault.path)
        except (msgspec.ValidationError, re.error) as error:
            raise ValueError(str(error)) from error
        if isinstance(fault.act, str) and fault.act not in ("hang", "close"):
            raise ValueError('act is a status code, "hang" or "close"')
        self._rules.append(fault)
        return fault

    def clear(self) -> None:
        self._rules.clear()

    def listed(self) -> list[dict[str, Any]]:
        return [msgspec.to_builtins(fault) for fault in self._rules]

    def hit(self, method: str, path: str) -> Fault | None:
        """The fault that this request meets, counted."""
        for fault in self._rules:
            if re.fullmatch(fault.method, method) and re.fullmatch(fault.path, path):
                fault.hits += 1
                if fault.hits > fault.after and (not fault.times or fault.hits <= fault.after + fault.times):
                    return fault
        return None
