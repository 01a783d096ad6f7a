"""Several namespaces on real Envoys: the order, the run wave by wave, what remains, and where each is."""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml
from scene import until

from meshtls.lab import Lab

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(manifests=[ROOT / "examples" / "shop"]) as lab:
        yield lab


def migrate(lab: Lab, *args: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "KUBECONFIG": lab.kubeconfig}
    command = [sys.executable, "-m", "meshtls.cli.main", "migrate", *args]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


def document(lab: Lab, *args: str) -> tuple[int, dict[str, Any]]:
    """Exit code and document of a command, which fits its schema."""
    done = migrate(lab, *args, "-o", "json")
    found = json.loads(done.stdout)
    schema = json.loads((ROOT / "docs" / "schemas" / f"{found['kind'].lower()}.schema.json").read_text())
    jsonschema.validate(found, schema)
    return done.returncode, found


def test_the_shop_can_go_and_the_others_are_blocked_by_name_with_the_ports_that_would_let_them(lab: Lab) -> None:
    def observed() -> Any:
        code, found = document(lab, "plan", "-A")
        places = {place["namespace"]: place for place in found["items"]}
        blockers = {b["client"] for b in places["payments"]["blockers"]} | {b["client"] for b in places["data"]["blockers"]}
        return (code, found, places) if {"Deployment/legacy/billing", "Deployment/monitoring/scraper"} <= blockers else None

    code, found, places = until(observed)
    assert code == 4
    assert found["waves"] == [["shop"]]
    assert {name: place["state"] for name, place in places.items()} == {
        "shop": "SAFE", "payments": "BLOCKED", "data": "BLOCKED", "platform": "BLOCKED", "legacy": "OUTSIDE", "monitoring": "OUTSIDE"}  # fmt: skip
    openings = {(o["workload"], *o["ports"]) for place in places.values() for o in place["openings"] if place["state"] == "BLOCKED"}
    assert openings >= {("Deployment/payments/gateway", 8080), ("StatefulSet/data/db", 9100), ("Deployment/platform/policy", 9443)}
    # nobody calls platform but the API server, and what nobody was heard at is not called safe
    assert {name: place["enough"] for name, place in places.items() if place["state"] == "BLOCKED"} == {"payments": True, "data": True, "platform": False}
    assert places["platform"]["because"].endswith("; and no arrival at any workload was logged")


def test_what_would_be_enough_is_enough(lab: Lab) -> None:
    """The exceptions of the plan are applied: then the same clients still come, and hold nothing."""
    _, found = document(lab, "plan", "-n", "platform,payments")
    with lab.client() as client:
        for place in found["items"]:
            for opening in place["openings"]:
                made = yaml.safe_load(opening["manifest"])
                there = [o for o in client.list("PeerAuthentication", made["metadata"]["namespace"]) if o["metadata"]["name"] == made["metadata"]["name"]]
                if there:
                    client.replace({**there[0], "spec": made["spec"]})
                else:
                    client.create(made)
    code, found = document(lab, "plan", "-n", "platform,payments")
    # nobody has called the webhook yet: nothing was heard there, so it is not known
    assert {(p["namespace"], p["state"]) for p in found["items"]} == {("platform", "UNKNOWN"), ("payments", "SAFE")}, found
    assert code == 4
    done = migrate(lab, "apply", "-n", "payments", "--yes", "--soak", "3s")
    assert done.returncode == 0, done.stderr
    assert migrate(lab, "rollback", "-n", "payments", "--yes").returncode == 0


def test_several_go_one_after_the_other_and_what_cannot_is_said_to_remain(lab: Lab) -> None:
    done = migrate(lab, "apply", "-n", "shop,data", "--yes", "--soak", "2s")
    assert done.returncode == 4, done.stderr
    assert "done: shop; remaining: data" in done.stderr
    with lab.client() as client:
        assert client.get("PeerAuthentication", "default", "shop")["spec"]["mtls"] == {"mode": "STRICT"}
        assert [o["metadata"]["name"] for o in client.list("PeerAuthentication", "data") if o["metadata"]["name"].startswith("meshtls")] == []
    code, found = document(lab, "status", "-A")
    assert code == 0
    assert {s["namespace"]: s["outcome"] for s in found["items"]}["shop"] == "DONE"
    assert migrate(lab, "rollback", "-n", "shop", "--yes").returncode == 0


def test_a_stage_that_somebody_else_applied_is_judged_by_the_same_gate(lab: Lab) -> None:
    """As a GitOps controller would: the policy comes from elsewhere, and meshtls only watches."""
    def strict(namespace: str) -> None:
        with lab.client() as client:
            client.create({"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "spec": {"mtls": {"mode": "STRICT"}},
                           "metadata": {"name": "from-git", "namespace": namespace}})  # fmt: skip

    assert migrate(lab, "verify", "-n", "shop").returncode == 2
    strict("shop")
    held = migrate(lab, "verify", "-n", "shop", "--soak", "2s")
    strict("data")
    broken = migrate(lab, "verify", "-n", "data", "--soak", "30s")
    with lab.client() as client:
        for namespace in ("shop", "data"):
            client.delete("PeerAuthentication", "from-git", namespace)

    assert held.returncode == 0, held.stderr
    assert "shop: HOLDS" in held.stderr
    assert broken.returncode == 4, broken.stderr
    assert "REFUSED Deployment/" in broken.stderr
