"""Who would break if a namespace went STRICT: by the prediction, by what was observed, and by the audit. Pure.

What clients without a proxy call, no prediction knows: the logs do. What the API server and the kubelet call, the audit knows.
"""

from collections.abc import Iterable

import msgspec

from meshtls.migrate.baseline import API_SERVER_CODES, ASKED_APART, OWN_CODES
from meshtls.migrate.exceptions import ports_in
from meshtls.model.check import Check, Finding, Severity
from meshtls.model.mesh import Mesh
from meshtls.policy import dataplane
from meshtls.policy.engine import Engine
from meshtls.policy.predict import groups
from meshtls.policy.server import BREAKS

# clients without proxy that objects name, and scrapers, are no hold: whether they call, the logs know; but a nightly one may be missed
ADVICE = ("MT24", "MT250")


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """An arrival in the logs that STRICT would refuse: `client` as people read it, `ref` of it ("" unknown), the workload and port.

    Of what arrives at a port that stays PERMISSIVE, there is none.
    """

    client: str
    ref: str
    server: str
    port: int
    says: str


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What the logs of one namespace said; `unknown` is why they said nothing. `callers` are namespaces that call it."""

    seen: tuple[Seen, ...] = ()
    callers: frozenset[str] = frozenset()
    unknown: str = ""


class Blocker(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Somebody who would break. `by` is `predicted`, `observed` or `audit`; `holds` False is advice; `port` 0 where none is known.

    `moves`: a restart would give the client a sidecar.
    """

    by: str
    client: str
    server: str
    port: int
    says: str
    code: str = ""
    holds: bool = True
    moves: bool = False


def movers(mesh: Mesh) -> frozenset[str]:
    """Refs of workloads that run without a proxy and would have one if their pods were made anew."""
    injector = Engine.of(mesh).injector
    found = set()
    for w in mesh.workloads:
        if w.template is None or not w.pods or any(pod.has_sidecar or pod.captured for pod in w.pods):
            continue
        face = msgspec.structs.replace(w, pods=()).faces[0]
        if dataplane.is_manifest(face) and dataplane.to_be(face, w.ref, injector, mesh)[0].kind != dataplane.BARE:
            found.add(w.ref)
    return frozenset(found)


def predicted_breaks(after: Mesh, before: Mesh, namespaces: Iterable[str]) -> dict[str, list[Blocker]]:
    """Clients with a proxy that would break, by the server's namespace. What clients without one call, only the logs know."""
    engine = Engine.of(before)
    meshed = {ref for ref, faces in engine.faces.items() if any(face.plane.kind != dataplane.BARE for face in faces)}
    found: dict[str, list[Blocker]] = {}
    for g in groups(after, before, server_namespaces=frozenset(namespaces)):
        if g.verdict != BREAKS or g.was is None or g.was.verdict == BREAKS:
            continue
        says = str(g.outcome.because[-1]) if g.outcome.because else ""
        for client in g.clients:
            if client in meshed:
                target = int(g.target) if g.target.isdecimal() else 0
                found.setdefault(g.server.split("/")[1], []).append(
                    Blocker(by="predicted", client=client, server=g.server, port=target, says=f"would no longer reach {g.server} port {g.port}: {says}")
                )
    return found


def observed_breaks(heard: Observed) -> list[Blocker]:
    return [Blocker(by="observed", client=one.ref or one.client, server=one.server, port=one.port, says=one.says) for one in heard.seen]


def audited_breaks(mesh: Mesh, namespace: str, findings: Iterable[Finding]) -> list[Blocker]:
    """What the audit says about the namespace: callers that no prediction knows, and what breaks in itself."""
    found = []
    for f in findings:
        of_api = f.code in API_SERVER_CODES and f.severity.rank <= Severity.ERROR.rank or f.code.startswith(ADVICE)
        own = f.code.startswith(OWN_CODES) and f.code not in ASKED_APART and f.severity.rank <= Severity.ERROR.rank
        if not of_api and not own:
            continue
        opened = [(w, port) for w, port in ports_in(mesh, f.fix) if w.namespace == namespace]
        if of_api and opened or own and f.subject.split("/")[1:2] == [namespace]:
            for server, port in [(w.ref, port) for w, port in opened] or [(f.subject, 0)]:
                found.append(Blocker(by="audit", client=f.subject, server=server, port=port, says=f.message, code=f.code, holds=not f.code.startswith(ADVICE)))
    return found


def findings_of(checks: Iterable[Check]) -> list[Finding]:
    return [f for check in checks for f in check.findings if not f.accepted]
