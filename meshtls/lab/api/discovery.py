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
OPENAPI_PROTOBUF = "application/com.github.proto-openapi.spec.v2"
VERSION = {"major": "1", "minor": "36", "gitVersion": "v1.36.2+meshtls-lab", "gitCommit": "0" * 40,
           "gitTreeState": "clean",
           "buildDate": "2026-06-01T00:00:00Z", "goVersion": "none", "compiler": "none", "platform": "linux/amd64",
           "emulationMajor": "1", "emulationMinor": "36", "minCompatibilityMajor": "1", "minCompatibilityMinor": "35"}
_VERBS = {"log": ["get"], "finalize": ["update"], **{key: ["create"] for key in ("binding", "eviction", "token")}}
_KINDS = {"binding": ("", "v1", "Binding"), "eviction": ("policy", "v1", "Eviction"),
          "token": ("authentication.k8s.io", "v1", "TokenRequest"), "scale": ("autoscaling", "v1", "Scale")}
"""Of subresources: what may be done where that is not reading and writing, and the kind where it is another."""


def document(registry: Registry, parts: list[str], aggregated: bool, server: str) -> Object | None:
    """What stands at a path that is no resource's; None when there is nothing."""
    groups = registry.groups()
    match parts:
        case ["api"] if not aggregated:
            return {"kind": "APIVersions", "versions": ["v1"],
                    "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server}]}
        case ["apis"] if not aggregated:
            return {"kind": "APIGroupList", "apiVersion": "v1",
                    "groups": [_group(name, versions) for name, versions in groups.items()]}
        case ["api" | "apis" as root]:
            return _aggregated(registry, {"": ["v1"]} if root == "api" else groups)
        case ["api", "v1"]:
            return _resource_list(registry, "", "v1")
        case ["apis", group] if group in groups:
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, groups[group])}
        case ["apis", group, version] if version in groups.get(group, ()):
            return _resource_list(registry, group, version)
        case ["openapi", "v2"]:  # for those who look there for what v3 does not have
            return {"swagger": "2.0", "info": {"title": "meshtls lab", "version": VERSION["gitVersion"]}, "paths": {}, "definitions": {}}
        case ["openapi", "v3"]:
            found = ["api/v1", *(f"apis/{group}/{version}" for group, versions in groups.items() for version in versions)]
            return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={registry.generation}"}
                              for path in found}}
        case ["openapi", "v3", "api", "v1"]:
            return _openapi(registry, "", "v1")
        case ["openapi", "v3", "apis", group, version] if version in groups.get(group, ()):
            return _openapi(registry, group, version)
        case []:
            return {"paths": ["/api", "/api/v1", "/apis", *(f"/apis/{group}" for group in groups), "/healthz", "/livez",
                              "/openapi/v3", "/readyz", "/version"]}
    return None


def _group(name: str, versions: list[str]) -> Object:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _of(registry: Registry, name: str, version: str) -> list[Resource]:
    return sorted((one for one in registry if one.group == name and version in one.versions),
                  key=lambda one: one.plural)


def _entry(one: Resource, version: str) -> Object:
    """A resource as the aggregated document has it."""
    own = one.group, version, one.kind
    subs = [{"subresource": sub, "responseKind": _kind(*_KINDS.get(sub, own)),
             "verbs": _VERBS.get(sub, ["get", "patch", "update"])} for sub in one.subresources]
    found = {"resource": one.plural, "responseKind": _kind(*own), "scope": "Namespaced" if one.namespaced else "Cluster",
             "singularResource": one.singular, "verbs": one.verbs}
    more: Object = {"shortNames": list(one.short), "categories": list(one.categories), "subresources": subs}
    return {**found, **{key: value for key, value in more.items() if value}}


def _kind(group: str, version: str, kind: str) -> Object:
    return {"group": group, "version": version, "kind": kind}


def _aggregated(registry: Registry, groups: dict[str, list[str]]) -> Object:
    """APIGroupDiscoveryList (v2), which kubectl asks for first."""
    items = [{"metadata": {"name": name, "creationTimestamp": None}, "versions": [
        {"version": version, "freshness": "Current",
         "resources": [_entry(one, version) for one in _of(registry, name, version)]} for version in versions]}
        for name, versions in groups.items()]
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def _resource_list(registry: Registry, name: str, version: str) -> Object:
    """APIResourceList of one group and version."""
    listed = []
    for one in _of(registry, name, version):
        entry = _entry(one, version)
        if one.plural != "bindings":
            known: Object = {key: entry[key] for key in ("verbs", "shortNames", "categories") if key in entry}
            listed.append({"name": one.plural, "singularName": one.singular, "namespaced": one.namespaced,
                           "kind": one.kind, **known})
        for sub in entry.get("subresources", ()):
            kind = sub["responseKind"]
            foreign: Object = kind if (kind["group"], kind["version"]) != (one.group, version) else {"kind": kind["kind"]}
            listed.append({"name": f"{one.plural}/{sub['subresource']}", "singularName": "",
                           "namespaced": one.namespaced, **foreign, "verbs": sub["verbs"]})
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{name}/{version}" if name else version,
            "resources": listed}


def _openapi(registry: Registry, name: str, version: str) -> Object:
    """OpenAPI v3 of one group and version."""
    components: Object = {}
    paths: Object = {}
    parameters = [{"name": key, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
                  for key in ("dryRun", "fieldManager", "fieldValidation")]
    for one in _of(registry, name, version):
        kind = _kind(one.group, version, one.kind)
        title = f"{one.group or 'core'}.{version}.{one.kind}"
        components[title] = {**_public(schema.of(one, version), components), "x-kubernetes-group-version-kind": [kind]}
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
    found = {key: value for key, value in node.items()
             if key not in ("x-model", "x-rules", "x-quantity", "properties", "items", "additionalProperties")}
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
