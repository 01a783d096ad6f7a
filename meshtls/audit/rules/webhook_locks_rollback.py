"""A webhook on PeerAuthentications, served from inside the mesh: STRICT locks out its own rollback.

Every dry run passes before the switch; after it, each patch of a PeerAuthentication fails with the webhook. That is so only where
the webhook asks about policies of the very namespace it is served from, or of the whole mesh: elsewhere the rollback of its own
namespace is not in its way. With matchConditions, which are expressions, it is less certain.
"""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule, Unsure
from meshtls.audit.rules.admission_webhook import backend, remedy
from meshtls.model import objects as o
from meshtls.model.check import Severity
from meshtls.policy.select import matches

NAME = "kubernetes.io/metadata.name"


def find(facts: Facts) -> Iterator[Flaw | Unsure]:
    for configuration in facts.webhooks:
        for index, webhook in enumerate(configuration.webhooks):
            if webhook.failure_policy == "Ignore" or not any(_covers(rule) for rule in webhook.rules):
                continue
            hit = backend(facts, webhook.client_config.service)
            if hit is None:
                continue
            if isinstance(hit, Unsure):
                yield hit
                continue
            _, w, port = hit
            if not _asked(facts, webhook, w.namespace):
                continue
            expressions = bool(webhook.match_conditions)
            yield Flaw(
                subject=configuration.ref,
                path=("webhooks", str(index), "rules"),
                severity=Severity.ERROR if expressions else None,
                message=f"STRICT in {w.namespace} cannot be taken back: {webhook.name} guards PeerAuthentications, fails closed, and is served by {w.label}"
                        + (", unless its matchConditions except them." if expressions else "."),
                because=("once STRICT, the API server does not reach the webhook, and refuses every change of a PeerAuthentication",
                         "a dry run of the rollback before the switch passes all the same"),
                fix=remedy(facts, w, port) + f"If it has happened: kubectl delete {configuration.kind.lower()} {configuration.name}",
                affects=(w.namespace,),
            )


def _asked(facts: Facts, webhook: o.Webhook, namespace: str) -> bool:
    """Is the webhook asked about the policy that makes `namespace` STRICT: its own, or the mesh's?"""
    for place in (namespace, facts.mesh.root):
        policy = facts.wide(place)
        labels = {NAME: place, **facts.mesh.namespace_labels.get(place, {})}
        if matches(webhook.namespace_selector, labels) and matches(webhook.object_selector, policy.labels if policy else {}):
            return True
    return False


def _covers(rule: o.RuleWithOperations) -> bool:
    return (bool({"*", "security.istio.io"} & set(rule.api_groups)) and bool({"*", "*/*", "peerauthentications"} & set(rule.resources))
            and bool({"*", "UPDATE"} & set(rule.operations)))


RULE = Rule(code="MT233", title="A webhook would block the rollback from STRICT", severity=Severity.CRITICAL,
            catalogue=("WH-06", "RB-08"), about=("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"),
            needs=("Service", "Pod", "PeerAuthentication", "Namespace"), find=find)
