"""What got weaker between two readings of a mesh: Checks, one for each question. Pure; today's date is an argument.

Laws:
  1. Only what is weaker is a finding: a mode that fell, a workload that left the mesh, a call that lost its mTLS, a guard
     that is gone or does less. What is gone altogether (a workload, a namespace) weakens nothing.
  2. A new workload is measured by its namespace: where that was STRICT, it has to be.
  3. Modes are compared as pods run, and again as their templates say: a change that waits for the next rollout is a change.
  4. A kind that decides and could not be read, before or after, makes the question an ERROR, beside what was found all the same.
"""

import datetime
import json
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from meshtls.guard.admission import EXCEPTIONS, LABEL
from meshtls.model.check import Check, Confidence, Finding, Severity, Status
from meshtls.model.kinds import READ, kind_of
from meshtls.model.mesh import Mesh
from meshtls.model.objects import Guard
from meshtls.policy.authn import DISABLE, PERMISSIVE, STRICT
from meshtls.policy.difference import ModeChange, as_templates_say, call_changes, mode_changes
from meshtls.policy.engine import Engine
from meshtls.policy.predict import Group
from meshtls.policy.server import NOTHING

GROUP = "regression"
_RANK = {STRICT: 3, PERMISSIVE: 2, "MIXED": 1, DISABLE: 1, NOTHING: 0}
_IN_MESH = ("sidecar", "native-sidecar", "ambient")
_ACTIONS = {"deny": 3, "warn": 2, "audit": 1, "dryrun": 1}
_WORDS = ("nothing", "audit", "warn", "deny")
# field of Mesh -> how the engine is called; a ValidatingAdmissionPolicy acts through its binding
_GUARD_KINDS = {field: kind_of(kind) for field, _, kind in READ if issubclass(kind, Guard)}
_GUARDS = tuple(field for field in _GUARD_KINDS if field != "admission_policies")


class Question(msgspec.Struct, frozen=True):
    """`says` is what the code means, for the docs; `catalogue` what its findings cite."""

    code: str
    title: str
    severity: Severity
    catalogue: tuple[str, ...]
    says: str


QUESTIONS: tuple[Question, ...] = (
    Question("MT911", "A port or workload is less strict than it was", Severity.ERROR, ("PA-10", "PA-11"),
             "An error where it was STRICT, a warning where it was PERMISSIVE and now enforces nothing. The policy that decides now is named."),
    Question("MT912", "A workload left the mesh", Severity.ERROR, ("PA-18", "RB-12"),
             "It had a sidecar or was captured, and now nothing enforces a policy on it; or it will be so at its next rollout."),
    Question("MT913", "A call lost its mTLS", Severity.ERROR, ("DR-01", "DR-02", "CL-07", "CL-08"),
             "The client's proxy sent mTLS and now sends plaintext, or TLS of its own. Whether the call still works is what `diff` says."),
    Question("MT914", "A namespace, or the mesh, is less strict than it was", Severity.ERROR, ("PA-09", "PA-11", "RB-04"),
             "The mode that its namespace-wide policies add up to fell, also where nothing runs yet."),
    Question("MT915", "A new workload is weaker than its namespace", Severity.ERROR, ("RB-12",),
             "The namespace was STRICT, and what came since is not, or is outside the mesh."),
    Question("MT916", "A guard is gone, or does less", Severity.ERROR, ("RB-12",),
             "An admission policy that `guard admission` made was there; now it is not, or it only warns or audits."),
    Question("MT917", "A granted exception is over", Severity.WARNING, ("RB-12",),
             "It refuses the next write by itself; what it let in may still stand. Remove that, and make the guard anew."),
)  # fmt: skip
_BY_CODE = {question.code: question for question in QUESTIONS}


def regression(
    before: Mesh, after: Mesh, today: datetime.date, namespaces: frozenset[str] | None = None, unread: tuple[str, ...] = (),
    servers: frozenset[str] | None = None,
) -> list[Check]:  # fmt: skip
    """One check for each question. `unread` are reasons why the modes and calls of one side are not whole.

    Calls are compared that begin or end in `namespaces`, or with `servers` those that end there (none: no calls).
    """
    changes = _changes(before, after, namespaces)
    found: dict[str, list[Finding]] = {question.code: [] for question in QUESTIONS}
    gone_out = {c.workload for c, _ in changes if _left(c)}
    strict = frozenset(ns for ns in before.namespace_names if _mode(before, ns) == STRICT)
    for workload, several in _by_workload(changes).items():
        first, later = several[0]
        if not first.planes[0] and not first.planes[1]:
            continue
        if not first.planes[0]:
            if workload.split("/")[1] in strict and (weak := [c for c, _ in several if _RANK.get(c.after, 0) < _RANK[STRICT]]):
                found["MT915"].append(_new(after, workload, weak))
        elif workload in gone_out:
            found["MT912"].append(_out(after, workload, next((c, later) for c, later in several if _left(c))))
        elif worse := [(c, late) for c, late in several if c.after and c.before and _RANK.get(c.after, 0) < _RANK.get(c.before, 0)]:
            found["MT911"].append(_fell(after, workload, worse))
    calls = call_changes(before, after, namespaces if servers is None else None, servers) if servers is None or servers else []
    found["MT913"] = list(_lost(after, calls))
    found["MT914"] = list(_spaces(before, after, namespaces))
    found["MT916"] = list(_guards(before, after, namespaces))
    found["MT917"] = list(_over(after, today, namespaces))
    checks = [_check(question, found[question.code], _missing(question.code, before, after, unread)) for question in QUESTIONS]
    return [*checks, *([_not_whole(unread)] if unread and any(c.status is Status.FAIL for c in checks) else [])]


def _changes(before: Mesh, after: Mesh, namespaces: frozenset[str] | None) -> list[tuple[ModeChange, bool]]:
    """Every change of a mode, and whether it waits for a rollout."""
    if namespaces == frozenset():
        return []
    now = [(change, False) for change in mode_changes(before, after, namespaces)]
    known = {(change.workload, change.port) for change, _ in now}
    was, will = as_templates_say(before), as_templates_say(after)
    if was is before and will is after:
        return now
    return [*now, *((c, True) for c in mode_changes(was, will, namespaces) if (c.workload, c.port) not in known)]


def _by_workload(changes: Iterable[tuple[ModeChange, bool]]) -> dict[str, list[tuple[ModeChange, bool]]]:
    found: dict[str, list[tuple[ModeChange, bool]]] = {}
    for change, later in changes:
        found.setdefault(change.workload, []).append((change, later))
    return dict(sorted(found.items()))


def _left(change: ModeChange) -> bool:
    was, now = change.planes
    return was in _IN_MESH and now not in (*_IN_MESH, "")


def _mode(mesh: Mesh, namespace: str) -> str:
    return Engine.of(mesh).control("").authn.hint(namespace)[0]


def _finding(code: str, mesh: Mesh, subject: str, message: str, *, severity: Severity | None = None, path: tuple[str, ...] = (),
             because: tuple[str, ...] = (), fix: str = "", at: str = "", field: tuple[str, ...] = ()) -> Finding:  # fmt: skip
    """`at` is the object whose line is pointed to, and `field` the field, if they are others than the subject and its path."""
    question = _BY_CODE[code]
    where = mesh.origins.where(at or subject, field or path)
    return Finding(code=code, severity=severity or question.severity, subject=subject, message=message, path=path, because=because, fix=fix,
                   catalogue=question.catalogue, confidence=Confidence.SOURCE, file=where.file, line=where.line, column=where.column)  # fmt: skip


def _ports(changes: Iterable[ModeChange]) -> str:
    """What fell, in words: one clause for all ports that fell alike."""
    by: dict[tuple[str, str], list[str]] = {}
    for c in changes:
        by.setdefault((c.before, c.after), []).append(c.port)
    parts = []
    for (was, now), ports in by.items():
        which = "" if "*" in ports else f"port {ports[0]} " if len(ports) == 1 else f"ports {', '.join(ports)} "
        parts.append(f"{which}from {was} to {now}" if was else f"{which}{now}")
    return "; ".join(parts)


def _fell(after: Mesh, workload: str, worse: list[tuple[ModeChange, bool]]) -> Finding:
    changes = [c for c, _ in worse]
    later = " at its next rollout" if all(late for _, late in worse) else ""
    decided = changes[0].because
    severity = Severity.ERROR if any(c.before == STRICT for c in changes) else Severity.WARNING
    return _finding("MT911", after, workload, f"It went {_ports(changes)}{later}.", severity=severity, because=tuple(str(b) for b in decided),
                    at=decided[0].object if decided and decided[0].object else "", path=decided[0].steps() if decided else ())  # fmt: skip


def _out(after: Mesh, workload: str, change: tuple[ModeChange, bool]) -> Finding:
    what, later = change
    when = "will have at its next rollout" if later else "has"
    return _finding("MT912", after, workload, f"It had {_data_plane(what.planes[0])}, and {when} none that enforces a policy: plaintext reaches it.",
                    because=tuple(str(b) for b in what.because), path=what.because[0].steps() if what.because and what.because[0].object == workload else ())  # fmt: skip


def _data_plane(kind: str) -> str:
    return "ztunnel before it" if kind == "ambient" else "a sidecar"


def _new(after: Mesh, workload: str, worse: list[ModeChange]) -> Finding:
    outside = worse[0].planes[1] not in _IN_MESH
    what = "is outside the mesh" if outside else f"is {_ports(worse)}"
    return _finding("MT915", after, workload, f"It is new and {what}, in a namespace that was STRICT.", because=tuple(str(b) for b in worse[0].because))


def _weaker(group: Group) -> bool:
    return group.was is not None and group.was.sends == "mtls" and group.sends in ("plaintext", "tls", "mixed")


def _lost(after: Mesh, changes: Iterable[Group]) -> Iterator[Finding]:
    """One finding for all clients that call a port alike, and for one reason."""
    by: dict[tuple[str, int, str, tuple[str, ...]], list[Group]] = {}
    for group in filter(_weaker, changes):
        by.setdefault((group.server, group.port, group.sends, tuple(str(b) for b in group.outcome.because)), []).append(group)
    for (server, port, sends, because), several in sorted(by.items()):
        clients = sorted({client for group in several for client in group.clients})
        who = ", ".join(clients[:3]) + (f" and {len(clients) - 3} more" if len(clients) > 3 else "")
        decided = next((b for b in several[0].outcome.because if b.object), None)
        yield _finding("MT913", after, server, f"{who} sent mTLS to port {port} and now send{'s' if len(clients) == 1 else ''} {sends}.",
                       because=because, path=("spec", "ports", str(port), sends, clients[0]), at=decided.object if decided else "",
                       field=decided.steps() if decided else ())  # fmt: skip


def _spaces(before: Mesh, after: Mesh, namespaces: frozenset[str] | None) -> Iterator[Finding]:
    """Namespaces with a policy, workloads or a Namespace object on both sides."""
    both = before.namespace_names & after.namespace_names | {after.root}
    for namespace in sorted(both if namespaces is None else both & namespaces):
        (was, _), (now, because) = (Engine.of(mesh).control("").authn.hint(namespace) for mesh in (before, after))
        if _RANK[now] < _RANK[was] and (namespace == after.root or _concerned(before, namespace)):
            severity = Severity.ERROR if was == STRICT else Severity.WARNING
            what = "The mesh" if namespace == after.root else "The namespace"
            yield _finding("MT914", after, f"Namespace/{namespace}", f"{what} went from {was} to {now}.", severity=severity,
                           because=(str(because),), at=because.object, path=because.steps())  # fmt: skip


def _concerned(mesh: Mesh, namespace: str) -> bool:
    return any(w.namespace == namespace for w in mesh.workloads) or any(p.namespace == namespace for p in mesh.peer_authentications)


def guards(mesh: Mesh) -> dict[tuple[str, str], tuple[Guard, int]]:
    """(kind, name) -> a guard of ours and how much it does: 3 deny, 2 warn, 1 audit, 0 nothing."""
    policies = {policy.name for policy in mesh.admission_policies}
    found: dict[tuple[str, str], tuple[Guard, int]] = {}
    for field in _GUARDS:
        each: Guard
        for each in getattr(mesh, field):
            if LABEL in each.labels and each.labels.get("app.kubernetes.io/managed-by") == "meshtls":
                said = [action.lower() for action in each.spec.validation_actions] or [(each.spec.enforcement_action or "deny").lower()]
                does = max((_ACTIONS.get(action, 0) for action in said), default=0)
                if field == "admission_bindings" and each.spec.policy_name not in policies:
                    does = 0
                found[each.kind, each.name] = each, does
    return found


def _guards(before: Mesh, after: Mesh, namespaces: frozenset[str] | None) -> Iterator[Finding]:
    now = guards(after)
    if not after.live and not now:
        return  # manifests that hold no guard at all: it is kept elsewhere, which _missing tells
    for key, (guard, did) in sorted(guards(before).items()):
        if namespaces is not None and guard.labels[LABEL] not in namespaces:
            continue
        found = now.get(key)
        does = found[1] if found else 0
        if does < did:
            what = f"now does {_WORDS[does]}" if found and does else "has no policy any more" if found else "is gone"
            yield _finding("MT916", after, guard.ref, f"The guard of {guard.labels[LABEL]} {what}; it did {_WORDS[did]}.",
                           fix=f"meshtls guard admission -n {guard.labels[LABEL]} | kubectl apply -f -")  # fmt: skip


def _over(after: Mesh, today: datetime.date, namespaces: frozenset[str] | None) -> Iterator[Finding]:
    told: set[tuple[str, str, str]] = set()
    for guard, _ in guards(after).values():
        for entry in _exceptions(guard.annotations):
            key = guard.labels[LABEL], entry["rule"], entry["subject"]
            if entry["until"][:10] > today.isoformat() or key in told or (namespaces is not None and key[0] not in namespaces):
                continue
            told.add(key)
            yield _finding("MT917", after, guard.ref, f"{entry['owner']} may no longer except {entry['subject']} from {entry['rule']}: it ended on {entry['until'][:10]}.",
                           path=("metadata", "annotations", EXCEPTIONS, entry["rule"], entry["subject"]), because=(entry["reason"],))  # fmt: skip


def _exceptions(notes: Mapping[str, str]) -> list[dict[str, str]]:
    """What the annotation says; what somebody has made of it that is none says nothing."""
    try:
        entries = json.loads(notes.get(EXCEPTIONS, "[]"))
    except (ValueError, RecursionError):
        return []
    fields = ("rule", "subject", "owner", "reason", "until")
    return [e for e in entries if isinstance(e, dict) and all(isinstance(e.get(f), str) for f in fields)] if isinstance(entries, list) else []


def _missing(code: str, before: Mesh, after: Mesh, unread: tuple[str, ...]) -> tuple[Status, str] | None:
    """Why a question without findings is not answered."""
    if code not in ("MT916", "MT917"):
        return (Status.ERROR, unread[0]) if unread else None
    hidden = [f"{kind} could not be read {when}: {reason}" for when, mesh in (("before", before), ("after", after))
              for kind, reason in mesh.absent.items() if kind in _GUARD_KINDS.values() and "does not serve" not in reason]  # fmt: skip
    if hidden:
        return Status.ERROR, hidden[0]
    if code == "MT916" and not guards(before):
        return Status.SKIP, "no guard of meshtls stood before"
    if code == "MT916" and not after.live and not guards(after):
        return Status.SKIP, "AFTER is manifests and holds no guard: whether those of before still stand is not known from it"
    return None


def _check(question: Question, findings: list[Finding], missing: tuple[Status, str] | None) -> Check:
    if findings:
        ordered = tuple(sorted(findings, key=lambda f: (f.severity.rank, f.subject, f.path)))
        return Check(id=question.code, title=question.title, group=GROUP, status=Status.FAIL, findings=ordered)
    status, reason = missing or (Status.PASS, "")
    return Check(id=question.code, title=question.title, group=GROUP, status=status, reason=reason)


def _not_whole(unread: tuple[str, ...]) -> Check:
    return Check(id="read", title="Everything that decides could be read", group=GROUP, status=Status.ERROR, reason="; ".join(unread))
