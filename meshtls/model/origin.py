"""Origin: where a fact was read.

Objects carry no line numbers (a dump of 10,000 pods would pay for what a handful of findings use). `Origins` knows for
each object the file and the document it came from, and asks `locate` for line and column only when a finding is rendered.
"""

from collections.abc import Callable

import msgspec


class Origin(msgspec.Struct, frozen=True):
    """A place in a file; `line` and `column` are 1-based, 0 where unknown."""

    file: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part)


Locate = Callable[[str, tuple[str, ...]], Origin]


class Origins(msgspec.Struct, frozen=True):
    """`locate(ref, path)` is given by the source that read the objects; without one every place is unknown."""

    locate: Locate | None = None

    def where(self, ref: str, path: tuple[str, ...] = ()) -> Origin:
        """The place of `path` (such as `("spec", "mtls", "mode")`) in the object `ref`, or of its nearest parent that exists."""
        return self.locate(ref, path) if self.locate else Origin()
