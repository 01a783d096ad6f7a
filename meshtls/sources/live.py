"""A live cluster as documents: one LIST for each kind, in pages, decoded straight into their types.

The version of a kind is the usual one, else whichever the cluster serves. A kind that may not be listed, or that the cluster does
not serve, is absent with that reason: nothing that depends on it may pass. A user who may list in some namespaces only gets
those: the kind is then read there, and absent elsewhere. Of ConfigMaps only Istio's own are kept; Secrets are never read.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from meshtls.cluster.kinds import KINDS, Kind
from meshtls.errors import Forbidden, MeshtlsError, NotFound, ServerFault
from meshtls.model.kinds import CLUSTER_SCOPED, READ, kind_of
from meshtls.model.mesh import Mesh
from meshtls.model.objects import K8sGateway
from meshtls.sources.build import build
from meshtls.sources.document import Document, parse

NOT_SERVED = "the cluster does not serve this kind"


def read(client: Any, namespaces: Iterable[str] | None = None, *, overlay: Iterable[Document] = ()) -> Mesh:
    """The Mesh of the cluster behind `client`, with `overlay` laid over it.

    Everything is read, since who calls a namespace lives elsewhere; `namespaces` says where to look if only they are allowed.
    Raises ClusterError where the cluster cannot be asked at all.
    """
    absent: dict[str, str] = {}
    found = documents(client, tuple(namespaces or ()), absent)
    return build(found, overlay=overlay, absent=absent, live=True)


def key_of(cls: type, group: str) -> str:
    """The client's name for a kind."""
    kind = kind_of(cls)
    return kind if kind in KINDS and KINDS[kind].group == group else f"{kind}.{group}"


def documents(client: Any, namespaces: tuple[str, ...], absent: dict[str, str]) -> list[Document]:
    """Every object that is read, as documents; fills `absent`."""
    found: list[Document] = []
    unknown: set[str] = set()  # groups that are not served at all: their other kinds are not asked for one by one
    for _, group, cls in READ:
        kind, key = kind_of(cls), key_of(cls, group)
        name = f"K8s{kind}" if cls is K8sGateway else kind
        try:
            if group in unknown:
                raise NotFound(NOT_SERVED)
            found.extend(_pages(client, key, None))
        except NotFound:
            absent[name] = NOT_SERVED
            if group and group not in unknown and not _served(client, group):
                unknown.add(group)
        except Forbidden as error:
            if _unknown(client, group):
                absent[name] = NOT_SERVED
                continue
            absent[name] = error.message
            if kind not in CLUSTER_SCOPED:
                found.extend(_allowed(client, key, name, namespaces, absent))
    if absent and not found and len(absent) == len(READ):
        raise Forbidden("nothing in this cluster may be read", "use credentials with meshtls' audit role, see docs/rbac.md")
    return found


def _unknown(client: Any, group: str) -> bool:
    """Whether the API server has no such group. Roles are asked before kinds: a kind that does not exist may be forbidden, too."""
    if not group:
        return False
    try:
        client.raw("GET", f"/apis/{group}")
    except NotFound:
        return True
    except MeshtlsError:
        return False
    return False


def _allowed(client: Any, key: str, name: str, namespaces: tuple[str, ...], absent: dict[str, str]) -> Iterator[Document]:
    for namespace in namespaces:
        try:
            yield from _pages(client, key, namespace)
        except (Forbidden, NotFound):
            continue
        else:
            absent[name] = f"{absent[name]}; read in {namespace} only"


def _pages(client: Any, key: str, namespace: str | None) -> list[Document]:
    """All objects of one kind, of another version where the cluster does not serve the usual one. Raises NotFound."""
    known = KINDS[key]
    try:
        return _read(client, known, namespace)
    except NotFound:
        for version in _served(client, known.group):
            if version != known.version:
                try:
                    return _read(client, msgspec.structs.replace(known, version=version), namespace)
                except NotFound:
                    continue
        raise


def _served(client: Any, group: str) -> list[str]:
    """The versions of an API group, the preferred first; none where the group is not served. Raises ClusterError: no answer is not that."""
    if not group:
        return []
    try:
        answer = msgspec.json.decode(client.raw("GET", f"/apis/{group}").content, type=_Group)
    except NotFound:
        return []
    except (msgspec.DecodeError, RecursionError) as error:
        raise ServerFault(f"the versions of {group} could not be read: it is no answer of Kubernetes", "is a proxy in between?") from error
    return [version.version for version in answer.versions]


class _Version(msgspec.Struct):
    version: str = ""


class _Group(msgspec.Struct):
    versions: list[_Version] = []


def _read(client: Any, known: Kind, namespace: str | None) -> list[Document]:
    """All pages of one kind. The API leaves kind and apiVersion out of a list's items: the list's own say them."""
    found: list[Document] = []
    for page in client.list_pages(known, namespace):
        for document in parse(page, known.resource):
            document.kind, document.api_version = known.kind, document.api_version or known.api_version
            found.append(document)
    return found
