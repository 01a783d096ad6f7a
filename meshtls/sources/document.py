"""Text to plain documents: JSON and YAML, bounded against input that is hostile or simply broken.

YAML has two readers. Large, plain text goes through a fast one (rapidyaml) into JSON; whatever it does not take, and all text
with anchors, tags or merge keys, goes through PyYAML, which knows line and column of what is wrong.

A `Document` is one object as it stood in a file: its apiVersion and kind, and its body either as raw JSON bytes (decoded
once, straight into its type) or as plain values from YAML. Every fault is an InputError with file, line and column.
"""

import json
import os
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import yaml

from meshtls.cluster.nesting import DEEP_HINT, TOO_DEEP, shallow
from meshtls.errors import InputError

# an expanded YAML document may have this many nodes for each byte that was written, and this many in any case
NODES_PER_BYTE, NODES_FREE, DEPTH = 4, 100_000, 200


class Document(msgspec.Struct, gc=False):
    """`body`: raw JSON, or plain values. `index` counts objects of a JSON list; `line` is where a YAML document begins."""

    api_version: str
    kind: str
    body: msgspec.Raw | dict[str, Any]
    file: str = ""
    line: int = 0
    index: int = -1


class _Head(msgspec.Struct, gc=False, rename="camel"):
    api_version: str = ""
    kind: str = ""
    items: list[msgspec.Raw] | None = None


class DumpHead(msgspec.Struct, gc=False, frozen=True):
    """What a dump says about itself: kinds that could not be read, and why; whether a cluster was read."""

    kind: str = ""
    absent: dict[str, str] = {}
    live: bool = False


class _ItemHead(msgspec.Struct, gc=False, rename="camel"):
    api_version: str = ""
    kind: str = ""


_JSON = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*[{\[]")
_HEAD = msgspec.json.Decoder(_Head)
_ITEM = msgspec.json.Decoder(_ItemHead)


class _Loader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it: timestamps stay text, and `1:30` is no number."""


def _resolvers() -> dict[str, list[tuple[str, Any]]]:
    kept: dict[str, list[tuple[str, Any]]] = {}
    for first, pairs in yaml.CSafeLoader.yaml_implicit_resolvers.items():
        kept[first] = [(tag, pattern) for tag, pattern in pairs if tag != "tag:yaml.org,2002:timestamp"]
    return kept


_Loader.yaml_implicit_resolvers = _resolvers()
_Loader.add_constructor("tag:yaml.org,2002:value", yaml.CSafeLoader.construct_yaml_str)


def dump_head(data: bytes) -> DumpHead | None:
    """The head of a dump, None if `data` is none."""
    if b'"kind":"Dump"' not in data[:200]:
        return None
    try:
        return msgspec.json.decode(data, type=DumpHead)
    except (msgspec.DecodeError, RecursionError):
        return None


def is_json(data: bytes) -> bool:
    """Whether it begins as JSON does, after a byte order mark and blanks."""
    return _JSON.match(data) is not None


def parse(data: bytes, file: str) -> Iterator[Document]:
    """The objects in `data`. Lists (`List`, `PodList`, ...) are opened, empty documents passed over."""
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
    if is_json(data):
        yield from _json(data, file)
    else:
        yield from _yaml(data, file)


def _json(data: bytes, file: str) -> Iterator[Document]:
    try:
        if data.lstrip()[:1] == b"[":
            items = msgspec.json.decode(data, type=list[msgspec.Raw])
            yield from _items(items, "", "", file)
            return
        head = _HEAD.decode(data)
    except msgspec.ValidationError as error:
        raise InputError(f"no Kubernetes object: {error}", file=file) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        yield from _json_stream(data, file, error)
        return
    if head.items is not None and (not head.kind or head.kind.endswith("List") or head.kind == "Dump"):
        yield from _items(head.items, head.api_version, head.kind, file)
    else:
        yield Document(head.api_version, head.kind, msgspec.Raw(data), file, 0, 0)


def _items(items: list[msgspec.Raw], api_version: str, kind: str, file: str) -> Iterator[Document]:
    of = kind.removesuffix("List") if kind not in ("List", "Dump") else ""
    for index, raw in enumerate(items):
        try:
            head = _ITEM.decode(raw)
        except (msgspec.DecodeError, RecursionError) as error:
            raise InputError(f"item {index} is no Kubernetes object: {error}", file=file) from error
        yield Document(head.api_version or (api_version if of else ""), head.kind or of, raw, file, 0, index)


def _json_stream(data: bytes, file: str, error: Exception) -> Iterator[Document]:
    """Several JSON values one after another, or one broken one; the standard library knows line and column."""
    try:
        text = data.decode()
    except UnicodeDecodeError as bad:
        raise InputError(f"not UTF-8 text (byte {bad.start})", "save the file as UTF-8", file=file) from bad
    if isinstance(error, RecursionError):
        raise InputError(TOO_DEEP, DEEP_HINT, file=file) from error
    decoder, at, count = json.JSONDecoder(), 0, 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        if text.startswith("---", at):
            yield from _yaml(text[at:].encode(), file, 1 + text.count("\n", 0, at))
            return
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as bad:
            if count == 0 and text.lstrip().startswith("{"):
                yield from _yaml(data, file)  # YAML's flow style looks like JSON and is more tolerant
                return
            raise InputError(f"broken JSON: {bad.msg}", file=file, line=bad.lineno, column=bad.colno) from bad
        except RecursionError as bad:
            raise InputError(TOO_DEEP, DEEP_HINT, file=file) from bad
        yield from _plain(value, file, 0, count)
        count += 1


# from this size on the fast reader is worth its set-up
_LARGE = 64 * 1024
# what YAML can do beyond plain data: anchors, aliases, tags, merge keys, directives; PyYAML's business
_PERHAPS = re.compile(rb"[&*!][\w!<]")
_UNCOMMON = re.compile(rb"(?:^|[\s\[{,:-])[&*!][\w!<]", re.MULTILINE)


def _fast(data: bytes, file: str) -> list[Document] | None:
    """The documents of plain YAML, or None where it is not plain, or broken: the careful reader then says how."""
    if len(data) < _LARGE or b"\x00" in data or b"<<" in data or b"\n%" in data or data[:1] == b"%":
        return None
    if _PERHAPS.search(data) is not None and _UNCOMMON.search(data) is not None:
        return None
    try:
        import ryml
    except ImportError:
        return None
    with _quiet():
        try:
            text = ryml.emit_json(ryml.parse_in_arena(data))
        except (ryml.ExceptionParse, ryml.ExceptionBasic, ryml.ExceptionVisit):
            return None
    try:
        raw = text.encode()
        several = raw.lstrip()[:1] == b"["
        items = msgspec.json.decode(raw, type=list[msgspec.Raw]) if several else [msgspec.Raw(raw)]
        found: list[Document] = []
        for index, item in enumerate(items):
            if bytes(item).strip() in (b"null", b'""'):
                continue
            head = _HEAD.decode(item)
            if head.items is not None and (head.kind.endswith("List") or head.kind == "Dump"):
                found.extend(_items(head.items, head.api_version, head.kind, file))
            else:
                found.append(Document(head.api_version, head.kind, item, file, 0, index))
    except (msgspec.DecodeError, UnicodeError, RecursionError, InputError):
        return None
    return found


class _quiet:
    """The fast reader prints its errors on descriptor 2 by itself; the careful one says them again, better."""

    def __enter__(self) -> None:
        self._kept = os.dup(2)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)

    def __exit__(self, *_: object) -> None:
        os.dup2(self._kept, 2)
        os.close(self._kept)


def _yaml(data: bytes, file: str, line: int = 1) -> Iterator[Document]:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        at = 1 + data.count(b"\n", 0, error.start)
        raise InputError(f"not UTF-8 text (byte {error.start})", "save the file as UTF-8", file=file, line=at) from error
    quick = _fast(data, file)
    if quick is not None:
        yield from quick
        return
    for first, part in split(text):
        shallow(part, file, line + first)
        loader = _Loader(part)
        try:
            value = loader.get_single_data()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise InputError(
                f"broken YAML: {error.problem or error.context}",
                "render templates (helm template, kustomize build) before reading them" if "{{" in part else "",
                file=file,
                line=line + first + (mark.line if mark else 0),
                column=1 + (mark.column if mark else 0),
            ) from error
        except yaml.reader.ReaderError as error:
            at = part.count("\n", 0, error.position)
            raise InputError(f"broken YAML: {error.reason} (#x{int(error.character):04x})", file=file, line=line + first + at) from error
        except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:
            raise InputError(f"broken YAML: {' '.join(str(error).split())}", file=file, line=line + first) from error
        except RecursionError as error:
            raise InputError(TOO_DEEP, DEEP_HINT, file=file, line=line + first) from error
        finally:
            loader.dispose()
        if value is not None:
            budget = [NODES_FREE + NODES_PER_BYTE * len(part)]
            yield from _plain(_clean(value, budget, 0, file, line + first), file, line + first, -1)


def split(text: str) -> Iterator[tuple[int, str]]:
    """(lines before it, text) of each YAML document; `---` at the start of a line separates them."""
    start, at, before, passed = 0, 0, 0, 0
    while (at := text.find("---", at)) >= 0:
        if (at == 0 or text[at - 1] == "\n") and (at + 3 == len(text) or text[at + 3] in " \t\r\n"):
            if text[start:at].strip():
                yield before, text[start:at]
            passed = text.count("\n", start, at)
            before += passed
            start = at
            end = text.find("\n", at)
            at = len(text) if end < 0 else end
        else:
            at += 3
    if text[start:].strip().strip("-"):
        yield before, text[start:]


def _clean(value: Any, budget: list[int], depth: int, file: str, line: int) -> Any:
    """Plain values as JSON has them: keys are text, null entries of mappings are absent; aliases expand within bounds."""
    budget[0] -= 1
    if budget[0] < 0 or depth > DEPTH:
        raise InputError(
            "this YAML document grows too far when it is read (aliases or nesting)",
            "no Kubernetes object needs that",
            file=file,
            line=line,
        )
    if isinstance(value, dict):
        return {
            _key(k): _clean(v, budget, depth + 1, file, line) for k, v in value.items() if v is not None
        }
    if isinstance(value, list):
        return [_clean(v, budget, depth + 1, file, line) for v in value]
    return value


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, bool):
        return "true" if key else "false"
    return str(key)


def _plain(value: Any, file: str, line: int, index: int) -> Iterator[Document]:
    if isinstance(value, list):
        for at, item in enumerate(value):
            yield from _plain(item, file, line, at)
        return
    if not isinstance(value, dict):
        raise InputError("no Kubernetes object: not a mapping", "is this a manifest?", file=file, line=line)
    kind, api_version, items = value.get("kind", ""), value.get("apiVersion", ""), value.get("items")
    if not isinstance(kind, str) or not isinstance(api_version, str):
        raise InputError("no Kubernetes object: kind and apiVersion must be text", file=file, line=line)
    if isinstance(items, list) and (kind.endswith("List") or kind == "Dump"):
        of = kind.removesuffix("List") if kind not in ("List", "Dump") else ""
        for at, item in enumerate(items):
            if not isinstance(item, dict):
                raise InputError(f"item {at} is no Kubernetes object", file=file, line=line)
            head = {"kind": of, "apiVersion": api_version} if of else {}
            yield from _plain({**head, **item}, file, line, at)
        return
    yield Document(api_version, kind, value, file, line, index)
