"""What the API has: the discovery documents, one per version and aggregated, and OpenAPI v3 made from the schemas.

OpenAPI here is what kubectl reads of it: component schemas (explain, strategic merge keys) and, per kind, one path
whose PATCH says that it takes `fieldValidation` and `dryRun`.
"""
import re
from typing import Any

from meshtls.lab.api import schema
from meshtls.lab.api.resources import Registry, Resource

Object = dict[str, Any]
AGGREGATED = "g=apidiscovery.k8s.io"
VERSION = {"major": "1", "minor": "36", "gitVersion": "v1.36.2+meshtls-lab", "gitCommit": "0" * 40,
           "gitTreeState": "clean",
           "buildDate": "2026-06-01T00:00:00Z", "goVersion": "none", "compiler": "none", "platform": "linux/amd64",
           "emulationMajor": "1", "emulationMinor": "36", "minCompatibilityMajor": "1", "minCompatibilityMinor": "35"}
_SUBRESOURCES: dict[str, tuple[str, list[str]]] = {
    "status": ("", ["get", "patch", "update"]), "log": ("", ["get"]), "finalize": ("", ["update"]),
    "binding": ("Binding", ["create"]),
    "ephemeralcontainers": ("", ["get", "patch", "update"]), "eviction": ("Eviction", ["create"]),
    "token": ("TokenRequest", ["create"]),
    "scale": ("Scale", ["get", "patch", "update"])}


def core_versions(server: str) -> Object:
    return {"kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server}]}


def group(name: str, versions: list[str]) -> Object:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def group_list(registry: Registry) -> Object:
    return {"kind": "APIGroupList", "apiVersion": "v1",
            "groups": [group(name, versions) for name, versions in registry.groups().items()]}


def _of(registry: Registry, name: str, version: str) -> list[Resource]:
    return sorted((one for one in registry if one.group == name and version in one.versions),
                  key=lambda one: one.plural)


def resource_list(registry: Registry, name: str, version: str) -> Object:
    """APIResourceList of one group and version."""
    listed = []
    for one in _of(registry, name, version):
        if one.plural != "bindings":
            entry: Object = {"name": one.plural, "singularName": one.singular, "namespaced": one.namespaced,
                             "kind": one.kind, "verbs": one.verbs}
            if one.short:
                entry["shortNames"] = list(one.short)
            if one.categories:
                entry["categories"] = list(one.categories)
            listed.append(entry)
        for sub in one.subresources:
            kind, verbs = _SUBRESOURCES.get(sub, ("", ["get"]))
            about: Object = {"Eviction": {"group": "policy", "version": "v1"},
                             "TokenRequest": {"group": "authentication.k8s.io", "version": "v1"},
                             "Scale": {"group": "autoscaling", "version": "v1"}}.get(kind, {})
            listed.append({"name": f"{one.plural}/{sub}", "singularName": "", "namespaced": one.namespaced, **about,
                           "kind": kind or one.kind,
                           "verbs": verbs})
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{name}/{version}" if name else version,
            "resources": listed}


def aggregated(registry: Registry, core: bool) -> Object:
    """APIGroupDiscoveryList (v2), which kubectl asks for first."""
    groups = {"": ["v1"]} if core else registry.groups()
    items = []
    for name, versions in groups.items():
        listed = []
        for version in versions:
            resources = []
            for one in _of(registry, name, version):
                kind = {"group": one.group, "version": version, "kind": one.kind}
                entry: Object = {"resource": one.plural, "responseKind": kind, "scope": "Namespaced" if one.namespaced
                                 else "Cluster",
                                 "singularResource": one.singular, "verbs": one.verbs}
                if one.short:
                    entry["shortNames"] = list(one.short)
                if one.categories:
                    entry["categories"] = list(one.categories)
                if one.subresources:
                    entry["subresources"] = [{"subresource": sub,
                                              "responseKind": {**kind, "kind": _SUBRESOURCES.get(sub, ("", []))[0]
                                                               or one.kind},
                                              "verbs": _SUBRESOURCES.get(sub, ("", ["get"]))[1]}
                                             for sub in one.subresources]
                resources.append(entry)
            listed.append({"version": version, "freshness": "Current", "resources": resources})
        items.append({"metadata": {"name": name, "creationTimestamp": None}, "versions": listed})
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def openapi_index(registry: Registry) -> Object:
    paths = {"api/v1": {"serverRelativeURL": f"/openapi/v3/api/v1?hash={registry.generation}"}}
    for name, versions in registry.groups().items():
        for version in versions:
            path = f"apis/{name}/{version}"
            paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={registry.generation}"}
    return {"paths": paths}


def openapi(registry: Registry, name: str, version: str) -> Object:
    """OpenAPI v3 of one group and version."""
    components: Object = {}
    paths: Object = {}
    parameters = [{"name": key, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
                  for key in ("dryRun", "fieldManager", "fieldValidation")]
    for one in _of(registry, name, version):
        kind = {"group": one.group, "version": version, "kind": one.kind}
        title = f"{one.group or 'core'}.{version}.{one.kind}"
        root = dict(schema.of(one, version))
        components[title] = {**_public(root, components), "x-kubernetes-group-version-kind": [kind]}
        base = f"/apis/{name}/{version}" if name else f"/api/{version}"
        at = f"{base}/{'namespaces/{namespace}/' if one.namespaced else ''}{one.plural}/{{name}}"
        operation = {"parameters": parameters, "x-kubernetes-group-version-kind": kind,
                     "responses": {"200": {"description": "OK", "content": {
            "application/json": {"schema": {"$ref": f"#/components/schemas/{title}"}}}}}}
        paths[at] = {"get": {**operation, "x-kubernetes-action": "get", "parameters": []},
                     "put": {**operation, "x-kubernetes-action": "put"},
                     "patch": {**operation, "x-kubernetes-action": "patch"}}
        paths[at.removesuffix("/{name}")] = {"post": {**operation, "x-kubernetes-action": "post"}}
    return {"openapi": "3.0.0", "info": {"title": "meshtls lab", "version": VERSION["gitVersion"]}, "paths": paths,
            "components": {"schemas": components}}


def _public(node: Object, components: Object) -> Object:
    """A node without our own marks, its models as component references."""
    if "$ref" in node and isinstance(node["$ref"], str):
        target = re.sub(r"^(V\d+(?:alpha\d+|beta\d+)?)", lambda found: found[1].lower() + ".", node["$ref"])
        if target not in components:
            components[target] = {}
            components[target] = _public(schema.model(node["$ref"]), components)
        told = {"description": node["description"]} if "description" in node else {}
        return {"allOf": [{"$ref": f"#/components/schemas/{target}"}], **told}
    found = {key: value for key, value in node.items() if key
             not in ("x-model", "x-rules", "x-quantity", "properties", "items",
                                                                     "additionalProperties")}
    if "properties" in node:
        found["properties"] = {key: _public(child, components) for key, child in node["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            found[key] = _public(node[key], components)
    if keys := schema.merge_keys(node):
        found["x-kubernetes-patch-merge-key"], found["x-kubernetes-patch-strategy"] = keys[0], "merge"
    elif node.get("x-kubernetes-list-type") == "set":
        found["x-kubernetes-patch-strategy"] = "merge"
    return found
