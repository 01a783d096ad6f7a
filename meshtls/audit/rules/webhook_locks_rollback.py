"""A webhook on PeerAuthentications, served from inside the mesh: STRICT locks out its own rollback.

Every dry run passes before the switch; after it, each patch of a PeerAuthentication fails with the webhook.
"""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.audit.rules.admission_webhook import backend, remedy
from meshtls.model import objects as o
from meshtls.model.check import Confidence, Severity


def find(facts: Facts) -> Iterator[Flaw]:
    for configuration in facts.webhooks:
        for index, webhook in enumerate(configuration.webhooks):
            if webhook.failure_policy == "Ignore" or webhook.object_selector.match_labels or webhook.object_selector.match_expressions:
                continue
            if not any(_covers(rule) for rule in webhook.rules):
                continue
            hit = backend(facts, webhook.client_config.service)
            if hit:
                _, w, port = hit
                yield Flaw(
                    subject=configuration.ref,
                    path=("webhooks", str(index), "rules"),
                    message=f"STRICT in {w.namespace} cannot be taken back: {webhook.name} guards PeerAuthentications, fails closed, and is served by {w.label}.",
                    because=("once STRICT, the API server does not reach the webhook, and refuses every change of a PeerAuthentication",
                             "a dry run of the rollback before the switch passes all the same"),
                    fix=remedy(facts, w, port) + f"If it has happened: kubectl delete {configuration.kind.lower()} {configuration.name}",
                    affects=(w.namespace,),
                )


def _covers(rule: o.RuleWithOperations) -> bool:
    return (bool({"*", "security.istio.io"} & set(rule.api_groups)) and bool({"*", "*/*", "peerauthentications"} & set(rule.resources))
            and bool({"*", "UPDATE"} & set(rule.operations)))


RULE = Rule(code="MT233", title="A webhook would block the rollback from STRICT", severity=Severity.CRITICAL, confidence=Confidence.MEASURED,
            catalogue=("WH-06", "RB-08"), about=("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"),
            needs=("Service", "Pod", "PeerAuthentication", "Namespace"), find=find)
