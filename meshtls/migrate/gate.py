"""The gate after a stage: evidence -> verdict. Unknown has its own name and never advances.

    BROKEN    a real client was refused, or will be once it connects again (ambient), a probe saw what was not expected, a pod
              stopped being ready, or the server would now refuse the rollback
    UNKNOWN   somebody else changed policies meanwhile, a proxy was not heard, no probe answered, or nothing was listened to
              for as long as the soak
    HOLDS     none of these, and the soak is over

The first reason that is found names the verdict, so a refusal always wins over a missing answer.
"""

import enum

import msgspec

from meshtls.model.check import Check, Confidence, Finding, Severity, Status


class Verdict(enum.StrEnum):
    """What the evidence says about a stage. PENDING: nothing was gathered yet."""

    PENDING = "PENDING"
    HOLDS = "HOLDS"
    BROKEN = "BROKEN"
    UNKNOWN = "UNKNOWN"


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A real client whose plaintext, or TLS of its own, a proxy refused. `client` is its full description, `name` its `namespace/workload`."""

    client: str
    name: str
    ref: str
    server: str
    port: int
    at: str
    count: int = 1


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What was gathered after a change; times in seconds.

    `refused` are real clients that nobody accepted to lose, `accepted` those somebody did; `deaf` proxies that could not
    be heard and why; `probes` the checks of the probes, `no_probes` why there are none; `unready` pods that were ready
    before; `locked` why the server would refuse the rollback; `disturbed` what somebody else did to the policies;
    `outliving` plaintext connections that a ztunnel still holds open.
    """

    soaked_s: float
    needed_s: float
    proxies: int
    lines: int = 0
    mtls: int = 0
    refused: tuple[Refused, ...] = ()
    accepted: tuple[Refused, ...] = ()
    deaf: tuple[str, ...] = ()
    probes: tuple[Check, ...] = ()
    no_probes: str = ""
    unready: tuple[str, ...] = ()
    locked: str = ""
    disturbed: str = ""
    outliving: tuple[str, ...] = ()


def verdict(evidence: Evidence | None) -> tuple[Verdict, str]:
    """The verdict, and the fact that decided it."""
    if evidence is None:
        return Verdict.PENDING, "no evidence yet"
    if evidence.refused:
        one = evidence.refused[0]
        return Verdict.BROKEN, f"{one.client} was refused by {one.server} port {one.port}"
    failed = [check for check in evidence.probes if check.status is Status.FAIL]
    if failed:
        return Verdict.BROKEN, f"probe: {failed[0].title}: {failed[0].reason}"
    if evidence.outliving:
        return Verdict.BROKEN, f"will be refused once it connects again: {evidence.outliving[0]}"
    if evidence.unready:
        return Verdict.BROKEN, f"no longer ready: {', '.join(evidence.unready[:5])}"
    if evidence.locked:
        return Verdict.BROKEN, f"the rollback would be refused: {evidence.locked}"
    if evidence.disturbed:
        return Verdict.UNKNOWN, evidence.disturbed
    if not evidence.proxies:
        return Verdict.UNKNOWN, "there was no proxy to hear"
    if evidence.deaf:
        return Verdict.UNKNOWN, f"not heard: {_count(len(evidence.deaf), 'proxy', 'proxies')}: {evidence.deaf[0]}"
    if evidence.no_probes:
        return Verdict.UNKNOWN, f"no probe answered: {evidence.no_probes}"
    unknown = [check for check in evidence.probes if check.status is Status.ERROR]
    if unknown:
        return Verdict.UNKNOWN, f"probe: {unknown[0].title}: {unknown[0].reason}"
    if not any(check.status is Status.PASS for check in evidence.probes):
        return Verdict.UNKNOWN, "no probe answered"
    if evidence.soaked_s < evidence.needed_s:
        return Verdict.UNKNOWN, f"soaked {evidence.soaked_s:.0f} s of {evidence.needed_s:g} s"
    return Verdict.HOLDS, (
        f"{_count(evidence.proxies, 'proxy', 'proxies')} heard for {evidence.soaked_s:.0f} s: nobody refused, "
        f"{_count(evidence.mtls, 'arrival', 'arrivals')} over mTLS"
    )


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def checks(stage: str, evidence: Evidence) -> tuple[Check, ...]:
    """The gate's questions as checks, one for each kind of evidence."""
    if evidence.disturbed:
        return (_check(stage, "alone", "nobody else changes the policies", Status.ERROR, evidence.disturbed),)
    heard = Status.ERROR if evidence.deaf or not evidence.proxies else Status.PASS
    listening = "; ".join(evidence.deaf[:3]) or ("no proxy" if not evidence.proxies else "")
    refusals = tuple(
        Finding(
            code="MT711", severity=Severity.ERROR, subject=one.ref or f"Client/{one.name}",
            message=f"{one.client} was refused by {one.server} port {one.port} ({one.count} times, first at {one.at})",
            fix="give the client a sidecar, or except the port with portLevelMtls, then run again", confidence=Confidence.MEASURED,
        )
        for one in evidence.refused
    )
    found = [
        _check(stage, "proxies", "every proxy's log was heard", heard, listening or _count(evidence.proxies, "proxy", "proxies")),
        _check(stage, "refused", "no real client was refused",
               Status.FAIL if refusals else (Status.PASS if heard is Status.PASS else Status.ERROR),
               "" if refusals else (listening or f"{evidence.mtls} arrivals over mTLS, {len(evidence.accepted)} accepted refusals"),
               refusals),
        _check(stage, "soak", f"soaked for {evidence.needed_s:g} s",
               Status.PASS if evidence.soaked_s >= evidence.needed_s else Status.SKIP,
               f"{evidence.soaked_s:.1f} s", seconds=evidence.soaked_s),
        _check(stage, "ready", "every pod stayed ready", Status.FAIL if evidence.unready else Status.PASS,
               ", ".join(evidence.unready[:10])),
        _check(stage, "rollback", "a dry run of the rollback is accepted", Status.FAIL if evidence.locked else Status.PASS,
               evidence.locked),
    ]
    if evidence.outliving:
        found.append(_check(stage, "outliving", "no plaintext connection outlives the change", Status.FAIL, "; ".join(evidence.outliving[:5])))
    if evidence.no_probes:
        decided = Status.SKIP if evidence.refused else Status.ERROR
        found.append(_check(stage, "probes", "probes answer as expected", decided, evidence.no_probes))
    return (*found, *evidence.probes)


def _check(
    stage: str, name: str, title: str, status: Status, reason: str, findings: tuple[Finding, ...] = (), seconds: float = 0.0
) -> Check:
    return Check(id=f"gate/{stage}/{name}", title=title, status=status, reason=reason, group=f"gate after {stage}",
                 findings=findings, seconds=seconds)
