"""Places: the file, line and column that a finding points to, looked up only for what is shown.

Reading keeps for each object its file and the line where its YAML document begins. The first question about a document
composes it once more, this time with the marks of every node, and walks the path as far as it exists. Objects of JSON
have a file and no line. What was read from standard input is gone by then: it has the line of its document.
"""

from collections.abc import Iterable
from typing import Any

import yaml

from meshtls.model.objects import Object
from meshtls.model.origin import Origin, Origins
from meshtls.sources.document import Document, split

_LARGEST = 64 * 1024 * 1024


class Places:
    """Where each object was read. `alone` is the one JSON file that everything without a line came from, if there is one."""

    def __init__(self, read: Iterable[tuple[Object, Document]]) -> None:
        self._at: dict[str, tuple[str, int, int]] = {}
        plain: list[tuple[Object, Document]] = []
        for obj, document in read:
            if document.line:
                self._at[obj.ref] = (document.file, document.line, document.index)
            else:
                plain.append((obj, document))
        files = {document.file for _, document in plain}
        self._alone = files.pop() if len(files) == 1 else ""
        if files:
            self._at |= {obj.ref: (document.file, 0, document.index) for obj, document in plain}
        self._documents: dict[str, dict[int, str]] = {}
        self._nodes: dict[tuple[str, int], Any] = {}

    def origins(self) -> Origins:
        """The same as the Mesh carries it."""
        return Origins(locate=self.where)

    def where(self, ref: str, path: tuple[str, ...]) -> Origin:
        """The place of `path` in an object, or of the nearest part above it that is written."""
        if ref not in self._at:
            return Origin(self._alone)
        file, line, index = self._at[ref]
        node = self._node(file, line) if line else None
        if node is None:
            return Origin(file, line)
        mark = node.start_mark
        steps = (*(("items", str(index)) if index >= 0 else ()), *path)
        for step in steps:
            found = _child(node, step)
            if found is None:
                break
            mark, node = found
        return Origin(file, line + mark.line, 1 + mark.column)

    def _node(self, file: str, line: int) -> Any:
        """The composed document that begins at a line; None where it cannot be read again."""
        if (file, line) not in self._nodes:
            try:
                text = self._text(file).get(line)
                self._nodes[file, line] = yaml.compose(text, Loader=yaml.CSafeLoader) if text else None
            except (OSError, ValueError, yaml.YAMLError, RecursionError):
                self._nodes[file, line] = None
        return self._nodes[file, line]

    def _text(self, file: str) -> dict[int, str]:
        """Line where each document of a file begins -> its text."""
        if file not in self._documents:
            with open(file, "rb") as handle:
                data = handle.read(_LARGEST).removeprefix(b"\xef\xbb\xbf")
            self._documents[file] = {1 + before: text for before, text in split(data.decode())}
        return self._documents[file]


def _child(node: Any, step: str) -> tuple[Any, Any] | None:
    """(mark, node) of the entry of a mapping or sequence; an entry of a list may be named by its `name`."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == step:
                return key.start_mark, value
    if isinstance(node, yaml.SequenceNode):
        for at, item in enumerate(node.value):
            if step == str(at):
                return item.start_mark, item
            if isinstance(item, yaml.MappingNode) and any(k.value == "name" and v.value == step for k, v in item.value):
                return item.start_mark, item
    return None
