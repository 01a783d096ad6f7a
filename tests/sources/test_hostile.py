"""Text that is nested, or large, to kill its reader ends in one line that names the file."""

import pytest

from meshtls import sources
from meshtls.errors import InputError
from meshtls.sources import document, files, memory

DEEP = 60_000


@pytest.mark.parametrize(
    "text",
    ["a: " + "[" * DEEP + "]" * DEEP, "a: " + "[" * DEEP, "- " * DEEP + "x", "? " * DEEP + "x", '{"a":' * DEEP + "1" + "}" * DEEP],
    ids=["flow", "flow that never ends", "sequences in one line", "keys in one line", "JSON"],
)
def test_deep_nesting_is_refused_and_does_not_end_the_process(tmp_path, text: str) -> None:
    file = tmp_path / "deep.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=r"deep\.yaml.*nested too deeply"):
        sources.load([str(file)])


def test_many_brackets_that_are_not_nested_are_read(tmp_path) -> None:
    file = tmp_path / "wide.yaml"
    items = "".join(f"- apiVersion: v1\n  kind: Namespace\n  metadata: {{name: n{i}, labels: {{}}}}\n" for i in range(1500))
    file.write_text("apiVersion: v1\nkind: List\nitems:\n" + items + "x: &anchor {}\n")
    assert len(sources.load([str(file)]).namespaces) == 1500


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9))


@pytest.mark.parametrize(("data", "says"), [
    (b"apiVersion: v1\nkind: Namespace\nmetadata: {name: a\nx", r"bad\.yaml:[45]:\d+: broken YAML"),
    (b'{"apiVersion": "v1", "kind": "Namespace"\n "metadata": {}}', r"bad\.yaml:2:\d+: broken (JSON|YAML)"),
    (b"apiVersion: v1\nkind: Namespace\nmetadata: {name: \xff\xfe}\n", r"bad\.yaml:3.*not UTF-8"),
    (LAUGHS.encode(), r"bad\.yaml.*(grows too far|aliases)"),
    (b"just words", r"bad\.yaml.*no Kubernetes object"),
    (b"kind: [a]\napiVersion: v1\n", r"bad\.yaml.*must be text"),
    (b"apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: eighty}]}\n", r"bad\.yaml:1.*Service/a.*port"),
    (b"{{ if .Values.on }}\napiVersion: v1\nkind: Namespace\n{{ end }}\n", r"bad\.yaml:\d+.*render templates"),
    (b"", r"bad\.yaml: no Kubernetes object"),
], ids=["cut off", "JSON", "not UTF-8", "a billion laughs", "words", "kind", "type", "template", "empty"])  # fmt: skip
def test_what_cannot_be_read_says_where_and_why(tmp_path, data: bytes, says: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(data)
    with pytest.raises(InputError) as caught:
        sources.load([str(file)])
    import re

    assert re.search(says, str(caught.value)), caught.value
    assert caught.value.exit_code == 2


def test_an_object_that_is_declared_twice_differently_is_an_error_that_names_both_places(tmp_path) -> None:
    one, other = tmp_path / "a.yaml", tmp_path / "b.yaml"
    one.write_text("apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: n}\nspec: {selector: {app: a}}\n")
    other.write_text(one.read_text().replace("app: a", "app: b"))
    with pytest.raises(InputError, match=r"b\.yaml:1.*declared twice.*a\.yaml:1"):
        sources.load([str(tmp_path)])
    assert len(sources.load([str(one), str(one)]).services) == 1
    assert sources.load([str(one)], overlay=[str(other)]).services[0].spec.selector == {"app": "b"}


def test_owners_in_a_circle_end(tmp_path) -> None:
    file = tmp_path / "circle.yaml"
    owned = "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {{name: {0}, namespace: n, ownerReferences: [{{kind: ReplicaSet, name: {1}, controller: true}}]}}\n"
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: n, ownerReferences: [{kind: ReplicaSet, name: a, controller: true}]}\n"
    file.write_text("---\n".join([owned.format("a", "b"), owned.format("b", "a"), pod]))
    assert len(sources.load([str(file)]).workloads) >= 1


def test_standard_input_is_read_as_a_file_is(monkeypatch) -> None:
    import io
    import sys
    import types

    text = b'{"apiVersion":"v1","kind":"NamespaceList","items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"}}]}'
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(text)))
    assert [n.name for n in sources.load(["-"]).namespaces] == ["a", "b"]


NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n"


@pytest.mark.parametrize(("limit", "value", "text", "says"), [
    (files, {"LARGEST": 1000}, NAMESPACE % "a" * 50, "larger than"),
    (document, {"CAREFUL": 1000, "VALUES": 1000}, NAMESPACE % "a" + "x: [" + "1," * 2000 + "1]\n", "more than 1000 values"),
    (document, {"CAREFUL": 1000}, NAMESPACE % "a" + "x: &a " + "y" * 2000, "broken, or has anchors"),
    (document, {"CAREFUL": 1000}, '{"kind": "Namespace", "x": [' + "1, " * 1000, "broken JSON"),
], ids=["a file", "one line of values", "a document with an anchor", "JSON that is cut off"])  # fmt: skip
def test_what_is_too_large_is_refused_in_one_line(tmp_path, monkeypatch, limit, value: dict[str, int], text: str, says: str) -> None:
    for name, number in value.items():
        monkeypatch.setattr(limit, name, number)
    file = tmp_path / "large.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=rf"large\.yaml.*{says}") as caught:
        sources.load([str(file)])
    assert "\n" not in str(caught.value)


def test_a_pipe_that_never_ends_and_a_device_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(files, "LARGEST", 1 << 20)
    with open("/dev/zero", "rb") as endless, pytest.raises(InputError, match="endless: larger than"):
        files.bounded(endless, "endless")
    with pytest.raises(InputError, match="/dev/zero: a device"):
        sources.load(["/dev/zero"])


def test_memory_that_runs_out_is_one_line_and_the_limit_goes_with_the_reading() -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)

    with pytest.raises(InputError, match="not enough memory") as caught:
        memory.bounded(lambda: bytearray(1 << 62))

    assert caught.value.__context__ is None
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_one_document_with_an_anchor_does_not_slow_the_others(tmp_path, monkeypatch) -> None:
    careful = []
    monkeypatch.setattr(document, "_careful", lambda part, *rest, read=document._careful: careful.append(part) or read(part, *rest))
    file = tmp_path / "many.yaml"
    parts = [NAMESPACE % f"n{i}" for i in range(3000)]
    parts[1500] = parts[1500].replace("{name", "&a {name")
    file.write_text("---\n".join(parts))

    mesh = sources.load([str(file)])

    assert sorted(n.name for n in mesh.namespaces) == sorted(f"n{i}" for i in range(3000))
    assert len(careful) == 1 and "n1500" in careful[0]
    assert mesh.origins.where("Namespace/n1500").line == 1 + 1500 * 4
