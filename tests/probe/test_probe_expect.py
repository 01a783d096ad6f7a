"""The table of expect.py, cell by cell, as it was measured on a real mesh."""

import pytest

from meshtls.probe.case import BANNER, HTTP, OFFERS, TCP, Case, Client, Mode, Outcome, Server
from meshtls.probe.expect import expectation

S, P, N, U = Mode.STRICT, Mode.PERMISSIVE, Mode.UNENFORCED, Mode.UNKNOWN
R, M, T, X = Outcome.REFUSED, Outcome.MTLS, Outcome.PLAINTEXT, Outcome.STALLED

TABLE = [
    # offer, client meshed, port, mode -> outcome, mesh certificate shown
    ("plaintext", False, HTTP, S, R, None),
    ("plaintext", False, HTTP, P, T, None),
    ("plaintext", False, TCP, N, T, None),
    ("plaintext", True, HTTP, S, R, None),
    ("plaintext", True, HTTP, P, T, None),
    ("tls", False, HTTP, S, R, True),
    ("tls", False, HTTP, P, R, False),
    ("tls", False, TCP, P, R, False),
    ("tls", False, TCP, N, R, False),
    ("tls-istio", False, HTTP, P, R, True),
    ("unknown-ca", False, HTTP, S, R, True),
    ("unknown-ca", False, TCP, P, R, True),
    ("unknown-ca", False, TCP, N, R, False),
    ("server-first", False, BANNER, S, X, None),
    ("server-first", False, BANNER, P, X, None),
    ("server-first", False, BANNER, N, T, None),
    ("mtls", True, HTTP, S, M, None),
    ("mtls", True, TCP, P, M, None),
    ("mtls", True, HTTP, N, T, None),
    ("mtls", True, HTTP, U, None, None),
]


def case(offer, meshed, port):
    return Case(
        id="c",
        client=Client(namespace="a", meshed=meshed),
        server=Server(namespace="b", meshed=True),
        port=port,
        offer=OFFERS[offer],
    )


@pytest.mark.parametrize("offer, meshed, port, mode, outcome, shown", TABLE)
def test_the_table(offer, meshed, port, mode, outcome, shown):
    expected = expectation(case(offer, meshed, port), mode)

    assert (expected.outcome, expected.mesh_cert) == (outcome, shown)


@pytest.mark.parametrize("sends, mode, outcome", [
    ("plaintext", S, R), ("plaintext", P, T), ("mtls", N, R), ("tls", S, R), ("none", P, Outcome.UNREACHABLE),
])  # fmt: skip
def test_what_the_clients_sidecar_sends_meets_what_the_port_takes(sends, mode, outcome):
    assert expectation(case("mtls", True, HTTP), mode, sends).outcome is outcome


def test_an_unknown_mode_says_why():
    assert expectation(case("mtls", True, HTTP), U, because=("no permission",)).because == ("no permission",)
