"""Clients that only STRICT takes: they speak TLS themselves, with a certificate of the mesh and without Istio's ALPN.

Under PERMISSIVE such a client is refused on HTTP ports and passed raw to the application on others. So a rollback breaks it, unless
its port stays STRICT. A rollback is not held for that: it is told before the first change, with the policy that keeps the port.
"""

from collections.abc import Iterable

import msgspec

from meshtls.migrate.exceptions import exception, manifest
from meshtls.migrate.journal import Journal
from meshtls.migrate.plan import common_labels
from meshtls.model.check import Check, Confidence, Finding, Severity, Status
from meshtls.model.mesh import Mesh
from meshtls.policy.authn import STRICT, Authn


class Raw(msgspec.Struct, frozen=True, kw_only=True):
    """A client seen in the logs: `client` in full, `ref` of it ("" unknown), the workload `server` and target `port`, and how often."""

    client: str
    ref: str
    server: str
    port: int
    count: int
    last: str


def lost(mesh: Mesh, journal: Journal, seen: Iterable[Raw], scrapers: Iterable[str] = ()) -> Check:
    """What the rollback of this run would break: `seen` in the logs, and `scrapers`, monitors that name a certificate of the mesh."""
    authn = Authn(mesh.peer_authentications, mesh.root)
    workloads = {w.ref: w for w in mesh.workloads}
    ours = {entry.stage.policy for entry in journal.entries}
    findings = []
    for one in seen:
        workload = workloads.get(one.server)
        if workload is None or workload.namespace != journal.namespace:
            continue
        labels = common_labels(workload.faces)
        effective = authn.effective(workload.namespace, labels)
        own = next(iter(authn.selects(workload.namespace, labels)), None)
        keeps = own is not None and own.name not in ours and effective.ports.get(one.port) == STRICT
        if keeps or effective.on(one.port) != STRICT:
            continue
        made = exception(mesh, authn, workload, {one.port: STRICT})
        findings.append(Finding(
            code="MT708", severity=Severity.WARNING, subject=one.ref or one.server, confidence=Confidence.MEASURED, catalogue=("RB-09", "CL-15"),
            message=f"{one.client} brings the mesh's certificate by itself to {one.server} port {one.port} ({one.count} times, last at "
                    f"{one.last}): only STRICT takes it, so this rollback breaks it",
            fix=made if isinstance(made, str) else f"to keep this port STRICT, apply this first:\n{manifest(made)}",
        ))  # fmt: skip
    findings += [
        Finding(code="MT708", severity=Severity.WARNING, subject=ref, confidence=Confidence.SOURCE, catalogue=("RB-09", "CL-15"),
                message="scrapes with a certificate of the mesh: where it scrapes this namespace, this rollback breaks it",
                fix="keep the scraped port STRICT by portLevelMtls before the rollback")
        for ref in scrapers
    ]  # fmt: skip
    return Check(id="rollback/raw", title="no client is known that only STRICT takes", status=Status.PASS, group="before the rollback",
                 findings=tuple(findings))  # fmt: skip
