"""No false alarm on manifests as common charts write them: by themselves, beside each other, and with a sidecar in every pod."""

import copy
from pathlib import Path

import pytest
import yaml

from meshtls import audit, sources
from meshtls.model.check import Severity
from meshtls.sources.build import build
from meshtls.sources.document import Document

SAMPLES = Path(__file__).parent / "samples"
CHARTS = sorted(p.name for p in SAMPLES.glob("*.yaml"))

# what is true of these manifests beside a mesh, and would be of any cluster like them
BESIDE = {
    "Namespace/argocd": {"MT242"}, "Namespace/cert-manager": {"MT242"}, "Namespace/functions": {"MT242"}, "Namespace/ingress-nginx": {"MT242"},
    "Namespace/kafka": {"MT242"}, "Namespace/knative-serving": {"MT242"}, "Namespace/monitoring": {"MT242"}, "Namespace/store": {"MT242"},
    "DaemonSet/monitoring/node-exporter": {"MT243"},
}

# chart -> all that is found, with its severity, where every namespace of it injects; a kept-well shop has nothing
INSIDE = {
    "argo-cd.yaml": {
        # metrics and long connections are worth a word; nothing breaks
        "Deployment/argocd/argocd-repo-server": {("MT250", "info"), ("MT273", "info")}, "Deployment/argocd/argocd-server": {("MT250", "info")},
        "StatefulSet/argocd/argocd-application-controller": {("MT250", "info")}, "Deployment/argocd/argocd-redis": {("MT273", "info")},
    },
    "cert-manager.yaml": {
        "ValidatingWebhookConfiguration/cert-manager-webhook": {("MT230", "error")}, "Deployment/cert-manager/cert-manager-webhook": {("MT250", "info")},
    },
    "data.yaml": {
        "StatefulSet/store/mysql": {("MT270", "warning"), ("MT272", "info"), ("MT273", "info")},
        "StatefulSet/store/redis-replicas": {("MT272", "warning"), ("MT273", "info")},
    },
    "ingress-nginx.yaml": {
        "ValidatingWebhookConfiguration/ingress-nginx-admission": {("MT230", "error")},
        "Service/ingress-nginx/ingress-nginx-controller": {("MT260", "warning")},
        "Deployment/ingress-nginx/ingress-nginx-controller": {("MT271", "error")},
    },
    "kafka.yaml": {"StrimziPodSet/kafka/events-broker": {("MT246", "warning"), ("MT273", "info")}},
    "knative.yaml": {
        "ValidatingWebhookConfiguration/validation.webhook.serving.knative.dev": {("MT230", "error")},
        "Deployment/functions/hello-00001-deployment": {("MT246", "warning")}, "Deployment/knative-serving/activator": {("MT250", "info")},
    },
    "prometheus.yaml": {
        "DaemonSet/monitoring/node-exporter": {("MT243", "warning")}, "StatefulSet/monitoring/prometheus": {("MT272", "warning")},
    },
    "shop.yaml": {},
}


def _found(mesh, worst=Severity.INFO):
    found = {}
    for check in audit.check(mesh):
        for f in check.findings:
            if f.severity.rank <= worst.rank:
                found.setdefault(f.subject, set()).add((f.code, str(f.severity)))
    return found


def _mesh(*names):
    return sources.load([str(SAMPLES / name) for name in names])


def _meshed(name):
    """The chart with every namespace injecting, and a sidecar in the pods that are there."""
    for body in filter(None, yaml.safe_load_all((SAMPLES / name).read_text())):
        body = copy.deepcopy(body)
        if body["kind"] == "Namespace":
            body["metadata"]["labels"] = {**body["metadata"].get("labels", {}), "istio-injection": "enabled"}
        if body["kind"] == "Pod":
            body["spec"]["containers"].append({"name": "istio-proxy", "image": "proxyv2"})
        yield Document(body["apiVersion"], body["kind"], body)


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_by_itself_raises_nothing(name):
    assert _found(_mesh(name), Severity.WARNING) == {}


def test_all_together_raise_only_what_is_true_of_workloads_outside_the_mesh():
    found = _found(_mesh(*CHARTS), Severity.WARNING)

    assert {subject: {code for code, _ in codes} for subject, codes in found.items()} == BESIDE


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_in_the_mesh_raises_exactly_its_troubles(name):
    assert _found(build(_meshed(name))) == INSIDE[name]


def test_a_well_kept_strict_mesh_has_no_finding():
    strict = {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": "default", "namespace": "istio-system"},
              "spec": {"mtls": {"mode": "STRICT"}}}
    documents = [*_meshed("shop.yaml"), Document(strict["apiVersion"], strict["kind"], strict)]

    assert _found(build(documents), Severity.WARNING) == {}
