"""Faults that a rehearsal can be made under: a literal list. Pure.

    slow-control-plane[=5s]    every proxy hears of a change that much later; the gates have to wait for it, or go back
    stuck-proxy                one proxy of the namespace never hears of the change: the namespace must not be called STRICT
    api-503[=3s], api-429[=3s] the API answers so from the first change on; short, it is waited for, long, the run goes back
"""

import msgspec

KINDS: dict[str, tuple[float, int]] = {"slow-control-plane": (5.0, 0), "stuck-proxy": (0.0, 0), "api-503": (3.0, 503), "api-429": (3.0, 429)}
"""name -> (its default in seconds; 0: it takes none, the status that the API answers)"""


class Fault(msgspec.Struct, frozen=True):
    kind: str
    seconds: float = 0.0

    @property
    def status(self) -> int:
        return KINDS[self.kind][1]

    @property
    def must_hold(self) -> bool:
        """Whether no migration may go through under it."""
        return self.kind == "stuck-proxy"

    @property
    def text(self) -> str:
        return self.kind + (f" ({self.seconds:g} s)" if self.seconds else "")
