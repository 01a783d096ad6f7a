"""The inbound filter chains and the client's clusters are, field by field, those of a live istiod."""

import json

import pytest
import recordings

from meshtls.lab import istio
from meshtls.lab.istio.world import World

RECORDED = json.loads((recordings.DATA / "filter-chains.json").read_text())
SHAPES = {
    "VIP": ((80, 8080, "http"), (8081, 8081, "custom"), (9001, 9000, "tcp")),
    "None": ((8080, 8080, "http"), (8081, 8081, "custom"), (9000, 9000, "tcp")),
}
# Every workload that the recorded cluster names give away; `naked` has no proxy.
SERVICES = {
    ("da", "client"): "VIP",
    ("da", "server"): "VIP",
    ("da", "head"): "None",
    ("db", "back"): "VIP",
    ("db", "caller"): "VIP",
    ("db", "naked"): "VIP",
    ("db", "bhead"): "None",
}


def objects():
    for number, ((namespace, name), address) in enumerate(SERVICES.items()):
        labels = {"app": name, **({} if name == "naked" else {"security.istio.io/tlsMode": "istio"})}
        ports = SHAPES[address]
        containers = [{"name": "app"}, *([] if name == "naked" else [{"name": "istio-proxy"}])]
        yield {
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {"serviceAccountName": name, "containers": containers},
            "status": {"podIP": f"10.1.0.{number + 1}"},
        }
        yield {
            "kind": "Service",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "clusterIP": address.replace("VIP", f"10.96.0.{number + 1}"),
                "selector": {"app": name},
                "ports": [{"name": n, "port": p, "targetPort": t, "protocol": "TCP"} for p, t, n in ports],
            },
        }
        yield {
            "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
            "ports": [{"name": n, "port": t} for _, t, n in ports],
            "endpoints": [
                {
                    "addresses": [f"10.1.0.{number + 1}"],
                    "targetRef": {"kind": "Pod", "name": name, "namespace": namespace},
                }
            ],
        }


def world(case):
    return World.of([*objects(), *RECORDED["cases"][case]["objects"]])


def pod(found, name):
    return found.pods_by_name["da", name]


def without_zeros(rule):
    """A range that starts at 0 says only where it ends, as protobuf's JSON does."""
    if isinstance(rule, dict):
        return {k: without_zeros(v) for k, v in rule.items() if not (k == "start" and v == 0)}
    return [without_zeros(r) for r in rule] if isinstance(rule, list) else rule


def server_side(found, name):
    listener = next(r for r in istio.listeners(found, pod(found, name)).items if r["name"] == "virtualInbound")
    filters = []
    for entry in listener["listener_filters"]:
        short = entry["name"].removeprefix("envoy.filters.listener.")
        rule = {"disabledWhen": without_zeros(entry["filter_disabled"])} if "filter_disabled" in entry else {}
        filters.append({"name": short, **rule})
    return {
        "listener": {
            "listenerFilters": filters,
            "listenerFiltersTimeout": listener["listener_filters_timeout"],
            "continueOnTimeout": listener["continue_on_listener_filters_timeout"],
        },
        "chains": [chain_as_recorded(c) for c in listener["filter_chains"]],
    }


def chain_as_recorded(chain):
    last = chain["filters"][-1]
    http = last["name"].endswith("http_connection_manager")
    config, tls = last["typed_config"], None
    if "transport_socket" in chain:
        context = chain["transport_socket"]["typed_config"]
        common = context["common_tls_context"]
        names = common["combined_validation_context"]["default_validation_context"]["match_typed_subject_alt_names"]
        versions = [common["tls_params"][f"tls_{end}_protocol_version"] for end in ("minimum", "maximum")]
        tls = {
            "requireClientCertificate": context["require_client_certificate"],
            "alpn": common["alpn_protocols"],
            "sanPrefix": [n["matcher"]["prefix"] for n in names],
            "versions": versions,
        }
    routes = (
        [r["route"]["cluster"] for v in config["route_config"]["virtual_hosts"] for r in v["routes"]] if http else None
    )
    return {
        "name": chain["name"],
        "match": chain["filter_chain_match"],
        "tls": tls,
        "handledAs": "http" if http else "tcp",
        "cluster": routes if http else config["cluster"],
    }


def socket_as_recorded(socket):
    if socket is None:
        return None
    if socket["name"].endswith("raw_buffer"):
        return "plaintext"
    context = socket["typed_config"]
    common = context["common_tls_context"]
    names = (
        common.get("combined_validation_context", {})
        .get("default_validation_context", {})
        .get("match_typed_subject_alt_names", [])
    )
    return {
        "sni": context.get("sni"),
        "alpn": common.get("alpn_protocols"),
        "certificate": [s["name"] for s in common.get("tls_certificate_sds_secret_configs", [])],
        "serverNames": [n["matcher"]["exact"] for n in names],
    }


def cluster_as_recorded(cluster):
    matches = [
        {"match": m["match"], "socket": socket_as_recorded(m["transport_socket"])}
        for m in cluster.get("transport_socket_matches", [])
    ]
    kind = "EDS" if cluster["type"] == "STATIC" else cluster["type"]  # the lab writes endpoints into the cluster
    return {
        "name": cluster["name"],
        "type": kind,
        "lb": cluster["lb_policy"],
        "transportSocket": socket_as_recorded(cluster.get("transport_socket")),
        "transportSocketMatches": matches,
    }


@pytest.mark.parametrize("case", RECORDED["cases"])
@pytest.mark.parametrize("name", ["server", "headless"])
def test_the_inbound_listener_is_the_recorded_one(case, name):
    got = server_side(world(case), name.replace("headless", "head"))
    want = RECORDED["cases"][case][name]
    assert got["listener"] == want["listener"]
    assert got["chains"] == want["chains"]


@pytest.mark.parametrize("case", [c for c, r in RECORDED["cases"].items() if "clientClusters" in r])
def test_the_clients_clusters_are_the_recorded_ones(case):
    found = world(case)
    want = {c["name"]: c for c in RECORDED["cases"][case]["clientClusters"]}
    produced = [c for c in istio.clusters(found, pod(found, "client")).items if c["name"].startswith("outbound|")]
    got = {c["name"]: cluster_as_recorded(c) for c in produced}
    assert got == want
