"""The lab's API answers as a recorded kube-apiserver 1.36.2 did, wording included: tests/data/apiserver.yaml, and
apiserver-more.yaml on what it fills in, refuses, warns of and whom it makes the owner of a field; apiserver-kubectl.yaml on
kubectl's verbs where they meet what others did before; apiserver-again.yaml on one small thing a request, from discovery to the
deletion of a page."""
import json
from pathlib import Path

import httpx
import pytest
import yaml
from recording import Case, ask, told

DATA = Path(__file__).parents[1] / "data"
OTHER_WORDS = {"pod-immutable"}
"""Answers that differ in wording only: the server appends a diff of its internal structs, which has no meaning outside
it."""


def in_any_order(answer: Case) -> Case:
    """Owners of fields are ordered by the second in which they wrote, then by name: the seconds of a recording do not come again."""
    kept = answer.get("keep") or {}
    owners = kept.get("metadata.managedFields")
    return answer if not owners else {**answer, "keep": {**kept, "metadata.managedFields": sorted(owners, key=json.dumps)}}


@pytest.mark.parametrize(("file", "count"), [("apiserver.yaml", 126), ("apiserver-more.yaml", 308),
                                              ("apiserver-kubectl.yaml", 44), ("apiserver-again.yaml", 188)])
def test_every_recorded_answer_comes_out_the_same(http: httpx.Client, file: str, count: int) -> None:
    """All cases in order, since later ones build on earlier ones."""
    cases = yaml.safe_load((DATA / file).read_text())
    answers, wrong = {}, []
    for case in cases:
        code, answer, headers = ask(http, case, answers)
        answers[case["id"]] = answer if isinstance(answer, dict) else {}
        got, want = in_any_order(told(case, code, answer, headers)), in_any_order(dict(case["want"]))
        if case["id"] in OTHER_WORDS:
            got, want = {"status": got["status"],
                         "reason": got["Status"]["reason"]}, {"status": 422, "reason": "Invalid"}
        if not case.get("setup") and got != want:
            wrong.append(f"{case['id']}: {case['method']} {case['path']}\n   want {want}\n   got  {got}")
    assert not wrong, "\n".join(wrong)
    assert sum(not case.get("setup") for case in cases) == count
