"""Mutated manifests: an error that names the place, or an answer; never a traceback, and never a pass that is none.

Seeds are printed. MESHTLS_FUZZ=100 runs a hundred times as many rounds.
"""

import copy
import json
import os
import random
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from meshtls import audit, sources
from meshtls.cli.main import cli
from meshtls.errors import InputError, MeshtlsError
from meshtls.model.check import Report, Status
from meshtls.report import FORMATS
from meshtls.sources.build import build
from meshtls.sources.document import Document
from tests.audit import cases

SEED = 20260822
ROUNDS = 20 * int(os.environ.get("MESHTLS_FUZZ", "1"))
TEXTS = sorted((Path(__file__).parent / "samples").glob("*.yaml")) + sorted((Path(__file__).parents[2] / "examples/shop").glob("*.yaml"))
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
            holder[rng.choice(["spec", "selector", "name", "x-unknown", "8080"])] = copy.deepcopy(holder[last])
        else:
            holder[last] = copy.deepcopy(rng.choice(STRANGE))
    return body


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_mutated_manifests_give_an_error_or_an_answer(round_):
    rng = random.Random(f"{SEED}-{round_}")
    answered = tried = 0
    while tried < 25 or (not answered and tried < 250):
        tried += 1
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

    print(f"seed {SEED}-{round_}: {answered} of {tried} meshes could be read")
    assert answered


NOISE = [b"\xff", b"\x00", b"\t", b"- ", b": ", b"{", b"]", b"&a ", b"*a", b"!!binary ", b"---\n", b"...\n", b"\xe2\x80\xae", b"'", b'"', b"# ", b"? ", b"| ",
         b"<<: ", b"1e999", b"0x1F", b"~", b"2026-01-01", b"yes", b"\r", b"%YAML 9.9\n", b"@", b"{{ .Values.x }}", b"\xef\xbb\xbf", b"  "]


def _scramble(data, rng):
    """Text with pieces taken out, doubled, swapped, cut off, or with noise in it."""
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        upto = min(len(data), at + rng.randint(1, 60))
        match rng.randrange(5):
            case 0:
                data = data[:at] + data[upto:]
            case 1:
                data = data[:upto] + data[at:upto] + data[upto:]
            case 2:
                data = data[:at] + rng.choice(NOISE) + data[at:]
            case 3:
                lines = data.splitlines(keepends=True)
                rng.shuffle(lines) if rng.random() < 0.2 else lines.reverse() if rng.random() < 0.1 else lines.insert(rng.randrange(len(lines) + 1), b"  x: y\n")
                data = b"".join(lines)
            case _:
                data = data[:at] if rng.random() < 0.3 else data
    return data


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_scrambled_text_is_an_error_or_an_answer_in_every_verb(tmp_path, round_):
    rng = random.Random(f"{SEED}-text-{round_}")
    file = tmp_path / "scrambled.yaml"
    for _ in range(3):
        data = _scramble(rng.choice(TEXTS).read_bytes(), rng)
        if rng.random() < 0.3:
            try:
                data = "\n".join(json.dumps(d) for d in yaml.safe_load_all(data)).encode()
            except (yaml.YAMLError, ValueError, TypeError, RecursionError):
                pass
        file.write_bytes(data)
        for verb in (["audit"], ["modes"], ["predict"], ["diff", str(file)], ["explain", "cart", "cart"]):
            done = CliRunner().invoke(cli, [*verb, str(file), "-o", "json"])
            error = done.exception
            said = f"seed {SEED}-text-{round_}, {verb[0]}: {error!r}"
            assert error is None or isinstance(error, SystemExit | MeshtlsError), said
            if isinstance(error, MeshtlsError):
                assert error.exit_code in (2, 3) and "\n" not in str(error) and "\x1b" not in str(error), said
            else:
                assert done.exit_code in (0, 1, 2, 3), said
                if done.exit_code in (0, 1) and done.stdout:
                    json.loads(done.stdout)


def _reworded(body, rng):
    """The same object, written otherwise: other order, unknown fields, nulls, as JSON's numbers allow."""
    if isinstance(body, dict):
        items = [(k, _reworded(v, rng)) for k, v in body.items()]
        rng.shuffle(items)
        return dict(items)
    return [_reworded(v, rng) for v in body] if isinstance(body, list) else body


def _extended(body, rng):
    body = _reworded(body, rng)
    body["metadata"] = {**body["metadata"], "managedFields": [{"manager": "x", "fieldsV1": {"f:spec": {}}}], "selfLink": None, "finalizers": []}
    if isinstance(body.get("spec"), dict):
        body["spec"] = {**body["spec"], "aFieldOfTomorrow": {"deep": [1, {"x": None}]}, "another": None}
    return body | {"status": body.get("status", {})} if rng.random() < 0.5 else body


FORMS = ("documents", "rendered chart", "list", "kind list", "json", "json lines", "folder")


def _write(form, bodies, folder):
    """`bodies` in one of the forms that are read; the path."""
    file = folder / "input.yaml"
    if form == "documents":
        file.write_text(yaml.safe_dump_all(bodies))
    elif form == "rendered chart":
        texts = [f"---\n# Source: chart/templates/{n}.yaml\n{yaml.safe_dump(body)}" for n, body in enumerate(bodies)]
        file.write_text("\n---\n# Source: chart/templates/off.yaml\n".join(["", *texts, ""]))
    elif form == "list":
        file.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": bodies}))
    elif form == "kind list":
        kinds = {}
        for body in bodies:
            kinds.setdefault((body["apiVersion"], body["kind"]), []).append({k: v for k, v in body.items() if k not in ("apiVersion", "kind")})
        file.write_text(yaml.safe_dump_all([{"apiVersion": api, "kind": f"{kind}List", "items": items} for (api, kind), items in kinds.items()]))
    elif form == "json":
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": bodies}))
    elif form == "json lines":
        file.write_text("\n".join(map(json.dumps, bodies)))
    else:
        for number, body in enumerate(bodies):
            (folder / f"{number}.{'json' if number % 2 else 'yml'}").write_text(json.dumps(body))
        (folder / "values.yaml").write_text("replicas: 1\n")
        return folder
    return file


@pytest.mark.parametrize("form", FORMS)
def test_a_flaw_is_found_however_its_objects_are_written(tmp_path, form):
    """Every bad case in every form of input: order, lists, unknown fields and nulls hide nothing."""
    rng = random.Random(f"{SEED}-{form}")
    rules = {rule.code: rule for rule in audit.RULES}
    for number, (code, name, case) in enumerate(c for c in cases.everything() if c[2].get("find") and not c[2].get("live")):
        bodies = [_extended(document.body, rng) for document in cases.documents(cases.objects(case))]
        folder = tmp_path / str(number)
        folder.mkdir()
        (check,) = audit.check(sources.load([str(_write(form, bodies, folder))]), rules=(rules[code],))
        assert sorted({f.subject for f in check.findings}) == sorted(case["find"]), (code, name, form)


WRONG = [
    ({"metadata": {"name": "x", "namespace": "shop", "labels": {"app": 1}}}, "labels"),
    ({"metadata": {"name": "x", "namespace": "shop"}, "spec": {"mtls": {"mode": "STRCT"}}}, "mode"),
    ({"metadata": {"name": "x", "namespace": "shop"}, "spec": {"mtls": "STRICT"}}, "mtls"),
    ({"metadata": {"name": "x", "namespace": "shop"}, "spec": {"selector": ["app"]}}, "selector"),
    ({"metadata": {"name": "x", "namespace": ["shop"]}}, "namespace"),
    ({"metadata": {"namespace": "shop"}}, "metadata.name"),
]


@pytest.mark.parametrize(("body", "field"), WRONG)
def test_a_field_of_the_wrong_type_is_an_error_that_names_it_and_no_pass(tmp_path, body, field):
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump({"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", **body}))

    with pytest.raises(InputError, match=r"wrong\.yaml:1.*") as caught:
        sources.load([str(file)])
    assert field in str(caught.value)


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
