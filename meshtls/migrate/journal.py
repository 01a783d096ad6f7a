"""The journal: everything that a run needs to go on, or to go back, from any machine. Pure data.

Written ahead: an entry is INTENT, with the object's whole before-image and the spec that will be written, before the
change is made, and APPLIED only after the server has acknowledged it. A before-image of None is a recorded absence where
the stage creates its object, and a loss elsewhere.

`compare` says what the live object is for an entry. It looks at the spec and at the identity only: labels, annotations
and managed fields are others' to change. Anything that is neither what was there nor what we wrote is FOREIGN, and
nothing touches it.
"""

import enum
from typing import Any

import msgspec

from meshtls.errors import MeshtlsError
from meshtls.migrate.plan import Plan, Stage

API_VERSION = "security.istio.io/v1"
MARK = "meshtls.dev/migration"
HISTORY = 200
VERSION = 1


class State(enum.StrEnum):
    """How far a stage is."""

    PLANNED = "PLANNED"
    INTENT = "INTENT"
    APPLIED = "APPLIED"
    PASSED = "PASSED"
    UNDONE = "UNDONE"


class Going(enum.StrEnum):
    """Which way the run goes."""

    FORWARD = "FORWARD"
    BACK = "BACK"


class Outcome(enum.StrEnum):
    """How the run ended; NONE while it has not. LEFT: taken back but for what somebody else changed, which was to be left."""

    NONE = ""
    DONE = "DONE"
    ROLLED_BACK = "ROLLED_BACK"
    LEFT = "LEFT"
    STUCK = "STUCK"


class Live(enum.StrEnum):
    """What the object in the cluster is, seen from an entry."""

    BEFORE = "BEFORE"
    WANTED = "WANTED"
    FOREIGN = "FOREIGN"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A stage and how far it is. `before` is the whole object (None: absent) and `wanted` our spec, both from INTENT on.

    `left`: the way back has left the object alone, since it is neither.
    """

    stage: Stage
    state: State = State.PLANNED
    before: dict[str, Any] | None = None
    wanted: dict[str, Any] = {}
    uid: str = ""
    left: bool = False
    evidence: tuple[str, ...] = ()


class Journal(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one namespace. Times are RFC 3339. `accepted` are clients whose refusal is accepted; `reason` says why it
    went back or got stuck. `others` are the specs of the namespace's other policies when the first change was meant (None: not
    known). `leave`: what somebody else changed may stay as it is. `history` are lines "time who: what", the newest last."""

    run: str
    namespace: str
    started: str
    who: str
    was: str
    soak_s: float
    forced: bool = False
    accepted: tuple[str, ...] = ()
    going: Going = Going.FORWARD
    outcome: Outcome = Outcome.NONE
    reason: str = ""
    entries: tuple[Entry, ...] = ()
    others: dict[str, Any] | None = None
    leave: bool = False
    history: tuple[str, ...] = ()
    version: int = VERSION

    def entry(self, id_: str) -> Entry:
        return next(entry for entry in self.entries if entry.stage.id == id_)

    def update(self, id_: str, **changes: Any) -> "Journal":
        """The journal with one entry changed."""
        return msgspec.structs.replace(self, entries=tuple(
            msgspec.structs.replace(entry, **changes) if entry.stage.id == id_ else entry for entry in self.entries
        ))

    def noted(self, now: str, what: str) -> "Journal":
        """The journal with one more line of history."""
        return msgspec.structs.replace(self, history=(*self.history, f"{now} {self.who}: {what}")[-HISTORY:])


def begin(plan: Plan, *, run: str, now: str, who: str, soak_s: float, forced: bool, accepted: tuple[str, ...]) -> Journal:
    """The journal of a run that has not changed anything yet."""
    return Journal(
        run=run, namespace=plan.namespace, started=now, who=who, was=plan.was, soak_s=soak_s, forced=forced,
        accepted=accepted, entries=tuple(Entry(stage=stage) for stage in plan.stages),
    )


def untouched(journal: Journal) -> bool:
    """Whether the run ended before its first change was even meant: there is nothing to continue or to restore."""
    return journal.outcome is Outcome.NONE and all(entry.state is State.PLANNED for entry in journal.entries)


def back(journal: Journal, reason: str, leave: bool = False) -> Journal:
    """The journal of the way back, which looks at every object again."""
    return msgspec.structs.replace(again(journal), going=Going.BACK, reason=reason, leave=leave)


def again(journal: Journal) -> Journal:
    """The journal of a run that was stuck, and looks at every object again."""
    entries = tuple(msgspec.structs.replace(entry, left=False) for entry in journal.entries)
    return msgspec.structs.replace(journal, outcome=Outcome.NONE, entries=entries)


def disturbed(journal: Journal, policies: dict[str, dict[str, Any]]) -> str:
    """What somebody else has done to the namespace's policies (name -> object) while a stage is watched; "" for nothing."""
    ours = {}
    for entry in journal.entries:
        if entry.state in (State.APPLIED, State.PASSED):
            ours[entry.stage.policy] = entry
    for name, entry in ours.items():
        if compare(entry, policies.get(name), journal.run) is not Live.WANTED:
            return f"PeerAuthentication {journal.namespace}/{name} is no longer what was written: somebody changed it"
    if journal.others is None:
        return ""
    now = bystanders(journal, policies)
    for name in sorted(now.keys() | journal.others.keys()):
        if now.get(name) != journal.others.get(name):
            what = "came" if name not in journal.others else "went" if name not in now else "was changed"
            return f"PeerAuthentication {journal.namespace}/{name} {what} meanwhile, by somebody else: the plan was made without it"
    return ""


def bystanders(journal: Journal, policies: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The specs of the policies that the run does not touch, by name."""
    ours = {entry.stage.policy for entry in journal.entries}
    return {name: spec_of(obj) for name, obj in policies.items() if name not in ours}


def spec_of(obj: dict[str, Any] | None) -> dict[str, Any]:
    return (obj or {}).get("spec") or {}


def mode_in(obj: dict[str, Any] | None) -> str:
    """The mode that a PeerAuthentication says; "" where there is none."""
    return "" if obj is None else str((spec_of(obj).get("mtls") or {}).get("mode") or "UNSET")


def intent(entry: Entry, live: dict[str, Any] | None) -> Entry:
    """The entry with the before-image and what will be written."""
    stage = entry.stage
    if live is None:
        wanted: dict[str, Any] = {"mtls": {"mode": stage.mode}}
        if stage.selector:
            wanted = {"selector": {"matchLabels": stage.selector}, **wanted}
    else:
        spec = spec_of(live)
        wanted = {**spec, "mtls": {**(spec.get("mtls") or {}), "mode": stage.mode}}
    return msgspec.structs.replace(entry, state=State.INTENT, before=live, wanted=wanted,
                                   uid="" if live is None else live["metadata"].get("uid", ""))


def compare(entry: Entry, live: dict[str, Any] | None, run: str) -> Live:
    """What the live object (None: absent) is for this entry."""
    if entry.state is State.PLANNED:
        return _expected(entry.stage, live)
    if entry.before is None and not entry.stage.create:
        # the before-image is lost: it is never guessed
        return Live.FOREIGN
    if live is None:
        return Live.BEFORE if entry.before is None else Live.FOREIGN
    meta = live["metadata"]
    same = meta.get("uid", "") == entry.uid if entry.uid else (meta.get("annotations") or {}).get(MARK) == run
    if not same:
        return Live.FOREIGN
    if spec_of(live) == entry.wanted:
        return Live.WANTED
    return Live.BEFORE if entry.before is not None and spec_of(live) == spec_of(entry.before) else Live.FOREIGN


def _expected(stage: Stage, live: dict[str, Any] | None) -> Live:
    """Whether the object is still what the plan was made for."""
    if live is None or stage.create:
        return Live.BEFORE if live is None and stage.create else Live.FOREIGN
    same = not stage.uid or live["metadata"].get("uid") == stage.uid
    return Live.BEFORE if same and mode_in(live) == stage.found else Live.FOREIGN


def written(entry: Entry, namespace: str, run: str) -> dict[str, Any]:
    """The object that applies an entry: the before-image with our spec, or a new one that carries the run's mark."""
    if entry.before is not None:
        return {**entry.before, "spec": entry.wanted}
    return {
        "apiVersion": API_VERSION, "kind": "PeerAuthentication",
        "metadata": {
            "name": entry.stage.policy, "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": "meshtls"}, "annotations": {MARK: run},
        },
        "spec": entry.wanted,
    }


def encode(journal: Journal) -> str:
    return msgspec.json.format(msgspec.json.encode(journal), indent=1).decode()


def decode(text: str) -> Journal:
    """Raises MeshtlsError where it cannot be read: a before-image that is lost is never guessed."""
    try:
        found = msgspec.json.decode(text, type=Journal)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise MeshtlsError(
            f"the journal cannot be read: {str(error)[:200]}",
            "restore the policies by hand from what the ConfigMap says, then delete it with kubectl",
        ) from error
    if found.version > VERSION:
        raise MeshtlsError(f"the journal was written by a newer meshtls (version {found.version})", "use that one")
    return found
