"""Access logs, metrics, authorization and start-up of a proxy."""

import named_cases
import pytest
import simulate
import yaml

from meshtls.errors import InputError
from meshtls.lab import istio
from meshtls.lab.istio import metrics
from meshtls.lab.istio.bootstrap import drain_seconds
from meshtls.lab.istio.telemetry import TEXT_FORMAT
from meshtls.lab.istio.world import World

MESH = "[{kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: '%s'}}]"


def world(*texts):
    return World.of([*named_cases.reachability({"name": "bare"}), *(o for t in texts for o in yaml.safe_load(t))])


def inbound(found, name="b"):
    return next(
        r for r in istio.listeners(found, found.pods_by_name["echo", name]).items if r["name"] == "virtualInbound"
    )


def files(loggers):
    return [a for a in loggers if a["name"] == "envoy.access_loggers.file"]


def conditions(logger):
    """The names of a logger's filters, CEL by its expression."""
    condition = logger.get("filter", {})
    out = []
    for entry in condition.get("and_filter", {}).get("filters", [condition] if condition else []):
        name, body = next(iter(entry.items()))
        out.append(body["typed_config"]["expression"] if name == "extension_filter" else next(iter(body.values())))
    return out


def logs(found, name="b", port=18080):
    """(of the listener, of the port's chain) for the files that are written."""
    listener = inbound(found, name)
    chain = simulate.match_chain(listener, simulate.Connection("10.1.0.2", port, "http" if port == 18080 else "tcp"))
    return files(listener.get("access_log", [])), files(chain["filters"][-1]["typed_config"]["access_log"])


def test_nothing_is_logged_by_default():
    assert logs(world()) == ([], [])


@pytest.mark.parametrize("port, ended", [(18080, []), (19090, [["TcpConnectionEnd"]])])
def test_access_log_file_logs_everywhere_in_istios_text_format_and_refusals_at_the_listener(port, ended):
    listener, chain = logs(world(MESH % "accessLogFile: /dev/stdout"), port=port)
    assert [conditions(a) for a in listener] == [[["NR"]]]
    assert [conditions(a) for a in chain] == [ended]
    for logger in listener + chain:
        config = logger["typed_config"]
        assert config["path"] == "/dev/stdout"
        assert config["log_format"]["text_format_source"]["inline_string"] == TEXT_FORMAT


TELEMETRY = "[{kind: Telemetry, metadata: {name: t, namespace: %s}, spec: {%s accessLogging: [{%s}]}}]"
PLAIN = 'match: {mode: SERVER}, providers: [{name: envoy}], filter: {expression: "!connection.mtls"}'


@pytest.mark.parametrize(
    "namespace, selector, applies",
    [
        ("echo", "", True),
        ("istio-system", "", True),
        ("other", "", False),
        ("echo", "selector: {matchLabels: {app: b}},", True),
        ("echo", "selector: {matchLabels: {app: a}},", False),
    ],
)
def test_telemetry_filters_what_is_logged_where_it_applies(namespace, selector, applies):
    listener, chain = logs(world(TELEMETRY % (namespace, selector, PLAIN)))
    assert [conditions(a) for a in chain] == ([["!connection.mtls"]] if applies else [])
    assert [conditions(a) for a in listener] == ([[["NR"], "!connection.mtls"]] if applies else [])


def test_telemetry_for_the_server_leaves_the_client_to_the_meshs_setting():
    found = world(MESH % "accessLogFile: /dev/stdout", TELEMETRY % ("echo", "", PLAIN))
    listener = next(
        r for r in istio.listeners(found, found.pods_by_name["echo", "b"]).items if r["name"] == "virtualOutbound"
    )
    assert [conditions(a) for a in files(listener["access_log"])] == [[["NR"]]]
    assert [conditions(a) for a in logs(found)[1]] == [["!connection.mtls"]]


def test_telemetry_can_switch_a_provider_off():
    found = world(
        MESH % "accessLogFile: /dev/stdout", TELEMETRY % ("echo", "", "providers: [{name: envoy}], disabled: true")
    )
    assert logs(found) == ([], [])


def test_the_narrowest_telemetry_wins():
    wide = TELEMETRY % ("istio-system", "", "providers: [{name: envoy}]")
    found = world(wide, TELEMETRY % ("echo", "selector: {matchLabels: {app: b}},", PLAIN))
    assert [conditions(a) for a in logs(found, "b")[1]] == [["!connection.mtls"]]
    assert [conditions(a) for a in logs(found, "a")[1]] == [[]]


def line(name, value, **tags):
    body = ",".join(f'{k}="{v}"' for k, v in tags.items())
    return f"envoy_istio_{name}{{{body}}} {value}\n"


SERVER = {
    "side": "inbound",
    "service": "b.echo.svc.cluster.local",
    "cluster": "inbound|18080||",
    "response_code": "200",
    "response_flags": "-",
    "grpc": "",
}
A, B = "spiffe://cluster.local/ns/echo/sa/a", "spiffe://cluster.local/ns/echo/sa/b"


def metric(name, pod="b", **tags):
    """The labels of the only series that comes of one of Envoy's."""
    found = world()
    text = metrics.istio_metrics(line(name, 3, **tags), found, found.pods_by_name["echo", pod])
    body = text.splitlines()[1]
    assert body.startswith(f"istio_{name}{{") and body.endswith("} 3")
    return dict(part.split("=", 1) for part in body[len(name) + 7 : -3].replace('"', "").split(","))


def test_a_request_over_mesh_mtls_is_counted_with_both_ends():
    got = metric("requests_total", **SERVER, peer=A, local=B, client="10.1.0.1", tls="TLSv1.3")
    assert (got["reporter"], got["connection_security_policy"], got["request_protocol"]) == (
        "destination",
        "mutual_tls",
        "http",
    )
    assert (got["source_workload"], got["source_workload_namespace"], got["source_principal"]) == ("a", "echo", A)
    assert (got["destination_workload"], got["destination_principal"]) == ("b", B)
    assert (got["destination_service"], got["destination_service_name"]) == ("b.echo.svc.cluster.local", "b")
    assert got["response_code"] == "200"


def test_a_plaintext_client_without_proxy_is_unknown():
    got = metric("requests_total", **SERVER, peer="", client="10.1.0.6", tls="")
    assert (got["source_workload"], got["source_principal"], got["connection_security_policy"]) == (
        "unknown",
        "unknown",
        "none",
    )


def test_a_plaintext_tcp_client_is_unknown_even_behind_a_proxy():
    tags = {k: v for k, v in SERVER.items() if k not in ("response_code", "grpc")}
    got = metric("tcp_connections_opened_total", **tags, peer="", client="10.1.0.1", tls="")
    assert (got["source_workload"], got["request_protocol"]) == ("unknown", "tcp")
    assert "response_code" not in got


def test_the_client_reports_what_it_called():
    got = metric(
        "requests_total",
        "a",
        side="outbound",
        cluster="outbound|80||b.echo.svc.cluster.local",
        upstream="10.1.0.2",
        upstream_peer=B,
        response_code="503",
        response_flags="UC",
        grpc="",
    )
    assert (got["reporter"], got["connection_security_policy"]) == ("source", "unknown")
    assert (got["source_principal"], got["destination_principal"]) == (A, B)
    assert (got["destination_workload"], got["response_flags"]) == ("b", "UC")


def test_series_that_become_one_are_added_up():
    found = world()
    two = line("requests_total", 1, **SERVER, peer="", client="10.1.0.6") + line(
        "requests_total", 2, **SERVER, peer="", client="10.9.9.9"
    )
    text = metrics.istio_metrics(two, found, found.pods_by_name["echo", "b"])
    assert text.count("istio_requests_total{") == 1 and text.endswith("} 3\n")


AUTHZ = "[{kind: AuthorizationPolicy, metadata: {name: p, namespace: %s, annotations: {%s}}, spec: {%s}}]"


def rbac(found, port, name="b"):
    """The RBAC filters of a port's plaintext chain."""
    chain = simulate.match_chain(
        inbound(found, name), simulate.Connection("10.1.0.2", port, "http" if port == 18080 else "tcp")
    )
    if port == 18080:
        filters = chain["filters"][-1]["typed_config"]["http_filters"]
    else:
        filters = chain["filters"]
    return [f["typed_config"] for f in filters if f["name"].endswith("rbac")]


@pytest.mark.parametrize("port", [18080, 19090])
def test_a_dry_run_denial_only_counts(port):
    text = AUTHZ % (
        "echo",
        'istio.io/dry-run: "true"',
        'action: DENY, rules: [{from: [{source: {notPrincipals: ["*"]}}]}]',
    )
    (only,) = rbac(world(text), port)
    assert "rules" not in only
    assert only["shadow_rules"]["action"] == "DENY"
    assert only["shadow_rules_stat_prefix"] == "istio_dry_run_deny_"
    assert only.get("stat_prefix") == (None if port == 18080 else "tcp.")


def test_principals_and_namespaces_are_read_from_the_certificate():
    text = AUTHZ % (
        "echo",
        "",
        "rules: [{from: [{source: {principals: [cluster.local/ns/echo/sa/a], namespaces: [x]}}]}]",
    )
    (policy,) = rbac(world(text), 19090)[0]["rules"]["policies"].values()
    names = [
        i["or_ids"]["ids"][0]["authenticated"]["principal_name"] for i in policy["principals"][0]["and_ids"]["ids"]
    ]
    assert names == [{"exact": A}, {"safe_regex": {"regex": ".*/ns/x/.*"}}]


def test_denials_come_before_allowances():
    both = AUTHZ % ("echo", "", "rules: [{}]") + "\n", AUTHZ % ("istio-system", "", "action: DENY, rules: [{}]")
    assert [f["rules"]["action"] for f in rbac(world(*both), 18080)] == ["DENY", "ALLOW"]


def test_on_tcp_an_http_condition_drops_an_allowance_and_widens_a_denial():
    rule = 'rules: [{to: [{operation: {methods: [GET], ports: ["19090"]}}]}]'
    allow = rbac(world(AUTHZ % ("echo", "", rule)), 19090)[0]["rules"]
    deny = rbac(world(AUTHZ % ("echo", "", f"action: DENY, {rule}")), 19090)[0]["rules"]
    assert allow["policies"] == {}
    (policy,) = deny["policies"].values()
    assert policy["permissions"] == [{"and_rules": {"rules": [{"or_rules": {"rules": [{"destination_port": 19090}]}}]}}]


def test_an_allowance_without_rules_allows_nothing():
    (policy,) = rbac(world(AUTHZ % ("echo", "", "action: ALLOW")), 18080)[0]["rules"]["policies"].values()
    assert policy["permissions"] == [{"not_rule": {"any": True}}]


def principals(text, mesh="{}"):
    """What the only rule asks of the client, each as what must hold."""
    (policy,) = rbac(world(MESH % mesh, AUTHZ % ("echo", "", f"rules: [{{{text}}}]")), 18080)[0]["rules"]["policies"].values()
    return policy["principals"][0]["and_ids"]["ids"]


RENAMED = "{trustDomain: new.example, trustDomainAliases: [old.example, former.example]}"
ALIASED = {
    "cluster.local/ns/echo/sa/a": ["new.example/ns/echo/sa/a", "former.example/ns/echo/sa/a", "old.example/ns/echo/sa/a"],
    "old.example/ns/echo/sa/*": ["new.example/ns/echo/sa/", "former.example/ns/echo/sa/", "old.example/ns/echo/sa/"],
    "ol*/ns/echo/sa/a": ["new.example/ns/echo/sa/a", "former.example/ns/echo/sa/a", "old.example/ns/echo/sa/a"],
    "*r.example/ns/echo/sa/a": ["new.example/ns/echo/sa/a", r".*r\.example/ns/echo/sa/a", "old.example/ns/echo/sa/a"],
    "foreign.example/ns/echo/sa/a": ["foreign.example/ns/echo/sa/a"],
    "*/ns/echo/sa/a": [r".*/ns/echo/sa/a"],
    "old.example/*": ["old.example/"],
}


@pytest.mark.parametrize("principal", ALIASED)
def test_principals_of_the_mesh_count_under_every_alias_of_its_trust_domain(principal):
    (said,) = principals(f'from: [{{source: {{principals: ["{principal}"]}}}}]', RENAMED)
    names = [one["authenticated"]["principal_name"] for one in said["or_ids"]["ids"]]
    texts = [name.get("exact") or name.get("prefix") or name["safe_regex"]["regex"] for name in names]
    assert texts == [f"spiffe://{one}" for one in ALIASED[principal]]


def test_a_condition_on_tokens_never_holds_so_its_negation_does():
    never = {"or_ids": {"ids": [{"not_id": {"any": True}}]}}
    assert principals('when: [{key: "request.auth.claims[iss]", values: [a], notValues: [b]}]') == [never, {"not_id": never}]


def test_paths_may_be_templates_and_any_host_is_one_that_is_said():
    text = 'rules: [{to: [{operation: {hosts: ["*"], paths: ["/x/{*}/y", "/z/{**}", "/a*"]}}]}]'
    (policy,) = rbac(world(AUTHZ % ("echo", "", text)), 18080)[0]["rules"]["policies"].values()
    hosts, paths = (one["or_rules"]["rules"] for one in policy["permissions"][0]["and_rules"]["rules"])
    assert hosts == [{"header": {"name": ":authority", "present_match": True}}]
    templates = [one["uri_template"]["typed_config"]["path_template"] for one in paths[:2]]
    assert templates == ["/x/*/y", "/z/**"] and paths[2] == {"url_path": {"path": {"prefix": "/a"}}}


def test_a_policy_for_other_labels_or_namespaces_changes_nothing():
    text = AUTHZ % ("echo", "", "selector: {matchLabels: {app: a}}, rules: [{}]")
    assert rbac(world(text, AUTHZ % ("other", "", "rules: [{}]")), 18080) == []


@pytest.mark.parametrize(
    "mesh, seconds", [("", 45), ("defaultConfig: {drainDuration: 5s}", 5), ("defaultConfig: {drainDuration: 2m}", 120)]
)
def test_the_drain_time_is_the_meshs(mesh, seconds):
    found = world(MESH % mesh)
    flags = istio.arguments(found, found.pods_by_name["echo", "b"])
    assert flags[flags.index("--drain-time-s") + 1] == str(seconds)
    assert drain_seconds(found.pods_by_name["echo", "b"], found) == seconds


def test_the_drain_time_is_what_the_injector_wrote_into_the_proxy():
    found = world(MESH % "defaultConfig: {drainDuration: 5s}")
    pod = found.pods_by_name["echo", "b"]
    proxy = {"name": "istio-proxy", "env": [{"name": "PROXY_CONFIG", "value": '{"drainDuration":"1m30s"}'}]}
    assert drain_seconds({**pod, "spec": {**pod["spec"], "containers": [proxy]}}, found) == 90


def test_every_socket_of_the_proxy_is_marked_and_calls_to_the_own_ports_come_from_127_0_0_6():
    found = world()
    for cluster in istio.clusters(found, found.pods_by_name["echo", "b"]).items:
        if cluster["name"] == "BlackHoleCluster":
            continue
        binding = cluster["upstream_bind_config"]
        assert binding["socket_options"][0]["int_value"] == 1337
        assert ("source_address" in binding) == (
            cluster["name"].startswith("inbound|") or cluster["name"] == "InboundPassthroughCluster"
        )


UNREADABLE = ["[a]", "{", "trustDomain: [a]", "trustDomainAliases: a", "enableAutoMtls: 1", "defaultConfig: {drainDuration: soon}", "h2UpgradePolicy: MAYBE"]


@pytest.mark.parametrize("text", UNREADABLE)
def test_mesh_configuration_that_cannot_be_read_is_as_it_was_or_the_users_fault(text):
    with pytest.raises(InputError, match="istio-system/istio"):
        assert world(MESH % text).mesh
    found = world(MESH % text)
    assert World(found.lists, last={"trustDomain": "before"}).mesh == {"trustDomain": "before"}


def test_a_null_in_mesh_configuration_is_nothing_said():
    assert world(MESH % "{trustDomain: null, h2UpgradePolicy: null}").mesh["trustDomain"] == "cluster.local"
