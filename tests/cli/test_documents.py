"""Every JSON document has a published schema, and what the commands write fits it, field for field as promised."""

import json
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from meshtls.cli import main

sys.path.insert(0, str(Path(__file__).parent))
import documents

SHOP = str(Path(__file__).parents[2] / "examples/shop")
STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
"""


def _schema(kind):
    return json.loads((documents.FOLDER / f"{kind.lower()}.schema.json").read_text())


def _run(*arguments, code=0):
    result = CliRunner().invoke(main.cli, arguments)
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout


def _strict(tmp_path):
    path = tmp_path / "strict.yaml"
    path.write_text(STRICT)
    return str(path)


@pytest.mark.parametrize("name", documents.published())
def test_a_published_schema_is_that_of_the_type(name):
    assert (documents.FOLDER / name).read_text() == documents.published()[name], "run: python tests/cli/documents.py"


def test_no_other_schema_is_published():
    assert {p.name for p in documents.FOLDER.iterdir()} == set(documents.published())


# kind -> the command that writes it
COMMANDS = {
    "ModeList": ("modes", SHOP),
    "PredictionList": ("predict", SHOP, "--strict", "shop"),
    "ExplanationList": ("explain", "legacy/billing", "shop/cart", SHOP, "--strict", "shop"),
    "RuleList": ("audit", "--list-rules"),
    "Report": ("audit", SHOP, "--fail-on", "never"),
}
PROMISED = {
    "ModeList": {"namespace", "workload", "dataplane", "mode", "ports", "because", "shadowed"},
    "PredictionList": {"client", "server", "port", "targetPort", "sends", "verdict", "because", "fix"},
    "ExplanationList": {"client", "server", "port", "sends", "verdict", "steps", "fix"},
    "RuleList": {"code", "title", "severity", "catalogue"},
}


@pytest.mark.parametrize("kind", COMMANDS)
@pytest.mark.parametrize("form", ["json", "yaml"])
def test_what_a_command_writes_fits_its_schema(kind, form):
    text = _run(*COMMANDS[kind], "-o", form)
    document = json.loads(text) if form == "json" else yaml.safe_load(text)

    jsonschema.validate(document, _schema(kind))
    assert document["apiVersion"] == "meshtls.dev/v1"
    assert document["kind"] == ("AuditReport" if kind == "Report" else kind)
    if kind in PROMISED:
        assert document["items"] and PROMISED[kind] <= document["items"][0].keys()


def test_the_report_of_an_audit_has_the_fields_that_are_promised():
    document = json.loads(_run("audit", SHOP, "-o", "json", "--fail-on", "never"))

    assert {"questions", "answered", "percent"} <= document["coverage"].keys()
    promised = {"code", "severity", "subject", "catalogue", "file", "line", "message", "fix", "because", "docs", "confidence"}
    assert all(promised <= finding.keys() for finding in document["findings"])
    assert all(finding["file"] and finding["line"] for finding in document["findings"] if finding["subject"].count("/") == 2)


def test_a_difference_fits_its_schema(tmp_path):
    document = json.loads(_run("diff", SHOP, _both(tmp_path), "-o", "json"))

    jsonschema.validate(document, _schema("Difference"))
    assert document["modes"] and document["calls"]
    assert set(document["modes"][0]) == {"workload", "port", "before", "after", "because"}
    assert set(document["calls"][0]) == {"client", "server", "port", "targetPort", "before", "after", "because", "fix"}


def _both(tmp_path):
    """The example with its namespace shop STRICT, as one file."""
    texts = [p.read_text() for p in sorted(Path(SHOP).glob("*.yaml"))]
    path = tmp_path / "after.yaml"
    path.write_text("\n---\n".join([*texts, STRICT]))
    return str(path)


# --- diff ----------------------------------------------------------------------------------------------------------------


def test_a_diff_says_what_changes_in_modes_and_which_calls_break(tmp_path):
    after = _both(tmp_path)
    document = json.loads(_run("diff", SHOP, after, "-o", "json"))

    assert {(m["before"], m["after"]) for m in document["modes"]} == {("PERMISSIVE", "STRICT")}
    broken = {(c["client"], c["server"]) for c in document["calls"] if c["after"]["verdict"] == "BREAKS"}
    predicted = json.loads(_run("predict", SHOP, "--strict", "shop", "-o", "json"))["items"]
    assert broken == {(p["client"], p["server"]) for p in predicted if p["verdict"] == "BREAKS"} and broken
    text = _run("diff", SHOP, after)
    assert "PERMISSIVE" in text and "plaintext BREAKS" in text


def test_the_exit_code_of_a_diff_tells_only_when_it_is_asked_to(tmp_path):
    after = _both(tmp_path)
    _run("diff", SHOP, after)
    _run("diff", SHOP, after, "--exit-code", code=1)
    _run("diff", after, SHOP, "--exit-code")
    assert _run("diff", SHOP, SHOP, "--exit-code") == "no difference in modes or calls\n"


def test_a_diff_shows_calls_that_are_gone(tmp_path):
    whole = _both(tmp_path)
    part = tmp_path / "part.yaml"
    part.write_text("\n---\n".join(t for t in Path(whole).read_text().split("\n---\n") if "kind: CronJob" not in t))
    document = json.loads(_run("diff", whole, str(part), "-o", "json"))

    gone = [c for c in document["calls"] if c["after"] is None]
    assert {c["client"].split("/")[0] for c in gone} == {"CronJob"} and all(c["before"] for c in gone)
    assert "the call is gone" in _run("diff", whole, str(part))


def test_a_diff_keeps_to_namespaces(tmp_path):
    after = _both(tmp_path)

    document = json.loads(_run("diff", SHOP, after, "-n", "data", "-o", "json"))
    assert document["modes"] == [] and all("data" in (c["client"].split("/")[1], c["server"].split("/")[1]) for c in document["calls"])
    result = CliRunner().invoke(main.cli, ["diff", SHOP, after, "-n", "nowhere"])
    assert result.exception.exit_code == 2


# --- explain -------------------------------------------------------------------------------------------------------------


def test_an_explanation_is_full_sentences_with_object_and_line(tmp_path):
    text = _run("explain", "legacy/billing", "shop/cart:80", SHOP, "--apply", _strict(tmp_path))

    assert "  1. The client Deployment/legacy/billing has no proxy." in text
    assert "A pod of Deployment/shop/cart has a sidecar and enforces STRICT on port 8080." in text
    assert "PeerAuthentication/shop/default spec.mtls.mode" in text
    assert "Namespace/shop metadata.labels.istio-injection" in text and "00-namespaces.yaml:" in text
    assert "10-shop.yaml:" in text and "So plaintext leaves the client's pod, and the call breaks." in text
    assert "portLevelMtls:" in text.split("Fix:")[1]
    for line in text.split("Fix:")[0].splitlines()[1:]:
        if line[:4].strip().rstrip(".").isdigit():
            assert line.endswith(".")


def test_the_steps_of_an_explanation_point_to_lines_that_say_so(tmp_path):
    """Every place that is given is a line of a file that exists."""
    document = json.loads(_run("explain", "legacy/billing", "shop/cart", SHOP, "--strict", "shop", "-o", "json"))
    places = [s["where"].split(":") for item in document["items"] for s in item["steps"] if s["where"]]

    assert places
    for file, line, *_ in places:
        assert 0 < int(line) <= len(Path(file).read_text().splitlines())


@pytest.mark.parametrize(("client", "server", "says"), [
    ("nobody", "shop/cart", "names 0 workloads"), ("legacy/billing", "shop/cart:81", "has no port 81"),
    ("legacy/billing", "shop/cart:http", "is no port"), ("legacy/billing", "nothing", "names 0 workloads")])
def test_what_cannot_be_explained_is_one_line_that_says_why(client, server, says):
    result = CliRunner().invoke(main.cli, ["explain", client, server, SHOP])

    assert result.exception.exit_code == 2 and says in str(result.exception)


# --- proposed files ------------------------------------------------------------------------------------------------------


def test_proposed_files_are_laid_over_in_every_verb_that_reads(tmp_path):
    strict = _strict(tmp_path)
    modes = {f"{i['namespace']}/{i['workload']}": i["mode"] for i in json.loads(_run("modes", SHOP, "--apply", strict, "-o", "json"))["items"]}
    assert modes["shop/Deployment/cart"] == "STRICT" and modes["data/StatefulSet/db"] == "PERMISSIVE"
    (tmp_path / "data.yaml").write_text(STRICT.replace("namespace: shop", "namespace: data"))
    found = json.loads(_run("audit", SHOP, "--apply", str(tmp_path / "data.yaml"), "-o", "json", code=1))["findings"]
    assert "Every call fails: the server is STRICT." in next(f for f in found if f["code"] == "MT201")["message"]


def test_standard_input_with_proposed_files_is_read_once(tmp_path):
    text = "\n---\n".join(p.read_text() for p in sorted(Path(SHOP).glob("*.yaml")))
    done = CliRunner().invoke(main.cli, ["predict", "-", "--apply", _strict(tmp_path), "-o", "json"], input=text)

    same = json.loads(_run("predict", SHOP, "--apply", _strict(tmp_path), "-o", "json"))["items"]
    assert json.loads(done.stdout)["items"] == same and same


def test_proposed_files_give_the_same_mesh_afterwards_as_from_the_start(tmp_path):
    from meshtls import sources

    extra = STRICT + """
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "trustDomain: other.example"}
---
apiVersion: v1
kind: Service
metadata: {name: another, namespace: shop}
spec: {ports: [{port: 1}]}
"""
    file = tmp_path / "extra.yaml"
    file.write_text(extra)
    start, later = sources.load([SHOP], overlay=[str(file)]), sources.over(sources.load([SHOP]), [str(file)])
    assert list(start.objects()) == list(later.objects()) and start.configs == later.configs
    for ref in ("Service/shop/another", "PeerAuthentication/shop/default", "Service/shop/cart"):
        assert start.origins.where(ref, ("spec",)) == later.origins.where(ref, ("spec",)), ref


def test_a_proposed_policy_is_younger_than_those_that_exist(tmp_path):
    """So it does not win where one of the same scope is there already, as on a cluster."""
    base, file = tmp_path / "base.yaml", tmp_path / "new.yaml"
    texts = [p.read_text() for p in sorted(Path(SHOP).glob("*.yaml"))]
    base.write_text("\n---\n".join([*texts, STRICT.replace("STRICT", "PERMISSIVE").replace("name: default", "name: zzz")]))
    file.write_text(STRICT.replace("name: default", "name: aaa"))
    items = json.loads(_run("modes", str(base), "--apply", str(file), "-n", "shop", "-o", "json"))["items"]

    assert {i["mode"] for i in items if i["dataplane"] == "sidecar"} == {"PERMISSIVE"}
    assert any(b["object"] == "PeerAuthentication/shop/aaa" for i in items for b in i["shadowed"])


# --- namespaces and labels on files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["audit", "modes", "predict"])
def test_an_unknown_namespace_is_an_error_on_files_as_on_a_cluster(verb):
    result = CliRunner().invoke(main.cli, [verb, SHOP, "-n", "nowhere"])
    code = getattr(result.exception, "exit_code", None) or result.exit_code

    assert code == 2 and "nowhere" in (result.output + str(result.exception))


def test_modes_and_predictions_keep_to_namespaces_and_labels():
    items = json.loads(_run("modes", SHOP, "-n", "data,shop", "-l", "app=cart", "-o", "json"))["items"]
    assert [(i["namespace"], i["workload"]) for i in items] == [("shop", "Deployment/cart")]
    calls = json.loads(_run("predict", SHOP, "-n", "data", "-o", "json"))["items"]
    assert calls and all("data" in (c["client"].split("/")[1], c["server"].split("/")[1]) for c in calls)
    whole = json.loads(_run("predict", SHOP, "-A", "-o", "json"))["items"]
    assert len(whole) > len(calls)


# --- what was assumed, and what is missing -------------------------------------------------------------------------------


def _dump(tmp_path, absent):
    """The example as a dump of a cluster in which some kinds could not be read."""
    import msgspec

    from meshtls import sources
    from meshtls.sources.dump import write

    path = tmp_path / "dump.json"
    path.write_bytes(b"".join(write(msgspec.structs.replace(sources.load([SHOP]), absent=absent, live=True))))
    return str(path)


VERBS = {"modes": (), "predict": (), "explain": ("legacy/billing", "shop/cart"), "diff": ()}


@pytest.mark.parametrize("verb", VERBS)
def test_an_answer_without_a_kind_that_decides_is_not_called_whole(tmp_path, verb):
    dump = _dump(tmp_path, {"PeerAuthentication": "may not list peerauthentications", "Sidecar": "the cluster does not serve this kind"})
    arguments = (*VERBS[verb], dump, dump) if verb == "diff" else (*VERBS[verb], dump)
    result = CliRunner().invoke(main.cli, [verb, *arguments])
    document = json.loads(_run(verb, *arguments, "-o", "json", code=3))

    assert result.exit_code == 3
    assert "PeerAuthentication could not be read, and the answers leave it out: may not list peerauthentications" in result.stderr
    assert "Sidecar" not in result.stderr
    assert set(document["absent"]) == {"PeerAuthentication", "Sidecar"} and any("PeerAuthentication" in n for n in document["notes"])


@pytest.mark.parametrize("verb", VERBS)
def test_a_kind_that_the_cluster_does_not_serve_takes_nothing_from_an_answer(tmp_path, verb):
    dump = _dump(tmp_path, {"Sidecar": "the cluster does not serve this kind", "ServiceMonitor": "may not list servicemonitors"})
    _run(verb, *VERBS[verb], dump, *((dump,) if verb == "diff" else ()))


@pytest.mark.parametrize("verb", [*VERBS, "audit"])
def test_that_default_webhooks_were_assumed_is_said(verb):
    arguments = (*VERBS.get(verb, ()), SHOP, *((SHOP,) if verb == "diff" else ()), *(("--fail-on", "never") if verb == "audit" else ()))
    document = json.loads(_run(verb, *arguments, "-o", "json"))

    said = document["facts"].get("note", "") if verb == "audit" else " ".join(document["notes"])
    assert "those of a default installation are assumed" in said


@pytest.mark.parametrize("verb", [*VERBS, "audit"])
@pytest.mark.parametrize("absent", [{}, {"ConfigMap": "may not list configmaps"}])
def test_a_cluster_without_a_trace_of_istio_is_named_and_one_that_cannot_be_read_is_not(tmp_path, verb, absent):
    dump = _dump(tmp_path, absent)
    arguments = (*VERBS.get(verb, ()), dump, *((dump,) if verb == "diff" else ()), *(("--fail-on", "never") if verb == "audit" else ()))
    document = json.loads(_run(verb, *arguments, "-o", "json", code=3 if absent and verb != "audit" else 0))

    said = document["facts"].get("note", "") if verb == "audit" else " ".join(document["notes"])
    assert ("no Istio is in sight" in said) is (not absent)
