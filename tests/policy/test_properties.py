"""What holds of every mesh: asked of recorded random meshes, of sidecars and of ambient pods.

A policy that cannot apply changes nothing; the order of the input decides nothing; STRICT never changes what a client offers;
`predict --strict` is `predict` on the edited files.
"""

import copy
import json
import random
from functools import cache

import policy_meshes as meshes
import pytest
import yaml
from click.testing import CliRunner

from meshtls.audit.facts import Facts
from meshtls.cli.main import cli
from meshtls.policy.change import strict
from meshtls.policy.engine import Engine
from meshtls.policy.fix import fix_for
from meshtls.policy.predict import groups
from meshtls.policy.server import modes
from meshtls.sources.build import laid_over
from meshtls.sources.document import Document

SEED = 20261125
FILES = {"istiod.jsonl.gz": 30, "ambient.jsonl.gz": 30}


@cache
def _recorded(name):
    return list(meshes.recorded(name))


def _sample(count=None):
    """Some meshes of each recording; which ones is said by the seed."""
    for name, most in FILES.items():
        for each in random.Random(SEED).sample(_recorded(name), count or most):
            yield f"{name} {each['seed']}", each["objects"]


def _modes(found):
    return {(m.namespace, m.workload): (m.dataplane, m.mode, m.ports) for m in modes(found)}


def _answers(objects):
    found = meshes.mesh(objects, domain="")
    return _modes(found), meshes.calls(found, direct=True)


def _namespaces(objects):
    return sorted(o["metadata"]["name"] for o in objects if o["kind"] == "Namespace")


def _root(objects):
    return next((o["metadata"]["namespace"] for o in objects if o["kind"] == "ConfigMap" and o["metadata"]["name"] == "istio"), "istio-system")


def _policy(namespace, name, **more):
    labels = more.pop("labels", {})
    meta = {"name": name, "namespace": namespace, "creationTimestamp": "2999-01-01T00:00:00Z", "labels": labels}
    return {"kind": "PeerAuthentication", "metadata": meta, "spec": {"mtls": {"mode": "STRICT"}, **more}}


def _idle(objects, namespace):
    """Policies that cannot apply to anything in these objects."""
    wide = any(o["kind"] == "PeerAuthentication" and o["metadata"]["namespace"] == namespace and "selector" not in o["spec"] for o in objects)
    yield "in a namespace of nobody", _policy("nobody-lives-here", "idle")
    yield "with a selector that matches nothing", _policy(namespace, "idle", selector={"matchLabels": {"app": "no-such"}})
    yield "with a selector in the root namespace", _policy(_root(objects), "idle", selector={"matchLabels": {"no": "such"}})
    yield "of another revision", _policy(namespace, "idle", labels={"istio.io/rev": "of-nobody"})
    if wide:
        yield "younger than the namespace's", _policy(namespace, "zzz-idle")


def test_a_policy_that_cannot_apply_changes_nothing():
    asked = 0
    for name, objects in _sample(15):
        before = _answers(objects)
        for namespace in _namespaces(objects)[:2]:
            for what, policy in _idle(objects, namespace):
                assert _answers([*objects, policy]) == before, f"mesh {name}: a policy {what}, namespace {namespace}"
                asked += 1
    assert asked > 200, asked


def test_a_policy_that_applies_does_change_something():
    """The control of the test before: STRICT for all, where somebody was not STRICT, is seen."""
    changed = 0
    for _, objects in _sample(20):
        others = [o for o in objects if o["kind"] != "PeerAuthentication"]
        changed += _answers(others) != _answers([*others, _policy(_root(objects), "default")])
    assert changed == 40


def test_the_order_of_the_input_decides_nothing():
    rng = random.Random(SEED)
    for name, objects in _sample():
        before = _answers(objects)
        shuffled = copy.copy(objects)
        rng.shuffle(shuffled)
        assert _answers(shuffled) == before, f"mesh {name}, seed {SEED}"


def test_strict_never_changes_what_a_client_offers():
    """From PERMISSIVE; a namespace that is DISABLE is another matter, since clients heed that."""
    asked = 0
    for name, objects in _sample():
        found = meshes.mesh(objects, domain="")
        authn = Engine.of(found, "").control("").authn
        before = meshes.calls(found, direct=True)
        for namespace in _namespaces(objects):
            if authn.hint(namespace)[0] == "DISABLE" or _disabled(objects, namespace):
                continue
            after = strict(found, [namespace])
            Engine.of(after, "")
            offers = meshes.calls(after, direct=True)
            changed = {call: (before[call][0], offers[call][0]) for call in before.keys() & offers.keys() if before[call][0] != offers[call][0]}
            assert changed == {}, f"mesh {name}, namespace {namespace} STRICT"
            assert {call for call in before if call[1].startswith("Service/")} <= offers.keys()
            asked += 1
    assert asked > 60


def _disabled(objects, namespace):
    """Would STRICT of a namespace lift a DISABLE? Of the root's own, for all that inherit it."""
    return any(o["kind"] == "PeerAuthentication" and o["metadata"]["namespace"] in (namespace, _root(objects))
               and o["spec"].get("mtls", {}).get("mode") == "DISABLE" and "selector" not in o["spec"] for o in objects)


def _edited(objects, namespace):
    """The files as an administrator would edit them: the policy that wins for the namespace says STRICT, or one is added."""
    objects = copy.deepcopy(objects)
    wide = [o for o in objects if o["kind"] == "PeerAuthentication" and o["metadata"]["namespace"] == namespace
            and not (o["spec"].get("selector") or {}).get("matchLabels")]
    if wide:
        winner = min(wide, key=lambda o: (o["metadata"].get("creationTimestamp") or "", o["metadata"]["name"]))
        winner["spec"]["mtls"] = {"mode": "STRICT"}
    else:
        names = {o["metadata"]["name"] for o in objects if o["kind"] == "PeerAuthentication" and o["metadata"]["namespace"] == namespace}
        policy = _policy(namespace, "default-strict" if "default" in names else "default")
        objects.append(policy)
    return objects


def test_predict_strict_is_predict_on_the_edited_files():
    for name, objects in _sample():
        for namespace in _namespaces(objects):
            after = strict(meshes.mesh(objects, domain=""), [namespace])
            Engine.of(after, "")
            modes_, calls = _answers(_edited(objects, namespace))
            assert (_modes(after), meshes.calls(after, direct=True)) == (modes_, calls), f"mesh {name}, namespace {namespace}"


def test_the_audit_judges_by_the_modes_of_the_engine():
    asked = 0
    for name, objects in _sample():
        found = meshes.mesh(objects)
        facts, engine = Facts(found), {(m.namespace, m.workload): m for m in modes(found)}
        for w in facts.in_mesh:
            mode = engine[w.namespace, w.label]
            ports = {port: facts.mode(w, int(port)) for port, said in mode.ports.items() if said != "NONE"}
            assert (facts.mode(w), ports) == (mode.mode, {p: m for p, m in mode.ports.items() if m != "NONE"}), f"mesh {name}: {w.ref}"
            asked += 1
    assert asked > 300


def test_an_exception_for_a_captured_workload_opens_its_port_alone():
    """On ambient meshes: after the fix only the port that it names takes plaintext."""
    asked = 0
    for name, objects in _sample(25):
        if not name.startswith("ambient"):
            continue
        found = strict(meshes.mesh(objects), [_root(objects)])
        before = _modes(found)
        for group in [g for g in groups(found, direct=True) if g.verdict == "BREAKS"]:
            text = fix_for(found, group)
            body = yaml.safe_load(text) if "kind: PeerAuthentication" in text else None
            if body is None:
                continue
            after = _modes(laid_over(found, [Document(body["apiVersion"], body["kind"], body)], lambda _: ""))
            for key, (_, mode, ports) in before.items():
                for port, was in [("*", mode), *ports.items()]:
                    now = after[key][2].get(port, after[key][1])
                    opened = was == "STRICT" and now != "STRICT"
                    assert not opened or port in body["spec"]["portLevelMtls"], f"mesh {name}: {key} port {port}\n{text}"
            asked += 1
    assert asked > 20


def test_a_fix_that_is_a_manifest_mends_what_it_is_for():
    """Applied, the call works, or fails for another reason than the one that was mended; most work."""
    mended, left = 0, 0
    for name, objects in _sample(12):
        found = strict(meshes.mesh(objects), ["a"])
        seen = set()
        for group in [g for g in groups(found) if g.verdict == "BREAKS"]:
            text = fix_for(found, group)
            body = yaml.safe_load(text) if "kind:" in text else None
            if body is None or (text, group.server, group.port) in seen:
                continue
            seen.add((text, group.server, group.port))
            after = laid_over(found, [Document(body["apiVersion"], body["kind"], body)], lambda _: "")
            now = {(c, g.server, g.port): g for g in groups(after) for c in g.clients}
            for client in group.clients:
                result = now[client, group.server, group.port]
                assert result.verdict != "BREAKS" or result.outcome.because != group.outcome.because, f"mesh {name}: {client} -> {group.server}\n{text}"
                mended, left = mended + (result.verdict != "BREAKS"), left + (result.verdict == "BREAKS")
    assert mended > 50 and mended > 5 * left


@pytest.mark.parametrize("number", range(3))
def test_the_verb_agrees_on_files(tmp_path, number):
    """The same by the command line: `predict --strict NS --all` of the files is `predict` of the edited files."""
    name, objects = list(_sample(3))[number]
    namespace = _namespaces(objects)[0]

    def run(file, *arguments):
        done = CliRunner().invoke(cli, ["predict", file, "--direct", *arguments, "-o", "json"])
        assert done.exit_code == 0, done.output
        return [(i["client"], i["server"], i["port"], i["sends"], i["verdict"]) for i in json.loads(done.stdout)["items"]]

    before, after = tmp_path / "before.yaml", tmp_path / "after.yaml"
    for file, content in ((before, objects), (after, _edited(objects, namespace))):
        file.write_text(yaml.safe_dump_all([{"apiVersion": f"{meshes.GROUPS[o['kind']]}/v1".lstrip("/"), **o} for o in content]))
    assert sorted(run(str(before), "--strict", namespace, "--all")) == sorted(run(str(after))), name
    changes = set(run(str(after))) - set(run(str(before)))
    assert set(run(str(before), "--strict", namespace)) == changes
