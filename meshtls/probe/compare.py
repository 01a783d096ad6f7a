"""Expectation beside observation: cases and what agents said become checks and matrices.  Pure.

Two laws of proof:

    - A refusal of plaintext proves STRICT only with its control: from the same namespace, mTLS to the same port works, or
      the port itself showed a mesh certificate.  Without one, the check is an ERROR with that reason, not a PASS.
    - An answer over TCP through two sidecars does not tell how it travelled.  It counts as mTLS where the port takes
      nothing else (it refused a handshake, showing the mesh's certificate, without Istio's ALPN), or where the server's
      proxy logged the connection with the mesh's server name.  Otherwise the check is a SKIP.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from meshtls.model.check import Cell, Check, Finding, Matrix, Severity, Status
from meshtls.probe import fingerprint
from meshtls.probe.case import HTTP, PORT_NAMES, Case, Client, Expectation, Handshake, Mode, Outcome, Port, Server, Target
from meshtls.probe.plan import Plan
from meshtls.probe.read import Observation, not_run

UNKNOWN = (Outcome.NOT_RUN, Outcome.UNREACHABLE, Outcome.STALLED)
DOCS = "docs/probe.md"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One case judged. `ok` None: it could not be told, and `reason` says why."""

    case: Case
    expected: Expectation
    seen: Observation
    outcome: Outcome
    ok: bool | None
    reason: str = ""


class Seen:
    """What was observed, by case, with what it proves of a port."""

    def __init__(self, plan: Plan, observations: Mapping[str, Observation], logged: Iterable[str] = ()) -> None:
        self.plan, self._by_id, self._logged = plan, observations, frozenset(logged)
        self._of = {(c.client, c.server, c.port, c.offer.name): c for c in plan.cases}

    def of(self, case: Case | Handshake) -> Observation:
        return self._by_id.get(case.id) or not_run(case.id, "the agent was not heard of")

    def outcome(self, case: Case) -> Outcome:
        """What came of a case, where the agent alone could not tell how its bytes travelled."""
        seen = self.of(case)
        if seen.outcome is Outcome.NOT_RUN and seen.answered and seen.reason != "AUTHZ":
            if case.id in self._logged or self.strict(case.server, case.port):
                return Outcome.MTLS
        return seen.outcome

    def strict(self, server: Server, port: Port) -> bool:
        """Whether the port showed a mesh certificate to a handshake without Istio's ALPN."""
        return any(
            fingerprint.shows_mesh(self.of(case)) is True
            for case in self.plan.cases
            if case.server == server and case.port == port and case.offer.do == "tls" and not case.offer.alpn
        )

    def control(self, case: Case) -> str:
        """What shows that the port behind a refusal is alive and of the mesh, or ""."""
        if self.of(case).spiffe:
            return "the port showed a mesh certificate"
        if self.strict(case.server, case.port):
            return "the port showed a mesh certificate to a TLS handshake"
        meshed = Client(namespace=case.client.namespace, meshed=True)
        control = self._of.get((meshed, case.server, case.port, "mtls"))
        if control and (self.outcome(control) is Outcome.MTLS or self.of(control).answered):
            return "mTLS from the same namespace to the same port works"
        return ""


def judge(case: Case, expected: Expectation, seen: Seen) -> Verdict:
    """The verdict on one case."""
    observed, outcome = seen.of(case), seen.outcome(case)

    def verdict(ok: bool | None, reason: str = "") -> Verdict:
        return Verdict(case=case, expected=expected, seen=observed, outcome=outcome, ok=ok, reason=reason)

    if outcome is Outcome.NOT_RUN:
        return verdict(None, observed.detail or observed.reason)
    if expected.outcome is None:
        return verdict(None, "no expectation: " + "; ".join(expected.because))
    if outcome is not expected.outcome:
        if outcome in UNKNOWN:
            return verdict(None, observed.words)
        return verdict(False, observed.words)
    if outcome is Outcome.REFUSED:
        if expected.mesh_cert is not None and fingerprint.shows_mesh(observed) is not expected.mesh_cert:
            return verdict(
                False, "a mesh certificate was shown" if observed.spiffe else "no mesh certificate was shown"
            )
        if case.offer.do == "plaintext":
            control = seen.control(case)
            return (
                verdict(True, control)
                if control
                else verdict(None, "refused, but its control failed: " + _control(case))
            )
    return verdict(True, observed.detail)


def _control(case: Case) -> str:
    return f"no mTLS from {case.client.namespace} to port {case.port.number} of {case.server.title}, and no mesh certificate seen"


def checks(verdicts: Sequence[Verdict]) -> tuple[Check, ...]:
    """One check a case."""
    return tuple(_check(verdict) for verdict in verdicts)


def _check(verdict: Verdict) -> Check:
    case, seen = verdict.case, verdict.seen
    title = (
        f"{case.offer.title}: {case.client.title} -> {case.server.title}, {PORT_NAMES[case.port]} {case.port.number}"
    )
    common = {
        "id": f"probe/{_slug(case.client)}/{_slug(case.server)}/{case.port.number}/{case.offer.name}",
        "title": title,
        "group": f"probe {case.client.title}",
        "seconds": seen.ms.total / 1000,
    }
    if verdict.ok:
        return Check(status=Status.PASS, reason=verdict.reason, **common)  # type: ignore[arg-type]
    if verdict.ok is None:
        told = seen.answered or (verdict.expected.outcome is None and verdict.outcome is not Outcome.NOT_RUN)
        return Check(status=Status.SKIP if told else Status.ERROR, reason=verdict.reason or "unknown", **common)  # type: ignore[arg-type]
    return Check(status=Status.FAIL, reason=verdict.reason, findings=(_finding(verdict),), **common)  # type: ignore[arg-type]


def _finding(verdict: Verdict) -> Finding:
    case, expected, outcome = verdict.case, verdict.expected, verdict.outcome
    if outcome in (Outcome.PLAINTEXT, Outcome.TLS) and expected.outcome in (Outcome.REFUSED, Outcome.STALLED):
        code, severity, what = "MT501", Severity.CRITICAL, "was accepted, although the policies should refuse it"
    elif expected.outcome is Outcome.MTLS:
        code, severity, what = "MT502", Severity.ERROR, f"ended as {outcome}, although mTLS should work"
    elif outcome is Outcome.REFUSED and expected.outcome is Outcome.REFUSED:
        code, severity, what = "MT504", Severity.WARNING, f"was refused in another way than expected: {verdict.reason}"
    else:
        code, severity, what = "MT503", Severity.ERROR, f"ended as {outcome}, expected {expected.outcome}"
    return Finding(
        code=code,
        severity=severity,
        subject=f"Namespace/{case.server.namespace}",
        message=f"{case.offer.title} from {case.client.title} to port {case.port.number} of a pod {case.server.title} {what}",
        because=(*expected.because, f"observed: {verdict.seen.words}"),
    )


def _slug(who: Client | Server) -> str:
    return f"{who.namespace}-{'meshed' if who.meshed else 'naked'}"


def matrices(verdicts: Sequence[Verdict]) -> tuple[Matrix, ...]:
    """Two matrices for each port, since clients with and without sidecar bring different things: rows are pairs of the
    client's namespace and the server, columns are offers."""
    found = []
    for port, label in PORT_NAMES.items():
        for meshed, who in ((True, "clients with sidecar"), (False, "clients without sidecar")):
            some = [v for v in verdicts if v.case.port == port and v.case.client.meshed is meshed]
            if some:
                found.append(_matrix(f"Port {port.number} ({label}), {who}", some))
    return tuple(found)


def _matrix(title: str, verdicts: Sequence[Verdict]) -> Matrix:
    return Matrix(
        title=title,
        rows=tuple(dict.fromkeys(_pair(v.case) for v in verdicts)),
        columns=tuple(dict.fromkeys(v.case.offer.title for v in verdicts)),
        cells=tuple(
            Cell(
                row=_pair(v.case),
                column=v.case.offer.title,
                expected=str(v.expected.outcome or "unknown"),
                observed=_shown(v),
                ok=v.ok,
                detail=v.reason,
            )
            for v in verdicts
        ),
    )


def _pair(case: Case) -> str:
    return f"{case.client.namespace} -> {case.server.title}"


def _shown(verdict: Verdict) -> str:
    return "answered" if verdict.outcome is Outcome.NOT_RUN and verdict.seen.answered else str(verdict.outcome)


def fingerprints(plan: Plan, seen: Seen) -> tuple[tuple[Check, ...], tuple[Matrix, ...]]:
    """The mode of every port that was there before, seen from its own namespace, beside what the policies say."""
    cells, found = [], []
    for (origin, target), (mode, why, _) in ports_seen(plan, seen).items():
        if origin != target.namespace:
            continue
        known = target.mode is not Mode.UNKNOWN and mode is not Mode.UNKNOWN
        ok = _agree(target, mode) if known else None
        cells.append(
            Cell(
                row=f"{target.namespace}/{target.pod}",
                column=str(target.port.number),
                expected=str(target.mode),
                observed=str(mode),
                ok=ok,
                detail=why,
            )
        )
        found.append(_fingerprint_check(target, mode, why, ok))
    if not cells:
        return (), ()
    columns = sorted({cell.column for cell in cells}, key=int)
    matrix = Matrix(
        title="Mode of each pod's ports, from handshakes without payload",
        rows=tuple(dict.fromkeys(c.row for c in cells)),
        columns=tuple(columns),
        cells=tuple(cells),
    )
    return tuple(found), (matrix,)


def ports_seen(plan: Plan, seen: Seen) -> dict[tuple[str, Target], tuple[Mode, str, bool]]:
    """(namespace of the client, port) -> its mode on the wire, why, and whether the application speaks TLS of its own."""
    pairs: dict[tuple[str, Target], dict[str, Observation]] = {}
    for shake in plan.handshakes:
        pairs.setdefault((shake.client.namespace, shake.target), {})[shake.kind] = seen.of(shake)
    found = {}
    for (origin, target), answers in pairs.items():
        if target.ambient:
            found[origin, target] = (*fingerprint.ambient(answers[fingerprint.SILENT]), False)
        else:
            plain = answers[fingerprint.WITHOUT_ALPN]
            found[origin, target] = (*fingerprint.mode(answers[fingerprint.WITH_ALPN], plain), plain.outcome is Outcome.TLS)
    return found


def mutual_seen(plan: Plan, seen: Seen) -> dict[tuple[str, str], tuple[bool | None, str]]:
    """(client's namespace, server's) -> whether mTLS between our pods with sidecar worked by the Service's name, and what was seen."""
    found: dict[tuple[str, str], tuple[bool | None, str]] = {}
    for case in plan.cases:
        if case.offer.name == "mtls" and case.server.meshed and case.port == HTTP:
            outcome = seen.outcome(case)
            says = f"observed: mTLS of {case.client.title} to {case.server.title}: {outcome}"
            found[case.client.namespace, case.server.namespace] = (None if outcome in UNKNOWN else outcome is Outcome.MTLS, says)
    return found


def _agree(target: Target, mode: Mode) -> bool:
    """Ambient's DISABLE acts as PERMISSIVE."""
    return mode is target.mode or (target.ambient and {mode, target.mode} == {Mode.PERMISSIVE, Mode.UNENFORCED})


def _fingerprint_check(target: Target, mode: Mode, why: str, ok: bool | None) -> Check:
    common = {
        "id": f"fingerprint/{target.namespace}/{target.pod}/{target.port.number}",
        "title": f"mode of {target.title}",
        "group": "fingerprint",
    }
    if mode is Mode.UNKNOWN:
        return Check(status=Status.ERROR, reason=why, **common)  # type: ignore[arg-type]
    if ok is None:
        reason = (
            f"is {mode} ({why}); what it should be is not known: {'; '.join(target.because) or 'no policy was read'}"
        )
        return Check(status=Status.SKIP, reason=reason, **common)  # type: ignore[arg-type]
    if ok:
        return Check(status=Status.PASS, reason=f"{mode}: {why}", **common)  # type: ignore[arg-type]
    weaker = target.mode is Mode.STRICT
    finding = Finding(
        code="MT505",
        severity=Severity.CRITICAL if weaker else Severity.ERROR,
        subject=target.workload,
        message=f"port {target.port.number} of pod {target.pod} is {mode} on the wire, and {target.mode} by the policies",
        path=("ports", str(target.port.number)),
        because=(*target.because, f"observed: {why}"),
    )
    return Check(status=Status.FAIL, reason=why, findings=(finding,), **common)  # type: ignore[arg-type]


def logged_as_mtls(
    plan: Plan,
    seen: Mapping[str, Observation],
    addresses: Mapping[Server, str],
    sources: Mapping[Client, str],
    lines: Iterable[str],
) -> frozenset[str]:
    """Ids of TCP cases that the server's proxy logged with the mesh's server name (`outbound_.PORT_._.HOST`)."""
    lines = [line for line in lines if "outbound_." in line]
    found = set()
    for case in plan.cases:
        if (
            not seen.get(case.id, not_run(case.id, "")).answered
            or case.server not in addresses
            or case.client not in sources
        ):
            continue
        number = case.port.number
        to = re.compile(rf"(?<![\w.:]){re.escape(addresses[case.server])}:{number}(?!\d)")
        source = re.compile(rf"(?<![\w.:]){re.escape(sources[case.client])}:\d")
        if any(f"outbound_.{number}_" in line and to.search(line) and source.search(line) for line in lines):
            found.add(case.id)
    return frozenset(found)
