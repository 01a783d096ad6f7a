"""A namespace or pod names a revision that no injection webhook serves: no sidecar, no error."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts, inside
from meshtls.audit.rule import Flaw, Rule, Unsure
from meshtls.model import objects as o
from meshtls.model.check import Severity

LABEL = "istio.io/rev"


def find(facts: Facts) -> Iterator[Flaw | Unsure]:
    served = _served(facts)
    if not facts.mesh.live and not served:
        yield Unsure("the input holds no injection webhook, so that nobody knows which revisions there are")
        return
    for namespace in facts.mesh.namespaces:
        revision = namespace.labels.get(LABEL)
        if revision and revision not in served and "istio-injection" not in namespace.labels:
            yield Flaw(
                subject=namespace.ref,
                path=("metadata", "labels", LABEL),
                message=f"No injection webhook serves revision {revision}: new pods here get no sidecar, and nothing says so.",
                because=(f"served: {', '.join(sorted(served)) or 'none'}",),
                fix=f"  istioctl tag set {revision} --revision REVISION\nor label the namespace with a revision that exists.",
            )
    for w in facts.workloads:
        labels = facts.mesh.namespace_labels.get(w.namespace, {})
        revision = facts.face(w).metadata.labels.get(LABEL, "")
        if revision and revision not in served and not {LABEL, "istio-injection"} & labels.keys() and facts.plane(w) == "none":
            yield Flaw(
                subject=w.ref,
                path=inside(w, "metadata", "labels", LABEL),
                message=f"No injection webhook serves revision {revision}, which {w.label} asks for: it gets no sidecar, and nothing says so.",
                because=(f"served: {', '.join(sorted(served)) or 'none'}",),
                fix=f"  istioctl tag set {revision} --revision REVISION\nor label the pod with a revision that exists.",
            )


def _served(facts: Facts) -> set[str]:
    """The revisions and tags that webhooks for pods select by namespace label."""
    found: set[str] = set()
    for configuration in facts.mesh.mutating_webhooks:
        for webhook in configuration.webhooks:
            for selector in (webhook.namespace_selector, webhook.object_selector):
                found |= _values(selector)
    return found


def _values(selector: o.LabelSelector) -> set[str]:
    values = {selector.match_labels[LABEL]} if LABEL in selector.match_labels else set()
    for wanted in selector.match_expressions:
        if wanted.key == LABEL and wanted.operator == "In":
            values.update(wanted.values)
    return values


RULE = Rule(code="MT303", title="A revision that no webhook serves", severity=Severity.WARNING,
            catalogue=("IN-03", "PP-09"), about=("Namespace",), needs=("MutatingWebhookConfiguration",), reads=("Pod", "Deployment", "StatefulSet"), find=find)
