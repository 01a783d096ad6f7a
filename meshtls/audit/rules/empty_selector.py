"""A selector that is there but empty means another thing to sidecars than to ambient.

In the root namespace ambient ignores such a policy and sidecars take it as mesh-wide.
"""

from collections.abc import Iterator

from meshtls.audit.facts import Facts, selective
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity
from meshtls.policy.authn import mode_of as mode


def find(facts: Facts) -> Iterator[Flaw]:
    ambient = any(facts.plane(w) == "ambient" for w in facts.workloads)
    for policy in facts.mesh.peer_authentications:
        if policy.spec.selector is None or selective(policy):
            continue
        at_root = policy.namespace == facts.mesh.root
        ignored = at_root and ambient
        yield Flaw(
            subject=policy.ref,
            path=("spec", "selector"),
            severity=Severity.WARNING if ambient else Severity.INFO,
            message=f"{mode(policy)} does not reach ambient workloads: the selector is empty, not absent." if ignored
            else "The selector is empty, not absent: sidecars take it for a policy without selector, ambient does not always.",
            because=("ambient takes a policy of the root namespace as mesh-wide only where it has no selector at all",),
            fix=f"  kubectl -n {policy.namespace} patch peerauthentication {policy.name} --type=json "
                "-p '[{\"op\":\"remove\",\"path\":\"/spec/selector\"}]'",
        )


RULE = Rule(code="MT120", title="A selector is empty instead of absent", severity=Severity.WARNING,
            catalogue=("AM-03",), about=("PeerAuthentication",), find=find)
