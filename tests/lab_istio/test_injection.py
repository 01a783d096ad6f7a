"""Whether a pod gets a proxy, and what is written into it."""

import copy
import json

import named_cases
import pytest
import recordings

from meshtls.lab import istio
from meshtls.lab.api import select
from meshtls.lab.istio.world import World

ENABLED = {"metadata": {"name": "shop", "labels": {"istio-injection": "enabled"}}}
POD = {
    "metadata": {
        "generateName": "web-7d9-",
        "labels": {"app": "web", "pod-template-hash": "7d9"},
        "ownerReferences": [{"kind": "ReplicaSet", "name": "web-7d9", "controller": True}],
    },
    "spec": {
        "initContainers": [{"name": "migrate", "image": "m"}],
        "containers": [
            {
                "name": "app",
                "image": "a",
                "ports": [{"name": "http", "containerPort": 8080}],
                "readinessProbe": {
                    "httpGet": {"path": "/ready", "port": "http", "scheme": "HTTPS"},
                    "timeoutSeconds": 2,
                },
                "livenessProbe": {"tcpSocket": {"port": 8080}},
                "startupProbe": {"exec": {"command": ["true"]}},
            }
        ],
    },
}


def injected(annotations=None, values=None, mesh=None, **spec):
    pod = copy.deepcopy(POD)
    pod["metadata"]["annotations"] = annotations or {}
    pod["spec"] |= spec
    out = istio.inject(pod, ENABLED, World.of(istio.installation(mesh, values)))
    assert out is not None
    return out


def names(pod, field):
    return [c["name"] for c in pod["spec"].get(field) or []]


def proxy(pod):
    return next(c for f in ("containers", "initContainers") for c in pod["spec"][f] if c["name"] == "istio-proxy")


def env(pod):
    return {e["name"]: e.get("value") for e in proxy(pod)["env"]}


@pytest.mark.parametrize("path", recordings.files("injection*.json"), ids=lambda p: p.name)
@pytest.mark.parametrize("own_webhooks", [False, True])
def test_a_pod_is_injected_exactly_when_the_real_injector_does(path, own_webhooks):
    recorded = json.loads(path.read_text())
    webhooks = {
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "recorded"},
        "webhooks": recorded["webhooks"],
    }
    world = World.of(istio.installation()) if own_webhooks else World.of([webhooks])
    wrong = []
    for case in recorded["cases"]:
        metadata = {"name": "p", "labels": case["podLabels"], "annotations": case["annotations"]}
        pod = {"metadata": metadata, "spec": {"containers": [{"name": "app"}], **case["spec"]}}
        got = istio.inject(pod, {"metadata": {"name": "n", "labels": case["namespaceLabels"]}}, world)
        if (got is not None) != case["injected"]:
            wrong.append(case)
    assert not wrong
    assert len(recorded["cases"]) >= 100


@pytest.mark.parametrize("case", named_cases.CASES["injection"], ids=lambda c: c["name"])
def test_the_injector_of_the_right_revision_decides(case):
    metadata = {"name": "p", "labels": case.get("pod", {}), "annotations": case.get("annotations", {})}
    pod = {"metadata": metadata, "spec": {"containers": [{"name": "app"}]}}
    namespace = {"metadata": {"name": "n", "labels": case.get("namespace", {})}}
    got = istio.inject(pod, namespace, World.of(named_cases.injectors(case)))
    assert (got is not None) is case["injected"]
    assert got is None or got["metadata"]["annotations"]["istio.io/rev"] == case["by"]


def test_the_installation_carries_the_real_selectors():
    recorded = json.loads((recordings.DATA / "injection.json").read_text())["webhooks"]
    webhooks = next(o for o in istio.installation() if o["kind"] == "MutatingWebhookConfiguration")["webhooks"]
    fields = ("name", "namespaceSelector", "objectSelector", "failurePolicy")
    assert [{f: w[f] for f in fields} for w in webhooks] == [{f: w[f] for f in fields} for w in recorded]


def test_the_proxy_is_a_native_sidecar_between_istio_init_and_the_pods_own_init_containers():
    pod = injected()
    assert names(pod, "initContainers") == ["istio-init", "istio-proxy", "migrate"]
    assert names(pod, "containers") == ["app"]
    assert proxy(pod)["restartPolicy"] == "Always"
    assert (
        proxy(pod)["securityContext"]["runAsUser"] == 1337 and proxy(pod)["securityContext"]["readOnlyRootFilesystem"]
    )
    assert proxy(pod)["resources"]["limits"] == {"cpu": "2", "memory": "1Gi"}


def test_labels_and_annotations_are_the_injectors():
    metadata = injected()["metadata"]
    assert metadata["labels"]["security.istio.io/tlsMode"] == "istio"
    assert metadata["labels"]["service.istio.io/canonical-name"] == "web"
    assert metadata["annotations"]["istio.io/rev"] == "default"
    status = json.loads(metadata["annotations"]["sidecar.istio.io/status"])
    assert (status["initContainers"], status["containers"], status["revision"]) == (
        ["istio-init", "istio-proxy"],
        None,
        "default",
    )


@pytest.mark.parametrize("how", ["annotation", "values"])
def test_a_classic_sidecar_is_the_last_container_and_istio_init_the_last_init_container(how):
    pod = (
        injected({"sidecar.istio.io/nativeSidecar": "false"})
        if how == "annotation"
        else injected(values={"pilot": {"env": {"ENABLE_NATIVE_SIDECARS": "false"}}})
    )
    assert names(pod, "containers") == ["app", "istio-proxy"]
    assert names(pod, "initContainers") == ["migrate", "istio-init"]
    assert "restartPolicy" not in proxy(pod)
    assert json.loads(pod["metadata"]["annotations"]["sidecar.istio.io/status"])["containers"] == ["istio-proxy"]


def test_a_held_application_waits_behind_the_classic_proxy():
    pod = injected(
        {"sidecar.istio.io/nativeSidecar": "false", "proxy.istio.io/config": "holdApplicationUntilProxyStarts: true"}
    )
    assert names(pod, "containers") == ["istio-proxy", "app"]
    assert proxy(pod)["lifecycle"]["postStart"]["exec"]["command"] == ["pilot-agent", "wait"]


def test_probes_go_to_the_agent_which_is_told_the_real_ones():
    pod = injected()
    app = pod["spec"]["containers"][0]
    assert app["readinessProbe"]["httpGet"] == {"path": "/app-health/app/readyz", "port": 15020, "scheme": "HTTP"}
    assert app["livenessProbe"]["httpGet"] == {"path": "/app-health/app/livez", "port": 15020}
    assert app["startupProbe"] == {"exec": {"command": ["true"]}}
    assert json.loads(env(pod)["ISTIO_KUBE_APP_PROBERS"]) == {
        "/app-health/app/readyz": {"httpGet": {"path": "/ready", "port": 8080, "scheme": "HTTPS"}, "timeoutSeconds": 2},
        "/app-health/app/livez": {"tcpSocket": {"port": 8080}},
    }


def test_probes_stay_when_the_annotation_says_so():
    pod = injected({"sidecar.istio.io/rewriteAppHTTPProbers": "false"})
    assert pod["spec"]["containers"][0]["readinessProbe"] == POD["spec"]["containers"][0]["readinessProbe"]
    assert "ISTIO_KUBE_APP_PROBERS" not in env(pod)


def test_scraping_goes_to_the_agent_which_is_told_the_real_target():
    pod = injected({"prometheus.io/scrape": "true", "prometheus.io/port": "9100"})
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == "15020"
    assert pod["metadata"]["annotations"]["prometheus.io/path"] == "/stats/prometheus"
    assert json.loads(env(pod)["ISTIO_PROMETHEUS_ANNOTATIONS"]) == {"scrape": "true", "path": "", "port": "9100"}
    assert "prometheus.io/port" not in injected({"prometheus.io/scrape": "false"})["metadata"]["annotations"]


def test_the_given_pod_is_left_as_it_is():
    before = copy.deepcopy(POD)
    injected()
    assert before == POD


def test_interception_is_what_istio_init_was_told():
    note = "traffic.sidecar.istio.io/"
    pod = injected(
        {
            note + "excludeInboundPorts": "8080,9000",
            note + "excludeOutboundPorts": "3306",
            note + "includeOutboundIPRanges": "10.0.0.0/8",
            note + "excludeOutboundIPRanges": "10.1.0.0/16",
        }
    )
    got = istio.interception(pod)
    assert got.mode == "REDIRECT"
    assert got.exclude_inbound == (8080, 9000, 15020, 15021, 15090)
    assert got.include_inbound is None
    assert got.exclude_outbound == (3306,)
    assert (got.include_ranges, got.exclude_ranges) == (("10.0.0.0/8",), ("10.1.0.0/16",))


@pytest.mark.parametrize("ports, expected", [("*", None), ("", ()), ("80,443", (80, 443))])
def test_inbound_ports_may_be_all_none_or_a_list(ports, expected):
    assert (
        istio.interception(injected({"traffic.sidecar.istio.io/includeInboundPorts": ports})).include_inbound
        == expected
    )


def test_nothing_is_intercepted_in_mode_none_or_without_a_proxy():
    pod = injected({"sidecar.istio.io/interceptionMode": "NONE"})
    assert "istio-init" not in names(pod, "initContainers")
    assert istio.interception(pod).mode == "NONE"
    assert istio.interception(POD).mode == "NONE"


@pytest.mark.parametrize(
    "rule, found, fits",
    [
        ({"key": "k", "operator": "In", "values": ["a"]}, {"k": "a"}, True),
        ({"key": "k", "operator": "In", "values": ["a"]}, {}, False),
        ({"key": "k", "operator": "NotIn", "values": ["a"]}, {}, True),
        ({"key": "k", "operator": "NotIn", "values": ["a"]}, {"k": "a"}, False),
        ({"key": "k", "operator": "Exists"}, {"k": ""}, True),
        ({"key": "k", "operator": "DoesNotExist"}, {"k": ""}, False),
    ],
)
def test_selectors_mean_what_kubernetes_means(rule, found, fits):
    assert select.selected({"matchExpressions": [rule]}, found) is fits
