"""What a node does to pods, as in life: probes from outside, ports past the proxy, policies of the network, images that cannot run."""

from collections.abc import Iterator
from typing import Any

import pytest
import scene
import trustme
from scene import ASKING, HEALTH, SERVER, Json, container, pod, policy, service, told, until

from meshtls.cluster.client import Client
from meshtls.lab import Lab, state

pytestmark = pytest.mark.lab

CALLER = ASKING + """
import json, os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
while True:
    print(json.dumps({host: answer(host, 1) for host in sys.argv[1:]}), flush=True)
    time.sleep(0.05)
"""
HTTPS = """
import http.server, os, signal, ssl
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
with open("/tmp/pem", "w") as file:
    file.write(os.environ["PEM"])
server = http.server.ThreadingHTTPServer(("", 8443), http.server.SimpleHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/tmp/pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""
PROBE = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1, "timeoutSeconds": 1}


def needs_namespaces(lab: Lab) -> None:
    found = state.load(lab.name)
    if found and found.mode == state.LOOPBACK:
        pytest.skip("namespaces are refused here, and loopback mode has no NetworkPolicies")


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(manifests=[scene.MESHED, scene.BARE, policy("STRICT")]) as lab:
        yield lab


def said(client: Client, name: str = "caller") -> Json:
    found = told(client, "bare", name, tail=5)
    return found[-1] if found else {}


def ready(client: Client, name: str) -> bool:
    conditions = client.get("Pod", name, "mesh").get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def test_a_probe_that_is_not_rewritten_fails_under_strict(lab: Lab) -> None:
    off = {"sidecar.istio.io/rewriteAppHTTPProbers": "false"}
    lab.apply(pod("rewritten", "mesh", container(SERVER, readinessProbe=PROBE)),
              pod("raw", "mesh", container(SERVER, readinessProbe=PROBE), annotations=off))  # fmt: skip
    with lab.client() as client:
        until(lambda: ready(client, "rewritten"))
        unhealthy = until(lambda: [one["message"] for one in client.list("Event", "mesh")
                                   if one["reason"] == "Unhealthy" and one["involvedObject"]["name"] == "raw"])  # fmt: skip
        assert not ready(client, "raw")
    assert any("Readiness probe failed" in message for message in unhealthy)


def unhealthy(client: Client, where: str, name: str) -> list[str]:
    return [one["message"] for one in client.list("Event", where) if one["reason"] == "Unhealthy" and one["involvedObject"]["name"] == name]


def test_a_grpc_probe_asks_the_service_and_not_whether_the_port_is_open(lab: Lab) -> None:
    probe, off = {"grpc": {"port": 8080}, "periodSeconds": 1, "timeoutSeconds": 5}, {"sidecar.istio.io/rewriteAppHTTPProbers": "false"}
    lab.apply(pod("well", "mesh", container(HEALTH, "1", readinessProbe=probe)), pod("raw", "mesh", container(HEALTH, "1", readinessProbe=probe), annotations=off),
              pod("other", "mesh", container(SERVER, readinessProbe=probe)), pod("sick", "bare", container(HEALTH, "2", readinessProbe=probe)))  # fmt: skip
    with lab.client() as client:
        until(lambda: ready(client, "well"))
        until(lambda: any('service unhealthy (responded with "NOT_SERVING")' in one for one in unhealthy(client, "bare", "sick")))
        for name in ("raw", "other"):
            until(lambda name=name: unhealthy(client, "mesh", name))
            assert not ready(client, name)


def test_a_probe_over_https_is_asked_over_https_when_it_is_rewritten(lab: Lab) -> None:
    pem = trustme.CA().issue_cert("app").private_key_and_cert_chain_pem.bytes().decode()
    probe = {"httpGet": {"path": "/", "port": 8443, "scheme": "HTTPS"}, "periodSeconds": 1, "timeoutSeconds": 5}
    lab.apply(pod("secure", "mesh", container(HTTPS, readinessProbe=probe, env=[{"name": "PEM", "value": pem}])))
    with lab.client() as client:
        until(lambda: ready(client, "secure"))


def test_a_node_says_where_and_what_it_is_and_a_pod_on_it_names_it(lab: Lab) -> None:
    lab.apply(pod("placed", "bare", container(SERVER), nodeName="lab-1"))
    with lab.client() as client:
        status = client.get("Node", "lab-1", "")["status"]
        placed = until(lambda: (one := client.get("Pod", "placed", "bare"))["status"].get("hostIP") and one)
    assert {"type": "InternalIP", "address": placed["status"]["hostIP"]} in status["addresses"]
    assert status["nodeInfo"]["kubeletVersion"].startswith("v1.") and int(status["allocatable"]["cpu"]) > 0


def test_a_node_renews_its_lease(lab: Lab) -> None:
    with lab.client() as client:
        first = client.get("Lease", "lab-1", "kube-node-lease")
        assert first["spec"]["holderIdentity"] == first["metadata"]["ownerReferences"][0]["name"] == "lab-1"
        until(lambda: client.get("Lease", "lab-1", "kube-node-lease")["spec"]["renewTime"] > first["spec"]["renewTime"])


def test_an_excluded_port_answers_plaintext_under_strict(lab: Lab) -> None:
    excluded = {"traffic.sidecar.istio.io/excludeInboundPorts": "8080"}
    lab.apply(service("open", "mesh", publishNotReadyAddresses=True), service("shut", "mesh", publishNotReadyAddresses=True), pod("open", "mesh", container(SERVER), annotations=excluded), pod("shut", "mesh", container(SERVER)),
              pod("caller", "bare", container(CALLER, "open.mesh", "shut.mesh")))  # fmt: skip
    lab.wait()
    with lab.client() as client:
        answers = until(lambda: (last := said(client)).get("open.mesh") == 200 and last)
    assert answers["shut.mesh"] == "ConnectionResetError"


def network_policy(name: str, of: str, **spec: Json | list[Json]) -> Json:
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name, "namespace": "bare"},
            "spec": {"podSelector": {"matchLabels": {"app": of}}, **spec}}  # fmt: skip


def test_a_network_policy_is_a_timeout_not_a_refusal(lab: Lab) -> None:
    needs_namespaces(lab)
    walled = container(SERVER, ports=[{"name": "web", "containerPort": 8080}, {"name": "other", "containerPort": 8081}])
    lab.apply(service("walled", "bare", publishNotReadyAddresses=True), pod("walled", "bare", walled), pod("caller", "bare", container(CALLER, "walled.bare")))
    lab.wait()
    dns = {"ports": [{"port": 53, "protocol": "UDP"}]}
    from_caller = [{"from": [{"podSelector": {"matchLabels": {"app": "caller"}}}], "ports": [{"port": 8080}]}]
    from_elsewhere = [{"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "mesh"}}}]}]
    with lab.client() as client:
        until(lambda: said(client).get("walled.bare") == 200)
        caller = client.get("Pod", "caller", "bare")["status"]["podIP"]

        def from_block(*cut: str, **port: Any) -> list[Json]:
            return [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": list(cut)}}], "ports": [port]}]

        for policy, answer in (
            (network_policy("in", "walled", policyTypes=["Ingress"]), "TimeoutError"),
            (network_policy("in", "walled", ingress=from_caller), 200),
            (network_policy("in", "walled", ingress=from_elsewhere), "TimeoutError"),
            (network_policy("in", "walled", ingress=[{"ports": [{"port": 8080}]}]), 200),
            (network_policy("in", "walled", ingress=from_block(f"{caller}/32", port="web")), "TimeoutError"),
            (network_policy("in", "walled", ingress=from_block("10.0.0.0/16", port="web")), 200),
            (network_policy("in", "walled", ingress=from_block(port="other")), "TimeoutError"),
            (network_policy("in", "walled", ingress=from_block(port=8000, endPort=8080)), 200),
            (network_policy("in", "walled", ingress=from_block(port=8000, endPort=8079)), "TimeoutError"),
            (network_policy("in", "walled", ingress=[{}]), 200),
            (network_policy("out", "caller", policyTypes=["Egress"], egress=[dns]), "TimeoutError"),
            (network_policy("out", "caller", policyTypes=["Egress"], egress=[dns, {"to": [{"podSelector": {"matchLabels": {"app": "walled"}}}]}]), 200),
        ):
            lab.apply(policy)
            until(lambda answer=answer: said(client).get("walled.bare") == answer)


def test_names_lead_to_services_to_the_pods_of_headless_ones_and_to_aliases(lab: Lab) -> None:
    names = ("web", "web.bare", "web.bare.svc.cluster.local", "pods.bare", "named.pods.bare", "alias.bare", "kubernetes.default", "nobody.bare")
    program = """
import json, signal, socket, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = sorted({one[4][0] for one in socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)})
    except OSError as error:
        found[name] = type(error).__name__
print(json.dumps(found), flush=True)
signal.pause()
"""
    lab.apply(service("web", "bare"), service("pods", "bare", clusterIP="None", publishNotReadyAddresses=True), pod("named", "bare", container(SERVER), hostname="named", subdomain="pods"),
              {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "alias", "namespace": "bare"}, "spec": {"type": "ExternalName", "externalName": "web.bare.svc.cluster.local"}})  # fmt: skip
    with lab.client() as client:
        client.patch("Pod", "named", "bare", {"metadata": {"labels": {"app": "pods"}}})
        address = until(lambda: client.get("Pod", "named", "bare")["status"].get("podIP"))
        until(lambda: any(one.get("endpoints") for one in client.list("EndpointSlice", "bare") if one["metadata"]["name"].startswith("pods-")))
        virtual = client.get("Service", "web", "bare")["spec"]["clusterIP"]
        lab.apply(pod("asker", "bare", container(program, *names)))
        found = until(lambda: told(client, "bare", "asker"))[0]
    assert found == {**{name: [virtual] for name in names[:3]}, **{name: [address] for name in names[3:5]}, "alias.bare": [virtual], "kubernetes.default": found["kubernetes.default"],
                     "nobody.bare": "gaierror"}  # fmt: skip
    assert len(found["kubernetes.default"]) == 1


def test_a_pod_that_lacks_something_says_what_and_starts_when_it_is_there(lab: Lab) -> None:
    lab.apply(pod("variable", "bare", container(SERVER, envFrom=[{"configMapRef": {"name": "absent"}}])),
              pod("volume", "bare", container(SERVER), volumes=[{"name": "v", "secret": {"secretName": "absent"}}]),
              pod("other", "bare", container(SERVER), volumes=[{"name": "v", "hostPath": {"path": "/etc"}}]),
              pod("program", "bare", {"name": "app", "image": "python:3", "command": ["nobody-has-this"]}))  # fmt: skip
    expected = {"variable": ("Failed", 'configmap "absent" not found'), "volume": ("FailedMount", 'secret "absent" not found'),
                "other": ("FailedMount", "volumes of type hostPath do not exist in the lab"), "program": ("Failed", 'exec: "nobody-has-this": executable file not found in $PATH')}  # fmt: skip
    with lab.client() as client:

        def state(name: str) -> Json:
            statuses: list[Json] = client.get("Pod", name, "bare").get("status", {}).get("containerStatuses", [{}])
            return statuses[0].get("state", {})

        for name, (reason, words) in expected.items():
            until(lambda name=name, reason=reason, words=words: any(
                one["involvedObject"]["name"] == name and one["reason"] == reason and words in one["message"] for one in client.list("Event", "bare")))  # fmt: skip
        assert state("variable")["waiting"]["reason"] == "CreateContainerConfigError"
        assert state("volume")["waiting"]["reason"] == "ContainerCreating"
        until(lambda: client.get("Pod", "program", "bare")["status"]["containerStatuses"][0]["lastState"].get("terminated", {}).get("reason") == "StartError")
        client.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "absent", "namespace": "bare"}})
        client.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "absent", "namespace": "bare"}})
        for name in ("variable", "volume"):
            until(lambda name=name: "running" in state(name))


def test_an_image_that_cannot_run_here_says_so_in_status_and_events(lab: Lab) -> None:
    lab.apply(pod("strange", "bare", {"name": "app", "image": "postgres:16", "command": ["postgres"]}))
    with lab.client() as client:
        statuses = until(lambda: client.get("Pod", "strange", "bare").get("status", {}).get("containerStatuses"))
        waiting = until(lambda: client.get("Pod", "strange", "bare")["status"]["containerStatuses"][0]["state"].get("waiting"))
        events = until(lambda: [one for one in client.list("Event", "bare") if one["involvedObject"]["name"] == "strange" and one["type"] == "Warning"])
    assert statuses and waiting["reason"] and "python" in (waiting.get("message", "") + events[0]["message"]).lower()
