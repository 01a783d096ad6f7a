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
