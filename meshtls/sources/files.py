"""Files, directories and standard input (`-`) as documents, with the places that findings point to.

Directories are read through, in order of name: `*.yaml`, `*.yml`, `*.json`; what holds no object there is passed over
(values, kustomizations), while a file that was named must hold one.
"""

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from meshtls.errors import InputError
from meshtls.sources.document import Document, DumpHead, dump_head, is_json, parse

LARGEST = 2 << 30
SUFFIXES = (".yaml", ".yml", ".json")


class Texts:
    """The text of YAML that was read, once more: standard input is kept, files are read again. "" for JSON: nobody reads its lines."""

    def __init__(self) -> None:
        self.stdin = b""

    def text(self, file: str) -> str:
        if file == "<stdin>":
            data = b"" if is_json(self.stdin) else self.stdin
        else:
            try:
                with open(file, "rb") as again:
                    data = again.read(4096)
                    data = b"" if is_json(data) else data + again.read()
            except OSError:
                return ""
        return data.decode(errors="replace").removeprefix("\ufeff")


def read(
    paths: Iterable[str], dumped: list[DumpHead] | None = None, kept: Texts | None = None
) -> Iterator[Document]:
    """Every object in `paths`; the heads of dumps among them are added to `dumped`. Raises InputError for what is broken."""
    for path in paths:
        if path == "-":
            data = bounded(sys.stdin.buffer, "<stdin>")
            if kept is not None:
                kept.stdin = data
            _note(data, dumped)
            yield from _named(parse(data, "<stdin>"), "<stdin>")
            continue
        where = Path(path)
        if where.is_dir():
            files = sorted(f for f in where.rglob("*") if f.suffix in SUFFIXES and f.is_file())
            if not files:
                raise InputError(f"{path}: no .yaml, .yml or .json file in this directory")
            for file in files:
                yield from (d for d in parse(contents(file), str(file)) if d.kind)
        else:
            data = contents(where)
            _note(data, dumped)
            yield from _named(parse(data, path), path)


def _note(data: bytes, dumped: list[DumpHead] | None) -> None:
    head = dump_head(data) if dumped is not None else None
    if head is not None and dumped is not None:
        dumped.append(head)


def contents(path: Path) -> bytes:
    """The bytes of a file or a pipe. A device, which may never end, is refused, as is what is larger than LARGEST."""
    try:
        with path.open("rb") as file:
            is_ = os.fstat(file.fileno())
            if stat.S_ISCHR(is_.st_mode) or stat.S_ISBLK(is_.st_mode):
                raise InputError(f"{path}: a device, not a file")
            if is_.st_size > LARGEST:
                raise _too_large(str(path))
            return file.read() if stat.S_ISREG(is_.st_mode) else bounded(file, str(path))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file or directory") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def bounded(file: BinaryIO, name: str) -> bytes:
    """What a pipe holds, up to LARGEST."""
    parts, size = [], 0
    while part := file.read(1 << 20):
        parts.append(part)
        size += len(part)
        if size > LARGEST:
            raise _too_large(name)
    return b"".join(parts)


def _too_large(name: str) -> InputError:
    return InputError(f"{name}: larger than {LARGEST >> 30} GiB, more than is read of one file", "read it in parts")


def _named(documents: Iterator[Document], file: str) -> Iterator[Document]:
    some = False
    for document in documents:
        if not document.kind:
            raise InputError(
                "no Kubernetes object: it has no kind", "is this a manifest?", file=file, line=document.line
            )
        some = True
        yield document
    if not some and file != "<stdin>":
        raise InputError(f"{file}: no Kubernetes object in this file")
