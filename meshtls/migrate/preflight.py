"""The hand of the baseline: what the API server would allow, whether it takes the rollback, who else writes the policies.

A dry run of the rollback before the change is one from PERMISSIVE to PERMISSIVE: admission that refuses to loosen what is
STRICT, or to delete it, takes that. So the way back is rehearsed on a policy of ours that is STRICT and selects nothing.
"""

import datetime

import msgspec

from meshtls.cluster.client import Client
from meshtls.cluster.owned import Run, stamp
from meshtls.cluster.pool import gather
from meshtls.errors import Conflict, Forbidden, Invalid, MeshtlsError, NotFound, ServerFault
from meshtls.migrate.baseline import Facts, gitops_owner
from meshtls.migrate.journal import API_VERSION, Entry, Journal, intent, written
from meshtls.migrate.plan import Plan
from meshtls.migrate.store import PART, REHEARSAL

EXPIRES_S = 300.0
_NEEDED = (
    ("peerauthentications", "security.istio.io", ("get", "list", "create", "update", "delete"), False),
    ("configmaps", "", ("get", "create", "update"), True),
    ("leases", "coordination.k8s.io", ("get", "create", "update", "delete"), True),
    # the gates' probes and what they hear: without them a stage would be changed and then taken back
    ("pods", "", ("list", "create", "delete"), False),
    ("pods/log", "", ("get",), False),
    ("services", "", ("create", "delete"), False),
    ("configmaps", "", ("create", "delete"), False),
)


def ask(client: Client, plan: Plan, place: str) -> Facts:
    """Permissions, owners and dry runs; `place` is the journal's namespace."""
    questions = [
        (verb, resource, group, place if in_place else plan.namespace)
        for resource, group, verbs, in_place in _NEEDED for verb in verbs
    ]
    answers = gather(lambda q: client.allowed(*q), questions)
    denied = []
    for (verb, resource, group, namespace), answer in zip(questions, answers, strict=True):
        if isinstance(answer, MeshtlsError):
            raise answer
        if not answer:
            denied.append(f"may not {verb} {resource}{f'.{group}' if group else ''} in {namespace}")
    facts = Facts(denied=tuple(denied))
    return facts if denied else _rehearsed(client, plan, facts)


def _rehearsed(client: Client, plan: Plan, facts: Facts) -> Facts:
    """Try each change and its way back as dry runs. The way back from a creation is a deletion, which needs the object."""
    refused, owners = "", []
    for stage in plan.stages:
        live = None
        try:
            live = client.get("PeerAuthentication", stage.policy, plan.namespace)
        except NotFound:
            pass
        if live is None and not stage.create:
            continue
        if live is not None and (owner := gitops_owner(live)):
            owners.append((stage.policy, owner))
        try:
            after = written(intent(Entry(stage=stage), live), plan.namespace, "dry-run")
            if live is None:
                client.create(after, dry_run=True)
            else:
                client.replace(after, dry_run=True)
                client.replace(live, dry_run=True)
        except (Invalid, Forbidden, ServerFault, Conflict) as error:
            refused = refused or error.message
    return msgspec.structs.replace(facts, refused=refused, owners=tuple(dict.fromkeys(owners)))


def rehearse(client: Client, journal: Journal) -> str:
    """Why the server would refuse the way back from STRICT, or "". Leaves nothing that selects anything.

    Where a policy cannot be created, and none has to be, nothing can be rehearsed, and the dry runs have to do.
    """
    name, stages = f"meshtls-rehearsal-{journal.run}", [entry.stage for entry in journal.entries]
    run = Run(journal.run, REHEARSAL, datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=EXPIRES_S))
    _clear(client, journal.namespace)
    spec = {"selector": {"matchLabels": {"meshtls.dev/rehearsal": journal.run}}, "mtls": {"mode": "STRICT"}}
    try:
        made = client.create(stamp({"apiVersion": API_VERSION, "kind": "PeerAuthentication", "spec": spec,
                                    "metadata": {"name": name, "namespace": journal.namespace}}, run))  # fmt: skip
    except (Invalid, Forbidden, ServerFault) as error:
        return error.message if any(stage.create for stage in stages) else ""
    problem, gone = "", False
    try:
        for found in sorted({stage.found or "UNSET" for stage in stages if not stage.create}):
            client.replace({**made, "spec": {**spec, "mtls": {"mode": found}}}, dry_run=True)
        client.delete("PeerAuthentication", name, journal.namespace, uid=made["metadata"]["uid"])
        gone = True
    except (Invalid, Forbidden, ServerFault) as error:
        problem = error.message
    finally:
        if not gone:
            try:
                client.delete("PeerAuthentication", name, journal.namespace, uid=made["metadata"]["uid"])
            except MeshtlsError:
                problem += f"; PeerAuthentication {name}, which selects nothing, is left: it could not be deleted"
    return problem


def _clear(client: Client, namespace: str) -> None:
    """Delete what a rehearsal left that was killed."""
    for left in client.list("PeerAuthentication", namespace, labels=f"{PART}={REHEARSAL}"):
        try:
            client.delete("PeerAuthentication", left["metadata"]["name"], namespace, uid=left["metadata"]["uid"])
        except (NotFound, Conflict, Invalid, Forbidden, ServerFault):
            pass
