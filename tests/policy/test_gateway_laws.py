"""What istiod makes of Gateway API objects of the mesh, held by the policy engine."""

import policy_meshes as meshes
import pytest
import yaml

from meshtls.policy.engine import Engine
from meshtls.policy.explain import explain
from meshtls.policy.predict import groups
from tests.laws import DATA, objects

LAWS = yaml.safe_load((DATA / "gateway-laws.yaml").read_text())
GATEWAY = ("HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute", "BackendTLSPolicy")


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law["name"])
def test_the_engine_holds(law):
    calls = meshes.calls(meshes.mesh(objects(law)))

    for question, want in law["calls"].items():
        client, server, port = question.split()
        assert list(calls[f"Pod/{client}", server, int(port)]) == want, question


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law["name"])
def test_what_does_nothing_is_said_and_nothing_else(law):
    ignored = {i.because.object: i.because.says for i in Engine.of(meshes.mesh(objects(law))).control("").ignored}

    wanted = law.get("ignored", {})
    assert list(ignored) == list(wanted)
    assert all(word in ignored[ref] for ref, word in wanted.items()), ignored


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law["name"])
def test_every_object_is_named_where_its_service_is_explained(law):
    """An object of the Gateway API either decided a call of the law, or the explanation of one says why it did not."""
    found = meshes.mesh(objects(law))
    named = {
        step.because.object
        for client, server, port in (question.split() for question in law["calls"])
        for answer in explain(found, f"Pod/{client}", f"{server}:{port}")
        for step in answer.steps
        if step.because
    }

    declared = {obj.ref for obj in found.objects() if obj.kind in GATEWAY}
    assert {ref for ref in declared if not _of_nobody(found, ref)} <= named


def _of_nobody(found, ref):
    """Whether a policy's targets do not exist, so that there is no call to explain."""
    obj = found.find(ref)
    targets = getattr(obj.spec, "target_refs", ())
    return bool(targets) and not any(found.find(f"{t.kind}/{obj.namespace}/{t.name}") for t in targets)


def test_the_decision_names_the_route_and_its_rule():
    law = next(law for law in LAWS if law["name"].startswith("a match with a method"))
    (group,) = [g for g in groups(meshes.mesh(objects(law))) if g.server == "Service/shop/server" and "Pod/front/client" in g.clients]

    assert ("HTTPRoute/shop/httproute-0", "spec.rules[1]") in [(b.object, b.path) for b in group.outcome.because]


def test_the_decision_names_the_policy():
    law = next(law for law in LAWS if law["name"].startswith("STRICT refuses"))
    (group,) = [g for g in groups(meshes.mesh(objects(law))) if "Pod/front/client" in g.clients]

    assert ("BackendTLSPolicy/shop/backendtlspolicy-1", "spec.validation") in [(b.object, b.path) for b in group.outcome.because]
