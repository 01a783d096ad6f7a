"""Istio's rules that random meshes brought up, held by the policy engine."""

import policy_meshes as meshes
import pytest

from meshtls.policy.server import modes
from tests.laws import LAWS, objects


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law["name"])
def test_the_engine_holds(law):
    found = meshes.mesh(objects(law))
    said = {f"{m.namespace}/{m.workload.removeprefix('Pod/')}": m for m in modes(found)}
    calls = meshes.calls(found, direct=True)
    for question, want in law.get("calls", {}).items():
        client, server, port = question.split()
        assert list(calls[f"Pod/{client}", server, int(port)]) == want, question
    for question, want in law.get("modes", {}).items():
        pod, port = question.split()
        assert said[pod].ports.get(port, said[pod].mode) == want, question
    assert "calls" in law or "modes" in law
