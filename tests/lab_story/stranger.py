"""What a client without sidecar gets, offer by offer. Runs inside a pod of the lab; Python's standard library only.

    python3 -c THIS PLAN        PLAN: {"cells": [[server, host, port, offer]...], "certificate": PEM}

One JSON line a cell: {"server", "port", "offer", "got", "local"}. `got` is one of
    answer      bytes of the application came back, or of the proxy speaking the application's protocol
    waits       nothing came, and the connection stayed open for PATIENCE_S
    refused     a reset or an end without a byte
    mesh cert   the handshake showed a certificate with a spiffe:// name, and no byte of the application followed
    app         what answered a TLS hello was not TLS
"""

import concurrent.futures
import json
import os
import signal
import socket
import ssl
import sys
import tempfile
import time

PATIENCE_S = 4.0
PLAIN = {"request": b"GET /seen HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n", "five": b"GET /", "one": b"G", "nothing": b""}
ALPN = {"tls": [], "tls http/1.1": ["http/1.1"], "tls h2": ["h2"], "tls istio": ["istio"], "tls istio-http/1.1": ["istio-http/1.1"], "forged": ["istio"]}


def plaintext(sock, offer):
    sock.sendall(PLAIN[offer])
    try:
        return "answer" if sock.recv(4096) else "refused"
    except TimeoutError:
        return "waits"
    except OSError:
        return "refused"


def tls(sock, offer, sni, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if ALPN[offer]:
        context.set_alpn_protocols(ALPN[offer])
    if offer == "forged":
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(certificate)
            file.flush()
            context.load_cert_chain(file.name)
    shown = []  # seen even where the refusal comes before the handshake has ended
    context._msg_callback = lambda _, direction, version, kind, message, data: shown.append(data) if (direction, int(kind), int(message)) == ("read", 22, 11) else None
    try:
        with context.wrap_socket(sock, server_hostname=sni) as secured:
            if secured.recv(1):
                return "answer"
            failed = "refused"
    except TimeoutError:
        failed = "waits"
    except ssl.SSLEOFError:
        failed = "refused"
    except ssl.SSLError as error:
        failed = "app" if "VERSION" in str(error.reason) or "RECORD" in str(error.reason) else "tls " + str(error.reason)
    except OSError:
        failed = "refused"
    if shown:
        return "mesh cert" if any(b"spiffe://" in one for one in shown) else "other cert"
    return failed


def cell(name, host, port, offer, certificate):
    with socket.create_connection((host, port), 10) as sock:
        sock.settimeout(PATIENCE_S)
        local = sock.getsockname()[1]
        got = plaintext(sock, offer) if offer in PLAIN else tls(sock, offer, sni(name, port, offer), certificate)
    return {"server": name, "port": port, "offer": offer, "got": got, "local": local}


def sni(name, port, offer):
    """A server name that says which cell it was, to be found in logs."""
    return "%s.%d.%s.example" % (name.lower(), port, "".join(c if c.isalnum() else "-" for c in offer))


def main():
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    plan = json.loads(sys.argv[1])
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        for done in concurrent.futures.as_completed([pool.submit(cell, *one, plan["certificate"]) for one in plan["cells"]]):
            os.write(1, json.dumps(done.result()).encode() + b"\n")
    os.write(1, b'{"done": true}\n')
    time.sleep(3600)


if __name__ == "__main__":
    main()
