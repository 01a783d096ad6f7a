"""What a request is about, how it is to be done, and whether the object in it fits: its name and namespace are the address's.

Raises ApiError (400) where they are not.
"""
from typing import Any

import msgspec

from meshtls.lab.api import schema, status
from meshtls.lab.api.identity import User
from meshtls.lab.api.resources import Resource

Object = dict[str, Any]


class Target(msgspec.Struct, frozen=True):
    """What a request is about."""

    resource: Resource
    version: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def api_version(self) -> str:
        return self.resource.api_version(self.version)

    @property
    def node(self) -> Object:
        """The schema of the kind."""
        return schema.of(self.resource, self.version)


class Options(msgspec.Struct):
    """How it is to be done; `warnings` collects what goes into Warning headers."""

    user: User
    manager: str = "unknown"
    dry_run: bool = False
    validation: str = "Warn"
    force: bool = False
    content_type: str = "application/json"
    warnings: list[str] = []

    def told(self, kind: str) -> Object:
        return {"kind": kind, "apiVersion": "meta.k8s.io/v1", **({"dryRun": ["All"]} if self.dry_run else {}),
                **({} if kind == "DeleteOptions" else {"fieldManager": self.manager})}


def named(metadata: Object, target: Target) -> None:
    """A replacement says its name."""
    if not metadata.get("name"):
        raise status.bad_request(f"the name of the object ({target.name} based on URL) was undeterminable: name must be provided")


def fit_name(metadata: Object, target: Target) -> None:
    """The name of the address, where the object says none; another is refused."""
    name = metadata.setdefault("name", target.name)
    if name != target.name:
        raise status.bad_request(f"the name of the object ({name}) does not match the name on the URL ({target.name})")


def fit(metadata: Object, target: Target) -> None:
    fit_name(metadata, target)
    fit_namespace(metadata, target)


def fit_namespace(metadata: Object, target: Target) -> None:
    """The namespace of the address; another is refused, and one of a cluster-wide object left out."""
    given = metadata.get("namespace") or ""
    if given and target.namespace and given != target.namespace:
        raise status.bad_request("the namespace of the provided object does not match the namespace sent on the "
                                 "request")
    metadata.pop("namespace", None)
    if target.namespace:
        metadata["namespace"] = target.namespace
