"""Where a Mesh comes from: files, standard input, a live cluster, a dump, or a cluster with files laid over it."""

from collections.abc import Iterable, Sequence
from typing import Any

from meshtls.model.mesh import Mesh
from meshtls.sources import files
from meshtls.sources.build import build

__all__ = ["load"]


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
    return build(files.read(paths), overlay=files.read(overlay))
