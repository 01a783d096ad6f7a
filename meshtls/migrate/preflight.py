"""The hand of the baseline: what the API server would allow, whether it takes the rollback, who else writes the policies."""

import msgspec

from meshtls.cluster.client import Client
from meshtls.cluster.pool import gather
from meshtls.errors import Conflict, Forbidden, Invalid, MeshtlsError, NotFound, ServerFault
from meshtls.migrate.baseline import Facts, gitops_owner
from meshtls.migrate.journal import Entry, intent, written
from meshtls.migrate.plan import Plan

_NEEDED = (
    ("peerauthentications", "security.istio.io", ("get", "create", "update", "delete"), False),
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
