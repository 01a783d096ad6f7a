"""`meshtls migrate verify`: the gate of a stage that somebody else has applied, such as a GitOps controller. Changes no policy."""

from typing import TYPE_CHECKING

from meshtls import sources
from meshtls.cli.groundwork import soak
from meshtls.cli.output import say
from meshtls.cli.witness import Eyes, progress
from meshtls.errors import InputError
from meshtls.migrate import gate
from meshtls.migrate.gate import Verdict
from meshtls.migrate.plan import Stage, common_labels, injected
from meshtls.model.mesh import Mesh
from meshtls.policy.authn import STRICT, Authn

if TYPE_CHECKING:
    from meshtls.cli.output import Draft
    from meshtls.cluster.client import Client

# no leave, and no harm seen: it could not be evaluated
CODES = {Verdict.HOLDS: 0, Verdict.BROKEN: 4, Verdict.UNKNOWN: 3, Verdict.PENDING: 3}


def verify(
    client: "Client", draft: "Draft", namespace: str, soak_s: float | None, accepted: tuple[str, ...], image: str
) -> None:
    """Watch what is STRICT in the namespace now, as a stage of a migration is watched; the draft has the gate's checks."""
    mesh = sources.load(client=client)
    stage = applied(mesh, namespace)
    progress(f"{namespace}: {len(stage.workloads)} of its workloads are STRICT: {', '.join(stage.workloads[:5])}")
    draft.facts.append(("namespace", namespace))
    waits_s = soak(mesh, soak_s, namespace, draft)
    eyes = Eyes(client, namespace, image=image, say=progress)
    try:
        eyes.listen(stage)
        progress(f"{namespace}: watching for {waits_s:g} s")
        evidence = eyes.gather(stage, waits_s, accepted, lambda: None)
    finally:
        eyes.settle()
        draft.matrices += [matrix for found in eyes.matrices.values() for matrix in found]
    verdict, because = gate.verdict(evidence)
    # there is no rollback of ours to try
    draft.checks += [check for check in gate.checks(stage.id, evidence) if not check.id.endswith("/rollback")]
    draft.facts.append(("verdict", f"{verdict}: {because}"))
    for one in evidence.refused:
        say(f"{namespace}: REFUSED {one.client} by {one.server} port {one.port}")
    say(f"{namespace}: {verdict}: {because}")
    draft.code = CODES[verdict]


def applied(mesh: Mesh, namespace: str) -> Stage:
    """What is STRICT in the namespace, as a stage. Raises InputError where nothing is."""
    authn = Authn(mesh.peer_authentications, mesh.root)
    workloads = [w for w in mesh.workloads if w.namespace == namespace and injected(w)]
    strict = tuple(w.ref for w in workloads if authn.effective(namespace, common_labels(w.pods)).mode == STRICT)
    if not strict:
        raise InputError(f"{namespace}: none of its workloads in the mesh is STRICT: there is nothing to verify", "meshtls modes shows them")
    whole = authn.hint(namespace)[0] == STRICT
    return Stage(id="namespace" if whole else "canary", policy="", create=False, mode=STRICT, workloads=strict)
