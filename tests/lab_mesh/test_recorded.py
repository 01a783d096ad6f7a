"""Recorded meshes brought up on real Envoys: every recorded call is made, and the wire says what istiod's simulation said.

Nobody's word is taken: whether bytes are TLS with Istio's ALPN, other TLS or plaintext is read off the packets between the pods. `cluster.jsonl.gz` holds
the first meshes of istiod.jsonl.gz as a cluster would hold them (host names whole, container ports with their protocol), answered by the same
istiod's simulation. MESHTLS_LAB_MESHES says how many.
"""

import gzip
import json
import os
import pathlib

import pytest

from tests.lab_mesh import recorded
from tests.lab_mesh.rig import Json, rig

RECORDING = pathlib.Path(__file__).parents[1] / "data" / "conformance" / "cluster.jsonl.gz"
COUNT = int(os.environ.get("MESHTLS_LAB_MESHES", "20"))
pytestmark = pytest.mark.lab


def meshes() -> list[Json]:
    with gzip.open(RECORDING) as file:
        return [json.loads(line) for line in file][:COUNT]


def same(met: set[recorded.Cell], expected: frozenset[recorded.Cell]) -> bool:
    """Nothing else was met, and each kind of outcome was. Which of several like endpoints a kept connection leads to is chance."""
    return met <= expected and {(c.sends, c.verdict) for c in met} == {(c.sends, c.verdict) for c in expected}


@pytest.mark.parametrize("mesh", meshes(), ids=lambda mesh: str(mesh["seed"]))
def test_every_recorded_call_is_the_same_on_the_wire(mesh: Json) -> None:
    questions = recorded.questions(mesh["objects"], mesh["now"])
    wrong = []
    with rig(recorded.declared(mesh["objects"]), recorded.pods(mesh["objects"], questions), recorded.settings(mesh["objects"])) as wire:
        for question in questions:
            met = recorded.ask(wire, question)
            if not same(met, question.expected):
                wrong.append((question.text, sorted(question.expected), sorted(met)))
    assert not wrong, f"{len(wrong)} of {len(questions)} differ, the first: {wrong[:3]}"
    assert questions
