"""The admission policy that keeps a namespace STRICT, judged by an API server that evaluates it."""

import json
from pathlib import Path

import httpx
import pytest

from meshtls.errors import GateError, InputError
from meshtls.guard.admission import Achieved, Allowance, achieved, admission
from meshtls.sources import load
from tests.lone_api import standalone

KEPT = Achieved(
    "shop",
    "default",
    (Allowance("db", (("app", "db"),), "3306", "PERMISSIVE"), Allowance("old", (("app", "old"),), "", "PERMISSIVE")),
)


def policy(name="default", mode=None, ports=None, labels=None, namespace="shop"):
    spec = {}
    if labels is not None:
        spec["selector"] = {"matchLabels": labels}
    if mode is not None:
        spec["mtls"] = {"mode": mode}
    if ports:
        spec["portLevelMtls"] = {port: {"mode": value} for port, value in ports.items()}
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


EXISTING = (
    policy(mode="STRICT"),
    policy("db", "STRICT", {"3306": "PERMISSIVE"}, {"app": "db"}),
    policy("old", "PERMISSIVE", labels={"app": "old"}),
)


@pytest.fixture(scope="module")
def api():
    def prepare(store):
        for name in ("shop", "other"):
            store.create("namespaces", {"apiVersion": "v1", "kind": "Namespace", "spec": {"finalizers": ["kubernetes"]},
                                        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}})  # fmt: skip
        for obj in EXISTING:
            store.create("peerauthentications.security.istio.io", obj)

    import ssl

    with standalone(prepare=prepare) as running:
        context = ssl.create_default_context(cafile=running.ca)
        with httpx.Client(
            base_url=running.server, verify=context, headers={"Authorization": f"Bearer {running.token}"}
        ) as http:
            for obj in admission(KEPT):
                plural = (
                    "validatingadmissionpolicybindings"
                    if obj["kind"].endswith("Binding")
                    else "validatingadmissionpolicies"
                )
                assert http.post(f"/apis/admissionregistration.k8s.io/v1/{plural}", json=obj).status_code == 201
            yield http


def path(namespace="shop", name=""):
    return f"/apis/security.istio.io/v1/namespaces/{namespace}/peerauthentications" + (f"/{name}" if name else "")


DRY = {"dryRun": "All"}

ALLOWED = {
    "another STRICT one": policy("more", "STRICT"),
    "a workload that inherits": policy("w", labels={"app": "w"}),
    "a workload that says UNSET": policy("w", "UNSET", labels={"app": "w"}),
    "a STRICT workload with a STRICT port": policy("w", "STRICT", {"80": "STRICT", "81": "UNSET"}, {"app": "w"}),
    "another namespace": policy("w", "DISABLE", labels={"app": "w"}, namespace="other"),
}
REFUSED = {
    "PERMISSIVE for the namespace": policy("n", "PERMISSIVE"),
    "DISABLE for the namespace": policy("n", "DISABLE"),
    "no mode for the namespace": policy("n"),
    "UNSET for the namespace": policy("n", "UNSET"),
    "an empty selector, which is the namespace": policy("n", "UNSET", labels={}),
    "a PERMISSIVE workload": policy("w", "PERMISSIVE", labels={"app": "w"}),
    "a new port exception": policy("w", "STRICT", {"80": "PERMISSIVE"}, {"app": "w"}),
    "a DISABLE port": policy("w", None, {"80": "DISABLE"}, {"app": "w"}),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_as_strict_is_let_through(api, case):
    answer = api.post(path(ALLOWED[case]["metadata"]["namespace"]), json=ALLOWED[case], params=DRY)
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_weaker_is_refused_with_the_way_out(api, case):
    answer = api.post(path(), json=REFUSED[case], params=DRY)
    assert answer.status_code == 403, answer.text
    assert "namespace shop is kept STRICT" in answer.json()["message"]
    assert "kubectl delete validatingadmissionpolicybinding meshtls-keep-strict-shop" in answer.json()["message"]


@pytest.mark.parametrize(
    ("name", "change", "status"),
    [
        ("db", {"metadata": {"labels": {"team": "x"}}}, 200),
        ("db", {"spec": {"portLevelMtls": {"3306": {"mode": "STRICT"}}}}, 200),
        ("db", {"spec": {"portLevelMtls": {"3306": {"mode": "DISABLE"}}}}, 403),
        ("db", {"spec": {"portLevelMtls": {"3307": {"mode": "PERMISSIVE"}}}}, 403),
        ("db", {"spec": {"selector": {"matchLabels": {"tier": "x"}}}}, 403),
        ("db", {"spec": {"mtls": {"mode": "PERMISSIVE"}}}, 403),
        ("old", {"metadata": {"labels": {"team": "x"}}}, 200),
        ("old", {"spec": {"mtls": {"mode": "STRICT"}}}, 200),
        ("old", {"spec": {"mtls": {"mode": "DISABLE"}}}, 403),
        ("default", {"metadata": {"labels": {"team": "x"}}}, 200),
        ("default", {"spec": {"mtls": {"mode": "PERMISSIVE"}}}, 403),
        ("default", {"spec": {"selector": {"matchLabels": {"app": "one"}}}}, 403),
    ],
)
def test_todays_exceptions_stay_and_grow_no_wider(api, name, change, status):
    answer = api.patch(
        path(name=name),
        content=json.dumps(change),
        params=DRY,
        headers={"Content-Type": "application/merge-patch+json"},
    )
    assert answer.status_code == status, answer.text


def test_the_keeper_is_not_deleted_and_the_others_are(api):
    answer = api.request("DELETE", path(name="default"), params=DRY)
    assert (
        answer.status_code == 403
        and "PeerAuthentication shop/default is what keeps the namespace STRICT" in answer.json()["message"]
    )
    assert api.request("DELETE", path(name="db"), params=DRY).status_code == 200


def test_achieved_reads_keeper_and_exceptions_from_the_mesh(tmp_path: Path):
    file = tmp_path / "mesh.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(EXISTING)}))
    assert achieved(load([str(file)]), "shop") == KEPT


@pytest.mark.parametrize(
    ("policies", "why"),
    [
        ([], "has no namespace-wide PeerAuthentication"),
        ([policy(mode="PERMISSIVE")], "is PERMISSIVE by PeerAuthentication/shop/default"),
        ([policy(mode="STRICT", namespace="istio-system")], "has no namespace-wide PeerAuthentication"),
        ([policy("w", "STRICT", labels={"app": "w"})], "has no namespace-wide PeerAuthentication"),
    ],
)
def test_there_is_nothing_to_keep_where_nothing_was_achieved(tmp_path, policies, why):
    file = tmp_path / "mesh.json"
    file.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "List",
                "items": [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}, *policies],
            }
        )
    )
    with pytest.raises(GateError, match=why):
        achieved(load([str(file)]), "shop")


def test_it_is_introduced_step_by_step():
    for actions in (("Audit",), ("Audit", "Warn"), ("Audit", "Deny")):
        assert admission(KEPT, actions)[1]["spec"]["validationActions"] == list(actions)
    for actions in ((), ("Warn", "Deny"), ("Nonsense",)):
        with pytest.raises(InputError, match="cannot be the actions"):
            admission(KEPT, actions)
