"""Places: the file, line and column of an object's field, found only when somebody asks.

YAML alone has lines worth pointing to; of a JSON file only its name is given. A file is read again for its first question:
objects keep no positions, so that a large input pays nothing for findings that it does not have.
"""

import re
from collections.abc import Callable, Iterable
from functools import cached_property
from itertools import pairwise
from typing import Any

import yaml

from meshtls.model.origin import Origin
from meshtls.sources.document import split

_NAME = re.compile(r"""name"?:\s*["']?([^\s"'{}\[\],#]+)""")
_LIST = re.compile(r"""^kind:[ \t]*["']?\w*List\b""", re.MULTILINE)
_ITEMS = re.compile(r"^items:[ \t\r]*\n( *)(?=- )", re.MULTILINE)


class Places:
    """`owners` gives (ref, file, line of its document or 0) of every object; `text` a file's YAML ("" where it is gone, or JSON)."""

    def __init__(self, owners: Callable[[], Iterable[tuple[str, str, int]]], text: Callable[[str], str]) -> None:
        self._owners, self._read = owners, text
        self._files: dict[str, tuple[str, int]] | None = None
        self._pieces: dict[str, dict[str, list[_Piece]]] = {}

    def locate(self, ref: str, path: tuple[str, ...]) -> Origin:
        """The place of a field, or of its nearest parent that is written."""
        if self._files is None:
            self._files = {owner: (where, line) for owner, where, line in self._owners()}
        file, begins = self._files.get(ref, ("", 0))
        if not file:
            return Origin()
        kind, _, rest = ref.partition("/")
        namespace, _, name = rest.rpartition("/")
        for piece in self._naming(file).get(name, ()):
            for node in piece.objects:
                if _is(node, kind, namespace, name):
                    mark = _walk(node, path)
                    return Origin(file, piece.first + mark.line + 1, mark.column + 1)
        return Origin(file, begins)

    def _naming(self, file: str) -> dict[str, list["_Piece"]]:
        """Name -> the pieces of a file that have it, in their order."""
        found = self._pieces.get(file)
        if found is None:
            found = self._pieces[file] = {}
            for first, text in split(self._read(file)):
                for piece in _items(first, text) or [_Piece(first, text)]:
                    for name in dict.fromkeys(_NAME.findall(piece.text)):
                        found.setdefault(name, []).append(piece)
        return found


class _Piece:
    """A document, or one item of a list, that is only looked into when asked; `first` lines stand before it in its file."""

    def __init__(self, first: int, text: str) -> None:
        self.first, self.text = first, text

    @cached_property
    def objects(self) -> list[Any]:
        """The objects in it."""
        try:
            return _opened(yaml.compose(self.text, Loader=yaml.CSafeLoader))
        except (yaml.YAMLError, RecursionError, ValueError):
            return []


def _items(first: int, text: str) -> list[_Piece]:
    """The items of a list in block style, as `kubectl get -o yaml` writes it, one by one; nothing for any other document."""
    begin = _ITEMS.search(text) if _LIST.search(text) else None
    if begin is None:
        return []
    dash = begin[1]
    end = re.compile(rf"^ {{0,{len(dash)}}}(?![ #\r\n]|- )", re.MULTILINE).search(text, begin.end())
    starts = [m.start() for m in re.compile(rf"^{dash}- ", re.MULTILINE).finditer(text, begin.start(1), end.start() if end else len(text))]
    found = []
    line, at = first, 0
    for start, stop in pairwise([*starts, end.start() if end else len(text)]):
        line += text.count("\n", at, start)
        found.append(_Piece(line, text[start:stop]))
        at = start
    return found


def _opened(root: Any) -> list[Any]:
    """The objects of a document: itself, or the items of a list."""
    items = _get(root, "items")
    if isinstance(items, yaml.SequenceNode) and str(_text(root, "kind")).endswith("List"):
        return [item for item in items.value if isinstance(item, yaml.MappingNode)]
    if isinstance(root, yaml.SequenceNode):
        return [item for item in root.value if isinstance(item, yaml.MappingNode)]
    return [root] if isinstance(root, yaml.MappingNode) else []


def _get(node: Any, key: str) -> Any:
    if isinstance(node, yaml.MappingNode):
        for k, v in node.value:
            if isinstance(k, yaml.ScalarNode) and k.value == key:
                return v
    return None


def _text(node: Any, *path: str) -> str:
    for key in path:
        node = _get(node, key)
    return node.value if isinstance(node, yaml.ScalarNode) else ""


def _is(node: Any, kind: str, namespace: str, name: str) -> bool:
    written = _text(node, "metadata", "namespace")
    return (
        _text(node, "kind") in (kind, "")
        and _text(node, "metadata", "name") == name
        and (written == namespace or not written or not namespace)
    )


def _walk(node: Any, path: tuple[str, ...]) -> Any:
    """The mark of the deepest step that exists. A key may itself hold the dots that separate steps."""
    mark, rest = node.start_mark, path
    while rest:
        step = _step(node, rest)
        if step is None:
            return mark
        mark, node, taken = step
        rest = rest[taken:]
    return mark


def _step(node: Any, rest: tuple[str, ...]) -> tuple[Any, Any, int] | None:
    if isinstance(node, yaml.MappingNode):
        for count in range(len(rest), 0, -1):
            wanted = ".".join(rest[:count])
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value == wanted:
                    return key.start_mark, value, count
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            if str(index) == rest[0] or _text(item, "name") == rest[0]:
                return item.start_mark, item, 1
    return None
