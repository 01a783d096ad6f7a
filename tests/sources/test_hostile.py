"""Text that is nested to kill its reader ends in one line that names the file."""

import pytest

from meshtls import sources
from meshtls.errors import InputError

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
