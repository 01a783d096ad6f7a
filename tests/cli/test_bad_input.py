"""What a user can get wrong, and what a cluster can do wrong, for every verb: one line that says what to do next, the right
exit code, no traceback, and nothing half-changed."""

import json
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from meshtls.cli.main import cli, main
from meshtls.cluster import client as clients
from meshtls.cluster import transport
from meshtls.lab.api.identity import User
from tests.lone_api import Standalone, standalone

NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
WIDE = {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": "default", "namespace": "shop"},
        "spec": {"mtls": {"mode": "PERMISSIVE"}}}  # fmt: skip

# verbs that ask a cluster, in full
READING = (
    "audit -n shop", "audit -A", "modes -n shop", "predict -n shop", "predict -n shop --strict shop", "explain shop/a shop/b:80",
    "dump -", "observe -n shop", "migrate plan -n shop", "migrate status -n shop",
    "migrate plan -A", "migrate status -A", "migrate verify -n shop",
)  # fmt: skip
CHANGING = ("probe -n shop", "migrate apply -n shop --yes", "migrate apply -A --yes", "migrate rollback -n shop --yes", "cleanup -n shop")
VERBS = (*READING, *CHANGING)

Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def api() -> Iterator[Standalone]:
    def prepare(store: Any) -> None:
        store.create("namespaces", {**NAMESPACE, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}})

    with standalone(prepare=prepare) as running:
        with clients.Client.connect(running.kubeconfig) as client:
            client.create(WIDE)
        yield running


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a kubeconfig, and a client that is less patient than in life."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(transport, "FIRST_S", 0.05)
    patient = transport.Transport
    monkeypatch.setattr(clients, "Transport", lambda access, timeout_s, **more: patient(access, min(timeout_s, 0.4), **more))
    return tmp_path


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    """`ask(line, *more)` runs a command line as the shell would: (exit code, standard output, standard error)."""

    def run(line: str, *more: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["meshtls", *line.split(), *more])
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out, said.err

    return run


@pytest.fixture
def unchanged(api: Standalone) -> Iterator[None]:
    """Whatever happens in between, the cluster holds afterwards what it held before."""

    def held() -> dict[str, Any]:
        kinds = ("PeerAuthentication", "ConfigMap", "Lease", "Pod", "Service")
        with pytest.MonkeyPatch.context() as calm:
            calm.setattr(clients, "Transport", transport.Transport)  # as patient as in life
            client = clients.Client.connect(api.kubeconfig)
        with client:
            return {kind: sorted((o["metadata"]["name"], json.dumps(o.get("spec"))) for o in client.list(kind, "shop")) for kind in kinds}

    before = held()
    yield
    api.heal()
    assert held() == before


def one_line(said: str, code: int, expected: int) -> str:
    """The line that tells what is wrong, after whatever progress was told."""
    assert code == expected, said
    assert "Traceback" not in said
    last = said.strip().splitlines()[-1]
    assert last.startswith("meshtls: "), said
    assert last.count("meshtls: ") == 1
    assert len(last) < 400
    return last


def hinted(line: str) -> None:
    assert line.endswith(")"), f"does not say what to do next: {line}"


def write(path: Path, content: Any) -> str:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(("content", "words"), [
    (None, "no such kubeconfig"), ("a: [", "no YAML"), ("", "empty or no mapping"), ("clusters: []", "no current context"),
    ({"current-context": "a"}, "no context named 'a'"),
    ({"current-context": "a", "contexts": [{"name": "a", "context": {"cluster": "c"}}], "clusters": [{"name": "c", "cluster": {}}]},
     "no server URL"),
])  # fmt: skip
def test_a_kubeconfig_that_cannot_be_used(ask: Ask, home: Path, verb: str, content: Any, words: str) -> None:
    path = home / "config"
    if content is not None:
        write(path, content)
    code, _, said = ask(verb, "--kubeconfig", str(path))
    assert words in one_line(said, code, 2)


@pytest.mark.parametrize("verb", VERBS)
def test_no_cluster_at_all(ask: Ask, verb: str) -> None:
    code, _, said = ask(verb)
    line = one_line(said, code, 2)
    assert "no cluster is configured" in line
    hinted(line)


@pytest.mark.parametrize("verb", VERBS)
def test_a_server_that_cannot_be_reached(ask: Ask, home: Path, api: Standalone, verb: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = yaml.safe_load(Path(api.kubeconfig).read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
    code, _, said = ask(verb, "--kubeconfig", write(home / "config", config))
    line = one_line(said, code, 3)
    assert "no connection" in line
    hinted(line)


@pytest.mark.parametrize("verb", VERBS)
def test_a_token_that_is_no_longer_good(ask: Ask, home: Path, api: Standalone, verb: str, unchanged: None) -> None:
    config = yaml.safe_load(Path(api.kubeconfig).read_text())
    config["users"][0]["user"]["token"] = "expired"
    code, _, said = ask(verb, "--kubeconfig", write(home / "config", config))
    hinted(one_line(said, code, 3))


@pytest.mark.parametrize("verb", VERBS)
def test_nothing_is_permitted(ask: Ask, api: Standalone, verb: str, unchanged: None) -> None:
    code, _, said = ask(verb, "--kubeconfig", api.kubeconfig_for(User("eve", ("system:authenticated",))))
    line = one_line(said, code, 3)
    assert "not allowed for user" in line or "nothing in this cluster may be read" in line
    hinted(line)


FAILING = {500: "500", "hang": "no answer within", 429: "429", 503: "503", "close": "connection broke"}


@pytest.mark.parametrize(("verb", "act"), [
    *((verb, act) for verb in VERBS for act in (500, "hang")),
    *((verb, act) for verb in ("audit -n shop", "observe -n shop", *CHANGING) for act in (429, 503, "close")),
])  # fmt: skip
def test_a_server_that_always_fails(ask: Ask, api: Standalone, verb: str, act: Any, unchanged: None) -> None:
    api.fail(act, path="/api.*")
    code, _, said = ask(verb, "--kubeconfig", api.kubeconfig)
    line = one_line(said, code, 3)
    assert FAILING[act] in line or (act == 429 and "too many" in line.lower()), line
    hinted(line)


@pytest.mark.parametrize("verb", ["migrate plan -n shop", *CHANGING])
@pytest.mark.parametrize("act", [409, 429, 500])
def test_a_server_that_refuses_every_write(ask: Ask, api: Standalone, verb: str, act: int, unchanged: None) -> None:
    """Questions about permissions are writes too: no verb changes anything without an answer to them."""
    api.fail(act, method="POST|PUT|PATCH|DELETE", path="/api.*")
    code, _, said = ask(verb, "--kubeconfig", api.kubeconfig)
    # here is nothing to clean up, and nothing in the mesh that could be taken anywhere
    assert code in ((0,) if verb in ("cleanup -n shop", "migrate apply -A --yes") else (3, 4)), said
    assert "Traceback" not in said


@pytest.mark.parametrize("verb", [verb for verb in VERBS if "-n shop" in verb])
def test_a_namespace_that_does_not_exist(ask: Ask, api: Standalone, verb: str, unchanged: None) -> None:
    code, _, said = ask(verb.replace("-n shop", "-n nope"), "--kubeconfig", api.kubeconfig)
    line = one_line(said, code, 2)
    assert "nope" in line
    hinted(line)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "dump -"])
def test_a_deadline_is_kept_and_has_its_own_code(ask: Ask, api: Standalone, verb: str, monkeypatch: pytest.MonkeyPatch, unchanged: None) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("KUBECONFIG", api.kubeconfig)
    api.fail("hang", path="/api.*")
    code, _, said = ask(verb, "--timeout", "300ms")
    line = one_line(said, code, 124)
    hinted(line)


@pytest.mark.parametrize("verb", ["audit -n shop", "probe -n shop", "observe -n shop", "migrate apply -n shop --yes", "migrate status -n shop"])
def test_a_report_exists_however_it_ends(ask: Ask, api: Standalone, home: Path, verb: str, unchanged: None) -> None:
    api.fail(500, path="/api.*")
    code, out, _ = ask(verb, "--kubeconfig", api.kubeconfig, "-o", "json", "--report", f"junit={home}/r.xml,html={home}/r.html")
    assert code == 3
    assert [check["status"] for check in json.loads(out)["checks"]] == ["ERROR"]
    assert 'errors="1"' in (home / "r.xml").read_text()
    assert (home / "r.html").exists()


@pytest.mark.parametrize("verb", ["audit", "observe -n shop", "migrate plan -n shop"])
def test_a_report_that_cannot_be_written_is_one_line(ask: Ask, api: Standalone, home: Path, verb: str) -> None:
    code, _, said = ask(verb, "--kubeconfig", api.kubeconfig, "--report", f"json={home}/missing/r.json")
    line = one_line(said, code, 2)
    assert f"cannot write {home}/missing/r.json" in line
    hinted(line)



@pytest.mark.parametrize("arguments", [("guard", "serve", "--listen", "127.0.0.1:\u00b2"), ("guard", "serve", "--listen", "127.0.0.1:" + "9" * 5000),
                                       ("probe", "--run-as-user", "\u00b2"), ("probe", "--run-as-user", "9" * 5000)])  # fmt: skip
def test_what_only_looks_like_a_number_is_an_error_of_usage(arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli, arguments)

    assert done.exit_code == 2 and "Error: " in done.output and "number" in done.output, (done.output, done.exception)
