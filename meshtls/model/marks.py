"""YAML as plain values, and the line and column of each: for small files that people write and that are told where they are wrong.

A place is named as in `$.calls[0].must`. Timestamps stay text. Aliases are followed as far as MOST nodes go.
"""

from typing import Any

import yaml

MOST = 100_000
Marks = dict[str, tuple[int, int]]


def read(text: str) -> tuple[Any, Marks]:
    """(plain values, place -> (line, column), 1-based). Raises yaml.YAMLError, ValueError or RecursionError."""
    marks: Marks = {}
    root = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return _plain(root, "$", marks, [MOST]), marks


def _plain(node: Any, path: str, marks: Marks, budget: list[int]) -> Any:
    budget[0] -= 1
    if budget[0] < 0:
        raise ValueError("it grows too far when it is read (aliases or nesting)")
    if node is None:
        return None
    marks[path] = (node.start_mark.line + 1, node.start_mark.column + 1)
    if isinstance(node, yaml.MappingNode):
        found = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in found:
                raise yaml.MarkedYAMLError(problem="a key that is no text, or stands twice", problem_mark=key.start_mark)
            inside = f"{path}.{key.value}"
            found[key.value] = _plain(value, inside, marks, budget)
            marks[inside] = (key.start_mark.line + 1, key.start_mark.column + 1)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, f"{path}[{i}]", marks, budget) for i, item in enumerate(node.value)]
    tag = node.tag.rpartition(":")[2]
    if tag == "int" and node.value.isdigit():
        return int(node.value)
    return {"null": None, "bool": node.value.lower() in ("true", "yes", "on")}.get(tag, node.value)
