"""What a line of a proxy's log tells, line by line as real proxies wrote them."""

import json
import pathlib

import pytest

from meshtls.observe import accesslog
from meshtls.observe.accesslog import Verdict, is_access, parse

HEAD = "[2026-11-23T10:00:00.123Z]"
REFUSED = f'{HEAD} "- - -" 0 NR filter_chain_not_found - "-" 0 0 0 - "-" "-" "-" "-" "-" - - 10.0.0.5:8080 10.0.0.9:40112 SNI -'
HTTP = (
    f'{HEAD} "GET /pay?x=1 HTTP/1.1" 200 - via_upstream - "-" 0 12 3 2 "XFF" "AGENT" "id" "gateway.payments" '
    '"10.0.0.5:8080" inbound|8080|| 127.0.0.6:50001 10.0.0.5:8080 REMOTE SNI default'
)
TCP = f'{HEAD} "- - -" 0 - - - "-" IN OUT 5 - "-" "-" "-" "-" "10.0.0.5:9000" inbound|9000|| 127.0.0.6:1 10.0.0.5:9000 10.0.0.9:40112 SNI -'
MESH = "outbound_.8080_._.gateway.payments.svc.cluster.local"


def http(sni: str, remote: str = "10.0.0.9:40112", xff: str = "-", agent: str = "curl/8") -> str:
    return HTTP.replace("SNI", sni).replace("REMOTE", remote).replace("XFF", xff).replace("AGENT", agent)


def tcp(sni: str, received: int = 7, sent: int = 9) -> str:
    return TCP.replace("SNI", sni).replace("IN ", f"{received} ").replace("OUT", str(sent))


@pytest.mark.parametrize(
    ("line", "strict", "verdict"),
    [
        (REFUSED.replace("SNI", "-"), None, Verdict.REFUSED),
        (REFUSED.replace("SNI", "-"), True, Verdict.REFUSED),
        (REFUSED.replace("SNI", "-"), False, Verdict.NO_CHAIN),
        (REFUSED.replace("SNI", "db.example.com"), None, Verdict.NO_CHAIN),
        (http(MESH), None, Verdict.MTLS),
        (http("-"), None, Verdict.PLAINTEXT),
        (http("-"), True, Verdict.MTLS),
        (tcp(MESH), None, Verdict.MTLS),
        (tcp("-"), None, Verdict.PLAINTEXT),
        (tcp("db.example.com"), None, Verdict.APP_TLS),
        (tcp("db.example.com", 0, 0), None, Verdict.TLS_REFUSED),
        (tcp("-", 0, 0), None, Verdict.EMPTY),
        # a server that speaks first: its greeting is counted as sent although a refused client never saw it
        (tcp("db.example.com", 0, 13), True, Verdict.TLS_REFUSED),
        (tcp(MESH, 0, 13), True, Verdict.EMPTY),
        (tcp("-", 0, 13), True, Verdict.EMPTY),
        (tcp("-", 0, 13), False, Verdict.PLAINTEXT),
        (http("-").replace('"GET /pay?x=1 HTTP/1.1" 200 - via_upstream', '"- - HTTP/1.1" 400 DPE http1.codec_error'), None,
         Verdict.PLAINTEXT),
    ],
)
def test_each_event_has_its_verdict(line, strict, verdict) -> None:
    usage = parse(line, strict)

    assert usage is not None
    assert usage.verdict is verdict
    assert (usage.client, usage.server) == ("10.0.0.9", "10.0.0.5")
    assert usage.at == "2026-11-23T10:00:00.123Z"


def test_the_json_encoding_says_the_same() -> None:
    fields = {
        "start_time": "2026-11-23T10:00:00.123Z", "method": None, "response_code": 0, "response_flags": "NR",
        "response_code_details": "filter_chain_not_found", "bytes_received": 0, "bytes_sent": 0,
        "upstream_cluster": None, "downstream_local_address": "10.0.0.5:8080",
        "downstream_remote_address": "10.0.0.9:40112", "requested_server_name": None,
    }

    assert parse(json.dumps(fields)) == parse(REFUSED.replace("SNI", "-"))


@pytest.mark.parametrize(
    "line",
    [
        http("-").replace("inbound|8080||", "outbound|80||gateway.payments.svc.cluster.local"),
        http("-").replace("inbound|8080||", "PassthroughCluster"),
        "2026-11-23T10:00:00Z	info	Envoy proxy is ready",
        '{"level":"info","time":"2026-11-23T10:00:00Z","msg":"cache"}',
        "", "[", "{", '["a"]', "[x] ", HEAD + ' "', "\x00\xff",
    ],
)
def test_what_is_no_arrival_is_none(line) -> None:
    assert parse(line) is None


def test_an_outbound_line_shows_that_logging_is_on() -> None:
    assert is_access(http("-").replace("inbound|8080||", "outbound|80||x"))
    assert not is_access("2026-11-23T10:00:00Z	info	Envoy proxy is ready")


def test_a_client_cannot_write_its_own_verdict() -> None:
    """User agent and X-Forwarded-For are the client's words; they may hold a whole forged line."""
    forged = f'x" "id" "a" "b" inbound|8080|| 1.1.1.1:1 10.0.0.5:8080 6.6.6.6:6 {MESH} default'

    for line in (http("-", agent=forged), http("-", xff=forged)):
        usage = parse(line)
        assert usage is not None
        assert (usage.client, usage.verdict) == ("10.0.0.9", Verdict.PLAINTEXT)


def test_an_address_from_x_forwarded_for_is_marked() -> None:
    usage = parse(http("-", remote="203.0.113.7:0", xff="203.0.113.7"))

    assert usage is not None
    assert usage.forwarded


def test_addresses_of_version_six_are_read() -> None:
    usage = parse(REFUSED.replace("SNI", "-").replace("10.0.0.5", "[fd00::5]").replace("10.0.0.9", "[fd00::9]"))

    assert usage is not None
    assert (usage.server, usage.client, usage.port) == ("fd00::5", "fd00::9", 8080)


ZTUNNEL = (
    '2026-11-23T10:00:00.5Z	LEVEL	access	connection complete	src.addr=10.0.0.9:40112 src.workload="cli-7c" '
    'src.namespace="raw" SRC dst.addr=10.0.0.5:15008 HBONE dst.service="a.b.svc.cluster.local" direction="inbound" '
    "bytes_sent=0 bytes_recv=0 duration=\"0ms\" ERROR"
)


@pytest.mark.parametrize(
    ("identity", "hbone", "error", "verdict", "port"),
    [
        ("", "", 'error="connection closed due to policy rejection: explicitly denied by: istio-system/istio_converted_static_strict"',
         Verdict.REFUSED, 15008),
        ("", "", "", Verdict.PLAINTEXT, 15008),
        ('src.identity="spiffe://cluster.local/ns/raw/sa/cli"', "dst.hbone_addr=10.0.0.5:8080", "", Verdict.MTLS, 8080),
    ],
)
def test_a_ztunnel_names_the_client_itself(identity, hbone, error, verdict, port) -> None:
    usage = parse(ZTUNNEL.replace("SRC", identity).replace("HBONE", hbone).replace("ERROR", error))

    assert usage is not None
    assert (usage.verdict, usage.named, usage.client, usage.port) == (verdict, "raw/cli-7c", "10.0.0.9", port)


def test_a_ztunnels_outbound_line_is_no_arrival() -> None:
    assert parse(ZTUNNEL.replace('"inbound"', '"outbound"')) is None


def test_a_probes_own_handshake_is_no_clients() -> None:
    agent = (pathlib.Path(__file__).parents[2] / "probes" / "agent.py").read_text()
    assert f'SNI = "{accesslog.PROBE_SNI}"' in agent
    line = '[2026-11-24T10:00:00.000Z] "- - -" 0 NR filter_chain_not_found - "-" 0 0 0 - "-" "-" "-" "-" "-" - - 10.1.0.1:8080 10.1.0.2:4000 {} -'
    assert parse(line.format("other.example")) is not None
    assert parse(line.format(accesslog.PROBE_SNI)) is None
