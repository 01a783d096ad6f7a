"""The JSON that modes, predict, explain, diff, dump and the list of rules have, as types: the schemas in docs/schemas are made
from these. (The reports of audit, probe, observe and migrate are meshtls.report.json's.)

Version 1: fields may be added, never removed or given another meaning.
"""

from typing import Any, Literal

import msgspec

from meshtls.model.check import Confidence, Severity
from meshtls.policy.because import Because
from meshtls.policy.calls import Outcome
from meshtls.policy.predict import Prediction
from meshtls.policy.server import WorkloadMode

Sends = Literal["mtls", "tls", "plaintext", "none", "mixed"]
Verdict = Literal["WORKS", "BREAKS", "UNKNOWN"]


class Listed(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What every document begins with. `notes` is what was assumed, `absent` the kinds that could not be read, and why."""

    api_version: Literal["meshtls.dev/v1"] = "meshtls.dev/v1"
    kind: str = ""
    notes: tuple[str, ...] = ()
    absent: dict[str, str] = {}


class ModeList(Listed, frozen=True, kw_only=True, rename="camel"):
    """`meshtls modes`: every workload with its effective mode."""

    kind: Literal["ModeList"] = "ModeList"
    items: tuple[WorkloadMode, ...]


class PredictionList(Listed, frozen=True, kw_only=True, rename="camel"):
    """`meshtls predict`: every call, or every call that a change would change. It is written as it is found."""

    kind: Literal["PredictionList"] = "PredictionList"
    items: tuple[Prediction, ...]


class SaidStep(msgspec.Struct, frozen=True, kw_only=True):
    """One sentence, the object and field that decided, and where in the files that is (`file:line:column`)."""

    says: str
    shadowed: bool
    object: str
    path: str
    where: str


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """One call, step by step."""

    client: str
    server: str
    port: int
    sends: Sends
    verdict: Verdict
    steps: tuple[SaidStep, ...]
    fix: str


class ExplanationList(Listed, frozen=True, kw_only=True, rename="camel"):
    """`meshtls explain`: the call to each port that was asked for."""

    kind: Literal["ExplanationList"] = "ExplanationList"
    items: tuple[Explanation, ...]


class ModeDifference(msgspec.Struct, frozen=True, kw_only=True):
    """A workload's port (`*`: every port that nothing declares); `before` or `after` is "" where there is none."""

    workload: str
    port: str
    before: str
    after: str
    because: tuple[Because, ...]


class Ends(msgspec.Struct, frozen=True):
    """How a call ends."""

    sends: Sends
    verdict: Verdict

    @staticmethod
    def of(outcome: Outcome) -> "Ends":
        return msgspec.convert({"sends": outcome.sends, "verdict": outcome.verdict}, Ends)


class CallDifference(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A call that ends otherwise; `before` is null for a new one, `after` for one that is gone."""

    client: str
    server: str
    port: int
    target_port: int | str
    before: Ends | None
    after: Ends | None
    because: tuple[Because, ...]
    fix: str


class Difference(Listed, frozen=True, kw_only=True, rename="camel"):
    """`meshtls diff`: what changes in modes and in calls."""

    kind: Literal["Difference"] = "Difference"
    modes: tuple[ModeDifference, ...]
    calls: tuple[CallDifference, ...]


class Dump(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """`meshtls dump`: what was read from a cluster. `items` are Kubernetes objects with the fields that meshtls reads."""

    api_version: Literal["meshtls.dev/v1"] = "meshtls.dev/v1"
    kind: Literal["Dump"] = "Dump"
    live: bool
    absent: dict[str, str]
    items: tuple[dict[str, Any], ...]


class RuleItem(msgspec.Struct, frozen=True, kw_only=True):
    """One rule of the audit: `inputs` are the kinds without which it never passes."""

    code: str
    title: str
    severity: Severity
    confidence: Confidence
    catalogue: tuple[str, ...]
    about: tuple[str, ...]
    inputs: tuple[str, ...]
    docs: str


class RuleList(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """`meshtls audit --list-rules`."""

    api_version: Literal["meshtls.dev/v1"] = "meshtls.dev/v1"
    kind: Literal["RuleList"] = "RuleList"
    items: tuple[RuleItem, ...]


DOCUMENTS: tuple[type[msgspec.Struct], ...] = (ModeList, PredictionList, ExplanationList, Difference, Dump, RuleList)


def schema(document: type[Any]) -> dict[str, Any]:
    """JSON Schema of a document."""
    name = document.__name__.lower()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"https://meshtls.dev/schemas/{name}.schema.json",
            **msgspec.json.schema(document)}
