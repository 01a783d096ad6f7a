"""Faults that a rehearsal can be made under: a literal list. Pure.

    slow-control-plane[=5s]    every proxy hears of a change that much later; the gates have to wait for it, or go back
    stuck-proxy                one proxy of the namespace never hears of the change: the namespace must not be called STRICT
    api-503[=3s], api-429[=3s] the API answers so from the first change on; a minute is waited for, after more the run goes back
"""

import msgspec

from meshtls.model.check import Check, Status

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


def withstood(fault: Fault, code: int, restored: bool) -> Check:
    """What a fault had to show: with a proxy that never hears of the change, no migration may go through; and whoever goes back restores all.

    `code` is the migration's exit code, `restored` whether everything was as before in the end.
    """
    if code == 0:
        status, reason = (Status.FAIL, "it went through all the same") if fault.must_hold else (Status.PASS, "it went through")
    else:
        status, reason = (Status.PASS, "it held or went back") if restored else (Status.FAIL, f"exit code {code}, and not all was restored")
    return Check(id=f"rehearse/fault/{fault.kind}", title=f"the migration withstands {fault.text}", group="faults", status=status, reason=reason)
