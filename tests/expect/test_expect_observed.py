"""From what a probe saw to answers: payload-free, put together only from what was seen, unknown wherever something lacks."""

import pytest

from meshtls import sources
from meshtls.expect.file import parse
from meshtls.expect.judge import OUTSIDE
from meshtls.expect.observed import Observed, PortSeen, Seen, questions
from meshtls.expect.predicted import Predicted

POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {ns}, uid: u-{name}, labels: {{app: {app}{tls}}}}}
spec: {{containers: [{{name: app, ports: [{{containerPort: {port}}}]}}{proxy}]}}
status: {{phase: Running, podIP: {ip}, podIPs: [{{ip: {ip}}}], conditions: [{{type: Ready, status: "True"}}]}}
---"""
REST = """
apiVersion: v1
kind: Service
metadata: {name: s, namespace: b}
spec: {clusterIP: 10.96.0.9, selector: {app: s}, ports: [{name: http, port: 80, targetPort: 8080}]}
"""
S, P, N = (PortSeen(mode, "seen so") for mode in ("STRICT", "PERMISSIVE", "NOT ENFORCED"))
UP = {("a", "b"): (True, "mTLS worked")}


def pod(name, ns, ip, meshed, app="x", port=1):
    proxy, tls = (", {name: istio-proxy}", ", security.istio.io/tlsMode: istio") if meshed else ("", "")
    return POD.format(name=name, ns=ns, ip=ip, app=app, port=port, proxy=proxy, tls=tls)


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    """A client with sidecar in a, one without in c; two servers behind a Service in b."""
    file = tmp_path_factory.mktemp("mesh") / "m.yaml"
    file.write_text(pod("in", "a", "10.0.0.1", True) + pod("out", "c", "10.0.0.2", False)
                    + pod("s1", "b", "10.0.0.3", True, "s", 8080) + pod("s2", "b", "10.0.0.4", True, "s", 8080) + REST)
    return Predicted(sources.load([str(file)]))


def calls(from_, to="b/s", must="MTLS"):
    return parse(f"apiVersion: meshtls.dev/v1\nkind: Expectations\ncalls: [{{from: {from_}, to: {to}, must: {must}}}]\n", "e.yaml")


def seen(origin, first, second, mutual=UP):
    ports = {(origin, "b", name, 8080): port for name, port in (("s1", first), ("s2", second)) if port}
    return Seen(ports, mutual)


def ask(predicted, from_, what, namespaces="abc", missing=""):
    (answer,) = Observed(predicted, what, namespaces, missing).calls(calls(from_).document.calls[0])
    return answer


@pytest.mark.parametrize("first, second, got", [
    (S, S, "REFUSED"), (P, P, "PLAINTEXT"), (N, P, "PLAINTEXT"), (S, P, "BREAKS"), (S, N, "BREAKS"), (S, None, "UNKNOWN"), (None, None, "UNKNOWN"),
    (PortSeen("UNKNOWN", "no connection"), S, "UNKNOWN"), (PortSeen("NOT ENFORCED", "x", True), N, "UNKNOWN"), (PortSeen("PERMISSIVE", "x", True), P, "UNKNOWN"),
])  # fmt: skip
def test_plaintext_is_what_every_pod_behind_a_service_makes_of_it(predicted, first, second, got):
    assert ask(predicted, "c/out", seen("c", first, second)).got == got


@pytest.mark.parametrize("first, second, mutual, got", [
    (S, S, UP, "MTLS"), (P, S, UP, "MTLS"), (N, S, UP, "BREAKS"), (S, None, UP, "UNKNOWN"),
    (S, S, {}, "UNKNOWN"), (S, S, {("a", "b"): (False, "REFUSED")}, "UNKNOWN"), (S, S, {("a", "b"): (None, "STALLED")}, "UNKNOWN"), (P, P, {("c", "b"): (True, "x")}, "UNKNOWN"),
])  # fmt: skip
def test_mtls_needs_its_control_from_the_same_namespace(predicted, first, second, mutual, got):
    answer = ask(predicted, "a/in", seen("a", first, second, mutual))

    assert answer.got == got
    assert answer.because[0] == "predicted: the client sends mtls"


def test_what_was_seen_from_another_namespace_is_no_answer(predicted):
    assert ask(predicted, "c/out", seen("b", S, S)).got == "UNKNOWN"


def test_without_the_policies_only_clients_without_proxy_are_told(predicted):
    assert ask(predicted, "a/in", seen("a", S, S), missing="DestinationRules could not be read").got == "UNKNOWN"
    assert ask(predicted, "c/out", seen("c", S, S), missing="DestinationRules could not be read").got == "REFUSED"


def test_what_concerns_other_namespaces_is_not_judged(predicted):
    assert ask(predicted, "c/out", seen("c", S, S), "ab").got == OUTSIDE
    assert ask(predicted, "c/out", seen("c", S, S), "ac").got == OUTSIDE


def test_a_route_to_elsewhere_is_not_followed(predicted, tmp_path):
    route = tmp_path / "vs.yaml"
    route.write_text("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: b}\n"
                     "spec: {hosts: [s], http: [{route: [{destination: {host: s, subset: v1}}]}]}\n")
    other = Predicted(sources.over(predicted.mesh, [str(route)]))

    answer = ask(other, "a/in", seen("a", S, S))
    assert answer.got == "UNKNOWN" and "a route leads the call elsewhere" in answer.because[-1]
    assert ask(other, "c/out", seen("c", S, S)).got == "REFUSED", "who has no proxy follows no route"


def test_each_pod_is_asked_from_the_clients_own_namespace(predicted):
    also, spaces = questions(predicted, [calls("'*/*'")])

    assert also == {(origin, "b", name, 8080) for origin in "abc" for name in ("s1", "s2")}
    assert spaces == set("abc")
    assert questions(predicted, [calls("a/nobody")]) == (frozenset(), frozenset())


def modes(predicted, pattern, mode, what, namespaces="abc"):
    text = f"apiVersion: meshtls.dev/v1\nkind: Expectations\nmodes: [{{workloads: {pattern}, mode: {mode}}}]\n"
    expectation = parse(text, "e.yaml").document.modes[0]
    observed = Observed(predicted, what, namespaces)
    return [(a.server, a.port, a.got) for a in observed.modes(expectation)], observed.lacking(expectation)


def test_modes_are_those_that_were_seen_pod_by_pod(predicted):
    found, _ = modes(predicted, "b/s*", "STRICT", seen("b", S, P))

    assert found == [("Pod/b/s1", "8080", "STRICT"), ("Pod/b/s2", "8080", "PERMISSIVE")]
    assert modes(predicted, "b/s1", "DISABLE", seen("b", N, None))[0] == [("Pod/b/s1", "8080", "DISABLE")]
    assert modes(predicted, "b/s1", "STRICT", seen("b", N, None))[0] == [("Pod/b/s1", "8080", "NONE")]


def test_a_pod_that_was_not_asked_is_unknown_and_one_elsewhere_is_not_judged(predicted):
    assert modes(predicted, "b/s2", "STRICT", seen("b", S, None))[0] == [("Pod/b/s2", "*", "UNKNOWN")]
    assert modes(predicted, "b/s1", "STRICT", seen("b", S, S), "ac")[0] == [("Pod/b/s1", "*", OUTSIDE)]
    assert modes(predicted, "'b/s1:9999'", "STRICT", seen("b", S, S))[0] == [("Pod/b/s1", "9999", "UNKNOWN")]
