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


def sockets(listener: Any) -> list[tuple[str, int]]:
    each = [listener, *listener.get("additional_addresses", [])]
    return [(one["address"]["socket_address"]["address"], one["address"]["socket_address"]["port_value"]) for one in each]


def test_the_proxy_listens_on_every_captured_port_that_is_declared_named_or_listened_on() -> None:
    inbound = told()[1]["virtualInbound"]

    assert sockets(inbound) == [("127.66.1.2", 15006), ("127.64.1.2", 5432), ("127.64.1.2", 7000), ("127.64.1.2", 8080), ("127.64.1.2", 9000)]


def test_chains_are_as_translated_and_the_application_is_told_by_a_filter() -> None:
    before = {listener["name"]: listener for listener in istio.listeners(world(), POD).items}["virtualInbound"]
    after = told()[1]["virtualInbound"]

    assert after["filter_chains"] == before["filter_chains"]
    assert [f["name"] for f in after["listener_filters"][1:]] == [f["name"] for f in before["listener_filters"][1:]]
    assert "127.65.1.2:%DOWNSTREAM_LOCAL_PORT%" in str(after["listener_filters"][0])


def test_the_outbound_port_is_the_pods_own_and_hears_a_header() -> None:
    found = told()[1]
    outbound = found["virtualOutbound"]

    assert sockets(outbound) == [("127.66.1.2", 15001)]
    assert [f["name"] for f in outbound["listener_filters"]] == ["envoy.filters.listener.proxy_protocol"]
    assert outbound["use_original_dst"] is True
    assert sockets(found["10.96.0.11_5432"]) == [("10.96.0.11", 5432)] and found["10.96.0.11_5432"]["bind_to_port"] is False


def test_a_listener_with_a_socket_of_its_own_has_it_on_the_pods_addresses() -> None:
    ingress = [{"port": {"number": 9080, "protocol": "HTTP"}, "captureMode": "NONE", "defaultEndpoint": "127.0.0.1:8080"}]
    sidecar = {"apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "metadata": {"name": "own", "namespace": "shop"}, "spec": {"ingress": ingress}}
    clusters, listeners = told(sidecar)

    assert sockets(listeners["127.64.1.2_9080"]) == [("127.64.1.2", 9080)]
    assert "127.65.1.2" in str(clusters["inbound|9080||"]["load_assignment"])


def test_no_socket_carries_a_mark_and_applications_still_see_the_proxys_address() -> None:
    found, _ = told()

    assert "socket_options" not in str(found)
    assert found["inbound|8080||"]["upstream_bind_config"] == {"source_address": {"address": "127.0.0.6", "port_value": 0}}
    assert "upstream_bind_config" not in found["outbound|80||web.shop.svc.cluster.local"]
    assert PLACE.bootstrap()["cluster_manager"]["upstream_bind_config"]["source_address"]["address"] == "127.64.1.2"
