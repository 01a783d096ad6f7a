"""Documents to a Mesh: pure. Every source ends here.

Kinds that meshtls does not read are passed over, as are ConfigMaps that are not Istio's. An object that does not fit its
type is an InputError that names the field; the same object twice with different content is one too, unless one of the two
is laid over the other on purpose (`overlay`).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
import yaml

from meshtls.errors import InputError
from meshtls.model import objects as o
from meshtls.model.config import MeshConfig
from meshtls.model.kinds import BY_KIND, CLUSTER_SCOPED, READ, kind_of
from meshtls.model.mesh import Mesh
from meshtls.model.origin import Origins
from meshtls.sources.document import Document
from meshtls.sources.places import Places

_DECODERS = {cls: msgspec.json.Decoder(cls) for _, _, cls in READ}

DEFAULT_NAMESPACE = "default"
# younger than anything that is
NEWEST = "9999-12-31T23:59:59Z"

# an object, and where it was read: file and line. Not its document, whose body is the whole input's memory.
Read = tuple[o.Object, str, int]


def decode(document: Document) -> o.Object | None:
    """The typed object, or None for a kind that is not read. Raises InputError naming the field that does not fit."""
    group = document.api_version.rpartition("/")[0]
    entry = BY_KIND.get((group, document.kind))
    if entry is None:
        return None
    cls = entry[1]
    body = document.body
    try:
        if isinstance(body, msgspec.Raw):
            try:
                return _DECODERS[cls].decode(body)
            except msgspec.ValidationError:
                body = strip(msgspec.json.decode(body))
        return msgspec.convert(body, cls)
    except (msgspec.ValidationError, RecursionError) as error:
        raise InputError(
            f"{_named(document.kind, body)} cannot be read: {error}",
            "Kubernetes would refuse it too; quote numbers and booleans that are meant as text",
            file=document.file,
            line=document.line,
        ) from error
    except msgspec.DecodeError as error:
        raise InputError(f"{document.kind} cannot be read: {error}", file=document.file) from error


def _named(kind: str, body: Any) -> str:
    meta = body.get("metadata") if isinstance(body, dict) else None
    if not isinstance(meta, dict):
        return kind
    return "/".join(str(part) for part in (kind, meta.get("namespace"), meta.get("name")) if part)


def strip(value: Any) -> Any:
    """Without null entries: Kubernetes reads them as absent."""
    if isinstance(value, dict):
        return {k: strip(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [strip(v) for v in value]
    return value


def build(
    documents: Iterable[Document],
    *,
    overlay: Iterable[Document] = (),
    absent: dict[str, str] | None = None,
    notes: Iterable[str] = (),
    live: bool = False,
    namespace: str = DEFAULT_NAMESPACE,
    text: Callable[[str], str] | None = None,
) -> Mesh:
    """One Mesh of all `documents`, with those of `overlay` in place of what they share a name with.

    `namespace` is where namespaced objects without one belong, as `kubectl apply` would put them. `text` gives a file's content
    again, for the lines of findings.
    """
    found: dict[str, dict[tuple[str, str], Read]] = {field: {} for field, _, _ in READ}
    said = list(notes)
    for over, source in ((False, documents), (True, overlay)):
        for obj, document in _objects(source, namespace):
            table = found[BY_KIND[document.api_version.rpartition("/")[0], document.kind][0]]
            key = (obj.metadata.namespace, obj.metadata.name)
            earlier = table.get(key)
            if over:
                obj = _aged(obj, earlier[0] if earlier else None)
            elif earlier is not None:
                obj = _one_of(obj, document, *earlier)
            table[key] = (obj, document.file, document.line)
    tables = {
        field: tuple(obj for _, (obj, _, _) in sorted(table.items(), key=lambda item: item[0]))
        for field, table in found.items()
    }
    configs = _configs(tables["config_maps"], said)  # type: ignore[arg-type]
    return Mesh(
        **tables,  # type: ignore[arg-type]
        configs=configs,
        absent=dict(absent or {}),
        notes=tuple(dict.fromkeys(said)),
        live=live,
        origins=Origins(locate=_places(found, text).locate) if text else Origins(),
    )


def laid_over(mesh: Mesh, overlay: Iterable[Document], text: Callable[[str], str], namespace: str = DEFAULT_NAMESPACE) -> Mesh:
    """The mesh with the documents of `overlay` in place of what they share a name with, as `build` would have it from the start."""
    changed: dict[str, dict[tuple[str, str], o.Object]] = {}
    owners: list[tuple[str, str, int]] = []
    for obj, document in _objects(overlay, namespace):
        field = BY_KIND[document.api_version.rpartition("/")[0], document.kind][0]
        table = changed.setdefault(field, {(x.metadata.namespace, x.metadata.name): x for x in getattr(mesh, field)})
        key = (obj.metadata.namespace, obj.metadata.name)
        table[key] = _aged(obj, table.get(key))
        owners.append((obj.ref, document.file, document.line))
    tables: dict[str, Any] = {field: tuple(obj for _, obj in sorted(table.items(), key=lambda i: i[0])) for field, table in changed.items()}
    notes = list(mesh.notes)
    if "config_maps" in tables:
        tables["configs"] = _configs(tables["config_maps"], notes)
    new, old, laid = Places(lambda: owners, text), mesh.origins, {ref for ref, _, _ in owners}
    tables["origins"] = Origins(locate=lambda ref, path: new.locate(ref, path) if ref in laid else old.where(ref, path))
    return msgspec.structs.replace(mesh, **tables, notes=tuple(dict.fromkeys(notes)))


def _objects(documents: Iterable[Document], namespace: str) -> Iterator[tuple[o.Object, Document]]:
    """What of the documents belongs to a mesh, each in its namespace."""
    for document in documents:
        obj = decode(document)
        if obj is None:
            continue
        obj = _placed(obj, namespace, document)
        if not isinstance(obj, o.ConfigMap) or _is_istio(obj):
            yield obj, document


def _places(found: dict[str, dict[tuple[str, str], Read]], text: Callable[[str], str]) -> Places:
    return Places(lambda: ((obj.ref, file, line) for table in found.values() for obj, file, line in table.values()), text)


def _placed(obj: o.Object, namespace: str, document: Document) -> o.Object:
    meta = obj.metadata
    if not meta.name and meta.generate_name:
        meta = msgspec.structs.replace(meta, name=meta.generate_name)
    if not meta.name:
        raise InputError(f"{obj.kind} without metadata.name", file=document.file, line=document.line)
    scoped = kind_of(type(obj)) not in CLUSTER_SCOPED
    if scoped and not meta.namespace:
        meta = msgspec.structs.replace(meta, namespace=namespace)
    elif not scoped and meta.namespace:
        meta = msgspec.structs.replace(meta, namespace="")
    return obj if meta is obj.metadata else msgspec.structs.replace(obj, metadata=meta)


def _aged(obj: o.Object, earlier: o.Object | None) -> o.Object:
    """A change in place keeps age and identity, and what is new is the youngest: age decides which of several policies wins."""
    if earlier is None:
        if obj.metadata.creation_timestamp:
            return obj
        return msgspec.structs.replace(obj, metadata=msgspec.structs.replace(obj.metadata, creation_timestamp=NEWEST))
    meta = msgspec.structs.replace(
        obj.metadata,
        creation_timestamp=earlier.metadata.creation_timestamp,
        uid=earlier.metadata.uid,
        resource_version=earlier.metadata.resource_version,
    )
    return msgspec.structs.replace(obj, metadata=meta)


def _one_of(obj: o.Object, document: Document, earlier: o.Object, file: str, line: int) -> o.Object:
    if obj == earlier:
        return earlier
    if obj.metadata.uid and obj.metadata.uid == earlier.metadata.uid:
        return max(obj, earlier, key=lambda x: (len(x.metadata.resource_version), x.metadata.resource_version))
    same = msgspec.structs.replace(obj, api_version=earlier.api_version)
    if same == earlier:
        return earlier
    other = f"{file}:{line}" if line else file
    raise InputError(
        f"{obj.ref} is declared twice, differently; the other is in {other or 'the same input'}",
        "read one environment at a time",
        file=document.file,
        line=document.line,
    )


def _is_istio(config: o.ConfigMap) -> bool:
    name = config.metadata.name
    return name == "istio" or name.startswith("istio-")


def _configs(maps: tuple[o.ConfigMap, ...], notes: list[str]) -> dict[str, MeshConfig]:
    """Revision -> settings. The ConfigMap `istio` is revision `default`'s, `istio-X` revision X's; of two, istio-system's counts."""
    found: dict[str, MeshConfig] = {}
    for config in sorted(maps, key=lambda c: c.metadata.namespace != "istio-system"):
        text = config.data.get("mesh")
        if text is None:
            continue
        revision = config.metadata.name.removeprefix("istio").removeprefix("-") or "default"
        settings = read_config(text, config.ref)
        if revision in found:
            notes.append(f"{config.ref} is a second mesh configuration of revision {revision}; {found[revision].ref} is used")
            continue
        root = settings.root_namespace or config.metadata.namespace
        found[revision] = msgspec.structs.replace(settings, revision=revision, ref=config.ref, root_namespace=root)
    return found


def read_config(text: str, ref: str) -> MeshConfig:
    """MeshConfig from the text of the `mesh` key."""
    try:
        value = yaml.load(text, Loader=yaml.CSafeLoader)
        return msgspec.convert(strip(value) if isinstance(value, dict) else {}, MeshConfig)
    except (yaml.YAMLError, msgspec.ValidationError, ValueError, RecursionError) as error:
        raise InputError(f"{ref}: data.mesh cannot be read: {' '.join(str(error).split())}") from error
