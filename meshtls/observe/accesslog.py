"""One line of a proxy's access log -> one `Usage`: who reached which pod and port, and how.

Understood: Istio's default text format and its JSON encoding (EnvoyTextLogFormat and EnvoyJSONLogFormatIstio in
pilot/pkg/model/telemetry_logging.go), and ztunnel's access lines as text or JSON. What a line says, as measured:

    flags NR, filter_chain_not_found, no SNI    plaintext refused
    the same, with an SNI                       TLS refused for want of a chain: PERMISSIVE does that, not STRICT
    HTTP with an SNI                            mTLS            HTTP without one             plaintext accepted
    TCP, SNI outbound_.*                        mTLS            TCP without one              plaintext accepted
    TCP with another SNI                        TLS of the application, passed through
    TCP, 0 bytes received (and sent, unless the server speaks first): with a foreign SNI TLS of the application that
                                                met the mesh's certificate and was refused for want of one of its own;
                                                else a handshake refused, or nobody said anything
    ztunnel: src.identity                       mTLS            none: plaintext; with a policy rejection: refused

Under STRICT whatever is accepted is mTLS, and every NR is plaintext: a client that names no server (it called an
address) leaves `-` as its SNI. Say `strict=True` for lines of a port that is known to be STRICT, False where it is not.

Clients write parts of a line (path, user agent, SNI), so it is parsed from both ends and never searched.
"""

import enum
import re
from typing import Any

import msgspec

# what probes/agent.py sends as its server name
PROBE_SNI = "probe.meshtls.invalid"


class Verdict(enum.StrEnum):
    """How one connection or request arrived."""

    MTLS = "MTLS"
    PLAINTEXT = "PLAINTEXT"
    REFUSED = "PLAINTEXT_REFUSED"
    NO_CHAIN = "TLS_NO_CHAIN"
    APP_TLS = "APP_TLS"
    TLS_REFUSED = "TLS_REFUSED"
    EMPTY = "EMPTY"


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """One arrival. `at` is RFC 3339 as logged. `client` and `server` are addresses without port.

    `forwarded`: the client's address was taken from X-Forwarded-For, so the sender is a proxy in front of it.
    `named` is the client as `namespace/workload` where the proxy itself knows it (ztunnel), else "".
    """

    at: str
    client: str
    server: str
    port: int
    verdict: Verdict
    sni: str = ""
    forwarded: bool = False
    named: str = ""
    request: str = ""


class Entry(msgspec.Struct, frozen=True):
    """What a line of an Envoy holds, before it is judged. `-` is read as ""."""

    at: str
    method: str
    path: str
    code: str
    flags: str
    details: str
    received: int
    sent: int
    cluster: str
    local: str
    remote: str
    sni: str


_TEXT = re.compile(
    r"\[(?P<at>[^\]\s]{10,40})\] "
    r'"(?P<method>\S+) (?P<path>.*?) (?P<protocol>\S+)" (?P<code>\d+) (?P<flags>\S+) (?P<details>\S+) \S+ '
    r'"[^"]*" (?P<received>\d+) (?P<sent>\d+) .*'
    r'"[^"]*" (?P<cluster>\S+) \S+ (?P<local>\S+) (?P<remote>\S+) (?P<sni>\S+) \S+$'
)
_PAIR = re.compile(r'([a-z_.]+)=("(?:[^"\\]|\\.)*"|\S*)')
_ZTUNNEL = "connection complete"
# fields of the JSON encoding that make a line one of Istio's
_JSON_FIELDS = ("response_flags", "downstream_local_address", "downstream_remote_address")


def parse(line: str, strict: bool | None = None) -> Usage | None:
    """The inbound arrival that a line tells of; None for every other line (outbound, or no access log line)."""
    entry = read(line)
    if isinstance(entry, Entry):
        return judge(entry, strict)
    return entry


def is_access(line: str) -> bool:
    """Whether the line is of an access log at all, inbound or not: the sign that access logging is on."""
    return read(line) is not None or (_ZTUNNEL in line and "src.addr" in line)


def read(line: str) -> Entry | Usage | None:
    """The fields of a line of an Envoy, or the arrival in a line of a ztunnel."""
    if line.startswith("["):
        match = _TEXT.match(line)
        return _entry(match.groupdict()) if match else None
    if line.startswith("{"):
        return _read_json(line)
    return _ztunnel(dict(_pairs(line))) if _ZTUNNEL in line else None


def judge(entry: Entry, strict: bool | None) -> Usage | None:
    """What an Envoy's entry says about the client. None where the connection is not inbound, or a probe's own handshake."""
    if entry.sni == PROBE_SNI:
        return None
    refused = "NR" in entry.flags.split(",") and entry.details == "filter_chain_not_found"
    if not refused and not entry.cluster.startswith("inbound|") and entry.cluster != "InboundPassthroughCluster":
        return None
    server, port = _split(entry.local)
    client, client_port = _split(entry.remote)
    if not server or not client:
        return None
    if refused:
        plain = strict if strict is not None else not entry.sni
        verdict = Verdict.REFUSED if plain else Verdict.NO_CHAIN
    elif not entry.method and not entry.received and (not entry.sent or entry.sni or strict):
        # what was sent is the greeting of a server that speaks first: the client need not have seen it
        verdict = Verdict.TLS_REFUSED if entry.sni and not entry.sni.startswith("outbound_.") else Verdict.EMPTY
    elif strict or entry.sni.startswith("outbound_.") or (entry.method and entry.sni):
        verdict = Verdict.MTLS
    else:
        verdict = Verdict.APP_TLS if entry.sni else Verdict.PLAINTEXT
    return Usage(
        at=entry.at, client=client, server=server, port=port, verdict=verdict, sni=entry.sni,
        # Envoy writes port 0 where it took the address from X-Forwarded-For
        forwarded=client_port == 0, request=f"{entry.method} {entry.path}".strip()[:200],
    )


def _entry(fields: dict[str, Any]) -> Entry:
    def text(name: str) -> str:
        value = str(fields.get(name) or "")
        return "" if value == "-" else value

    return Entry(
        at=text("at"), method=text("method"), path=text("path"), code=text("code"), flags=text("flags"),
        details=text("details"), received=_number(text("received")), sent=_number(text("sent")),
        cluster=text("cluster"), local=text("local"), remote=text("remote"), sni=text("sni"),
    )


def _read_json(line: str) -> Entry | Usage | None:
    try:
        fields = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if fields.get("message") == _ZTUNNEL or (fields.get("scope") == "access" and "src.addr" in fields):
        return _ztunnel({key: "" if value is None else str(value) for key, value in fields.items()})
    if not all(name in fields for name in _JSON_FIELDS):
        return None
    return _entry({
        "at": fields.get("start_time"), "method": fields.get("method"), "path": fields.get("path"),
        "code": fields.get("response_code"), "flags": fields.get("response_flags"),
        "details": fields.get("response_code_details"), "received": fields.get("bytes_received"),
        "sent": fields.get("bytes_sent"), "cluster": fields.get("upstream_cluster"),
        "local": fields.get("downstream_local_address"), "remote": fields.get("downstream_remote_address"),
        "sni": fields.get("requested_server_name"),
    })


def _pairs(line: str) -> list[tuple[str, str]]:
    """`key=value` and `key="value"` of a ztunnel line, with its time as `time`."""
    pairs = [(key, value[1:-1] if value.startswith('"') else value) for key, value in _PAIR.findall(line)]
    return [("time", line.split(maxsplit=1)[0]), *pairs]


def _ztunnel(fields: dict[str, str]) -> Usage | None:
    if fields.get("direction") != "inbound":
        return None
    client, _ = _split(fields.get("src.addr", ""))
    # over HBONE the destination is what the tunnel leads to, not ztunnel's own port
    server, port = _split(fields.get("dst.hbone_addr") or fields.get("dst.addr", ""))
    if not client or not server:
        return None
    if fields.get("src.identity"):
        verdict = Verdict.MTLS
    else:
        verdict = Verdict.REFUSED if "policy rejection" in fields.get("error", "") else Verdict.PLAINTEXT
    known = fields.get("src.namespace") and fields.get("src.workload")
    return Usage(
        at=fields.get("time", ""), client=client, server=server, port=port, verdict=verdict,
        named=f"{fields['src.namespace']}/{fields['src.workload']}" if known else "",
    )


def _split(address: str) -> tuple[str, int]:
    """("10.0.0.1", 8080) of "10.0.0.1:8080" and ("fd00::1", 80) of "[fd00::1]:80"; ("", 0) of anything else."""
    host, _, port = address.rpartition(":")
    return (host.strip("[]"), int(port)) if host and port.isascii() and port.isdigit() and len(port) < 6 else ("", 0)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
