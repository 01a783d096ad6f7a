"""The fix: what to apply so that a call that breaks works, as YAML.

The narrowest change that keeps the server protected from everyone else: an exception for one port of one workload, a
DestinationRule without its `tls`, a Sidecar that imports the host. Where the cause lies with the client (no sidecar), the
exception is what unblocks; the comment above it says what would be better.
"""

import msgspec

from meshtls.model.mesh import Mesh
from meshtls.model.objects import BackendTLSPolicy, DestinationRule, Object, PeerAuthentication
from meshtls.policy.authn import STRICT, UNSET, mode_of
from meshtls.policy.because import Because
from meshtls.policy.dataplane import AMBIENT
from meshtls.policy.engine import Engine
from meshtls.policy.predict import Group
from meshtls.policy.server import BREAKS


def fix_for(mesh: Mesh, group: Group) -> str:
    """YAML, or "" where nothing breaks or no single object mends it."""
    if group.verdict != BREAKS:
        return ""
    for because in group.outcome.because:
        found = mesh.find(because.object) if because.object else None
        if isinstance(found, DestinationRule) and ".tls" in because.path:
            return _destination_rule(mesh, found, because)
        if isinstance(found, BackendTLSPolicy):
            return f"# mTLS of the mesh takes its place: kubectl -n {found.namespace} delete backendtlspolicy {found.name}\n"
    because = group.outcome.because[-1]
    found = mesh.find(because.object) if because.object else None
    if any(b.path == "data.mesh.enableAutoMtls" for b in group.outcome.because):
        ref = next(b.object for b in group.outcome.because if b.path == "data.mesh.enableAutoMtls")
        return f"# in {ref}, key mesh, before anything goes STRICT\nenableAutoMtls: true\n"
    if group.sends == "plaintext" and "STRICT" in because.says:
        return _exception(mesh, group)
    if isinstance(found, PeerAuthentication) and "DISABLE" in because.says:
        return _permissive(found, because.path)
    if any("REGISTRY_ONLY" in b.says for b in group.outcome.because):
        return _sidecar(group)
    return ""


def _head(obj: Object, api: str) -> str:
    return f"apiVersion: {obj.api_version or api}\nkind: {obj.kind}\nmetadata:\n  name: {obj.name}\n  namespace: {obj.namespace}\n"


def _destination_rule(mesh: Mesh, rule: DestinationRule, because: Because) -> str:
    path = because.path
    changed = msgspec.to_builtins(rule.spec)
    parts: list[str] = []
    spec: object = changed
    steps = [s for s in path.removeprefix("spec.").replace("[", ".").replace("]", "").split(".") if s not in ("tls", "mode")]
    for step in steps:
        if isinstance(spec, list | tuple):
            spec = next((x for i, x in enumerate(spec) if str(i) == step or x.get("name") == step), {})
        elif isinstance(spec, dict):
            spec = spec.get(step, {})
        parts.append(step)
    note = "# without tls, automatic mTLS decides for each endpoint\n"
    if isinstance(spec, dict):
        spec.pop("tls", None)
        if not mesh.config.enable_auto_mtls and "ISTIO_MUTUAL" not in because.says:
            spec["tls"] = {"mode": "ISTIO_MUTUAL"}
            note = "# automatic mTLS is off in this mesh: the rule has to ask for it\n"
    return (
        note
        + _head(rule, "networking.istio.io/v1")
        + "spec:\n"
        + _yaml(changed, 1)
    )


def _exception(mesh: Mesh, group: Group) -> str:
    engine = Engine.of(mesh)
    namespace, name = group.server.split("/")[1:3]
    service = mesh.services_by_name.get((namespace, name)) if group.server.startswith("Service/") else None
    labels: dict[str, str] = {}
    captured = False
    narrow: list[PeerAuthentication] = []
    if service is not None:
        labels = dict(service.spec.selector)
        host = engine.control("").registry.by_name.get(f"{name}.{namespace}.svc.cluster.local", {}).get(namespace)
        endpoints = engine.control("").registry.endpoints(host).get(group.port, ()) if host else ()
        for endpoint in endpoints:
            captured = captured or (endpoint.pod is not None and engine.face(endpoint.pod).plane.kind == AMBIENT)
            narrow.extend(p for p in engine.control("").authn.selects(namespace, endpoint.labels)[:1] if p not in narrow)
    else:
        for face in engine.faces.get(group.server, ()):
            captured = captured or face.plane.kind == AMBIENT
            labels = {k: v for k, v in face.pod.labels.items() if k in ("app", "app.kubernetes.io/name", "version")}
            narrow.extend(p for p in engine.control("").authn.selects(namespace, face.pod.labels)[:1] if p not in narrow)
    port = group.target or str(group.port)
    own = engine.control("").authn.wide(namespace)
    # STRICT by the mesh alone: an exception without a mode of its own may open every port of a captured workload
    risky = captured and (own is None or own.spec.selector is not None or mode_of(own) != STRICT)
    note = "# better: give the client a sidecar. Until then, this port alone takes plaintext\n"
    if len(narrow) == 1:
        spec = msgspec.to_builtins(narrow[0].spec)
        spec.setdefault("portLevelMtls", {})[port] = {"mode": "PERMISSIVE"}
        if risky and mode_of(narrow[0]) == UNSET:
            spec["mtls"] = {"mode": STRICT}
        return note + _head(narrow[0], "security.istio.io/v1") + "spec:\n" + _yaml(spec, 1)
    if not labels or narrow:
        return ""
    spec = {"selector": {"matchLabels": labels}, "portLevelMtls": {port: {"mode": "PERMISSIVE"}}}
    if risky:
        spec = {"selector": spec["selector"], "mtls": {"mode": STRICT}, "portLevelMtls": spec["portLevelMtls"]}
    return (
        note
        + f"apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  name: {name}-plaintext-{port}\n  namespace: {namespace}\nspec:\n"
        + _yaml(spec, 1)
    )


def _permissive(policy: PeerAuthentication, path: str) -> str:
    spec = msgspec.to_builtins(policy.spec)
    if "portLevelMtls." in path:
        spec["portLevelMtls"][path.rpartition(".")[2]] = {"mode": "PERMISSIVE"}
    else:
        spec["mtls"] = {"mode": "PERMISSIVE"}
    return "# PERMISSIVE first: clients stop sending mTLS to all of a DISABLE namespace\n" + _head(policy, "security.istio.io/v1") + "spec:\n" + _yaml(spec, 1)


def _sidecar(group: Group) -> str:
    namespace = group.server.split("/")[1]
    return f"# add to spec.egress[].hosts of the Sidecar that governs the client\n- {namespace}/*\n"


def _yaml(value: object, depth: int) -> str:
    """Block YAML of plain values; texts that could be read as something else are quoted."""
    pad = "  " * depth
    if isinstance(value, dict):
        lines = []
        for key, each in value.items():
            if isinstance(each, dict | list | tuple) and each:
                lines.append(f"{pad}{_scalar(key)}:\n{_yaml(each, depth + (0 if isinstance(each, list | tuple) else 1))}")
            else:
                lines.append(f"{pad}{_scalar(key)}: {_scalar(each)}\n")
        return "".join(lines)
    if isinstance(value, list | tuple):
        lines = []
        for each in value:
            if isinstance(each, dict) and each:
                block = _yaml(each, depth + 1)
                lines.append(f"{pad}- {block[len(pad) + 2:]}")
            else:
                lines.append(f"{pad}- {_scalar(each)}\n")
        return "".join(lines)
    return f"{pad}{_scalar(value)}\n"


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, list | tuple):
        return "[]"
    text = str(value)
    plain = text and all(c.isalnum() or c in "-._/" for c in text) and text[0] not in "-." and not text.replace(".", "").isdigit()
    if plain and text.lower() not in ("true", "false", "null", "yes", "no", "on", "off", "y", "n"):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
