"""Because: the object, and the field in it, that decided something, and what it says.

Every answer of the policy engine carries a tuple of these, in the order in which Istio comes to the decision.
"""

import msgspec


class Because(msgspec.Struct, frozen=True, gc=False):
    """`object` is `Kind/namespace/name` ("" where a default of Istio decided); `path` the field, dotted; `says` a clause."""

    object: str
    path: str
    says: str

    def __str__(self) -> str:
        where = f"{self.object} {self.path}".strip()
        return f"{where}: {self.says}" if where else self.says

    def steps(self) -> tuple[str, ...]:
        """`path` as the steps that `Origins.where` takes."""
        return tuple(part for part in self.path.replace("[", ".").replace("]", "").split(".") if part)
