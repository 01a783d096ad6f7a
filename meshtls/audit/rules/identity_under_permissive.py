"""AuthorizationPolicy fields that need mTLS never match plaintext: a DENY lets it in, a negated ALLOW too."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model import objects as o
from meshtls.model.check import Severity
from meshtls.policy.select import subset as matches

KEYS = ("source.principal", "source.namespace", "source.serviceAccount")


def find(facts: Facts) -> Iterator[Flaw]:
    for policy in facts.mesh.authorization_policies:
        spec = policy.spec
        if spec.target_ref or spec.target_refs or spec.action not in ("ALLOW", "DENY", ""):
            continue
        positive, negative = _identity(spec)
        leaks = positive if spec.action == "DENY" else negative
        if not leaks and not (spec.action != "DENY" and positive):
            continue
        labels = spec.selector.match_labels if spec.selector else {}
        namespaces = facts.workloads_in if policy.namespace == facts.mesh.root else {policy.namespace: facts.workloads_in.get(policy.namespace, ())}
        hit = next(((w, port) for ws in namespaces.values() for w in ws
                    if facts.meshed(w) and matches(labels, facts.face(w).metadata.labels)
                    for port in (0, *facts.ports(w)) if facts.mode(w, port) != "STRICT"), None)
        if hit is None:
            continue
        open_, port = hit
        where = f"port {port} of {open_.label}" if port else open_.label
        if leaks:
            yield Flaw(
                subject=policy.ref,
                path=("spec", "rules"),
                message=f"{spec.action or 'ALLOW'} by {', '.join(leaks)} does not stop plaintext: {where} is {facts.mode(open_, port)}, and plaintext has no identity.",
                because=("these fields are read from the client's certificate and match nothing without one",),
                catalogue=("SE-01",),
                fix=f"Make the workload STRICT (meshtls migrate plan -n {open_.namespace}), or deny what has no identity:\n"
                    "rules:\n- from:\n  - source:\n      notPrincipals: [\"*\"]",
            )
        else:
            yield Flaw(
                subject=policy.ref,
                path=("spec", "rules"),
                severity=Severity.INFO,
                message=f"Refuses plaintext to {where} with 403 already: under STRICT those clients get a reset instead.",
                because=(f"it allows by {', '.join(positive)}, which plaintext never has",),
                catalogue=("SE-02",),
            )


def _identity(spec: o.AuthorizationPolicySpec) -> tuple[list[str], list[str]]:
    """The fields used that need mTLS: those that must match, and those that must not."""
    positive: dict[str, None] = {}
    negative: dict[str, None] = {}
    for rule in spec.rules:
        for source in (f.source for f in rule.from_):
            for name, used in (("principals", source.principals), ("namespaces", source.namespaces), ("serviceAccounts", source.service_accounts)):
                if used:
                    positive[name] = None
            for name, used in (("notPrincipals", source.not_principals), ("notNamespaces", source.not_namespaces),
                               ("notServiceAccounts", source.not_service_accounts)):
                if used and not (spec.action == "ALLOW" and source.principals):
                    negative[name] = None
        for condition in rule.when:
            if condition.key in KEYS:
                if condition.values:
                    positive[condition.key] = None
                if condition.not_values:
                    negative[condition.key] = None
    return list(positive), list(negative)


RULE = Rule(code="MT129", title="An AuthorizationPolicy relies on identities that plaintext does not have", severity=Severity.WARNING,
            catalogue=("SE-01", "SE-02"), about=("AuthorizationPolicy",), needs=("PeerAuthentication", "Pod", "Namespace"), reads=("Service",), find=find)
