"""A namespace that `discoverySelectors` leave out, those of every revision, is invisible to istiod: its policies do nothing."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity
from meshtls.policy.select import matches


def find(facts: Facts) -> Iterator[Flaw]:
    configs = list(facts.mesh.configs.values())
    if not configs or not all(c.discovery_selectors for c in configs):
        return
    config = facts.mesh.config
    for namespace, policies in facts.policies.items():
        labels = facts.mesh.namespace_labels.get(namespace)
        if labels is None or namespace == facts.mesh.root or any(matches(s, labels) for c in configs for s in c.discovery_selectors):
            continue
        for policy in policies:
            yield Flaw(
                subject=policy.ref,
                message=f"istiod does not see it: discoverySelectors of the mesh leave namespace {namespace} out.",
                because=(f"{config.ref or 'the mesh configuration'} has discoverySelectors that no label of {namespace} meets",),
                fix=f"Give the namespace a label that they select, or delete the policy:\n  kubectl label namespace {namespace} KEY=VALUE",
            )


RULE = Rule(code="MT112", title="A policy lives in a namespace that istiod does not see", severity=Severity.WARNING,
            catalogue=("PA-15",), about=("PeerAuthentication",), needs=("Namespace", "ConfigMap"), find=find)
