"""Istio's own named cases come out of the lab's configuration as Istio says."""

import itertools

import named_cases
import pytest
import simulate

from meshtls.lab.istio import policies
from meshtls.lab.istio.world import World


def by_name(section):
    return pytest.mark.parametrize("case", named_cases.CASES[section], ids=lambda c: c["name"])


@by_name("merge")
def test_peer_authentications_merge(case):
    world = World.of(named_cases.policies(case["policies"]))
    merged = policies.merge(world, "my", {"app": "foo", "stage": "prod"})
    assert (merged.mode, merged.ports) == (case["mode"], case.get("ports", {}))


def arrives(proxy, call):
    """through, own, refused or broken: which way a connection to a pod ends."""
    chain = simulate.inbound(proxy, call)
    if chain is None or (not call.tls and "transport_socket" in chain):
        return "refused"
    http = simulate.is_http_chain(chain)
    if http and (call.tls and "transport_socket" not in chain or call.protocol == "tcp"):
        return "broken"
    return "through" if simulate.target(chain, call)[0] == ["InboundPassthroughCluster"] else "own"


@by_name("inbound")
def test_connections_reach_a_port_as_the_mode_allows(case):
    mesh = simulate.Mesh(World.of(named_cases.inbound(case)))
    protocol = "tcp" if case.get("tcp") else "http"
    got = {
        port: [
            arrives(
                mesh.proxy("my/foo"),
                simulate.Connection("10.1.0.1", port, protocol, tls=tls, alpn=("istio",) if tls else ()),
            )
            for tls in ("", "mtls")
        ]
        for port in case["calls"]
    }
    assert got == case["calls"]


def call(mesh, client, server, protocol, path="/"):
    """What a call from one class to another's service comes to: mtls, plaintext or refused, for every endpoint."""
    service = mesh.world.by_hostname[f"{server}.echo.svc.cluster.local"]["echo"]
    port = next(p.number for p in service.ports if p.name == protocol)
    endpoints = [(e.address, e.port) for e in mesh.world.endpoints(service, port)]
    headless = service.resolution == "PASSTHROUGH"
    proxy = mesh.proxy(f"echo/{client}")
    own_tls = protocol == "https"  # this application speaks TLS itself
    addresses = [a for a, _ in endpoints] if headless else [service.addresses[0]]
    outcomes = set()
    for address in addresses:
        wire = simulate.Connection(
            address,
            port,
            "tcp" if protocol in ("tcp", "https") else "http",
            host=service.hostname,
            tls="tls" if own_tls else "",
            alpn=("http/1.1",) if own_tls else (),
            sni=service.hostname if own_tls else "",
            path=path,
        )
        for hop in simulate.outbound(proxy, wire):
            reached = [(hop.address, hop.port)] if hop.address in mesh.by_ip else endpoints
            for ip, number in reached:
                got = simulate.served(
                    mesh.proxy(mesh.by_ip[ip]),
                    simulate.Hop(ip, number, hop.sends, hop.cluster, hop.alpn, hop.sni, hop.protocol),
                )
                fine = got == "WORKS" or (got == "APP" and own_tls)
                outcomes.add(("mtls" if hop.sends == "mtls" else "plaintext") if fine else "refused")
    return outcomes


@by_name("reachability")
def test_workloads_reach_each_other(case):
    mesh = simulate.Mesh(World.of(named_cases.reachability(case)))
    targets = (
        [("migration", v) for v in ("vistio", "vlegacy")]
        if "migration" in case
        else [(c, c) for c in named_cases.CLASSES]
    )
    clients = [c for c in ("a", "b", "tproxy", "naked") if "migration" not in case or c != "naked"]
    protocols = case.get("protocols", ["http"] if "migration" in case else ["http", "https", "tcp"])
    wrong, asked = [], 0
    for client, (server, kind), protocol in itertools.product(clients, targets, protocols):
        if client == server or kind in case.get("without", ()):
            continue
        asked += 1
        want = "refused"
        if named_cases.holds(case["ok"], client, kind):
            want = "mtls" if named_cases.holds(case["mtls"], client, kind) else "plaintext"
        got = call(mesh, client, server, protocol, f"/{kind}")
        if got != {want}:
            wrong.append((client, server, protocol, kind, want, got))
    assert not wrong
    assert asked >= 6
