"""Mutated manifests: an error that names the place, or an answer; never a traceback, and never fewer answers than questions."""

import copy
import random
from pathlib import Path

import pytest
import yaml

from meshtls import audit
from meshtls.errors import InputError
from meshtls.model.check import Report, Status
from meshtls.report import FORMATS
from meshtls.sources.build import build
from meshtls.sources.document import Document
from tests.audit import cases

SEED = 20260822
SAMPLES = [doc for path in sorted((Path(__file__).parent / "samples").glob("*.yaml")) for doc in yaml.safe_load_all(path.read_text())]
CASES = [doc.body for _, name, case in cases.everything() if name.startswith("bad") for doc in cases.documents(case["objects"])]
STRANGE = [None, 0, -1, 2**70, 1.5, True, "", "a" * 300, "\x00\x1b[31m", "\u202e", "*", "..", "/", "1.2.3.4/99", [], {}, [None], {"": ""}, [[]], "a=b,c", "-"]


def _spots(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from _spots(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield (*path, index)
            yield from _spots(inner, (*path, index))


def _mutate(body, rng):
    body = copy.deepcopy(body)
    for _ in range(rng.randint(1, 3)):
        spots = list(_spots(body))
        *path, last = rng.choice(spots)
        holder = body
        for step in path:
            holder = holder[step]
        if rng.random() < 0.25:
            del holder[last]
        elif rng.random() < 0.3 and isinstance(holder, dict):
            holder[rng.choice(["spec", "selector", "name", "x-unknown", "8080"])] = holder[last]
        else:
            holder[last] = rng.choice(STRANGE)
    return body


@pytest.mark.parametrize("round_", range(20))
def test_mutated_manifests_give_an_error_or_an_answer(round_):
    rng = random.Random(f"{SEED}-{round_}")
    answered = 0
    for _ in range(25):
        bodies = [_mutate(body, rng) if rng.random() < 0.2 else body for body in rng.sample(SAMPLES + CASES, 12)]
        documents = [Document(api_version=str(b.get("apiVersion", "")), kind=str(b.get("kind", "")), body=b, file="fuzz.yaml", line=1) for b in bodies]
        try:
            mesh = build(documents)
        except InputError as error:
            assert "fuzz.yaml" in str(error) or "data.mesh" in str(error)
            continue
        checks = audit.check(mesh)
        assert len(checks) == len(audit.RULES)
        assert all(check.reason for check in checks if check.status is Status.SKIP)
        report = Report(kind="AuditReport", title="fuzz", checks=tuple(checks))
        for form in FORMATS.values():
            assert "\x1b" not in form(report)
        answered += 1

    print(f"seed {SEED}-{round_}: {answered} of 25 meshes could be read")
    assert answered


def test_objects_that_have_nothing_to_do_with_a_flaw_do_not_hide_it():
    rng = random.Random(SEED)
    names = [case for _, name, case in cases.everything() if name == "bad"]
    for case in rng.sample(names, 40):
        before = _found(case["objects"], case)
        more = {"Namespace/far-away": {}, "ConfigMap/far-away/settings": {"data": {"a": "b"}},
                "Service/far-away/idle": {"spec": {"selector": {"app": "idle"}, "ports": [{"name": "http", "port": 80}]}}}
        assert before <= _found({**case["objects"], **more}, case)


def _found(objects, case):
    return {(f.code, f.subject) for check in audit.check(cases.mesh({**case, "objects": objects})) for f in check.findings}


def test_the_order_of_the_input_changes_nothing():
    rng = random.Random(SEED)
    documents = [Document(api_version=b["apiVersion"], kind=b["kind"], body=b, file="x.yaml") for b in SAMPLES]
    first = audit.check(build(documents))
    for _ in range(5):
        rng.shuffle(documents)
        assert audit.check(build(documents)) == first
