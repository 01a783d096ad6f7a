"""DISABLE is not supported in ambient: ztunnel accepts plaintext and mTLS, as under PERMISSIVE."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity
from meshtls.policy.authn import mode_of as mode


def find(facts: Facts) -> Iterator[Flaw]:
    for w in facts.ambient:
        if facts.written(w) != "DISABLE":
            continue
        policies = facts.own(w)
        decided = policies[0] if policies and mode(policies[0]) == "DISABLE" else facts.decider(w.namespace)
        if decided is None:
            continue
        yield Flaw(
            subject=decided.ref,
            path=("spec", "mtls", "mode"),
            message=f"DISABLE acts as PERMISSIVE for {w.label}: it is in ambient, where DISABLE is not supported.",
            because=("istiod makes no ztunnel policy of DISABLE; meshed clients go on using HBONE",),
            fix="spec:\n  mtls:\n    mode: PERMISSIVE",
            affects=(w.namespace,),
        )


RULE = Rule(code="MT118", title="DISABLE on ambient workloads acts as PERMISSIVE", severity=Severity.WARNING,
            catalogue=("AM-01",), about=("PeerAuthentication",), needs=("Pod", "Namespace"), find=find)
