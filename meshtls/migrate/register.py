"""Where runs stand, one line each, made of their journals: the document of `meshtls migrate status` for several namespaces."""

from typing import Literal

import msgspec

from meshtls.errors import MeshtlsError
from meshtls.migrate.journal import Outcome, State, decode

UNREADABLE = "UNREADABLE"


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `outcome` is "" while it has not ended, UNREADABLE where its journal cannot be read; `place` is the journal's namespace,
    `stages` are those begun with their state; `over` says that nothing has to be done."""

    namespace: str
    place: str
    run: str = ""
    outcome: str = ""
    going: str = ""
    stages: str = ""
    was: str = ""
    started: str = ""
    who: str = ""
    reason: str = ""
    history: tuple[str, ...] = ()
    over: bool = False


class MigrationList(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """`meshtls migrate status` of several namespaces: every run that left a journal, the unfinished first."""

    api_version: Literal["meshtls.dev/v1"] = "meshtls.dev/v1"
    kind: Literal["MigrationList"] = "MigrationList"
    items: tuple[Standing, ...] = ()


def standing(place: str, namespace: str, text: str) -> Standing:
    """Where the run is whose journal is `text`."""
    try:
        journal = decode(text)
    except MeshtlsError as error:
        return Standing(namespace=namespace, place=place, outcome=UNREADABLE, reason=str(error))
    stages = ", ".join(f"{e.stage.id} {e.state}" for e in journal.entries if e.state is not State.PLANNED)
    return Standing(
        namespace=namespace, place=place, run=journal.run, outcome=journal.outcome, going=journal.going, stages=stages or "nothing begun",
        was=journal.was, started=journal.started, who=journal.who, reason=journal.reason, history=journal.history,
        over=journal.outcome not in (Outcome.NONE, Outcome.STUCK),
    )  # fmt: skip
