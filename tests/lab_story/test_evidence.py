"""What a mesh tells of its own accord: Istio's metrics, a Telemetry that logs only what is no mTLS, a dry run that counts what
STRICT would refuse, an AuthorizationPolicy that asks who calls; and proxies that are late, stuck, or have a new certificate."""

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import scene
from scene import Json, container, pod, policy, service, told, until

from meshtls.cluster.client import Client
from meshtls.lab import Lab

pytestmark = pytest.mark.lab
# asks each server over HTTP and TCP, again and again; a line a round, with the certificate that a handshake shows and the metrics page
CALLER = scene.ECHOING + """
import hashlib, http.client, itertools, json, os, re, signal, socket, ssl, sys, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
name, *hosts = sys.argv[1:]
pods = json.loads(os.environ.get("PODS", "{}"))

def http_of(host, port=8080, path="/"):
    try:
        connection = http.client.HTTPConnection(host, port, timeout=5)
        connection.request("GET", path, headers={"user-agent": name})
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer.status, body
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__, ""

def shown(host):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["istio"])
    seen = []
    context._msg_callback = lambda _, direction, version, kind, message, data: seen.append(data) if (direction, int(kind), int(message)) == ("read", 22, 11) else None
    try:
        with socket.create_connection((host, 8080), 5) as s, context.wrap_socket(s, server_hostname="probe.meshtls.invalid") as t:
            t.recv(1)
    except OSError:
        pass
    return hashlib.sha256(seen[0]).hexdigest() if seen else ""

for number in itertools.count():
    said = {h: [http_of(h)[0], echoed(h), shown(h) if name == "bare" else ""] for h in hosts}
    page = http_of(pods["one"], 15020, "/stats/prometheus")[1] if pods else ""
    page = [line for line in page.splitlines() if line.startswith("istio_") or "_dry_run_" in line]
    print(json.dumps({"round": number, "said": said, "page": page}), flush=True)
    time.sleep(0.1)
"""
HOSTS = ("one.mesh", "two.mesh")


def istio(kind: str, name: str, annotations: dict[str, str] | None = None, **spec: Any) -> Json:
    version = {"Telemetry": "telemetry.istio.io/v1"}.get(kind, "security.istio.io/v1")
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": "mesh", "annotations": annotations or {}}, "spec": spec}


@pytest.fixture
def lab() -> Iterator[Lab]:
    servers = [one for name in ("one", "two") for one in (service(name, "mesh", ports={"http": 8080, "tcp-echo": 9000}), pod(name, "mesh", container(scene.HTTP_AND_LINES)))]
    objects = [scene.MESHED, scene.BARE, policy("PERMISSIVE"), *servers]
    with Lab(manifests=objects, mesh={"accessLogFile": ""}) as lab:
        with lab.client() as client:
            addresses = {one["metadata"]["name"]: one["status"]["podIP"] for one in client.list("Pod", "mesh")}
        pods = [{"name": "PODS", "value": json.dumps(addresses)}]
        lab.apply(pod("meshed", "mesh", container(CALLER, "meshed", *HOSTS)), pod("bare", "bare", container(CALLER, "bare", *HOSTS, env=pods)))
        yield lab


@pytest.fixture
def client(lab: Lab) -> Iterator[Client]:
    with lab.client() as client:
        until(lambda: last(client, "bare") and last(client, "meshed"))
        yield client


def last(client: Client, name: str) -> Json:
    """The newest whole round of a caller."""
    found = told(client, "bare" if name == "bare" else "mesh", name, tail=3)
    return found[-1] if found else {}


def rounds_later(client: Client, name: str) -> None:
    """Until a round has begun and ended that began after now."""
    wanted = last(client, name)["round"] + 2
    until(lambda: last(client, name)["round"] >= wanted)


def said(client: Client, name: str, host: str = "one.mesh") -> list[Any]:
    """[HTTP, TCP, certificate] of the newest round."""
    found: list[Any] = last(client, name)["said"][host]
    return found


def series(client: Client, name: str, *labels: str) -> float:
    """The sum of a metric's series that have all these labels, as the proxy of pod `one` shows it."""
    lines = [line for line in last(client, "bare")["page"] if line.startswith(f"{name}{{") and all(one in line for one in labels)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def test_istios_metrics_tell_mtls_from_plaintext_and_name_only_the_meshed_client(client: Client) -> None:
    destination = 'reporter="destination"'
    mutual, none = 'connection_security_policy="mutual_tls"', 'connection_security_policy="none"'
    until(lambda: series(client, "istio_requests_total", destination, mutual, 'source_principal="spiffe://cluster.local/ns/mesh/sa/default"', 'source_workload="meshed"') > 0)
    until(lambda: series(client, "istio_requests_total", destination, none, 'source_workload="unknown"') > 0)
    for kind in ("connections_opened", "connections_closed", "received_bytes", "sent_bytes"):
        until(lambda kind=kind: all(series(client, f"istio_tcp_{kind}_total", destination, policy) > 0 for policy in (mutual, none)))
    assert series(client, "istio_requests_total", mutual, 'source_workload="unknown"') == 0


def test_a_telemetry_logs_all_that_is_no_mtls_refusals_too_and_nothing_else(lab: Lab, client: Client) -> None:
    assert not [line for line in client.logs("mesh", "one", "istio-proxy") if '" 200 ' in line], "no access log is on"
    lab.apply(istio("Telemetry", "plaintext", accessLogging=[{"match": {"mode": "SERVER"}, "providers": [{"name": "envoy"}], "filter": {"expression": "!connection.mtls"}}]))

    def logged(sign: str) -> list[str]:
        return [line for line in client.logs("mesh", "one", "istio-proxy") if re.match(r"\[\S+Z\] \"", line) and sign in line]

    until(lambda: logged('" 200 ') and logged(" inbound|9000|| "))
    lab.apply(policy("STRICT"))
    until(lambda: logged("NR filter_chain_not_found"))
    rounds_later(client, "meshed")
    assert said(client, "meshed")[:2] == [200, 6]
    assert logged("outbound_.") == []


def test_a_filter_that_does_not_parse_leaves_proxies_as_they_are_and_strict_waits_too(lab: Lab, client: Client) -> None:
    """As in life, where a listener is refused whole; istiod's own validation would not admit this one."""
    bad = istio("Telemetry", "plaintext", accessLogging=[{"providers": [{"name": "envoy"}], "filter": {"expression": "!connection.mtls &&"}}])
    lab.apply(bad)
    lab.apply(policy("STRICT"))

    until(lambda: any("'virtualInbound' config rejected: Not able to parse filter expression" in line for line in client.logs("mesh", "one", "istio-proxy")))
    assert client.list("Node")[0]["metadata"]["annotations"]["lab.meshtls.dev/proxies"] == "pending"
    rounds_later(client, "bare")
    assert said(client, "bare")[:2] == [200, 6]
    client.delete("Telemetry", "plaintext", "mesh")
    until(lambda: said(client, "bare")[0] == "ConnectionResetError")
    until(lambda: client.list("Node")[0]["metadata"]["annotations"]["lab.meshtls.dev/proxies"] == "current")


def test_a_dry_run_counts_what_strict_would_refuse_and_refuses_nothing(lab: Lab, client: Client) -> None:
    lab.apply(istio("AuthorizationPolicy", "would-be-strict", {"istio.io/dry-run": "true"}, action="DENY", rules=[{"from": [{"source": {"notPrincipals": ["*"]}}]}]))

    def counted(place: str, word: str) -> int:
        start = f'envoy_{place.partition("{")[0]}{{authz_dry_run_action="deny",authz_dry_run_result="{word}",{place.partition("{")[2]}'
        return sum(int(line.rsplit(" ", 1)[1]) for line in last(client, "bare")["page"] if line.startswith(start))

    # a counter for each HTTP port, one for all TCP ports together
    for place in ('http_rbac{http_conn_manager_prefix="inbound_0.0.0.0_8080"', 'tcp{tcp_prefix="rbac.istio_dry_run_deny_"'):
        until(lambda place=place: counted(place, "denied") and counted(place, "allowed"))
    assert said(client, "bare")[:2] == [200, 6] and said(client, "meshed")[:2] == [200, 6]


def test_an_authorization_policy_lets_principals_in_and_no_plaintext(lab: Lab, client: Client) -> None:
    lab.apply(istio("AuthorizationPolicy", "members", rules=[{"from": [{"source": {"principals": ["cluster.local/ns/mesh/sa/default"]}}]}]))

    until(lambda: said(client, "bare")[0] == 403)
    until(lambda: said(client, "bare")[1] != 6)
    until(lambda: said(client, "meshed")[:2] == [200, 6])


def test_a_proxy_that_is_stuck_keeps_the_old_policy(lab: Lab, client: Client) -> None:
    client.patch("Pod", "two", "mesh", {"metadata": {"annotations": {"lab.meshtls.dev/frozen": "true"}}})
    lab.apply(policy("STRICT"))

    until(lambda: said(client, "bare", "one.mesh")[0] == "ConnectionResetError")
    for _ in range(3):
        rounds_later(client, "bare")
        assert said(client, "bare", "two.mesh")[:2] == [200, 6]
    client.patch("Pod", "two", "mesh", {"metadata": {"annotations": {"lab.meshtls.dev/frozen": None}}})
    until(lambda: said(client, "bare", "two.mesh")[0] == "ConnectionResetError")


def test_a_slow_control_plane_is_late_and_says_so(lab: Lab, client: Client) -> None:
    client.patch("ConfigMap", "istio", "istio-system", {"metadata": {"annotations": {"lab.meshtls.dev/push-delay": "2s"}}})

    def proxies() -> str:
        return str(client.list("Node")[0]["metadata"]["annotations"]["lab.meshtls.dev/proxies"])

    until(lambda: proxies() == "current")
    began = time.monotonic()
    client.patch("PeerAuthentication", "default", "mesh", {"spec": {"mtls": {"mode": "STRICT"}}})
    until(lambda: proxies() == "pending")
    until(lambda: said(client, "bare")[0] == "ConnectionResetError")
    assert time.monotonic() - began > 1.9
    until(lambda: proxies() == "current")


def test_a_new_certificate_is_used_and_no_request_fails(lab: Lab, client: Client) -> None:
    before = until(lambda: said(client, "bare")[2])
    client.patch("Pod", "one", "mesh", {"metadata": {"annotations": {"lab.meshtls.dev/rotate": "1"}}})

    until(lambda: said(client, "bare")[2] not in ("", before))
    rounds = [one["said"] for one in told(client, "mesh", "meshed")]
    assert {tuple(answers[:2]) for one in rounds for answers in one.values()} == {(200, 6)}
