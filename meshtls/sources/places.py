"""Places: the file, line and column of an object's field, found only when somebody asks.

YAML alone has lines worth pointing to; of a JSON file only its name is given. A file is read again for its first question:
objects keep no positions, so that a large input pays nothing for findings that it does not have.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

import yaml

from meshtls.model.origin import Origin
from meshtls.sources.document import split


class Places:
    """`owners` gives (ref, file, line of its document or 0) of every object; `text` a file's YAML ("" where it is gone, or JSON)."""

    def __init__(self, owners: Callable[[], Iterable[tuple[str, str, int]]], text: Callable[[str], str]) -> None:
        self._owners, self._read = owners, text
        self._files: dict[str, tuple[str, int]] | None = None
        self._parts: dict[str, list[tuple[int, str]]] = {}
        self._nodes: dict[tuple[str, int], list[Any]] = {}

    def locate(self, ref: str, path: tuple[str, ...]) -> Origin:
        """The place of a field, or of its nearest parent that is written."""
        if self._files is None:
            self._files = {owner: (where, line) for owner, where, line in self._owners()}
        file, begins = self._files.get(ref, ("", 0))
        if not file:
            return Origin()
        if not self._documents(file):
            return Origin(file, begins)
        kind, _, rest = ref.partition("/")
        namespace, _, name = rest.rpartition("/")
        pattern = re.compile(rf"name\"?:\s*[\"']?{re.escape(name)}[\"']?\s*(?:[,#}}]|$)", re.MULTILINE)
        for index, (first, part) in enumerate(self._documents(file)):
            if pattern.search(part) is None:
                continue
            for node in self._objects(file, index, part):
                if _is(node, kind, namespace, name):
                    mark = _walk(node, path)
                    return Origin(file, first + mark.line + 1, mark.column + 1)
        return Origin(file, begins)

    def _documents(self, file: str) -> list[tuple[int, str]]:
        found = self._parts.get(file)
        if found is None:
            found = self._parts[file] = list(split(self._read(file)))
        return found

    def _objects(self, file: str, index: int, part: str) -> list[Any]:
        found = self._nodes.get((file, index))
        if found is None:
            try:
                root = yaml.compose(part, Loader=yaml.CSafeLoader)
            except (yaml.YAMLError, RecursionError, ValueError):
                root = None
            found = self._nodes[file, index] = _opened(root)
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
