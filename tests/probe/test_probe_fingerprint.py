"""Two handshakes, one verdict; what is unknown stays unknown."""

import pytest

from meshtls.probe import fingerprint
from meshtls.probe.case import Mode, Outcome
from meshtls.probe.read import Certificate, Observation

MESH = Observation(
    id="i",
    outcome=Outcome.REFUSED,
    reason="CERTIFICATE_REQUIRED",
    cert=Certificate(uris=("spiffe://x",)),
    asks_cert=True,
)
APP_TLS = Observation(id="i", outcome=Outcome.TLS, cert=Certificate(dns=("a.example",)), asks_cert=False)
APP_SPIFFE = Observation(id="i", outcome=Outcome.TLS, cert=Certificate(uris=("spiffe://x",)), asks_cert=False)
RESET = Observation(id="i", outcome=Outcome.REFUSED, reason="RESET")
GARBAGE = Observation(id="i", outcome=Outcome.REFUSED, reason="NOT_TLS")
STALLED = Observation(id="i", outcome=Outcome.STALLED, reason="TIMEOUT")
GONE = Observation(id="i", outcome=Outcome.UNREACHABLE, reason="CONNECT_TIMEOUT")
SILENT = Observation(id="i", outcome=Outcome.NOT_RUN, reason="SILENCE")


@pytest.mark.parametrize("istio, plain, mode", [
    (MESH, MESH, Mode.STRICT),
    (MESH, RESET, Mode.PERMISSIVE),  # a port named http: no chain for it
    (MESH, GARBAGE, Mode.PERMISSIVE),  # passed through to an application without TLS
    (MESH, APP_TLS, Mode.PERMISSIVE),  # passed through to an application with TLS
    (MESH, STALLED, Mode.PERMISSIVE),  # passed through to an application that waits for more, twice
    (GARBAGE, GARBAGE, Mode.UNENFORCED),
    (APP_TLS, APP_TLS, Mode.UNENFORCED),
    (APP_SPIFFE, APP_SPIFFE, Mode.UNENFORCED),  # a SPIFFE certificate that asks for none is no mesh
    (RESET, RESET, Mode.UNENFORCED),
    (STALLED, STALLED, Mode.UNKNOWN),
    (GONE, GONE, Mode.UNKNOWN),
    (MESH, GONE, Mode.UNKNOWN),
    (MESH, SILENT, Mode.UNKNOWN),
    (SILENT, MESH, Mode.UNKNOWN),
    (RESET, MESH, Mode.UNKNOWN),
    (RESET, STALLED, Mode.UNKNOWN),
])  # fmt: skip
def test_two_handshakes_tell_the_mode(istio, plain, mode):
    assert fingerprint.mode(istio, plain)[0] is mode


@pytest.mark.parametrize("outcome, mode", [
    (Outcome.REFUSED, Mode.STRICT), (Outcome.STALLED, Mode.PERMISSIVE), (Outcome.PLAINTEXT, Mode.PERMISSIVE),
    (Outcome.UNREACHABLE, Mode.UNKNOWN), (Outcome.NOT_RUN, Mode.UNKNOWN),
])  # fmt: skip
def test_in_ambient_a_silent_connection_tells_it(outcome, mode):
    assert fingerprint.ambient(Observation(id="s", outcome=outcome))[0] is mode
