"""The cases as data: `cases/*.yaml` in a shorthand, expanded to the documents that a manifest holds (see cases/README.md)."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from meshtls.model.kinds import BY_KIND
from meshtls.model.mesh import Mesh
from meshtls.sources.build import build
from meshtls.sources.document import Document

FOLDER = Path(__file__).parent / "cases"
_GROUPS = {kind: group for (group, kind) in BY_KIND if (group, kind) != ("gateway.networking.k8s.io", "Gateway")}
_META = {"labels": "labels", "annotations": "annotations", "created": "creationTimestamp", "uid": "uid", "ownerReferences": "ownerReferences"}


@cache
def everything() -> tuple[tuple[str, str, dict[str, Any]], ...]:
    """(code, name of the case, case) of every case."""
    files = [_read(path) for path in sorted(FOLDER.glob("mt*.yaml"))]
    return tuple((code, name, case) for file in files for code, cases in file.items() for name, case in cases.items())


@cache
def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
    return found


def documents(objects: dict[str, dict[str, Any]]) -> Iterator[Document]:
    """Plain manifests of objects in shorthand."""
    for key, fields in objects.items():
        kind, *place = key.split("/")
        group = _GROUPS[kind]
        meta: dict[str, Any] = {"name": place[-1]}
        if len(place) == 2:
            meta["namespace"] = place[0]
        version = (fields or {}).get("apiVersion") or (f"{group}/v1" if group else "v1")
        body = {"apiVersion": version, "kind": kind, "metadata": meta}
        for name, value in (fields or {}).items():
            if name in _META:
                meta[_META[name]] = value
            else:
                body[name] = value
        yield Document(api_version=body["apiVersion"], kind=kind, body=_texts(body), file="case.yaml")


def _texts(value: Any) -> Any:
    """Keys as text: YAML reads the port 8080 as a number."""
    if isinstance(value, dict):
        return {str(k): _texts(v) for k, v in value.items()}
    return [_texts(v) for v in value] if isinstance(value, list) else value


def objects(case: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The objects of a case, on top of those that every case starts with."""
    base = {} if case.get("base") == "none" else _read(FOLDER / "base.yaml")
    return {**base, **case["objects"]}


def kind_of(document: Document) -> str:
    """The kind as rules name it: the two Gateways are told apart."""
    return "K8sGateway" if document.kind == "Gateway" and document.api_version.startswith("gateway.networking") else document.kind


def mesh(case: dict[str, Any], without: str = "") -> Mesh:
    """The mesh that a case describes; `without` leaves out a kind."""
    return build((d for d in documents(objects(case)) if kind_of(d) != without), live=case.get("live", False))
