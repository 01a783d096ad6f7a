"""The stand-in on loopback: it serves each kind of port, calls each kind, and says what came of a call."""

import contextlib
import json
import queue
import socket
import subprocess
import sys
import threading

import pytest
from loopback import HOST, PROBES


@contextlib.contextmanager
def stand_in(folder, **plan):
    """A stand-in that runs; gives its lines, one at a time."""
    path = folder / f"{plan['name']}.json"
    path.write_text(json.dumps(plan))
    process = subprocess.Popen([sys.executable, str(PROBES / "standin.py"), str(path)], stdout=subprocess.PIPE, text=True)
    lines: queue.Queue = queue.Queue()
    threading.Thread(target=lambda: [lines.put(json.loads(line)) for line in process.stdout], daemon=True).start()
    try:
        yield lambda: lines.get(timeout=20)
    finally:
        process.terminate()
        assert process.wait(10) == 0
        process.stdout.close()


def call(kind, port):
    return {"id": "c", "host": HOST, "port": port, "as": kind, "every_s": 0.1}


@pytest.fixture
def server(tmp_path, pki):
    (tmp_path / "stand-in.pem").write_text((pki.folder / "good.pem").read_text())
    kinds = ("http", "tcp", "tls", "banner")
    with stand_in(tmp_path, name="server", serve=[{"port": 0, "as": kind} for kind in kinds]) as line:
        ready = line()
        assert ready["ready"]
        yield dict(zip(kinds, ready["ports"], strict=True))


@pytest.mark.parametrize("kind", ["http", "tcp", "tls", "banner"])
def test_each_kind_of_port_is_served_to_the_same_kind_of_call(tmp_path, server, kind):
    with stand_in(tmp_path, name="client", calls=[call(kind, server[kind])]) as line:
        assert line()["ready"]
        first, second = line(), line()

    assert first["ok"] and second["ok"] and first["call"] == "c" and second["at"] > first["at"]
    assert first["said"] == ("answered 200" if kind in ("http", "tls") else "answered")


def test_a_proxy_that_speaks_http2_is_answered(server):
    """As a sidecar does to a grpc port: the preface, settings, a request of headers alone."""
    with socket.create_connection((HOST, server["http"]), timeout=20) as it:
        request = b"\x82\x84\x86\x41\x01a"  # GET / http a
        it.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0" + len(request).to_bytes(3, "big") + b"\1\5\0\0\0\1" + request)
        got = b""
        while b"x-stand-in" not in got:
            more = it.recv(4096)
            assert more, got
            got += more

    assert b"\x88\x00\x0ax-stand-in\x06server" in got  # :status 200, and who answered


def answering(answer):
    """A server that reads once and says that; None closes without a word."""
    listener = socket.create_server((HOST, 0))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                peer, _ = listener.accept()
                with peer:
                    peer.recv(4096)
                    peer.sendall(answer or b"")

    threading.Thread(target=serve, daemon=True).start()
    return listener


@pytest.mark.parametrize(("kind", "answer", "ok", "said"), [
    ("http", b"HTTP/1.1 503 Service Unavailable\r\n\r\nupstream connect error", False, "503 upstream connect error"),
    ("http", b"HTTP/1.1 403 Forbidden\r\n\r\nRBAC: access denied", True, "answered 403"),
    ("http", None, False, "closed without an answer"), ("tcp", None, False, "closed without an answer"),
    ("http", b"nonsense", False, "closed without an answer")])
def test_what_a_proxy_answers_is_told_from_what_an_application_answers(tmp_path, kind, answer, ok, said):
    with answering(answer) as listener, stand_in(tmp_path, name="client", calls=[call(kind, listener.getsockname()[1])]) as line:
        assert line()["ready"]
        seen = line()

    assert (seen["ok"], seen["said"]) == (ok, said)


def test_a_port_that_nobody_has_is_a_call_that_failed_and_a_port_that_is_taken_is_told(tmp_path):
    with socket.create_server((HOST, 0)) as taken, socket.socket() as bound:
        bound.bind((HOST, 0))  # and does not listen
        port = taken.getsockname()[1]
        with stand_in(tmp_path, name="client", serve=[{"port": port, "as": "http"}], calls=[call("http", bound.getsockname()[1])]) as line:
            unserved, ready, seen = line(), line(), line()

    assert unserved["port"] == port and unserved["unserved"] and ready["ready"]
    assert not seen["ok"] and seen["said"]
