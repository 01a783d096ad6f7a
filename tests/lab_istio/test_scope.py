"""What a proxy sees and where its connections go: Sidecars, ServiceEntries, outbound policy, trust domains, headless services."""

import named_cases
import pytest
import simulate
import yaml

from meshtls.lab import istio
from meshtls.lab.istio import hosts
from meshtls.lab.istio.objects import protocol_of
from meshtls.lab.istio.world import World


def mesh(text="", **case):
    return simulate.Mesh(World.of([*named_cases.reachability({"name": "bare", **case}), *(yaml.safe_load(text) or [])]))


def goes(found, address, port, protocol="http", host="", client="a", **more):
    hops = simulate.outbound(
        found.proxy(f"echo/{client}"), simulate.Connection(address, port, protocol, host=host, **more)
    )
    return [(h.sends, h.cluster) for h in hops]


REGISTRY_ONLY = "[{kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: 'outboundTrafficPolicy: {mode: REGISTRY_ONLY}'}}]"


def test_unknown_addresses_pass_through_in_plaintext():
    assert goes(mesh(), "10.1.0.2", 9999) == [("plaintext", "PassthroughCluster")]
    assert goes(mesh(), "10.1.0.2", 80, host="10.1.0.2") == [("plaintext", "PassthroughCluster")]


def test_registry_only_ends_unknown_traffic_in_the_proxy():
    assert goes(mesh(REGISTRY_ONLY), "10.1.0.2", 9999) == [("none", "BlackHoleCluster")]
    assert goes(mesh(REGISTRY_ONLY), "10.1.0.2", 80, host="10.1.0.2") == [("none", "no route")]
    assert goes(mesh(REGISTRY_ONLY), "10.96.0.2", 80, host="b")[0][0] == "mtls"


@pytest.mark.parametrize(
    "host", ["b", "b.echo", "b.echo.svc", "b.echo.svc.cluster.local", "b.echo.svc.cluster.local.", "10.96.0.2"]
)
def test_every_name_of_a_service_leads_to_it(host):
    assert goes(mesh(), "10.96.0.2", 80, host=host) == [("mtls", "outbound|80||b.echo.svc.cluster.local")]


def test_a_sidecar_hides_what_it_does_not_name():
    text = "[{kind: Sidecar, metadata: {name: s, namespace: echo}, spec: {egress: [{hosts: [./b.echo.svc.cluster.local]}]}}]"
    found = mesh(text)
    assert goes(found, "10.96.0.2", 80, host="b")[0][1].startswith("outbound")
    assert goes(found, "10.96.0.3", 80, host="tproxy") == [("plaintext", "PassthroughCluster")]


def test_an_egress_listener_with_a_port_keeps_the_port_to_itself():
    text = """[{kind: Sidecar, metadata: {name: s, namespace: echo}, spec: {egress: [
      {port: {number: 9090, protocol: TCP, name: t}, bind: 10.96.0.2, hosts: [./b.echo.svc.cluster.local]}, {hosts: [./b.echo.svc.cluster.local]}]}}]"""
    assert goes(mesh(text), "10.96.0.2", 9090, "tcp") == [("mtls", "outbound|9090||b.echo.svc.cluster.local")]
    assert goes(mesh(text), "10.96.0.3", 9090, "tcp") == [("plaintext", "PassthroughCluster")]


def test_headless_tcp_has_a_listener_for_each_pod_but_not_for_the_caller():
    found = mesh()
    assert goes(found, "10.1.0.4", 19090, "tcp") == [("mtls", "outbound|19090||headless.echo.svc.cluster.local")]
    assert ("10.1.0.4", 19090) not in found.proxy("echo/headless").listeners
    assert ("10.1.0.5", 19090) in found.proxy("echo/headless").listeners


def test_a_headless_service_with_one_pod_without_proxy_is_called_in_plaintext():
    extra = named_cases.pod("echo", "late", 30, "headless", proxy=False)
    objects = [*named_cases.reachability({"name": "bare"}), extra]
    for obj in objects:
        if obj["kind"] == "EndpointSlice" and obj["metadata"]["name"] == "headless":
            obj["endpoints"].append(
                {"addresses": ["10.1.0.30"], "targetRef": {"kind": "Pod", "name": "late", "namespace": "echo"}}
            )
    found = simulate.Mesh(World.of(objects))
    assert goes(found, "10.1.0.4", 19090, "tcp")[0][0] == "plaintext"


def test_auto_mtls_is_decided_for_each_endpoint():
    sends = {
        h.address: h.sends
        for h in simulate.outbound(mesh().proxy("echo/a"), simulate.Connection("10.96.0.20", 9090, "tcp"))
    }
    assert sends == {"10.1.0.20": "mtls", "10.1.0.21": "plaintext"}


ENTRY = """
- kind: ServiceEntry
  metadata: {name: e, namespace: echo}
  spec: {hosts: [db.example], addresses: [%s], resolution: %s, location: %s, ports: [{name: tcp, number: 5432, protocol: TCP}], endpoints: %s}
"""


@pytest.mark.parametrize(
    "address, resolution, location, endpoints, expected",
    [
        (
            "10.9.0.1",
            "STATIC",
            "MESH_INTERNAL",
            "[{address: 10.1.0.2, labels: {security.istio.io/tlsMode: istio}}]",
            "mtls",
        ),
        ("10.9.0.1", "STATIC", "MESH_INTERNAL", "[{address: 10.1.0.2, serviceAccount: b}]", "mtls"),
        ("10.9.0.1", "STATIC", "MESH_INTERNAL", "[{address: 10.1.0.2}]", "plaintext"),
        ("10.9.0.1", "STATIC", "MESH_EXTERNAL", "[{address: 10.1.0.2, serviceAccount: b}]", "plaintext"),
        ("10.9.0.0/16", "NONE", "MESH_EXTERNAL", "[]", "plaintext"),
    ],
)
def test_service_entries_are_services(address, resolution, location, endpoints, expected):
    found = mesh(ENTRY % (address, resolution, location, endpoints))
    assert goes(found, "10.9.0.1", 5432, "tcp") == [(expected, "outbound|5432||db.example")]


def test_a_dns_entry_resolves_its_own_host():
    found = mesh(ENTRY % ("10.9.0.1", "DNS", "MESH_EXTERNAL", "[]"))
    cluster = found.proxy("echo/a").clusters["outbound|5432||db.example"]
    where = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
    assert (cluster["type"], where) == ("STRICT_DNS", {"address": "db.example", "port_value": 5432})


def test_a_service_that_is_not_exported_is_unknown_elsewhere():
    objects = list(named_cases.reachability({"name": "bare"}))
    for obj in objects:
        if obj["kind"] == "Service" and obj["metadata"]["name"] == "b":
            obj["metadata"]["annotations"] = {"networking.istio.io/exportTo": "."}
    objects.append(named_cases.pod("other", "c", 40))
    found = simulate.Mesh(World.of(objects))
    assert goes(found, "10.96.0.2", 80, host="b")[0][0] == "mtls"
    hops = simulate.outbound(found.proxy("other/c"), simulate.Connection("10.96.0.2", 80, "http", host="b.echo"))
    assert [h.cluster for h in hops] == ["PassthroughCluster"]


def test_an_external_name_is_an_alias_of_its_target():
    text = "[{kind: Service, metadata: {name: alias, namespace: echo}, spec: {type: ExternalName, externalName: b.echo.svc.cluster.local, ports: [{name: http, port: 80}]}}]"
    assert goes(mesh(text), "10.96.0.2", 80, host="alias.echo") == [("mtls", "outbound|80||b.echo.svc.cluster.local")]


TRUST = "[{kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: '{trustDomain: new.local, trustDomainAliases: [old.local]}'}}]"


def test_aliases_of_the_trust_domain_are_accepted_on_both_sides():
    found = mesh(TRUST)
    chain = simulate.inbound(
        found.proxy("echo/b"), simulate.Connection("10.1.0.2", 18080, "http", tls="mtls", alpn=("istio",))
    )
    context = chain["transport_socket"]["typed_config"]["common_tls_context"]["combined_validation_context"]
    names = [n["matcher"] for n in context["default_validation_context"]["match_typed_subject_alt_names"]]
    assert names == [{"prefix": "spiffe://new.local/"}, {"prefix": "spiffe://old.local/"}]
    assert found.world.accounts(found.world.by_hostname["b.echo.svc.cluster.local"]["echo"]) == [
        "spiffe://new.local/ns/echo/sa/b",
        "spiffe://old.local/ns/echo/sa/b",
    ]


def test_the_root_namespace_is_the_meshs_to_name():
    config = "{kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: 'rootNamespace: settings'}}"
    policy = "{kind: PeerAuthentication, metadata: {name: default, namespace: %s}, spec: {mtls: {mode: STRICT}}}"
    for home, mode in (("settings", "STRICT"), ("istio-system", "PERMISSIVE")):
        found = mesh(f"[{config}, {policy % home}]")
        assert simulate.mode(found.proxy("echo/b"), 18080) == mode, home


def test_auto_mtls_can_be_switched_off():
    text = (
        "[{kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: 'enableAutoMtls: false'}}]"
    )
    assert goes(mesh(text), "10.96.0.2", 80, host="b")[0][0] == "plaintext"


def test_an_equal_world_has_equal_versions_and_a_policy_changes_only_the_listeners_of_its_pods():
    before, again = mesh().world, mesh().world
    policy = "[{kind: PeerAuthentication, metadata: {name: b, namespace: echo}, spec: {selector: {matchLabels: {app: b}}, mtls: {mode: STRICT}}}]"
    after = mesh(policy).world

    def versions(world, name):
        pod = world.pods_by_name["echo", name]
        found = istio.configuration(world, pod, {})
        return found.listeners.version, found.clusters.version, found.routes, found.endpoints

    assert versions(before, "a") == versions(again, "a") == versions(after, "a")
    assert versions(before, "b")[0] != versions(after, "b")[0]
    assert versions(before, "b")[1:] == versions(after, "b")[1:]


def test_one_ports_mode_changes_only_that_ports_chains():
    def chains(text):
        world = mesh(text).world
        listener = next(
            r for r in istio.listeners(world, world.pods_by_name["echo", "b"]).items if r["name"] == "virtualInbound"
        )
        return listener["filter_chains"]

    policy = "[{kind: PeerAuthentication, metadata: {name: b, namespace: echo}, spec: {selector: {matchLabels: {app: b}}, portLevelMtls: {18080: {mode: STRICT}}}}]"
    before, after = chains(""), chains(policy)
    changed = [c for c in before if c not in after] + [c for c in after if c not in before]
    assert {c["filter_chain_match"]["destination_port"] for c in changed} == {18080}


@pytest.mark.parametrize(
    "name, app_protocol, port, expected",
    [
        ("http", None, 80, "http"),
        ("http-web", None, 80, "http"),
        ("grpc-web-x", None, 80, "grpc-web"),
        ("mysql", None, 1, "mysql"),
        ("web", None, 80, ""),
        ("web", None, 3306, "tcp"),
        ("", None, 80, ""),
        ("tcp", "http", 80, "http"),
        ("http", "other", 80, ""),
        ("x", "kubernetes.io/h2c", 80, "http2"),
        ("x", "kubernetes.io/wss", 80, "https"),
        ("HTTP", None, 80, "http"),
    ],
)
def test_a_ports_protocol_is_what_its_name_or_app_protocol_declares(name, app_protocol, port, expected):
    assert protocol_of(port, name, "TCP", app_protocol) == expected
    assert protocol_of(port, name, "UDP", app_protocol) == "udp"


@pytest.mark.parametrize(
    "name, other, overlap, covered",
    [
        ("a.com", "a.com", True, True),
        ("a.com", "*.com", True, True),
        ("*.com", "a.com", True, False),
        ("*.a.com", "*.com", True, True),
        ("*.com", "*.a.com", True, False),
        ("*", "*.com", True, False),
        ("a.com", "b.com", False, False),
        ("*.foo.com", "foo.com", False, False),
    ],
)
def test_host_names_overlap_and_cover_as_istios_do(name, other, overlap, covered):
    assert hosts.matches(name, other) is overlap
    assert hosts.subset_of(name, other) is covered
