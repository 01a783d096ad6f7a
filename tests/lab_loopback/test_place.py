"""Istio's translation on a pod's addresses: the same chains and clusters, other sockets."""

from typing import Any

import msgspec

from meshtls.lab import istio
from meshtls.lab.istio.loopback import Place, configuration

POD = {
    "apiVersion": "v1", "kind": "Pod",
    "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web", "security.istio.io/tlsMode": "istio"}},
    "spec": {"containers": [{"name": "app", "image": "python"}, {"name": "istio-proxy", "image": "proxyv2"}]},
    "status": {"podIP": "127.64.1.2", "phase": "Running"},
}  # fmt: skip
SERVICE = {
    "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
    "spec": {"clusterIP": "10.96.0.11", "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "tcp", "port": 5432}]},
}  # fmt: skip
PLACE = Place("127.64.1.2", "127.65.1.2", "127.66.1.2", (8080, 9000, 9100), frozenset({7000}), lambda port: port != 9100)


def world(*objects: Any) -> istio.World:
    return istio.World.of([POD, SERVICE, *objects])


def told(*objects: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Clusters and listeners by name, as the pod's proxy gets them."""
    found = configuration(PLACE, istio.configuration(world(*objects), POD, {}))
    clusters, listeners = ([msgspec.json.decode(body) for body in answer.resources] for answer in (found.clusters, found.listeners))
    return {c["name"]: c for c in clusters}, {one["name"]: one for one in listeners}


def socket(listener: Any) -> tuple[str, int]:
    address = listener["address"]["socket_address"]
    return address["address"], address["port_value"]


def test_there_is_an_inbound_listener_for_every_captured_port_that_is_declared_named_or_listened_on() -> None:
    found = told()[1]

    assert {name: socket(listener) for name, listener in found.items() if name.startswith("virtualInbound")} == {
        "virtualInbound": ("127.66.1.2", 15006), "virtualInbound-5432": ("127.64.1.2", 5432), "virtualInbound-7000": ("127.64.1.2", 7000),
        "virtualInbound-8080": ("127.64.1.2", 8080), "virtualInbound-9000": ("127.64.1.2", 9000),
    }  # fmt: skip


def test_each_port_has_the_chains_that_were_translated_for_it_and_the_application_is_told_by_a_filter() -> None:
    before = {listener["name"]: listener for listener in istio.listeners(world(), POD).items}["virtualInbound"]
    for port in (5432, 7000, 8080):
        after = told()[1][f"virtualInbound-{port}"]

        assert after["filter_chains"] == [c for c in before["filter_chains"] if c["filter_chain_match"].get("destination_port") in (None, port)]
        assert [f["name"] for f in after["listener_filters"][1:]] == [f["name"] for f in before["listener_filters"][1:]]
        assert "127.65.1.2:%DOWNSTREAM_LOCAL_PORT%" in str(after["listener_filters"][0])


def test_no_listener_changes_its_address_when_a_program_listens_on_one_more_port() -> None:
    def addresses(place: Place) -> dict[str, Any]:
        bodies = configuration(place, istio.configuration(world(), POD, {})).listeners.resources
        return {each["name"]: each["address"] for each in map(msgspec.json.decode, bodies)}

    before, after = addresses(PLACE), addresses(msgspec.structs.replace(PLACE, opened=PLACE.opened | {7001}))
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {"virtualInbound-7001"}


def test_the_outbound_port_is_the_pods_own_and_hears_a_header() -> None:
    found = told()[1]
    outbound = found["virtualOutbound"]

    assert socket(outbound) == ("127.66.1.2", 15001)
    assert [f["name"] for f in outbound["listener_filters"]] == ["envoy.filters.listener.proxy_protocol"]
    assert outbound["use_original_dst"] is True
    assert socket(found["10.96.0.11_5432"]) == ("10.96.0.11", 5432) and found["10.96.0.11_5432"]["bind_to_port"] is False


def test_a_listener_with_a_socket_of_its_own_has_it_on_the_pods_addresses() -> None:
    ingress = [{"port": {"number": 9080, "protocol": "HTTP"}, "captureMode": "NONE", "defaultEndpoint": "127.0.0.1:8080"}]
    sidecar = {"apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "metadata": {"name": "own", "namespace": "shop"}, "spec": {"ingress": ingress}}
    clusters, listeners = told(sidecar)

    assert socket(listeners["127.64.1.2_9080"]) == ("127.64.1.2", 9080)
    assert "127.65.1.2" in str(clusters["inbound|9080||"]["load_assignment"])


def test_no_socket_carries_a_mark_and_applications_see_their_proxy_on_the_pods_own_loopback() -> None:
    found, _ = told()

    assert "socket_options" not in str(found)
    assert found["inbound|8080||"]["upstream_bind_config"] == {"source_address": {"address": "127.66.1.2", "port_value": 0}}
    assert "upstream_bind_config" not in found["outbound|80||web.shop.svc.cluster.local"]
    assert PLACE.bootstrap()["cluster_manager"]["upstream_bind_config"]["source_address"]["address"] == "127.64.1.2"
