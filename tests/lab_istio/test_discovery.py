"""How configuration travels: what a change of the cluster changes for a proxy, and what it leaves alone."""

from pathlib import Path

import named_cases
import pytest
import yaml

from meshtls.lab import istio
from meshtls.lab.istio.world import World
from meshtls.lab.node import plane
from meshtls.lab.node.ads import Subscription

SERVICE = """
- {kind: Service, metadata: {name: new, namespace: echo}, spec: {clusterIP: 10.96.9.9, selector: {app: none}, ports: [{name: http, port: 80}]}}
"""
ROUTED = """
- {kind: VirtualService, metadata: {name: v, namespace: echo}, spec: {hosts: [b], http: [{timeout: 3s, route: [{destination: {host: b}}]}]}}
"""


def seen(objects, name="a", kept=None):
    world = World.of(objects)
    return istio.configuration(world, world.pods_by_name["echo", name], {} if kept is None else kept)


def mesh(*more):
    return [*named_cases.reachability({"name": "bare"}), *more]


@pytest.mark.parametrize("text, ports", [(SERVICE, {"80"}), (ROUTED, {"80", "85", "7070"})])
def test_services_and_routes_of_a_port_change_its_table_and_no_listener(text, ports):
    before, after = seen(mesh()), seen(mesh(*yaml.safe_load(text)))
    assert before.listeners == after.listeners
    assert {port for port in after.routes if before.routes[port] != after.routes[port]} == ports


def joined(ready):
    """Service b with one more pod."""
    objects = mesh(named_cases.pod("echo", "b2", 50, "b"))
    for obj in objects:
        if obj["kind"] == "EndpointSlice" and obj["metadata"]["name"] == "b":
            more = {"addresses": ["10.1.0.50"], "targetRef": {"kind": "Pod", "name": "b2", "namespace": "echo"}, "conditions": {"ready": ready}}
            obj["endpoints"].append(more)
        if obj["metadata"]["name"] == "b2":
            obj["spec"]["serviceAccountName"] = "b2"
    return objects


def test_an_endpoint_that_becomes_ready_changes_no_cluster():
    before, after = seen(joined(False)), seen(joined(True))
    assert (before.clusters, before.listeners, before.routes) == (after.clusters, after.listeners, after.routes)
    changed = {name for name in after.endpoints if before.endpoints[name] != after.endpoints[name]}
    assert changed and all(name.endswith("|b.echo.svc.cluster.local") for name in changed)


def test_the_name_of_an_endpoint_is_accepted_before_it_is_ready():
    unready, without = seen(joined(False)), seen(mesh())
    assert any(b"spiffe://cluster.local/ns/echo/sa/b2" in resource for resource in unready.clusters.resources)
    assert unready.endpoints == without.endpoints


def test_what_a_proxy_keeps_follows_its_settings():
    strict = yaml.safe_load("[{kind: PeerAuthentication, metadata: {name: d, namespace: echo}, spec: {mtls: {mode: STRICT}}}]")
    kept: istio.Kept = {}
    assert seen(mesh(), kept=kept) == seen(mesh())
    assert seen(mesh(*strict), kept=kept) == seen(mesh(*strict))
    assert seen(mesh(), kept=kept) != seen(mesh(*strict))


ONE, TWO = (("10.0.0.1", 80, True),), (("10.0.0.1", 80, True), ("10.0.0.2", 80, False))


def test_endpoints_are_sent_when_asked_for_and_then_when_they_change():
    one = Subscription()
    assert one.ask(["x", "y"], 0, False, {"x": ONE, "z": ONE}) == {"x": ONE, "y": ()}
    nonce = one.send({"x": ONE, "y": ()})
    assert one.ask(["x", "y"], nonce, False, {"x": ONE}) == {}
    assert one.settled({"x": ONE})
    assert not one.settled({"x": TWO})
    assert one.changed({"x": TWO}) == {"x": TWO}


@pytest.mark.parametrize("owed", [False, True])
def test_a_cluster_that_is_made_anew_is_told_its_endpoints_again(owed):
    """Envoy says so by a nonce that it has sent before; or, where both came together, only the clusters just sent tell."""
    one = Subscription()
    one.ask(["x"], 0, False, {"x": ONE})
    nonce = one.send({"x": ONE})
    if not owed:
        assert one.ask(["x"], nonce, False, {"x": ONE}) == {}
    one.owed = owed
    assert one.ask(["x"], nonce, False, {"x": ONE}) == {"x": ONE}


def test_late_acknowledgements_are_no_new_questions():
    one, current = Subscription(), {"x": ONE}
    one.ask(["x"], 0, False, current)
    first, second = one.send(current), one.send(current)
    assert one.ask(["x"], first, False, current) == {}
    assert not one.settled(current)
    assert one.ask(["x"], second, False, current) == {}
    assert one.settled(current)


def test_refused_endpoints_are_not_taken_and_not_sent_again():
    one = Subscription()
    one.ask(["x"], 0, False, {"x": ONE})
    nonce = one.send({"x": ONE})
    assert one.ask(["x"], nonce, True, {"x": ONE}) == {}
    assert not one.settled({"x": ONE})


def test_the_annotations_that_make_trouble_are_in_the_docs():
    page = (Path(__file__).parents[2] / "docs" / "lab.md").read_text()
    assert [name for name in (plane.FROZEN, plane.DELAY, plane.ROTATE, plane.PROXIES) if f"`{name}" not in page] == []
