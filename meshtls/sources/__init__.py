"""Where a Mesh comes from: files, standard input, a live cluster, a dump, or a cluster with files laid over it."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from meshtls.model.mesh import Mesh
from meshtls.sources import files, memory
from meshtls.sources.build import build, laid_over
from meshtls.sources.document import DumpHead

__all__ = ["load", "over"]


def load(
    paths: Sequence[str] = (),
    *,
    client: Any = None,
    namespaces: Iterable[str] | None = None,
    overlay: Sequence[str] = (),
) -> Mesh:
    """The Mesh of `paths` (files, directories, `-`), or of the cluster behind `client`; `overlay` files are laid over it.

    `namespaces` narrows what is listed from a cluster (None: everything). Raises InputError or ClusterError.
    """
    if client is not None and not paths:
        from meshtls.sources import live

        return live.read(client, namespaces, overlay=files.read(overlay))
    dumped: list[DumpHead] = []
    kept = files.Texts()
    mesh = memory.bounded(lambda: build(files.read(paths, dumped, kept), overlay=files.read(overlay), text=kept.text))
    absent = {kind: reason for head in dumped for kind, reason in head.absent.items()}
    as_live = len(paths) == len(dumped) == 1 and dumped[0].live
    return msgspec.structs.replace(mesh, absent=absent, live=as_live) if dumped else mesh


def over(mesh: Mesh, overlay: Sequence[str]) -> Mesh:
    """`mesh` with the files of `overlay` laid over it: what it would be, beside what it is, from one reading."""
    return memory.bounded(lambda: laid_over(mesh, files.read(overlay), files.Texts().text))
