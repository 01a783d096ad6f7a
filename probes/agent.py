"""The probe agent: it makes the handshakes it was told to make, and says what came of each.

    python agent.py cases.json

One JSON line a case on stdout, then one line with the count.  Python's standard library only (3.8 or newer), so that any
image with Python will do; the same file runs in a pod, in the lab and in a unit test.  The law:

    - A TCP connect proves nothing: a sidecar accepts every connection.  Only answers, alerts, resets and ends count.
    - A timeout is not a refusal.  No connection is UNREACHABLE, a connection without an answer is STALLED.
    - After a TLS 1.3 handshake the refusal comes with the first read, as an alert, an end or a reset: all are REFUSED.
    - What cannot be told is NOT_RUN with a reason, never a guess.
    - Each case opens connections of its own and closes them: a kept connection may be older than the policy.

The documents are described by schemas/cases.schema.json and schemas/result.schema.json.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import platform
import signal
import socket
import ssl
import sys
import time

RESULT = "meshtls.dev/probe-result/v1"
USER_AGENT = "meshtls-probe/1"
SNI = "probe.meshtls.invalid"  # names these handshakes in the proxies' logs, so that nobody takes them for a client's
TEXT = 200  # characters of foreign text in a line
ANSWER = 16384  # bytes read of an answer
WARM_S = 1.5  # after this a warm-up target's outcome is not the start's

NOT_TLS = (
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "RECORD_LAYER_FAILURE",
    "PACKET_LENGTH_TOO_LONG",
    "RECORD_TOO_SMALL",
    "UNEXPECTED_MESSAGE",
    "UNSUPPORTED_PROTOCOL",
    "BAD_RECORD_TYPE",
    "INVALID_RECORD",
)
# What a sidecar says in the body of its 503, and what it means for the connection behind it.
SIDECAR_REFUSED = (
    "connection termination",
    "remote reset",
    "connection reset",
    "TLS_error",
    "TLS error",
    "protocol error",
)
SIDECAR_UNREACHABLE = (
    "delayed connect error",
    "connection timeout",
    "connection failure",
    "no healthy upstream",
    "no route",
    "immediate connect error",
)


class Result(Exception):
    """The end of a case: raised where it is known, so that the way there reads straight."""

    def __init__(self, outcome, reason, detail="", **facts):
        super().__init__(outcome)
        self.outcome, self.reason, self.detail, self.facts = outcome, reason, detail, facts


def text(value) -> str:
    """Foreign bytes or text, short and printable."""
    if isinstance(value, (bytes, bytearray)):
        value = bytes(value[: TEXT * 2]).decode("utf-8", "backslashreplace")
    value = "".join(c if c.isprintable() else "." for c in str(value)[: TEXT * 2])
    return value[:TEXT]


# --- certificates: the few fields we read, by a walk over the DER (RFC 5280, section 4.1) -----------------------------


def tlvs(data: bytes):
    """Yield (tag, content) of the elements in `data`; ends quietly at the first that does not fit."""
    at = 0
    while at + 2 <= len(data):
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            if not size or size > 4 or at + size > len(data):
                return
            length = int.from_bytes(data[at : at + size], "big")
            at += size
        if at + length > len(data):
            return
        yield tag, data[at : at + length]
        at += length


def certificate(der: bytes) -> dict:
    """URI and DNS names, issuer, end of life and fingerprint of a certificate; {} if it cannot be walked."""
    try:
        body = list(tlvs(list(tlvs(list(tlvs(der))[0][1]))[0][1]))
        if body[0][0] == 0xA0:
            body = body[1:]
        facts = {"uris": [], "dns": [], "issuer": ",".join(names(body[2][1]))}
        facts["not_after"] = list(tlvs(body[3][1]))[1][1].decode("ascii", "replace")
        for _, extensions in (element for element in body[6:] if element[0] == 0xA3):
            for _, extension in tlvs(list(tlvs(extensions))[0][1]):
                parts = list(tlvs(extension))
                if parts[0][1] == b"\x55\x1d\x11":  # 2.5.29.17, subjectAltName
                    for tag, name in tlvs(list(tlvs(parts[-1][1]))[0][1]):
                        if tag in (0x86, 0x82) and len(facts["uris"]) + len(facts["dns"]) < 8:
                            facts["uris" if tag == 0x86 else "dns"].append(text(name))
    except (IndexError, ValueError):
        return {}
    facts["sha256"] = hashlib.sha256(der).hexdigest()
    return facts


def names(rdns: bytes):
    """`CN=..`, `O=..` of a Name."""
    for _, rdn in tlvs(rdns):
        for _, pair in tlvs(rdn):
            oid, value = list(tlvs(pair))[:2]
            label = {b"\x55\x04\x03": "CN", b"\x55\x04\x0a": "O", b"\x55\x04\x0b": "OU"}.get(oid[1])
            if label:
                yield label + "=" + text(value[1])


# --- connections --------------------------------------------------------------------------------------------------------


class Connection:
    """One TCP connection; with `context`, TLS on it by memory BIOs, so that what the peer sends is seen where it comes."""

    def __init__(self, sock):
        self.sock, self.loop, self.tls = sock, asyncio.get_running_loop(), None
        self.received = 0
        self.peer_der, self.asks_cert = b"", None

    async def start_tls(self, alpn, cert_file):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if alpn:
            context.set_alpn_protocols(alpn)
        if cert_file:
            context.load_cert_chain(cert_file)
        if hasattr(context, "_msg_callback"):  # not public; without it two facts are missing, no outcome changes
            context._msg_callback, self.asks_cert = self._message, False
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=SNI)
        await self._pump(self.tls.do_handshake)
        self.peer_der = self.tls.getpeercert(True) or self.peer_der

    def _message(self, _conn, direction, version, content_type, message_type, data):
        if direction != "read" or int(content_type) != 22:
            return
        if int(message_type) == 13:
            self.asks_cert = True
        elif int(message_type) == 11 and not self.peer_der:  # seen even where the handshake does not end (TLS 1.2)
            at = 4 + (1 + data[4] if int(version) >= 0x0304 else 0) + 3
            self.peer_der = bytes(data[at + 3 : at + 3 + int.from_bytes(data[at : at + 3], "big")])

    async def _pump(self, step, *args):
        while True:
            try:
                value = step(*args)
            except ssl.SSLWantReadError:
                await self._flush()
                data = await self.loop.sock_recv(self.sock, 65536)
                self.received += len(data)
                self.incoming.write(data) if data else self.incoming.write_eof()
            except ssl.SSLError:
                try:
                    await self._flush()
                except OSError:
                    pass
                raise
            else:
                await self._flush()
                return value

    async def _flush(self):
        data = self.outgoing.read()
        if data:
            await self.loop.sock_sendall(self.sock, data)

    async def send(self, data: bytes):
        if self.tls:
            await self._pump(self.tls.write, data)
        else:
            await self.loop.sock_sendall(self.sock, data)

    async def read(self, size=4096) -> bytes:
        """Some bytes; b"" at the end. Raises what the peer did: ConnectionError, ssl.SSLError."""
        if self.tls:
            try:
                return await self._pump(self.tls.read, size)
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                return b""
        data = await self.loop.sock_recv(self.sock, size)
        self.received += len(data)
        return data

    def facts(self) -> dict:
        if not self.tls:
            return {}
        facts = {"tls": self.tls.version() or "", "alpn": self.tls.selected_alpn_protocol() or ""}
        facts["cert"] = certificate(self.peer_der) if self.peer_der else {}
        facts["asks_cert"] = self.asks_cert
        return facts


async def connect(host: str, port: int, timeout: float) -> Connection:
    """A connection, or Result UNREACHABLE with the reason."""
    loop, sock = asyncio.get_running_loop(), None

    async def attempt():
        nonlocal sock
        family, kind, protocol, _, address = (await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))[0]
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.sock_connect(sock, address)
        return Connection(sock)

    try:
        return await asyncio.wait_for(attempt(), timeout)
    except BaseException as error:
        if sock is not None:
            sock.close()
        if isinstance(error, asyncio.TimeoutError):
            raise Result("UNREACHABLE", "CONNECT_TIMEOUT", "no connection after %gs" % timeout) from None
        if isinstance(error, socket.gaierror):
            raise Result("UNREACHABLE", "DNS", text(error)) from None
        if isinstance(error, ConnectionRefusedError):
            raise Result("UNREACHABLE", "CONNECT_REFUSED", "nothing listens, or a firewall rejects") from None
        if isinstance(error, OSError):
            raise Result("UNREACHABLE", errno.errorcode.get(error.errno or 0, "OSERROR"), text(error)) from None
        raise


# --- one case -----------------------------------------------------------------------------------------------------------


class Agent:
    def __init__(self, document: dict, folder: str):
        self.document, self.folder = document, folder
        self.timeout = float(document.get("timeout_s", 5))
        self.settle = float(document.get("settle_s", 0.3))
        self.written, self.stopped = 0, asyncio.Event()
        self.gates = {}
        self.begun = time.monotonic()

    async def plaintext(self, case, conn):
        await self.exchange(case, conn)

    async def silence(self, case, conn):
        """Connect and wait: what a server that speaks first would say, or how a connection is refused before any byte."""
        try:
            data = await asyncio.wait_for(conn.read(512), float(case.get("wait_s", 1.5)))
        except TimeoutError:
            raise Result("STALLED", "SILENCE", "stays open, nothing came") from None
        if not data:
            raise Result("REFUSED", "EOF", "closed before any byte")
        raise Result("PLAINTEXT", "BANNER", text(data))

    async def handshake(self, case, conn):
        """TLS, with or without a certificate; what is then asked depends on `protocol` ("": no application byte is sent)."""
        cert = case.get("cert")
        began = time.monotonic()
        try:
            await conn.start_tls(
                case.get("alpn") or [], os.path.join(self.folder, os.path.basename(cert)) if cert else None
            )
        except ssl.SSLError as error:
            raise self.tls_failure(error, conn) from None
        conn.handshake_ms = round((time.monotonic() - began) * 1000, 2)
        try:
            first = await asyncio.wait_for(conn.read(1), max(self.settle, 3 * conn.connect_ms / 1000))
            if not first:
                raise Result("REFUSED", "EOF", "closed after the handshake")
        except TimeoutError:
            first = b""
        except ssl.SSLError as error:
            raise self.tls_failure(error, conn) from None
        if not case.get("protocol"):
            raise Result("TLS", "OPEN", "handshake accepted, no byte sent")
        await self.exchange(case, conn, first)

    def tls_failure(self, error, conn) -> Result:
        reason = (error.reason or "").upper()
        if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)):
            return Result("REFUSED", "EOF", "closed during the handshake")
        for prefix in ("TLSV13_ALERT_", "TLSV1_ALERT_", "SSLV3_ALERT_"):
            if reason.startswith(prefix):
                return Result("REFUSED", reason[len(prefix) :], "alert")
        if any(sign in reason for sign in NOT_TLS) and not conn.peer_der:
            return Result("REFUSED", "NOT_TLS", "the answer is not TLS (%s)" % text(reason.lower()))
        return Result("REFUSED", text(reason) or "TLS", text(error))

    async def exchange(self, case, conn, first=b""):
        if case.get("protocol") == "http":
            ask = "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: %s\r\nX-Meshtls-Case: %s\r\nConnection: close\r\n\r\n" % (
                case.get("path") or "/meshtls-probe",
                self.authority(case),
                USER_AGENT,
                case["id"],
            )
        else:
            ask = "meshtls-probe %s\n" % case["id"]
        answer = bytearray(first)
        try:
            await conn.send(ask.encode("utf-8"))
            while len(answer) < ANSWER:
                data = await conn.read()
                if not data:
                    break
                answer += data
                if complete(bytes(answer), case.get("protocol") == "http"):
                    break
        except (ConnectionError, ssl.SSLError) as error:
            if not answer:
                raise (
                    self.tls_failure(error, conn) if isinstance(error, ssl.SSLError) else closed(case, error)
                ) from None
        if not answer:
            raise closed(case, None)
        raise judge(case, bytes(answer), bool(conn.tls))

    @staticmethod
    def authority(case) -> str:
        host = case["host"]
        return "%s:%d" % ("[%s]" % host if ":" in host else host, case["port"])

    async def attempt(self, case) -> dict:
        """One attempt at one case, as the fields of its line."""
        do = {"plaintext": self.plaintext, "tls": self.handshake, "silence": self.silence}[case["do"]]
        timeout, began, conn = float(case.get("timeout_s", self.timeout)), time.monotonic(), None
        line = {}
        try:
            conn = await connect(case["host"], int(case["port"]), timeout)
            conn.connect_ms, conn.handshake_ms = round((time.monotonic() - began) * 1000, 2), None
            await asyncio.wait_for(do(case, conn), timeout)
        except Result as result:
            line.update(outcome=result.outcome, reason=result.reason, detail=result.detail, **result.facts)
        except TimeoutError:
            line.update(outcome="STALLED", reason="TIMEOUT", detail="no answer and no end after %gs" % timeout)
        except ConnectionError as error:
            line.update(outcome="REFUSED", reason="RESET", detail=text(error))
        except OSError as error:
            line.update(outcome="NOT_RUN", reason=errno.errorcode.get(error.errno or 0, "OSERROR"), detail=text(error))
        finally:
            if conn:
                conn.sock.close()
        line["ms"] = {"total": round((time.monotonic() - began) * 1000, 2)}
        if conn:
            line.update(conn.facts())
            line["ms"]["connect"] = conn.connect_ms
            if conn.handshake_ms is not None:
                line["ms"]["handshake"] = conn.handshake_ms
        return line

    async def one(self, case):
        gate = self.gates.setdefault(case.get("host"), asyncio.Semaphore(int(self.document.get("per_host", 4))))
        try:
            for attempts in (1, 2):  # one stall or lost connect may be the network's: only the second counts
                async with gate:
                    line = await self.attempt(case)
                line["attempts"] = attempts
                if case["do"] == "silence" or (line["outcome"], line["reason"]) not in (
                    ("STALLED", "TIMEOUT"),
                    ("UNREACHABLE", "CONNECT_TIMEOUT"),
                ):
                    break
        except asyncio.CancelledError:
            raise
        except Exception as error:  # one bad case must not silence the others
            line = {"outcome": "NOT_RUN", "reason": "AGENT", "detail": text("%s: %s" % (type(error).__name__, error))}
        self.write(dict({"schema": RESULT, "id": case.get("id", "")}, **line))

    def write(self, line: dict):
        self.written += "outcome" in line
        sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
        sys.stdout.flush()

    # --- all of them ----------------------------------------------------------------------------------------------------

    async def warm(self):
        """Ask each warm-up target through the sidecar until it answers as it should; the count of those that never did.

        A new proxy knows its endpoints a moment later; until then it passes calls on in plaintext, or answers 503. Another
        outcome that stays is the policies' doing, and for the cases to tell.
        """

        async def until(target):
            case = dict(target, id="warm-up", do="plaintext", protocol="http", sidecar=True, timeout_s=2)
            want, began = "MTLS" if target.get("proof") == "xfcc" else "PLAINTEXT", time.monotonic()
            while True:
                outcome = (await self.attempt(case))["outcome"]
                settled = outcome not in ("UNREACHABLE", "STALLED") and time.monotonic() - began > WARM_S
                if outcome == want or settled:
                    return
                await asyncio.sleep(0.05)

        targets = [asyncio.ensure_future(until(target)) for target in self.document.get("warm_up", [])]
        if targets:
            _, late = await asyncio.wait(targets, timeout=float(self.document.get("warm_up_s", 10)))
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            return len(late)
        return 0

    async def run(self) -> int:
        cases = self.document["cases"]
        self.write(
            {
                "schema": RESULT,
                "start": True,
                "agent": self.document.get("agent", ""),
                "cases": len(cases),
                "python": platform.python_version(),
                "openssl": text(ssl.OPENSSL_VERSION),
                "uid": os.getuid(),
            }
        )
        cold = await self.warm()
        left = iter(cases)

        async def worker():
            for case in left:
                await self.one(case)

        workers = [asyncio.ensure_future(worker()) for _ in range(max(1, int(self.document.get("concurrency", 32))))]
        everything = asyncio.gather(*workers)
        stop = asyncio.ensure_future(self.stopped.wait())
        await asyncio.wait(
            {everything, stop}, timeout=self.document.get("deadline_s"), return_when=asyncio.FIRST_COMPLETED
        )
        stop.cancel()
        while not everything.done():  # asked until it has: wait_for of Python before 3.12 can lose a cancellation
            everything.cancel()
            await asyncio.wait({everything}, timeout=0.05)
        await asyncio.gather(everything, stop, return_exceptions=True)
        self.write(
            {
                "schema": RESULT,
                "done": True,
                "count": self.written,
                "cases": len(cases),
                "cold": cold,
                "stopped": self.stopped.is_set(),
                "seconds": round(time.monotonic() - self.begun, 3),
            }
        )
        return 143 if self.stopped.is_set() else 0


def complete(answer: bytes, http: bool) -> bool:
    """Whether the answer needs no more bytes."""
    if not http:
        return b"\n" in answer
    head, separator, body = answer.partition(b"\r\n\r\n")
    for field in head.split(b"\r\n")[1:]:
        name, _, value = field.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip().isdigit():
            return bool(separator) and len(body) >= int(value.strip())
    return False


def closed(case, error) -> Result:
    """The end of a connection that gave no byte. Behind a sidecar its own proxy closed it, for a reason it does not tell."""
    reason = "RESET" if isinstance(error, ConnectionError) else "EOF"
    detail = "closed by the client's own sidecar" if case.get("sidecar") else "closed without an answer"
    return Result("REFUSED", reason, detail)


def judge(case, answer: bytes, over_tls: bool) -> Result:
    """What an answer proves.

    `proof` of the case says what shows how the bytes travelled: "wire" (no proxy of the client between: what we sent is
    what went), "xfcc" (the server's sidecar names the client's certificate), "" (nothing does: unproven).
    """
    if case.get("protocol") == "http":
        head, _, body = answer.partition(b"\r\n\r\n")
        first, *fields = head.split(b"\r\n")
        parts = first.split(None, 2)
        if len(parts) < 2 or not parts[0].startswith(b"HTTP/") or not parts[1].isdigit():
            return Result(
                "PLAINTEXT" if case.get("proof") == "wire" and not over_tls else "NOT_RUN", "NOT_HTTP", text(answer)
            )
        status = int(parts[1])
    else:
        status, body = 0, answer.partition(b"meshtls-echo ")[2]
    try:
        echo = json.loads(body.decode("utf-8"))
        echo = echo if isinstance(echo, dict) and "meshtls_echo" in echo else None
    except ValueError:
        echo = None
    facts = {"status": status} if status else {}
    if echo is None:
        return foreign(case, status, body if status else answer, over_tls, facts)
    if case.get("echo") and echo["meshtls_echo"] != case["echo"]:
        return Result("NOT_RUN", "WRONG_SERVER", text("answered by %s" % echo["meshtls_echo"]), **facts)
    xfcc = str((echo.get("headers") or {}).get("x-forwarded-client-cert", ""))
    facts.update(xfcc=text(xfcc), peer=text(echo.get("peer", "")))
    if "URI=spiffe://" in xfcc:
        return Result("MTLS", "XFCC", "the server's sidecar names the client's certificate", **facts)
    if over_tls:
        return Result("TLS", "ANSWERED", "the application answered", **facts)
    if case.get("proof") in ("wire", "xfcc"):
        return Result("PLAINTEXT", "ANSWERED", "the application answered", **facts)
    return Result("NOT_RUN", "UNPROVEN", "answered, but nothing shows how the bytes travelled", answered=True, **facts)


def foreign(case, status: int, body: bytes, over_tls: bool, facts: dict) -> Result:
    """An answer that is not our echo server's: an application's, or a proxy's on the way."""
    said = text(body)
    if case.get("sidecar") and status in (502, 503, 504):
        if any(sign in said for sign in SIDECAR_REFUSED) and not any(sign in said for sign in SIDECAR_UNREACHABLE):
            return Result("REFUSED", "SIDECAR_%d" % status, said, **facts)
        return Result("UNREACHABLE", "SIDECAR_%d" % status, said or "no route", **facts)
    if status == 403 and "RBAC" in said:
        reason = "AUTHZ"
    elif status:
        reason = "STATUS_%d" % status
    else:
        reason = "ANSWERED"
    if over_tls:
        return Result("TLS", reason, said, **facts)
    if case.get("proof") == "wire":
        return Result("PLAINTEXT", reason, said, **facts)
    return Result("NOT_RUN", "AUTHZ" if reason == "AUTHZ" else "UNPROVEN", said, answered=True, **facts)


async def main(path: str) -> int:
    with open(path, encoding="utf-8") as file:
        document = json.load(file)
    agent = Agent(document, os.path.dirname(os.path.abspath(path)))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, agent.stopped.set)
    return await agent.run()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python agent.py cases.json")
    sys.exit(asyncio.run(main(sys.argv[1])))
