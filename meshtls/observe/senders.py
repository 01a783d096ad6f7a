"""Many `Usage`s -> one `Sender` for each client, destination and verdict, and those -> checks and findings.

Codes: MT601 plaintext accepted, MT602 plaintext refused, MT603 TLS that no filter chain takes (not a consequence of
STRICT), MT604 the application's own TLS (under STRICT it meets the mesh's certificate), MT605 connections without a
byte, MT606 the application's own TLS, refused. Arrivals of meshtls' own probes are counted apart and are never findings.
"""

from collections.abc import Iterable

import msgspec

from meshtls.model.check import Check, Confidence, Finding, Severity, Status
from meshtls.observe.accesslog import Usage, Verdict
from meshtls.observe.who import Client, Directory


class Sender(msgspec.Struct, frozen=True, kw_only=True):
    """What one client did to one port. `count` arrivals between `first` and `last`, RFC 3339; `example` is one request.

    `raw` of them came over TLS without the server name that sidecars give: a client that speaks TLS itself.
    """

    client: Client
    server: str
    address: str
    port: int
    verdict: Verdict
    count: int
    first: str
    last: str
    example: str = ""
    raw: int = 0


class Group:
    """Counts arrivals as they come; `senders` is the state, ordered by destination, verdict and client."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._found: dict[tuple[str, str, int, Verdict], Sender] = {}

    def look_up_in(self, directory: Directory) -> None:
        """Attribute arrivals from now on by a newer reading of the cluster."""
        self._directory = directory

    def add(self, usage: Usage) -> Sender:
        """Count one arrival; returns its sender so far."""
        client = self._directory.client(usage)
        server = self._directory.server(usage)
        key = (client.ref or client.address, server or usage.server, usage.port, usage.verdict)
        known = self._found.get(key)
        raw = usage.verdict in (Verdict.MTLS, Verdict.APP_TLS) and bool(usage.sni) and not usage.sni.startswith("outbound_.")
        if known is None:
            sender = Sender(client=client, server=server, address=usage.server, port=usage.port, verdict=usage.verdict,
                            count=1, first=usage.at, last=usage.at, example=usage.request, raw=int(raw))
        else:
            sender = msgspec.structs.replace(
                known, count=known.count + 1, raw=known.raw + raw, first=min(known.first, usage.at), last=max(known.last, usage.at)
            )
        self._found[key] = sender
        return sender

    @property
    def senders(self) -> tuple[Sender, ...]:
        return tuple(self._found[key] for key in sorted(self._found, key=lambda k: (k[1], k[2], k[3], k[0])))


class Said(msgspec.Struct, frozen=True):
    """How a verdict is reported."""

    code: str
    severity: Severity
    words: str


# mTLS is no finding
SAID: dict[Verdict, Said] = {
    Verdict.PLAINTEXT: Said("MT601", Severity.ERROR, "sends plaintext"),
    Verdict.REFUSED: Said("MT602", Severity.ERROR, "sends plaintext and is refused"),
    Verdict.NO_CHAIN: Said("MT603", Severity.WARNING, "sends TLS that no filter chain takes (not a consequence of STRICT)"),
    Verdict.APP_TLS: Said("MT604", Severity.ERROR, "sends TLS of its own, which STRICT would refuse,"),
    Verdict.TLS_REFUSED: Said("MT606", Severity.ERROR, "sends TLS of its own and is refused for want of a certificate of the mesh,"),
    Verdict.EMPTY: Said("MT605", Severity.INFO, "opens connections without a byte: a handshake refused, or nobody spoke"),
}
FIX = {
    True: "the client has a proxy and bypasses it: look at its DestinationRules, excluded ports, or calls to pod addresses",
    False: "give the client a sidecar, or except this port with portLevelMtls before the namespace goes STRICT",
}


def finding(sender: Sender) -> Finding | None:
    """The finding about one sender; None for mTLS and for our own probes."""
    said = SAID.get(sender.verdict)
    if said is None or sender.client.own:
        return None
    where = f"{sender.server or sender.address} port {sender.port}"
    return Finding(
        code=said.code, severity=said.severity, subject=sender.client.ref or sender.server or f"Address/{sender.address}",
        message=f"{sender.client} {said.words} to {where}: {'once, at' if sender.count == 1 else f'{sender.count} times, last at'} {sender.last}",
        because=(f"access log of {where}",) + ((f"for instance {sender.example}",) if sender.example else ()),
        fix=FIX[sender.client.meshed] if sender.client.known and said.severity is Severity.ERROR else "",
        confidence=Confidence.MEASURED,
    )


def check(workload: str, senders: Iterable[Sender]) -> Check:
    """The check of one workload that was heard of."""
    senders = tuple(senders)
    findings = tuple(found for sender in senders if (found := finding(sender)))
    bad = [f for f in findings if f.severity.rank <= Severity.ERROR.rank]
    counted = sum(s.count for s in senders if s.verdict is Verdict.MTLS)
    return Check(
        id=f"observe/{workload}", title=f"plaintext to {workload}", group="observed plaintext", findings=findings,
        status=Status.FAIL if bad else Status.PASS, reason=f"{counted} arrivals over mTLS",
    )
