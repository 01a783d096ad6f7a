"""Ambient: before Istio 1.24.3 a policy with several STRICT ports let plaintext in on all of them.

The converted policy joined its ports with AND where OR was meant.
"""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule, Unsure
from meshtls.model.check import Severity

SINCE = (1, 24, 3)


def find(facts: Facts) -> Iterator[Flaw | Unsure]:
    for w in facts.ambient:
        if not (own := facts.own(w)):
            continue
        strict = sorted(port for port, entry in own[0].spec.port_level_mtls.items() if entry.mode == "STRICT")
        if len(strict) < 2:
            continue
        if not facts.istiods:
            yield Unsure(f"the version of istiod is not in the input, and {own[0].ref} has several STRICT ports on an ambient workload")
        elif facts.istiods[0] < SINCE:
            version = ".".join(map(str, facts.istiods[0]))
            yield Flaw(
                subject=own[0].ref,
                path=("spec", "portLevelMtls", strict[0]),
                message=f"Ports {', '.join(strict)} of {w.label} accept plaintext: istiod {version} joins several STRICT ports so that none is enforced.",
                because=("the workload is in ambient", "fixed in Istio 1.24.3"),
                fix="Upgrade istiod, or make the whole workload STRICT.",
            )


RULE = Rule(code="MT135", title="An old istiod opens several STRICT ports of an ambient workload", severity=Severity.ERROR,
            catalogue=("AM-05",), about=("PeerAuthentication",), needs=("Pod", "Namespace", "Deployment"), find=find)
