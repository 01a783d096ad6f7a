"""Istio's decisions on the client's side on real Envoys: what leaves a meshed client's pod, read off the packets, case by case."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.lab_mesh.rig import Json, Rig, account, rig

pytestmark = pytest.mark.lab
CASES = yaml.safe_load((Path(__file__).parents[1] / "policy" / "istio_cases.yaml").read_text())
PORT = 8080
# endpoints of the cases -> the pods that the Service then selects, by a label of this name
POOLS = {"one": ["car"], "pair": ["car", "car"], "mixed": ["car", "bare"], "off": ["off"], "bare": ["bare"]}
PODS = {"car-0": ("one", "pair", "mixed"), "car-1": ("pair",), "bare-0": ("mixed", "bare"), "off-0": ("off",)}


def people() -> Iterator[Json]:
    def person(namespace: str, name: str, **labels: str) -> Json:
        spec = {"serviceAccountName": "default", "containers": [{"name": "app", "ports": [{"name": "tcp", "containerPort": PORT}]}]}
        return {"metadata": {"namespace": namespace, "name": name, "labels": labels}, "spec": spec}

    for name, pools in PODS.items():
        kind = {"bare": {"sidecar.istio.io/inject": "false"}, "off": {"security.istio.io/tlsMode": "disabled"}}.get(name.partition("-")[0], {})
        yield person("shop", name, app="server", **dict.fromkeys(pools, "yes"), **kind)
    yield person("front", "client", app="client")


@pytest.fixture(scope="module")
def wire() -> Iterator[Rig]:
    spaces = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"istio-injection": "enabled"}}} for name in ("shop", "front")]
    with rig([*spaces, account("shop", "default"), account("front", "default")], people()) as one:
        yield one


def declared(case: Json) -> Iterator[Json]:
    pool = next(name for name, endpoints in POOLS.items() if endpoints == case["endpoints"])
    spec: Json = {"selector": {pool: "yes"}, "ports": [{"name": "tcp", "port": PORT}], **({"clusterIP": "None"} if case.get("headless") else {})}
    yield {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "server", "namespace": "shop"}, "spec": spec}
    for number, policy in enumerate(case.get("policies", [])):
        spec = {"mtls": {"mode": policy["mode"]}} if policy.get("mode") else {}
        if "app" in policy:
            spec |= {"selector": {"matchLabels": {"app": policy["app"]}}}
        if "ports" in policy:
            spec |= {"portLevelMtls": {str(port): {"mode": mode} for port, mode in policy["ports"].items()}}
        yield {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": f"p{number}", "namespace": policy["in"]}, "spec": spec}
    if "tls" in case:
        rule = {"host": "server.shop.svc.cluster.local", "trafficPolicy": case["tls"]}
        yield {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": "rule", "namespace": "front"}, "spec": rule}


def observed(wire: Rig, case: Json) -> tuple[str, str]:
    """What was sent, and WORKS where every call was answered."""
    pods = [name for name, pools in PODS.items() if next(pool for pool, endpoints in POOLS.items() if endpoints == case["endpoints"]) in pools]
    where = [wire.addresses[f"shop/{name}"] for name in pods] if case.get("headless") else [wire.services["shop/server"]] * 4 * len(pods)
    saw = [wire.call("front/client", address, PORT, "tcp", "server.shop") for address in where]
    sent = {flow[2] for one in saw for flow in one.flows}
    return sent.pop() if len(sent) == 1 else "mixed" if sent else "none", "WORKS" if all(one.answered for one in saw) else "BREAKS"


@pytest.mark.parametrize("case", CASES["automatic"] + CASES["rules"], ids=lambda case: case["name"])
def test_what_a_client_sends_on_the_wire(case: Json, wire: Rig) -> None:
    objects = list(declared(case))
    with wire.lab.client() as client:
        mesh = client.get("ConfigMap", "istio", "istio-system")["data"]["mesh"]
        if "mesh" in case:
            client.patch("ConfigMap", "istio", "istio-system", {"data": {"mesh": yaml.safe_dump(yaml.safe_load(mesh) | yaml.safe_load(case["mesh"]))}})
        try:
            for one in objects:
                client.create(one)
            wire.lab.wait()
            wire.learn()
            wanted, found = (case["sends"], case.get("verdict", "WORKS")), ("", "")
            for _ in range(20):  # Envoy acknowledges a configuration a moment before all of its workers have it
                found = observed(wire, case)
                if found == wanted:
                    break
            assert found == wanted
        finally:
            for one in objects:
                client.delete(one["kind"], one["metadata"]["name"], one["metadata"]["namespace"])
            client.patch("ConfigMap", "istio", "istio-system", {"data": {"mesh": mesh}})
