"""A namespace with `istio-injection` and `istio.io/rev`: the revision's webhook does not match, the default's may."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    for namespace in facts.mesh.namespaces:
        old, revision = namespace.labels.get("istio-injection"), namespace.labels.get("istio.io/rev")
        if old is None or revision is None or (old == "enabled" and revision == "default"):
            continue
        effect = "the default revision injects, or nobody where there is none" if old == "enabled" else "nobody injects"
        yield Flaw(
            subject=namespace.ref,
            path=("metadata", "labels", "istio.io/rev"),
            message=f"istio-injection={old} keeps revision {revision} from injecting: {effect}.",
            because=("the webhooks of revisions match only namespaces without the label istio-injection",),
            fix=f"  kubectl label namespace {namespace.name} istio-injection-",
        )


RULE = Rule(code="MT302", title="Two injection labels contradict each other", severity=Severity.WARNING,
            catalogue=("IN-02",), about=("Namespace",), find=find)
