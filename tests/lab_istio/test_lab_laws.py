"""Istio's rules that random meshes brought up, held by the lab's translation."""

import pytest
import recordings
import simulate

from meshtls.lab.istio.world import World
from tests.laws import LAWS, objects


@pytest.mark.parametrize("law", [law for law in LAWS if law.get("only") != "engine"], ids=lambda law: law["name"])
def test_the_lab_holds(law):
    mesh = simulate.Mesh(World.of(objects(law)))
    for question, want in law.get("calls", {}).items():
        answers = recordings.call(mesh, question)
        sends, verdicts = {a[2] for a in answers}, {a[3] for a in answers}
        verdict = "BREAKS" if "BREAKS" in verdicts else "WORKS" if verdicts == {"WORKS"} else "UNKNOWN"
        assert [sends.pop() if len(sends) == 1 else "mixed", verdict] == want, question
    for question, want in law.get("modes", {}).items():
        pod, port = question.split()
        assert recordings.modes(mesh, pod, [port]) == {port: want}, question
    assert "calls" in law or "modes" in law
