"""The mode of a port from two TLS handshakes without certificate, in which no application byte is sent.

    Istio's ALPN shows a mesh certificate | no ALPN shows one | the port is
    yes                                   | yes               | STRICT
    yes                                   | no                | PERMISSIVE
    no                                    | no                | not enforced: DISABLE, no sidecar, or past the sidecar

A mesh certificate has a spiffe:// URI, and the handshake asked the client for one.  Ambient ports never speak the mesh's
TLS; there one connection on which nothing is sent is closed at once by STRICT and stays open otherwise.  Two handshakes
that both stall or do not connect say nothing: UNKNOWN.
"""

from meshtls.probe.case import Mode, Outcome
from meshtls.probe.read import Observation

WITH_ALPN, WITHOUT_ALPN, SILENT = "istio", "plain", "silent"


def mode(istio: Observation, plain: Observation) -> tuple[Mode, str]:
    """The mode that the two handshakes show, and why."""
    with_alpn, without = shows_mesh(istio), shows_mesh(plain)
    if with_alpn and without:
        return Mode.STRICT, "both handshakes show a mesh certificate"
    if with_alpn is None:
        return Mode.UNKNOWN, f"the handshake with Istio's ALPN: {istio.words}"
    if with_alpn:
        if without is None and plain.outcome is not Outcome.STALLED:
            return Mode.UNKNOWN, f"the handshake without ALPN: {plain.words}"
        if without is None:
            return (
                Mode.PERMISSIVE,
                "without Istio's ALPN the bytes went to an application that says nothing (tried twice)",
            )
        return Mode.PERMISSIVE, "only the handshake with Istio's ALPN shows a mesh certificate"
    if without:
        return Mode.UNKNOWN, "a mesh certificate only without Istio's ALPN: that is no Istio sidecar"
    if without is None:
        return Mode.UNKNOWN, f"the handshake without ALPN: {plain.words}"
    return Mode.UNENFORCED, "no handshake shows a mesh certificate"


def shows_mesh(seen: Observation) -> bool | None:
    """Whether a mesh certificate was shown; None where the handshake says nothing."""
    if seen.spiffe and seen.asks_cert is not False:
        return True
    if seen.outcome in (Outcome.UNREACHABLE, Outcome.STALLED, Outcome.NOT_RUN):
        return None
    return False


def ambient(silent: Observation) -> tuple[Mode, str]:
    """The mode of an ambient pod's port, from a connection on which nothing was sent."""
    match silent.outcome:
        case Outcome.REFUSED:
            return Mode.STRICT, "closed before any byte"
        case Outcome.STALLED:
            return Mode.PERMISSIVE, "stays open without a byte sent"
        case Outcome.PLAINTEXT:
            return Mode.PERMISSIVE, "the application speaks to a client without identity"
        case _:
            return Mode.UNKNOWN, silent.words
