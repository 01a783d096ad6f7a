"""Would a write lower what was achieved? The policy engine's own answer to an AdmissionReview. Pure.

Laws:
  1. The mesh as the write would leave it is compared with the mesh as it is, by the questions of regression.py: what got weaker
     in a kept namespace is a refusal, in the words of the finding. An exception that stands needs no list: it lowers nothing.
  2. What goes away with its namespace, and the pods of meshtls' probes, are let through.
  3. What the engine does not read is let through unlooked at; what it cannot judge is for the API server's failurePolicy.
"""

import datetime
from typing import Any

import msgspec

from meshtls.guard.regression import regression
from meshtls.model.check import Finding, Severity
from meshtls.model.kinds import BY_KIND
from meshtls.model.mesh import Mesh
from meshtls.policy.dataplane import MODE

# the questions that count, the one that explains most first
_ASKED = ("MT914", "MT912", "MT911", "MT915", "MT913")
_MOST = 3
CONFIGURATION = "meshtls-guard"  # the name of the ValidatingWebhookConfiguration
_WAY_OUT = f"(to loosen it on purpose: kubectl delete validatingwebhookconfiguration {CONFIGURATION})"


class Asked(msgspec.Struct, frozen=True):
    """The part of an AdmissionRequest that is looked at; `object` and `old_object` are plain values."""

    uid: str
    operation: str
    kind: dict[str, str] = {}
    name: str = ""
    namespace: str = ""
    object: dict[str, Any] | None = None
    old_object: dict[str, Any] | None = msgspec.field(name="oldObject", default=None)
    dry_run: bool = msgspec.field(name="dryRun", default=False)
    sub_resource: str = msgspec.field(name="subResource", default="")

    @property
    def named(self) -> str:
        """The object's name: a request to delete a collection has none, and is asked about object by object."""
        return self.name or str(((self.old_object or self.object or {}).get("metadata") or {}).get("name") or "")

    @property
    def read(self) -> bool:
        """Does the engine read objects of this kind?"""
        return not self.sub_resource and (self.kind.get("group", ""), self.kind.get("kind", "")) in BY_KIND


class Review(msgspec.Struct, frozen=True):
    request: Asked


def without(mesh: Mesh, asked: Asked) -> Mesh:
    """The mesh without the object that is being deleted."""
    field, _ = BY_KIND[asked.kind.get("group", ""), asked.kind["kind"]]
    kept = tuple(o for o in getattr(mesh, field) if (o.name, o.namespace) != (asked.named, asked.namespace))
    return msgspec.structs.replace(mesh, **{field: kept})


def arriving(mesh: Mesh, asked: Asked) -> dict[str, Any]:
    """The object as it will be. A new pod is what injection has made of it, but ambient capture comes later: it is told by labels."""
    obj = {**(asked.object or {}), "kind": asked.kind["kind"]}
    meta = {**(obj.get("metadata") or {}), **({"namespace": asked.namespace} if asked.namespace else {})}
    own = (meta.get("labels") or {}).get(MODE, mesh.namespace_labels.get(asked.namespace, {}).get(MODE))
    if asked.kind["kind"] == "Pod" and asked.operation == "CREATE" and own == "ambient":
        meta.pop("uid", None)
        obj.pop("status", None)
    return {**obj, "metadata": meta}


def going(mesh: Mesh, namespace: str) -> bool:
    """Is the namespace itself being deleted?"""
    return any(ns.name == namespace and ns.metadata.deletion_timestamp for ns in mesh.namespaces)


def is_probe(mesh: Mesh, asked: Asked) -> bool:
    """Is it a pod of `meshtls probe`, which nobody owns and the kubelet ends?"""
    if asked.kind.get("kind") != "Pod" or asked.object is None:
        return False
    meta, spec = asked.object.get("metadata") or {}, asked.object.get("spec") or {}
    ended = spec.get("activeDeadlineSeconds")
    return ("meshtls.dev/run" in (meta.get("labels") or {}) and not meta.get("ownerReferences") and isinstance(ended, int) and ended <= 3600
            and not any(s.spec.selector and s.spec.selector.items() <= (meta.get("labels") or {}).items() for s in mesh.services_in.get(asked.namespace, ())))  # fmt: skip


def touched(mesh: Mesh, asked: Asked, kept: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    """(the kept namespaces whose modes the write can change, those to which it can change calls)."""
    kind = asked.kind["kind"]
    here = frozenset({asked.namespace or asked.named}) & kept
    if kind == "PeerAuthentication":
        return (kept, kept) if asked.namespace == mesh.root else (here, here)
    if kind == "DestinationRule":
        hosts = [str((obj.get("spec") or {}).get("host", "")) for obj in (asked.object, asked.old_object) if obj]
        elsewhere = {host for entry in mesh.service_entries for host in entry.spec.hosts}  # whose endpoints may be anybody's
        if any("*" in host or host in elsewhere for host in hosts):
            return frozenset(), kept
        return frozenset(), frozenset(host.split(".")[1] if "." in host else asked.namespace for host in hosts) & kept
    return here, frozenset()


def weakened(before: Mesh, after: Mesh, asked: Asked, kept: frozenset[str]) -> list[Finding]:
    """What of the kept namespaces would be weaker."""
    namespaces, servers = touched(before, asked, kept)
    if not namespaces and not servers:
        return []
    checks = regression(before, after, datetime.date.min, namespaces, servers=servers)
    found = [f for check in checks if check.id in _ASKED for f in check.findings if f.severity is Severity.ERROR and _of(f) in kept]
    return sorted(found, key=lambda f: _ASKED.index(f.code))


def _of(finding: Finding) -> str:
    return finding.subject.split("/")[1]


def answer(uid: str, findings: list[Finding], warn: bool = False) -> dict[str, Any]:
    """The AdmissionReview to answer with; `warn` lets through with warnings."""
    said = [f"{f.code} {f.subject}: {f.message}" for f in findings[:_MOST]]
    said += [f"and {len(findings) - _MOST} more"] if len(findings) > _MOST else []
    response: dict[str, Any] = {"uid": uid, "allowed": warn or not findings}
    if findings and warn:
        response["warnings"] = [f"meshtls: {text}" for text in said]
    elif findings:
        response["status"] = {"code": 403, "reason": "Forbidden", "message": f"it would weaken what is kept STRICT: {' | '.join(said)} {_WAY_OUT}"}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
