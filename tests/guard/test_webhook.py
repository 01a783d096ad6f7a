"""The guard as a webhook: the policy engine's answer, which an API server really asks for."""

import contextlib
import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator

import httpx
import msgspec
import pytest
import yaml
from click.testing import CliRunner

from meshtls import sources
from meshtls.cli.guard import _tls
from meshtls.cli.main import cli
from meshtls.cluster.client import Client
from meshtls.errors import Forbidden, MeshtlsError, Unreachable
from meshtls.guard import webhook
from meshtls.guard.review import Asked, answer, touched
from meshtls.model.check import Finding, Severity
from meshtls.model.objects import ServiceEntry
from tests.guard import cases, judges
from tests.guard.test_admission_policy import client
from tests.guard.test_regression import HOOK
from tests.lone_api import standalone

# an injector to read, which is asked about nothing that is written here
INJECTOR = cases.merged(HOOK, {"webhooks": [{
    **HOOK["webhooks"][0], "admissionReviewVersions": ["v1"], "sideEffects": "None", "clientConfig": {"url": "https://127.0.0.1:1/inject"},
    "rules": [{"apiGroups": ["example.com"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]}]})  # fmt: skip
BY_NAME = {case.name: case for case in cases.CASES}
LEGACY = cases.merged(BY_NAME["a pod of today's workload without sidecar"].subject, {"metadata": {"labels": {"pod-template-hash": "6d9f7c"}}})
# what the engine finds weaker; a policy that changes nothing is not refused for its words
REFUSED = {name: BY_NAME[name] for name in (
    "the keeper made PERMISSIVE", "the mesh's policy made PERMISSIVE", "the mesh's policy deleted", "a workload's keeper deleted", "a workload's keeper made PERMISSIVE",
    "a workload's keeper that selects another workload", "a PERMISSIVE workload", "a port made PERMISSIVE", "a pod without sidecar", "a Job without injection",
    "a Deployment that leaves the mesh", "a Deployment on the host's network", "an excluded inbound port", "interception NONE", "a pod that leaves ambient",
    "injection taken from the namespace", "the injection label removed", "ambient taken from the namespace",
)} | {"plaintext from everywhere": cases.create("", "", cases.rule("web.part.svc.cluster.local", cases.DISABLE, namespace="part"))}  # fmt: skip
TAKEN = {name: BY_NAME[name] for name in (
    "the keeper labelled", "another STRICT policy for the namespace", "a policy in a namespace that is not kept", "a workload that inherits", "an exception deleted",
    "an exception that ends", "a pod with a sidecar", "a pod in a namespace that is not kept", "a captured pod has no sidecar", "a probe's pod of meshtls",
    "a Deployment like others", "today's exception, scaled", "today's exception, restarted", "today's plaintext rule, retuned", "the namespace labelled",
    "a CronJob like others", "the keeper deleted",  # the mesh's policy is STRICT too
)} | {"a pod of today's workload": cases.create("", "", LEGACY)}  # fmt: skip


@contextlib.contextmanager
def served(read, *, warn: bool = False) -> Iterator[tuple[webhook.Server, str, list[str]]]:
    """(the server, its CA, what it said), with a first reading that may have failed."""
    context, authority = _tls("127.0.0.1", "", None, None, "")
    judge = webhook.Judge(read, None, warn)
    judge.refresh()
    said: list[str] = []
    server = webhook.Server(("127.0.0.1", 0), context, judge, said.append)
    with webhook.serving(server, 3600.0, said.append):
        yield server, authority, said


@contextlib.contextmanager
def guarded(*, warn: bool = False, failure_policy: str = "Fail", broken: bool = False) -> Iterator[tuple[httpx.Client, list[str]]]:
    """The API with the world of world.yaml, which asks the webhook; a broken one cannot read the mesh."""
    with standalone() as running, client(running) as http, Client.connect(running.kubeconfig) as cluster:
        judges.fill(http, [])
        http.post("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", json=INJECTOR).raise_for_status()

        def read():
            if broken:
                raise Forbidden("nothing may be read")
            return sources.load(client=cluster), ""

        with served(read, warn=warn) as (server, authority, said):
            url = f"https://127.0.0.1:{server.server_address[1]}{webhook.PATH}"
            config = webhook.configuration({"url": url}, authority, failure_policy)
            http.post("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", json=config).raise_for_status()
            yield http, said


@pytest.fixture(scope="module")
def api() -> Iterator[httpx.Client]:
    with guarded() as (http, _):
        yield http


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_lower_what_is_kept_is_refused_with_the_finding(api: httpx.Client, name: str) -> None:
    said = judges.ask(api, REFUSED[name])

    assert said.status_code == 403 and "it would weaken what is kept STRICT: MT91" in said.json()["message"], said.text
    assert said.json()["message"].endswith("(to loosen it on purpose: kubectl delete validatingwebhookconfiguration meshtls-guard)")


@pytest.mark.parametrize("name", TAKEN)
def test_all_else_is_let_through(api: httpx.Client, name: str) -> None:
    said = judges.ask(api, TAKEN[name])

    assert said.status_code in (200, 201), said.text


def test_a_change_that_was_let_through_counts_at_once() -> None:
    """Without waiting for the next reading: the second of two steps is judged with the first."""
    stricter = cases.policy("STRICT", labels={"app": "seen"}, name="seen", namespace="free")
    with guarded() as (http, _):
        http.post(judges.path(cases.deployment(namespace="shop")), json=cases.deployment(namespace="shop")).raise_for_status()
        left = cases.merged(cases.deployment(namespace="shop"), {"spec": {"template": {"metadata": {"labels": cases.OFF}}}})
        said = http.put(judges.path(left, True), json=left)
        http.post(judges.path(stricter), json=stricter).raise_for_status()

    assert said.status_code == 403 and "MT912 Deployment/shop/new" in said.json()["message"]


def test_a_warning_lets_through_and_says_the_same() -> None:
    with guarded(warn=True) as (http, said):
        answered = judges.ask(http, REFUSED["the keeper made PERMISSIVE"])

    assert answered.status_code == 200 and "MT914 Namespace/shop" in answered.headers["Warning"]
    assert said[0] == "the API server asks: its first review is answered" and "MT914" in said[1]


@pytest.mark.parametrize(("policy", "status"), [("Fail", 500), ("Ignore", 200)])
def test_without_an_answer_the_failure_policy_decides(policy: str, status: int) -> None:
    with guarded(failure_policy=policy, broken=True) as (http, _):
        assert judges.ask(http, BY_NAME["the keeper labelled"]).status_code == status


def test_a_namespace_that_goes_takes_its_policies_with_it() -> None:
    with guarded() as (http, _):
        http.request("DELETE", "/api/v1/namespaces/part").raise_for_status()

        assert not http.get("/apis/security.istio.io/v1/namespaces/part/peerauthentications").json()["items"]


# --- the server ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def alone():
    with contextlib.ExitStack() as stack:
        server, authority, _ = stack.enter_context(served(lambda: (sources.load([str(cases.WORLD)]), "")))
        context = ssl.create_default_context(cadata=authority)
        yield server, stack.enter_context(httpx.Client(base_url=f"https://127.0.0.1:{server.server_address[1]}", verify=context))


def review(**request: object) -> dict[str, object]:
    return {"request": {"uid": "1", "operation": "CREATE", **request}}


@pytest.mark.parametrize(("body", "path", "status"), [
    (b"{}", webhook.PATH, 400), (b"[" * 100_000, webhook.PATH, 400), (b"\xff", webhook.PATH, 400), (b"{}", "/other", 404), (b" " * (webhook.BODY + 1), webhook.PATH, 413)])  # fmt: skip
def test_what_is_no_review_is_refused_and_the_server_lives_on(alone, body: bytes, path: str, status: int) -> None:
    _, http = alone

    with contextlib.suppress(httpx.WriteError):  # the answer comes before all of a body that is too long
        assert http.post(path, content=body).status_code == status
    assert http.get("/healthz").text == "ok"


def test_a_kind_that_the_engine_does_not_read_is_let_through(alone) -> None:
    _, http = alone
    asked = review(kind={"group": "example.com", "version": "v1", "kind": "Thing"}, object={"metadata": {"name": "x"}})

    assert http.post(webhook.PATH, json=asked).json()["response"] == {"uid": "1", "allowed": True}


def test_an_object_that_cannot_be_read_is_no_yes(alone) -> None:
    _, http = alone
    asked = review(kind={"group": "security.istio.io", "version": "v1", "kind": "PeerAuthentication"}, namespace="shop",
                   object={"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": "x"}, "spec": {"mtls": 5}})  # fmt: skip
    said = http.post(webhook.PATH, json=asked)

    assert said.status_code == 503 and "Traceback" not in said.text


def test_who_is_silent_or_speaks_no_tls_holds_up_nobody(alone) -> None:
    server, http = alone
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(socket.create_connection(server.server_address))
        plain = stack.enter_context(socket.create_connection(server.server_address))
        plain.sendall(b"POST /guard HTTP/1.1\r\n\r\n")

        assert http.get("/healthz").text == "ok"


def test_who_sends_byte_by_byte_is_cut_off_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "READ_S", 0.5)
    with served(lambda: (sources.load([str(cases.WORLD)]), "")) as (server, authority, _):
        context = ssl.create_default_context(cadata=authority)
        with socket.create_connection(server.server_address, timeout=10) as raw, context.wrap_socket(raw, server_hostname="127.0.0.1") as slow:
            slow.sendall(b"POST /guard HTTP/1.1\r\nContent-Length: 8000000\r\n\r\n")
            slow.settimeout(0.1)
            sent = 0
            while sent < 300:
                try:
                    assert slow.recv(1000) == b""
                    break
                except TimeoutError:
                    slow.sendall(b" ")
                    sent += 1
    assert sent < 300


def test_what_was_let_through_while_the_mesh_was_read_is_not_forgotten() -> None:
    mesh = sources.load([str(cases.WORLD)])
    asked = Asked(uid="1", operation="DELETE", kind={"group": "security.istio.io", "kind": "PeerAuthentication"}, namespace="shop", name="default")
    without_it = msgspec.structs.replace(mesh, peer_authentications=tuple(p for p in mesh.peer_authentications if (p.namespace, p.name) != ("shop", "default")))
    held, during = [mesh], []

    def read():
        found = held[0]
        for each in during:
            during.clear()
            assert judge.answer(each)["response"]["allowed"]  # the mesh's policy is STRICT too
            held[0] = without_it
        return found, ""

    judge = webhook.Judge(read, frozenset({"shop"}), False)
    judge.refresh()
    during.append(asked)
    judge.refresh()
    root = msgspec.structs.replace(asked, namespace="istio-system")

    assert not judge.answer(root)["response"]["allowed"]


def test_a_reading_that_is_not_whole_or_too_old_judges_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = sources.load([str(cases.WORLD)])
    whole = [""]
    judge = webhook.Judge(lambda: (mesh, whole[0]), None, False)
    asked = Asked(uid="1", operation="CREATE", kind={"group": "", "kind": "Pod"}, namespace="shop", name="new", object=cases.pod())
    with pytest.raises(webhook.Unjudged, match="not read yet"):
        judge.answer(asked)
    judge.refresh()
    assert judge.answer(asked)["response"]["allowed"]
    whole[0] = "DestinationRule could not be read"
    judge.refresh()
    with pytest.raises(webhook.Unjudged, match="DestinationRule could not be read"):
        judge.answer(asked)
    whole[0] = ""
    judge.refresh()
    monkeypatch.setattr(webhook, "STALE_S", 0.0)
    with pytest.raises(webhook.Unjudged, match="last read"):
        judge.answer(asked)


def test_erosion_does_not_teach_the_guard() -> None:
    mesh = sources.load([str(cases.WORLD)])
    held = [mesh]
    judge = webhook.Judge(lambda: (held[0], ""), None, False)
    judge.refresh()
    before = judge.kept
    held[0] = msgspec.structs.replace(mesh, peer_authentications=())
    judge.refresh()

    assert judge.kept == before and "shop" in before


def test_what_becomes_strict_later_is_not_kept_so_a_migration_can_go_back() -> None:
    mesh = sources.load([str(cases.WORLD)])
    held = [msgspec.structs.replace(mesh, peer_authentications=())]
    judge = webhook.Judge(lambda: (held[0], ""), None, False)
    judge.refresh()
    held[0] = mesh
    judge.refresh()
    keeper = cases.existing("PeerAuthentication", "web", "part")
    gone = Asked(uid="1", operation="DELETE", kind={"group": "security.istio.io", "kind": "PeerAuthentication"}, name="web", namespace="part", old_object=keeper)

    assert judge.kept == frozenset() and judge.answer(gone)["response"]["allowed"]


def test_each_object_of_a_collection_that_is_deleted_is_judged_though_the_request_has_no_name() -> None:
    judge = webhook.Judge(lambda: (sources.load([str(cases.WORLD)]), ""), None, False)
    judge.refresh()
    keeper = cases.existing("PeerAuthentication", "web", "part")
    asked = Asked(uid="1", operation="DELETE", kind={"group": "security.istio.io", "kind": "PeerAuthentication"}, namespace="part", old_object=keeper)

    one = msgspec.structs.replace(asked, name="web")
    assert judge.answer(one)["response"]["allowed"] is judge.answer(asked)["response"]["allowed"] is False


def test_a_rule_for_a_host_of_a_service_entry_is_judged_wherever_its_endpoints_are() -> None:
    mesh = sources.load([str(cases.WORLD)])
    entry = msgspec.convert({"metadata": {"name": "legacy", "namespace": "free"}, "spec": {"hosts": ["pay.example.com"]}}, ServiceEntry)
    mesh = msgspec.structs.replace(mesh, service_entries=(entry,))
    asked = Asked(uid="1", operation="CREATE", kind={"group": "networking.istio.io", "kind": "DestinationRule"}, namespace="free",
                  object=cases.rule("pay.example.com", cases.DISABLE))  # fmt: skip

    assert touched(mesh, asked, frozenset({"shop"})) == (frozenset(), frozenset({"shop"}))


def test_one_reading_that_fails_leaves_the_last_one_in_force_until_it_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh, broken = sources.load([str(cases.WORLD)]), [False]

    def read():
        if broken[0]:
            raise Unreachable("no answer")
        return mesh, ""

    judge = webhook.Judge(read, None, False)
    judge.refresh()
    broken[0] = True

    assert judge.refresh() == "no answer" and judge.ready() == ""
    monkeypatch.setattr(webhook, "STALE_S", 0.0)
    assert "no answer" in judge.ready()


def test_a_fault_while_reading_does_not_end_the_readings() -> None:
    mesh, times = sources.load([str(cases.WORLD)]), []
    seen = threading.Event()

    def read():
        times.append(1)
        if len(times) == 2:
            raise RuntimeError("a surprise")
        if len(times) > 2:
            seen.set()
        return mesh, ""

    context, _ = _tls("127.0.0.1", "", None, None, "")
    judge = webhook.Judge(read, None, False)
    judge.refresh()
    said: list[str] = []
    with webhook.serving(webhook.Server(("127.0.0.1", 0), context, judge, said.append), 0.01, said.append):
        assert seen.wait(30)
    assert "a surprise" in said[0]


def test_a_refusal_names_a_few_findings_and_counts_the_rest() -> None:
    many = [Finding(code="MT911", severity=Severity.ERROR, subject=f"Pod/shop/{n}", message="fell") for n in range(5)]
    said = json.dumps(answer("1", many))

    assert "Pod/shop/2" in said and "Pod/shop/3" not in said and "and 2 more" in said


# --- the verb ------------------------------------------------------------------------------------------------------------


def test_the_verb_serves_until_it_is_interrupted(tmp_path) -> None:
    config = tmp_path / "config.yaml"
    with standalone() as running, client(running) as http:
        judges.fill(http, [])
        http.post("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", json=INJECTOR).raise_for_status()
        command = [sys.executable, "-m", "meshtls.cli.main", "guard", "serve", "--kubeconfig", running.kubeconfig, "-A", "--listen", "127.0.0.1:0",
                   "--configuration", str(config), "--failure-policy", "Fail"]  # fmt: skip
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            try:
                first = process.stderr.readline() if process.stderr else ""
                http.post("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", json=yaml.safe_load(config.read_text())).raise_for_status()
                said = judges.ask(http, REFUSED["the keeper made PERMISSIVE"])
                process.send_signal(signal.SIGINT)
                rest = process.communicate(timeout=30)[1]
            finally:
                process.kill()

    assert "keeps amb, inherits, istio-system, part, shop" in first
    assert said.status_code == 403 and "MT914 Namespace/shop" in said.json()["message"]
    assert process.returncode == 130 and "Traceback" not in rest and "MT914 Namespace/shop" in rest


@pytest.mark.parametrize(("arguments", "why"), [
    (("--listen", "8443"), "write HOST:PORT"), (("--listen", "127.0.0.1:99999"), "write HOST:PORT"), (("--cert", "x"), "--cert and --key go together"),
    (("--service", "x"), "write NS/NAME")])  # fmt: skip
def test_what_cannot_be_served_is_an_error_of_usage(arguments, why) -> None:
    done = CliRunner().invoke(cli, ["guard", "serve", *arguments])

    assert done.exit_code == 2 and why in done.output


@pytest.mark.parametrize(("arguments", "why"), [
    (("--cert", "no", "--key", "no"), "no, no: cannot be used"), (("-n", "free"), "namespace free is not STRICT"), (("--listen", "192.0.2.1:1"), "cannot listen on 192.0.2.1:1")])  # fmt: skip
def test_what_cannot_be_served_on_this_cluster_is_one_line(arguments, why) -> None:
    with standalone() as running, client(running) as http:
        judges.fill(http, [])
        done = CliRunner().invoke(cli, ["guard", "serve", "--kubeconfig", running.kubeconfig, *arguments])

    assert isinstance(done.exception, MeshtlsError) and why in str(done.exception)
