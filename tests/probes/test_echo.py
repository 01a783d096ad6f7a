"""The echo server answers with what it saw."""

import ast
import json
import socket
import ssl
import sys
import urllib.request

import pytest
from loopback import HOST, PROBES, echo


def test_http_answers_with_peer_path_and_headers():
    with echo("--http", "0") as (port,):
        request = urllib.request.Request(
            f"http://{HOST}:{port}/a?b", headers={"X-Forwarded-Client-Cert": "URI=spiffe://x"}
        )
        with urllib.request.urlopen(request) as response:
            answer = json.load(response)

    assert (answer["meshtls_echo"], answer["method"], answer["path"], answer["tls"]) == ("e1", "GET", "/a?b", None)
    assert answer["headers"]["x-forwarded-client-cert"] == "URI=spiffe://x"
    assert answer["peer"].startswith(HOST)


def test_a_kept_connection_is_answered_again():
    with echo("--http", "0") as (port,), socket.create_connection((HOST, port)) as sock, sock.makefile("rb") as stream:
        answers = []
        for _ in range(2):
            sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
            answers.append(stream.readline())
            length = next(int(line.split(b":")[1]) for line in stream if line.startswith(b"Content-Length"))
            while stream.readline() != b"\r\n":
                pass
            stream.read(length)

    assert answers == [b"HTTP/1.1 200 OK\r\n"] * 2


def test_tls_of_its_own_is_told(pki):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with echo("--tls", f"0:{pki.server}") as (port,), urllib.request.urlopen(f"https://{HOST}:{port}/", context=context) as response:
        answer = json.load(response)

    assert answer["tls"]["version"] == "TLSv1.3"


def test_the_banner_comes_without_a_byte_sent():
    with echo("--banner", "0") as (port,), socket.create_connection((HOST, port)) as sock:
        assert sock.recv(100).startswith(b"220 meshtls-echo e1")


@pytest.mark.parametrize("sent", [b"GET\x00\x01\x02", b"\x00" * 100, b"x" * 30000, b"\x16\x03\x01"])
def test_garbage_ends_its_connection_and_nothing_else(sent):
    with echo("--http", "0") as (port,):
        with socket.create_connection((HOST, port)) as sock:
            sock.sendall(sent)
        with urllib.request.urlopen(f"http://{HOST}:{port}/") as response:
            assert response.status == 200


@pytest.mark.parametrize("program", ["agent.py", "echo.py"])
def test_the_programs_need_only_python_3_8_and_its_standard_library(program):
    tree = ast.parse((PROBES / program).read_text(), feature_version=(3, 8))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}

    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names
