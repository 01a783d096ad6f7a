"""The agent on loopback, against real TLS: what it says of each thing that can happen to an offer."""

import json
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time

import pytest
from loopback import HOST, IDENTITY, PROBES, ask, echo, serving, strict_port

RST = struct.pack("ii", 1, 0)


def tls(port, **more):
    return {"id": "x", "do": "tls", "host": HOST, "port": port, **more}


def plain(port, **more):
    return {"id": "x", "do": "plaintext", "host": HOST, "port": port, "protocol": "tcp", "proof": "wire", **more}


def one(folder, case, **document):
    return ask(folder, case, **document)[0][case["id"]]


REFUSALS = [
    # certificate offered, newest TLS version of the server -> the alert that Envoy sends, too
    (None, ssl.TLSVersion.TLSv1_3, "CERTIFICATE_REQUIRED"),
    (None, ssl.TLSVersion.TLSv1_2, "HANDSHAKE_FAILURE"),
    ("unknown-ca.pem", ssl.TLSVersion.TLSv1_3, "UNKNOWN_CA"),
    ("unknown-ca.pem", ssl.TLSVersion.TLSv1_2, "UNKNOWN_CA"),
]


@pytest.mark.parametrize("cert, newest, reason", REFUSALS)
def test_a_port_that_wants_a_mesh_certificate_refuses_and_shows_its_own(pki, cert, newest, reason):
    with strict_port(pki, newest) as port:
        seen = one(pki.folder, tls(port, alpn=["istio"], **({"cert": cert} if cert else {})))

    assert (seen["outcome"], seen["asks_cert"]) == ("REFUSED", True)
    assert seen["reason"] in (reason, "EOF", "RESET")
    assert seen["cert"]["uris"] == [IDENTITY]
    assert seen["cert"]["issuer"] == "O=cluster.local"


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_good_certificate_is_let_in_and_answered(pki, newest):
    with strict_port(pki, newest) as port:
        seen = one(pki.folder, tls(port, protocol="tcp", cert="good.pem"))

    assert (seen["outcome"], seen["reason"]) == ("TLS", "ANSWERED")


def test_a_handshake_without_payload_sends_no_application_byte(pki):
    got = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server)

    def handle(sock):
        with context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=True) as wrapped:
            got.append(wrapped.recv(100))

    with serving(handle) as port:
        seen = one(pki.folder, tls(port))

    assert (seen["outcome"], seen["reason"], seen["asks_cert"]) == ("TLS", "OPEN", False)
    assert got == [b""]


@pytest.mark.parametrize("kind", ["--http", "--tcp", "--banner"])
def test_tls_to_an_application_without_tls_is_refused_at_once_and_shows_no_certificate(tmp_path, kind):
    with echo(kind, "0") as (port,):
        seen = one(tmp_path, tls(port))

    assert (seen["outcome"], seen["reason"], seen["cert"]) == ("REFUSED", "NOT_TLS", {})
    assert seen["ms"]["total"] < 1500


def test_plaintext_that_is_answered_is_plaintext(tmp_path):
    with echo("--http", "0", "--tcp", "0") as (http, tcp):
        seen, _ = ask(tmp_path, plain(http, id="http", protocol="http", echo="e1"), plain(tcp, id="tcp", echo="e1"))

    assert {case: line["outcome"] for case, line in seen.items()} == {"http": "PLAINTEXT", "tcp": "PLAINTEXT"}
    assert seen["http"]["status"] == 200


def test_an_answer_through_two_sidecars_without_proof_is_not_called_anything(tmp_path):
    with echo("--tcp", "0") as (port,):
        seen = one(tmp_path, plain(port, proof="", sidecar=True))

    assert (seen["outcome"], seen["reason"], seen["answered"]) == ("NOT_RUN", "UNPROVEN", True)


def test_an_answer_of_another_server_is_not_counted(tmp_path):
    with echo("--tcp", "0", name="stranger") as (port,):
        seen = one(tmp_path, plain(port, echo="mine"))

    assert (seen["outcome"], seen["reason"]) == ("NOT_RUN", "WRONG_SERVER")


def answering(head, body=b""):
    def handle(sock):
        sock.recv(4096)
        sock.sendall(b"HTTP/1.1 " + head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    return handle


XFCC = b'{"meshtls_echo": "e1", "headers": {"x-forwarded-client-cert": "By=spiffe://a;URI=spiffe://b"}}'
TERMINATED = b"upstream connect error or disconnect/reset before headers. reset reason: connection termination"
DELAYED = b"upstream connect error or disconnect/reset before headers. reset reason: remote connection failure, delayed connect error: 111"
ANSWERS = [
    # what came, is the client behind a sidecar, proof -> outcome, reason
    (b"200 OK", XFCC, True, "xfcc", "MTLS", "XFCC"),
    (b"200 OK", b'{"meshtls_echo": "e1", "headers": {}}', True, "xfcc", "PLAINTEXT", "ANSWERED"),
    (b"503 Service Unavailable", TERMINATED, True, "wire", "REFUSED", "SIDECAR_503"),
    (b"503 Service Unavailable", DELAYED, True, "wire", "UNREACHABLE", "SIDECAR_503"),
    (b"503 Service Unavailable", b"no healthy upstream", True, "wire", "UNREACHABLE", "SIDECAR_503"),
    (b"502 Bad Gateway", b"", True, "wire", "UNREACHABLE", "SIDECAR_502"),
    (b"503 Service Unavailable", TERMINATED, False, "wire", "PLAINTEXT", "STATUS_503"),
    (b"403 Forbidden", b"RBAC: access denied", False, "wire", "PLAINTEXT", "AUTHZ"),
    (b"403 Forbidden", b"RBAC: access denied", True, "xfcc", "NOT_RUN", "AUTHZ"),
    (b"200 OK", b"hello", True, "xfcc", "NOT_RUN", "UNPROVEN"),
]


@pytest.mark.parametrize("head, body, sidecar, proof, outcome, reason", ANSWERS)
def test_an_http_answer_is_judged_by_who_gave_it(tmp_path, head, body, sidecar, proof, outcome, reason):
    with serving(answering(head, body)) as port:
        seen = one(tmp_path, plain(port, protocol="http", sidecar=sidecar, proof=proof))

    assert (seen["outcome"], seen["reason"]) == (outcome, reason)


def reset(sock):
    sock.recv(5)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)


@pytest.mark.parametrize("case", [plain, tls])
def test_a_reset_after_the_first_bytes_is_a_refusal(tmp_path, case):
    with serving(reset) as port:
        seen = one(tmp_path, case(port))

    assert (seen["outcome"], seen["reason"]) == ("REFUSED", "RESET")


@pytest.mark.parametrize("case", [plain, tls])
def test_a_server_that_says_nothing_is_stalled_not_refused_and_is_asked_twice(tmp_path, case):
    with serving(lambda sock: [sock.recv(4096), sock.recv(4096)]) as port:
        seen = one(tmp_path, case(port), timeout_s=0.3)

    assert (seen["outcome"], seen["reason"], seen["attempts"]) == ("STALLED", "TIMEOUT", 2)


def test_where_nothing_listens_is_unreachable_not_refused(tmp_path):
    with socket.socket() as bound:
        bound.bind((HOST, 0))
        seen = one(tmp_path, tls(bound.getsockname()[1]))

    assert (seen["outcome"], seen["reason"]) == ("UNREACHABLE", "CONNECT_REFUSED")


def test_a_name_that_does_not_resolve_is_unreachable(tmp_path):
    assert one(tmp_path, tls(1) | {"host": "nowhere.invalid"})["reason"] == "DNS"


def test_silence_tells_a_banner_an_end_and_nothing_apart(tmp_path):
    with echo("--tcp", "0", "--banner", "0") as (quiet, banner), serving(lambda sock: None) as closing:
        cases = [
            {"id": str(port), "do": "silence", "host": HOST, "port": port, "wait_s": 0.3}
            for port in (banner, quiet, closing)
        ]
        seen, _ = ask(tmp_path, *cases)

    assert [seen[str(port)]["outcome"] for port in (banner, quiet, closing)] == ["PLAINTEXT", "STALLED", "REFUSED"]


def test_a_case_that_makes_no_sense_does_not_silence_the_others(tmp_path):
    with echo("--tcp", "0") as (port,):
        seen, lines = ask(tmp_path, {"id": "bad", "do": "dance", "host": HOST, "port": 1}, plain(port), {"id": "worse"})

    assert {case: line["outcome"] for case, line in seen.items()} == {
        "bad": "NOT_RUN",
        "x": "PLAINTEXT",
        "worse": "NOT_RUN",
    }
    assert lines[-1]["count"] == 3


def test_foreign_text_is_bounded_and_printable(tmp_path):
    with serving(answering(b"200 OK", b"\x1b[31m" + b"A" * 9000)) as port:
        seen = one(tmp_path, plain(port, protocol="http"))

    assert len(seen["detail"]) <= 200
    assert seen["detail"].isprintable()


def test_the_first_line_says_what_comes_and_the_last_counts_it(tmp_path):
    with echo("--tcp", "0") as (port,):
        _, lines = ask(tmp_path, *(plain(port, id=str(i)) for i in range(5)))

    assert (lines[0]["start"], lines[0]["cases"]) == (True, 5)
    assert (lines[-1]["done"], lines[-1]["count"], lines[-1]["stopped"]) == (True, 5, False)


def test_lines_hold_only_what_the_schema_names(tmp_path, pki):
    with strict_port(pki) as strict, echo("--http", "0") as (http,):
        _, lines = ask(tmp_path, tls(strict, id="a"), plain(http, id="b", protocol="http"))
    schema = json.loads((PROBES / "schemas" / "result.schema.json").read_text())

    for line in lines:
        kind = next(k for k in schema["oneOf"] if k["required"][0] in line)
        assert set(kind["required"]) <= line.keys()
        assert line.keys() - {"schema"} <= kind["properties"].keys()


def test_a_thousand_handshakes_are_all_answered_in_under_a_mebibyte(tmp_path, pki):
    with strict_port(pki) as port:
        seen, lines = ask(
            tmp_path, *(tls(port, id=str(i), alpn=["istio"]) for i in range(1000)), per_host=32, timeout_s=20
        )

    assert {line["outcome"] for line in seen.values()} == {"REFUSED"}
    assert all(line["cert"]["uris"] == [IDENTITY] for line in seen.values())
    assert len(seen) == lines[-1]["count"] == 1000
    assert sum(len(json.dumps(line)) for line in lines) < 1 << 20


def test_sigterm_ends_it_at_once_with_a_count(tmp_path):
    with serving(lambda sock: [sock.recv(4096), sock.recv(4096)]) as port:
        path = tmp_path / "cases.json"
        path.write_text(json.dumps({"timeout_s": 60, "cases": [plain(port)]}))
        process = subprocess.Popen(
            [sys.executable, str(PROBES / "agent.py"), str(path)], stdout=subprocess.PIPE, text=True
        )
        process.stdout.readline()
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        last = json.loads(process.stdout.read())
        code = process.wait()
        process.stdout.close()

    assert (code, last["stopped"], last["count"]) == (143, True, 0)
    assert time.monotonic() - began < 30  # far less than the time limit of its connection


def test_the_deadline_ends_it_with_what_was_answered(tmp_path):
    with serving(lambda sock: [sock.recv(4096), sock.recv(4096)]) as port:
        _, lines = ask(tmp_path, plain(port), timeout_s=60, deadline_s=0.3)

    assert (lines[-1]["done"], lines[-1]["count"], lines[-1]["cases"]) == (True, 0, 1)


def test_a_warm_up_target_that_never_answers_is_counted(tmp_path):
    with socket.socket() as bound:
        bound.bind((HOST, 0))
        _, lines = ask(tmp_path, warm_up=[{"host": HOST, "port": bound.getsockname()[1]}], warm_up_s=0.3)

    assert lines[-1]["cold"] == 1


def test_a_warm_up_target_is_asked_until_its_sidecar_speaks_mtls(tmp_path):
    bodies = [b'{"meshtls_echo": "e1", "headers": {}}', XFCC]

    def handle(sock):
        sock.recv(4096)
        answering(b"200 OK", bodies.pop(0) if len(bodies) > 1 else bodies[0])(Sent(sock))

    with serving(handle) as port:
        _, lines = ask(tmp_path, warm_up=[{"host": HOST, "port": port, "proof": "xfcc"}])

    assert (lines[-1]["cold"], bodies) == (0, [XFCC])


class Sent:
    """A socket whose request was read already."""

    def __init__(self, sock):
        self.sendall = sock.sendall

    def recv(self, size):
        return b""
