"""What is asked, and what is left out with a reason."""

from msgspec import convert
from world import a_plan, mesh, pod

from meshtls.model.objects import Service
from meshtls.probe.case import Mode
from meshtls.probe.deploy import captured_by
from meshtls.probe.plan import targets


def test_every_client_asks_every_server_with_every_offer_it_can_make():
    plan = a_plan("a", "b")

    pairs = {(c.client.title, c.server.title) for c in plan.cases}
    assert len(pairs) == 16
    assert len(plan.cases) == 2 * 4 * (3 + 3) + 2 * 4 * (2 + 2)
    assert {c.offer.name for c in plan.cases if c.client.meshed} == {"plaintext", "mtls"}
    assert {c.offer.name for c in plan.cases if not c.client.meshed} == {"plaintext", "tls", "unknown-ca"}
    assert len({c.id for c in plan.cases}) == len(plan.cases)


def test_only_the_fingerprint_needs_one_client_without_sidecar_a_namespace():
    plan = a_plan("a", cells=False, pods=[pod("web")])

    assert [(c.namespace, c.meshed) for c in plan.clients] == [("a", False)]
    assert (plan.servers, plan.cases, len(plan.handshakes)) == ((), (), 2)


def test_a_namespace_without_pods_needs_no_client_for_the_fingerprint():
    assert a_plan("a", cells=False).clients == ()


def test_ports_are_those_declared_and_those_that_services_lead_to():
    web = pod("web", metadata={"labels": {"app": "web"}}, spec={"containers": [
        {"name": "app", "ports": [{"containerPort": 8080, "name": "main"}, {"containerPort": 53, "protocol": "UDP"}]},
        {"name": "istio-proxy", "ports": [{"containerPort": 15090}]}]})  # fmt: skip
    service = convert({"metadata": {"name": "web", "namespace": "a"}, "spec": {"selector": {"app": "web"}, "ports": [
        {"port": 80, "targetPort": "main", "name": "http"}, {"port": 9000, "name": "tcp-db"}]}}, Service)  # fmt: skip
    world = mesh("a", pods=[web])
    from msgspec.structs import replace

    found, _ = targets(replace(world, services=(service,)), ("a",), lambda pod, port: (Mode.STRICT, ("because",)))

    assert [(t.port.number, t.port.protocol) for t in found] == [(8080, "http"), (9000, "tcp")]


def test_pods_that_cannot_be_asked_are_skips_with_a_reason():
    pods = [pod("done", status={"phase": "Succeeded"}), pod("host", spec={"hostNetwork": True}), pod("mute", spec={"containers": [{"name": "x"}]}),
            pod("leaving", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})]  # fmt: skip
    plan = a_plan("a", cells=False, pods=pods)

    assert {check.id: check.reason for check in plan.skipped} == {
        "fingerprint/a/done": "does not run (phase Succeeded)",
        "fingerprint/a/host": "uses the host's network: no sidecar takes its connections",
        "fingerprint/a/mute": "declares no port, and no Service names one",
        "fingerprint/a/leaving": "is being deleted",
    }


def test_a_captured_ambient_pod_is_asked_by_a_silent_connection():
    caught = pod("web", metadata={"annotations": {"ambient.istio.io/redirection": "enabled"}})

    assert [h.kind for h in a_plan("a", cells=False, pods=[caught]).handshakes] == ["silent"]


def test_refused_pods_take_their_questions_with_them():
    plan = a_plan("a")
    less = plan.without([plan.servers[0]], "no")

    assert all(case.server != plan.servers[0] for case in less.cases)
    assert [(check.status, check.reason) for check in less.skipped] == [("SKIP", "no")]


def test_a_service_that_would_select_a_probe_pod_is_found():
    broad = convert(
        {
            "metadata": {"name": "all", "namespace": "a"},
            "spec": {"selector": {"app.kubernetes.io/managed-by": "meshtls"}},
        },
        Service,
    )
    from msgspec.structs import replace

    world = replace(mesh("a"), services=(broad,))

    assert captured_by(world, {"app.kubernetes.io/managed-by": "meshtls", "x": "y"}, "a") == "Service/a/all"
    assert captured_by(world, {"x": "y"}, "a") == ""
