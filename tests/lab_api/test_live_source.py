"""The verbs against a served API: a dump of it answers as it does, and flags for namespaces mean the same on both."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from meshtls.cli.main import cli
from meshtls.cluster.client import Client
from meshtls.errors import Conflict, MeshtlsError
from tests.lone_api import Standalone

EXAMPLES = Path(__file__).parents[2] / "examples/shop"
INJECTOR = {
    "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": {"name": "istio-sidecar-injector"},
    "webhooks": [{
        "name": "namespace.sidecar-injector.istio.io", "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore",
        "clientConfig": {"service": {"name": "istiod", "namespace": "istio-system", "path": "/inject"}},
        "namespaceSelector": {"matchLabels": {"istio-injection": "enabled"}},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]}]}
VERBS = {"audit": ("--fail-on", "never"), "modes": (), "predict": ("--strict", "shop")}


@pytest.fixture(scope="module")
def shop(api: Standalone, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The example applied to the API, and a dump of it."""
    with Client.connect(api.kubeconfig) as client:
        client.create(INJECTOR)
        for path in sorted(EXAMPLES.glob("*.yaml")):
            for body in yaml.safe_load_all(path.read_text()):
                try:
                    client.create(body)
                except Conflict:
                    pass  # a namespace that the API makes by itself
    file = str(tmp_path_factory.mktemp("dump") / "dump.json")
    assert run("dump", file, "--kubeconfig", api.kubeconfig)[0] == 0
    return {"dump": file, "kubeconfig": api.kubeconfig}


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, arguments)
    error = done.exception if isinstance(done.exception, MeshtlsError) else None
    return (error.exit_code, str(error)) if error else (done.exit_code, done.stdout)


def timeless(text: str) -> object:
    document = json.loads(text)
    for field in ("started", "finished"):
        document.pop(field, None)
    for check in document.get("checks", ()):
        check.pop("seconds")
    for finding in document.get("findings", ()):
        for place in ("file", "line", "column"):
            finding.pop(place)
    return document


@pytest.mark.parametrize("verb", VERBS)
def test_a_dump_answers_as_the_cluster_does(shop: dict[str, str], verb: str) -> None:
    live, dumped = (run(verb, *source, *VERBS[verb], "-A", "-o", "json") for source in (("--kubeconfig", shop["kubeconfig"]), (shop["dump"],)))

    assert live[0] == dumped[0] == 0
    assert timeless(live[1]) == timeless(dumped[1])


def test_an_explanation_from_a_dump_is_the_clusters(shop: dict[str, str]) -> None:
    call = ("explain", "legacy/billing", "shop/cart")
    live, dumped = run(*call, "--kubeconfig", shop["kubeconfig"], "-o", "json"), run(*call, shop["dump"], "-o", "json")

    assert live[0] == dumped[0] == 0
    for one, other in zip(json.loads(live[1])["items"], json.loads(dumped[1])["items"], strict=True):
        assert [s["says"] for s in one["steps"]] == [s["says"] for s in other["steps"]]


def test_a_dump_and_its_cluster_do_not_differ(shop: dict[str, str], tmp_path: Path) -> None:
    again = str(tmp_path / "again.json")
    assert run("dump", again, "--kubeconfig", shop["kubeconfig"])[0] == 0
    assert run("diff", shop["dump"], again) == (0, "no difference in modes or calls\n")


def test_the_contexts_namespace_is_meant_where_none_is_named(shop: dict[str, str]) -> None:
    """Files mean all of their namespaces; a cluster means the context's."""
    some = json.loads(run("modes", "--kubeconfig", shop["kubeconfig"], "-n", "shop", "-o", "json")[1])["items"]
    same = json.loads(run("modes", shop["dump"], "-n", "shop", "-o", "json")[1])["items"]

    assert some == same and {i["namespace"] for i in some} == {"shop"}
    assert json.loads(run("modes", "--kubeconfig", shop["kubeconfig"], "-o", "json")[1])["items"] == []  # default is empty


def test_what_a_change_breaks_is_told_wherever_the_context_points(shop: dict[str, str], tmp_path: Path) -> None:
    """The context's namespace is `default`: what STRICT breaks in shop is no less of an answer."""
    file = tmp_path / "strict.yaml"
    file.write_text("apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n")
    for change in (("--strict", "shop"), ("--apply", str(file))):
        source = ("predict", *change, "--kubeconfig", shop["kubeconfig"], "-o", "json")
        told, everywhere, elsewhere = (json.loads(run(*source, *scope)[1])["items"] for scope in ((), ("-A",), ("-n", "default")))

        assert told == everywhere and "BREAKS" in {i["verdict"] for i in told}
        assert elsewhere == []


def test_an_empty_answer_says_which_namespace_was_meant(shop: dict[str, str]) -> None:
    assert run("modes", "--kubeconfig", shop["kubeconfig"]) == (0, "no workloads in default (all namespaces: -A)\n")


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_namespace_is_an_error_on_both(shop: dict[str, str], verb: str) -> None:
    for source in (("--kubeconfig", shop["kubeconfig"]), (shop["dump"],)):
        code, said = run(verb, *source, "-n", "nowhere")
        assert code == 2, said


def test_proposed_files_are_laid_over_the_cluster_and_change_nothing_there(shop: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "strict.yaml"
    file.write_text("apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n")
    source = ("--kubeconfig", shop["kubeconfig"], "-n", "shop", "-o", "json")
    proposed = json.loads(run("modes", *source, "--apply", str(file))[1])["items"]

    assert {i["mode"] for i in proposed if i["dataplane"] == "sidecar"} == {"STRICT"}
    now = json.loads(run("modes", *source)[1])["items"]
    assert "STRICT" not in {i["mode"] for i in now}
