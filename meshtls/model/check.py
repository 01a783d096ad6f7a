"""Checks, findings and the report: the shape in which every answer of meshtls ends.

A `Check` is one question with its status; a `Finding` is one bad answer; a `Report` is an ordered list of checks, with a
`Matrix` where expectation and observation stand side by side. Audit rules, probe cells, gates, observed plaintext and
regressions all become these, so that each output format is written once.
"""

import enum

import msgspec

# checks of what people wrote down about findings: they answer no question about a mesh
ABOUT_LISTS = ("MT900", "exceptions")


class Status(enum.StrEnum):
    """What became of a question. SKIP and ERROR always carry a reason, and are never success."""

    PASS = "PASS"
    FAIL = "FAIL"
    SKIP = "SKIP"
    ERROR = "ERROR"


class Severity(enum.StrEnum):
    """How bad a finding is, worst first; `rank` orders them (0 is the worst)."""

    CRITICAL = "critical"
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"

    @property
    def rank(self) -> int:
        return list(Severity).index(self)


class Confidence(enum.StrEnum):
    """How a rule knows what it says: measured on a real mesh, read in Istio's source, inferred from it, or common belief."""

    MEASURED = "measured"
    SOURCE = "source"
    INFERRED = "inferred"
    BELIEVED = "believed"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One bad answer.

    `subject` is `Kind/namespace/name` (`Kind/name` for cluster-scoped objects), `path` the symbolic location inside that
    object, such as `("spec", "mtls", "mode")`. `file`, `line`, `column` (1-based, 0: unknown) are filled from the Origin
    when the report is rendered. `because` are the facts that decided, in order; `fix` is YAML or a command to run.
    `accepted` says who accepted it and why, or that a baseline holds it: it is then listed, and fails nothing.
    """

    code: str
    severity: Severity
    subject: str
    message: str
    path: tuple[str, ...] = ()
    because: tuple[str, ...] = ()
    fix: str = ""
    catalogue: tuple[str, ...] = ()
    confidence: Confidence = Confidence.SOURCE
    file: str = ""
    line: int = 0
    column: int = 0
    accepted: str = ""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One question asked. `reason` is mandatory for SKIP and ERROR. `seconds` is how long it took (0: not measured)."""

    id: str
    title: str
    status: Status
    reason: str = ""
    group: str = ""
    findings: tuple[Finding, ...] = ()
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.status in (Status.SKIP, Status.ERROR) and not self.reason:
            raise ValueError(f"check {self.id}: {self.status} needs a reason")


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One cell of a matrix: what was expected beside what was observed. `ok` is None where one of the two is unknown."""

    row: str
    column: str
    expected: str
    observed: str
    ok: bool | None
    detail: str = ""


class Matrix(msgspec.Struct, frozen=True, kw_only=True):
    """A table of cells; `rows` and `columns` in display order. A missing pair is a combination that was not asked."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[Cell, ...]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one command found. `kind` names the document (`AuditReport`, `ProbeReport`, ...); times are RFC 3339."""

    kind: str
    title: str
    checks: tuple[Check, ...] = ()
    matrices: tuple[Matrix, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    started: str = ""
    finished: str = ""
    interrupted: bool = False
    coverage: dict[str, int] | None = None

    @property
    def findings(self) -> tuple[Finding, ...]:
        return tuple(f for check in self.checks for f in check.findings)
