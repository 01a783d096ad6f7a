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
from itertools import chain
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
_Loader.add_constructor("tag:yaml.org,2002:value", yaml.CSafeLoader.construct_yaml_str)  # type: ignore[type-var]


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
            if count == 0 and len(data) <= CAREFUL and text.lstrip().startswith("{"):
                yield from _yaml(data, file)  # YAML's flow style looks like JSON and is more tolerant
                return
            raise InputError(f"broken JSON: {bad.msg}", file=file, line=bad.lineno, column=bad.colno) from bad
        except RecursionError as bad:
            raise InputError(TOO_DEEP, DEEP_HINT, file=file) from bad
        yield from _plain(value, file, 0, count)
        count += 1


# from this size on the fast reader is worth its set-up; it is given stretches of about RUN bytes, so that its memory stays bounded
_LARGE, RUN = 64 * 1024, 8 * 1024 * 1024
# one YAML document may have this many values, and this many bytes where the careful reader has to take it
VALUES, CAREFUL = 20_000_000, 32 * 1024 * 1024
# what YAML can do beyond plain data: anchors, aliases, tags, merge keys, directives; PyYAML's business
_PERHAPS = re.compile(rb"[&*!][\w!<]")
_UNCOMMON = re.compile(rb"(?:^|[\s\[{,:-])[&*!][\w!<]", re.MULTILINE)


def _is_plain(data: bytes) -> bool:
    """Whether YAML is only data."""
    if b"\x00" in data or b"<<" in data or b"\n%" in data or data[:1] == b"%":
        return False
    return _PERHAPS.search(data) is None or _UNCOMMON.search(data) is None


def _runs(data: bytes) -> Iterator[tuple[int, int, int, bool]]:
    """(lines before it, start, end, plain) of each stretch of documents: plain ones together, any other by itself."""
    run: tuple[int, int, int, bool] | None = None
    for before, start, end in _cuts(data):
        plain = _is_plain(data[start:end])
        if run is not None:
            if plain and run[3] and end - run[1] <= RUN:
                run = (run[0], run[1], end, True)
                continue
            yield run
        run = (before, start, end, plain)
    if run is not None:
        yield run


def _fast(data: bytes, file: str) -> list[Document] | None:
    """The documents of plain YAML, or None where it is broken: the careful reader then says how."""
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
    for before, start, end, plain in _runs(data):
        run = data[start:end]
        at = line + before
        try:
            text = run.decode()
        except UnicodeDecodeError as error:
            at += run.count(b"\n", 0, error.start)
            raise InputError(f"not UTF-8 text (byte {start + error.start})", "save the file as UTF-8", file=file, line=at) from error
        if len(run) > CAREFUL and sum(map(run.count, (b"\n", b",", b"[", b"{"))) > VALUES:
            raise InputError(f"a YAML document of more than {VALUES} values", "no Kubernetes object needs that", file=file, line=at)
        quick = _fast(run, file) if plain and len(data) >= _LARGE else None
        if quick is not None:
            yield from quick
            continue
        for more, part in split(text):
            yield from _careful(part, file, at + more)


def _careful(part: str, file: str, line: int) -> Iterator[Document]:
    """One YAML document by the reader that knows all of YAML, and the place of what is wrong."""
    if len(part) > CAREFUL:
        raise InputError(
            f"a YAML document of {len(part) // 1_000_000} MB that is broken, or has anchors or tags: too large to be looked into",
            "split it into several documents, or write it as JSON", file=file, line=line,
        )  # fmt: skip
    shallow(part, file, line)
    loader = _Loader(part)
    try:
        value = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InputError(
            f"broken YAML: {error.problem or error.context}",
            "render templates (helm template, kustomize build) before reading them" if "{{" in part else "",
            file=file,
            line=line + (mark.line if mark else 0),
            column=1 + (mark.column if mark else 0),
        ) from error
    except yaml.reader.ReaderError as error:
        at = part.count("\n", 0, error.position)
        raise InputError(f"broken YAML: {error.reason} (#x{int(error.character):04x})", file=file, line=line + at) from error
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:
        raise InputError(f"broken YAML: {' '.join(str(error).split())}", file=file, line=line) from error
    except RecursionError as error:
        raise InputError(TOO_DEEP, DEEP_HINT, file=file, line=line) from error
    finally:
        loader.dispose()
    if value is not None:
        budget = [NODES_FREE + NODES_PER_BYTE * len(part)]
        yield from _plain(_clean(value, budget, 0, file, line), file, line, -1)


def split(text: str) -> Iterator[tuple[int, str]]:
    """(lines before it, text) of each YAML document; `---` at the start of a line separates them."""
    for before, start, end in _cuts(text):
        yield before, text[start:end]


_DASHES: dict[type, re.Pattern[Any]] = {str: re.compile(r"^---(?=[ \t\r\n]|\Z)", re.MULTILINE), bytes: re.compile(rb"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)}
_NOTHING: dict[type, re.Pattern[Any]] = {str: re.compile(r"\s*(?:---)?\s*"), bytes: re.compile(rb"\s*(?:---)?\s*")}


def _cuts(text: str | bytes) -> Iterator[tuple[int, int, int]]:
    """(lines before it, start, end) of each document in YAML that holds something."""
    newline: Any = "\n" if isinstance(text, str) else b"\n"
    dashes, nothing = _DASHES[type(text)], _NOTHING[type(text)]
    start = before = 0
    for end in chain((m.start() for m in dashes.finditer(text)), (len(text),)):
        if nothing.fullmatch(text, start, end) is None:
            yield before, start, end
        before += text.count(newline, start, end)
        start = end


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
