"""What a lab is to hold is read and checked whole before a lab is started; what is wrong ends in one line with the file."""

from pathlib import Path

import pytest

from meshtls.errors import InputError
from meshtls.lab import manifests

SHOP = Path(__file__).parents[2] / "examples" / "shop"


@pytest.mark.parametrize(("text", "says"), [
    ("kind: Foo\napiVersion: x/v1\nmetadata: {name: a}\n", "the lab has no objects of this kind"),
    ("kind: List\napiVersion: v1\nitems: [1]\n", "without apiVersion and kind"),
    ("kind: List\napiVersion: v1\nitems: 5\n", "without apiVersion and kind"),
    ("kind: Pod\napiVersion: v1\nmetadata: 5\n", "Pod without metadata"),
    ("kind: Pod\napiVersion: v1\nmetadata: {name: 5}\n", "metadata.name is no text"),
    ("kind: [Pod]\napiVersion: v1\nmetadata: {name: a}\n", "without apiVersion and kind"),
    ("a: b: c\n", "broken YAML"),
    ("a: '\x01'\n", "broken YAML"),
    ("a: 2020-13-45\n", "broken YAML"),
    ("a: " + "[" * 60_000, "nested too deeply"),
    ('{"a":' * 60_000 + "1" + "}" * 60_000, "nested too deeply"),
], ids=range(11))
def test_a_manifest_that_cannot_be_applied_is_named_in_one_line(tmp_path, text: str, says: str) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        manifests.read([file])
    assert says in str(caught.value)
    assert "m.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_named_so(tmp_path) -> None:
    (tmp_path / "m.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(InputError, match="UTF-8"):
        manifests.read([tmp_path])


def test_the_example_is_read_whole() -> None:
    assert len(manifests.read([SHOP])) > 40
