"""A PeerAuthentication with a selector in the root namespace is ignored, even by pods that live there.

Source: ComposePeerAuthentication takes a selector's policy only where its namespace is not the root namespace.
"""

from collections.abc import Iterator

from meshtls.audit.facts import Facts, selective
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity
from meshtls.policy.authn import mode_of as mode


def find(facts: Facts) -> Iterator[Flaw]:
    root = facts.mesh.root
    for policy in facts.policies.get(root, ()):
        if selective(policy):
            yield Flaw(
                subject=policy.ref,
                path=("spec", "selector"),
                message=f"Ignored: it has a selector and lives in the root namespace {root}. Nothing follows its mode {mode(policy)}.",
                because=(f"{root} is the root namespace ({facts.mesh.config.ref or 'assumed: the input has no istio ConfigMap'})",
                         "a policy with a selector counts only in a namespace that is not the root namespace"),
                fix=f"Move it to the namespace of the workloads that it means:\n  kubectl -n {root} get peerauthentication {policy.name} -o yaml "
                    f"| sed 's/namespace: {root}/namespace: NAMESPACE/' | kubectl create -f -\n"
                    f"  kubectl -n {root} delete peerauthentication {policy.name}",
            )


RULE = Rule(code="MT101", title="A policy with a selector in the root namespace does nothing", severity=Severity.WARNING,
            catalogue=("PA-01",), about=("PeerAuthentication",), find=find)
