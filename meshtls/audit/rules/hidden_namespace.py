"""A namespace that `discoverySelectors` leave out is invisible to istiod: its policies do nothing."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity
from meshtls.model.objects import LabelSelector


def find(facts: Facts) -> Iterator[Flaw]:
    config = facts.mesh.config
    if not config.discovery_selectors:
        return
    for namespace, policies in facts.policies.items():
        labels = facts.mesh.namespace_labels.get(namespace)
        if labels is None or namespace == facts.mesh.root or any(chosen(s, labels) for s in config.discovery_selectors):
            continue
        for policy in policies:
            yield Flaw(
                subject=policy.ref,
                message=f"istiod does not see it: discoverySelectors of the mesh leave namespace {namespace} out.",
                because=(f"{config.ref or 'the mesh configuration'} has discoverySelectors that no label of {namespace} meets",),
                fix=f"Give the namespace a label that they select, or delete the policy:\n  kubectl label namespace {namespace} KEY=VALUE",
            )


def chosen(selector: LabelSelector, labels: dict[str, str]) -> bool:
    """Kubernetes' own meaning of a label selector."""
    if any(labels.get(key) != value for key, value in selector.match_labels.items()):
        return False
    for wanted in selector.match_expressions:
        value = labels.get(wanted.key)
        match wanted.operator:
            case "In":
                fits = value in wanted.values
            case "NotIn":
                fits = value not in wanted.values
            case "Exists":
                fits = value is not None
            case "DoesNotExist":
                fits = value is None
            case _:
                fits = False
        if not fits:
            return False
    return True


RULE = Rule(code="MT112", title="A policy lives in a namespace that istiod does not see", severity=Severity.WARNING,
            catalogue=("PA-15",), about=("PeerAuthentication",), needs=("Namespace", "ConfigMap"), find=find)
