"""A dump stands in for what was read: equal answers, nothing secret, and names that can be replaced without changing an answer."""

import json
from pathlib import Path

import pytest

from meshtls import audit, sources
from meshtls.cli import output
from meshtls.policy.predict import predict
from meshtls.policy.server import modes
from meshtls.sources.dump import narrowed, write
from meshtls.sources.pseudonyms import Pseudonyms
from tests.audit import cases

EXAMPLES = Path(__file__).parents[2] / "examples/shop"
SAMPLES = Path(__file__).parents[1] / "audit/samples"
SALT = "pepper"
INPUTS = {"shop": [str(EXAMPLES)], "samples": [str(p) for p in sorted(SAMPLES.glob("*.yaml"))]}


def _dumped(mesh, tmp_path, **how):
    path = tmp_path / "dump.json"
    path.write_bytes(b"".join(write(mesh, **how)))
    return sources.load([str(path)])


def _answers(mesh):
    """Everything that the verbs say of a mesh, in words."""
    found = [(c.id, str(c.status), f.subject, str(f.severity), f.path) for c in audit.check(mesh) for f in c.findings or [None] if f]
    statuses = [(c.id, str(c.status)) for c in audit.check(mesh)]
    calls = [(p.client, p.server, p.port, str(p.target_port), p.sends, p.verdict) for p in predict(mesh)]
    lived = [(m.namespace, m.workload, m.dataplane, m.mode, tuple(m.ports.items())) for m in modes(mesh)]
    return found, statuses, calls, lived


@pytest.mark.parametrize("name", INPUTS)
def test_a_dump_answers_as_what_was_read(name, tmp_path):
    mesh = sources.load(INPUTS[name])

    assert _answers(_dumped(mesh, tmp_path)) == _answers(mesh)


def test_a_dump_of_every_case_answers_as_the_case(tmp_path):
    rules = {rule.code: rule for rule in audit.RULES}
    for code, name, case in cases.everything():
        mesh = cases.mesh(case)
        (was,), (now,) = (audit.check(m, rules=(rules[code],)) for m in (mesh, _dumped(mesh, tmp_path)))
        assert {f.subject for f in now.findings} == {f.subject for f in was.findings}, (code, name)


@pytest.mark.parametrize("name", INPUTS)
def test_pseudonyms_change_names_and_no_answer(name, tmp_path):
    mesh = sources.load(INPUTS[name])
    rename = Pseudonyms(mesh, SALT)
    hidden = _dumped(mesh, tmp_path, pseudonyms=True, salt=SALT)

    def words(value):
        if isinstance(value, tuple | list):
            return type(value)(words(v) for v in value)
        return rename.text(value) if isinstance(value, str) else value

    was, now = _answers(mesh), _answers(hidden)
    for before, after in zip(was, now, strict=True):
        assert sorted(map(repr, words(before))) == sorted(map(repr, after))
    text = (tmp_path / "dump.json").read_text()
    for ref in ("shop", "inventory", "payments") if name == "shop" else ("monitoring-stack", "kafka-cluster"):
        assert f'"{ref}"' not in text


def test_nothing_secret_is_in_a_dump(tmp_path):
    container = {
        "name": "app", "image": "registry.example.com/team/app:1", "args": ["--password=pa55-in-args", "--db=postgres://root:pa55-in-url@db.data/x"],
        "command": ["sh", "-c", "echo pa55-in-command"],
        "env": [{"name": "PASSWORD", "value": "pa55word"}, {"name": "TOKEN", "value": "hunter2"}, {"name": "DB", "value": "mysql://u:pa55-in-env@db.data:3306/x"}],
        "livenessProbe": {"exec": {"command": ["check", "pa55-in-probe"]}},
        "readinessProbe": {"httpGet": {"port": 80, "httpHeaders": [{"name": "Authorization", "value": "pa55-in-header"}]}},
    }
    notes = {"example.com/token": "pa55-in-annotation", "nginx.ingress.kubernetes.io/configuration-snippet": "pa55-in-snippet"}
    case = {"objects": {
        "Service/data/db": {"spec": {"selector": {"app": "db"}, "ports": [{"port": 3306}]}},
        "Deployment/shop/app": {"annotations": notes, "spec": {"template": {"metadata": {"annotations": notes}, "spec": {"containers": [container]}}}},
        "HTTPRoute/shop/web": {"spec": {"rules": [{"filters": [
            {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "authorization", "value": "pa55-in-route"}]}}]}]}},
        "EnvoyFilter/shop/lua": {"spec": {"configPatches": [{"applyTo": "HTTP_FILTER", "patch": {"value": {"code": "pa55-in-patch"}}}]}},
    }}
    text = b"".join(write(cases.mesh(case))).decode()

    assert "pa55" not in text and "hunter2" not in text
    (kept,) = [i for i in json.loads(text)["items"] if i["metadata"]["name"] == "app" and i["kind"] == "Deployment" and i["metadata"].get("namespace") == "shop"]
    (inside,) = kept["spec"]["template"]["spec"]["containers"]
    assert inside["env"] == [{"name": "DB", "value": "db.data"}] and inside["args"] == ["db.data"] and inside["command"] == []


def test_a_dump_of_some_namespaces_keeps_the_root():
    mesh = sources.load(INPUTS["shop"])
    kept = narrowed(mesh, frozenset({"data"}))

    assert {o.metadata.namespace for o in kept.objects()} <= {"", "data", "istio-system"}
    assert kept.namespaces == mesh.namespaces


def test_what_could_not_be_read_is_said_in_the_dump(tmp_path):
    import msgspec

    mesh = msgspec.structs.replace(sources.load(INPUTS["shop"]), absent={"Service": "forbidden: may not list services"}, live=True)
    again = _dumped(mesh, tmp_path)

    assert again.absent == mesh.absent and again.live
    (check,) = [c for c in audit.check(again) if c.id == "MT201"]
    assert check.status == "SKIP" and "may not list services" in check.reason


def test_one_salt_gives_one_set_of_names():
    mesh = sources.load(INPUTS["shop"])

    assert Pseudonyms(mesh, "a").names == Pseudonyms(mesh, "a").names != Pseudonyms(mesh, "b").names
    assert output  # the verb writes with a salt of its own
