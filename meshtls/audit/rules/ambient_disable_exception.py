"""Ambient: a DISABLE port in a policy without mode is ignored under STRICT; PERMISSIVE is honoured.

Source: convertedSelectorPeerAuthentications looks for PERMISSIVE ports only where the workload's own mode is unset.
"""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity
from meshtls.policy.authn import mode_of as mode


def find(facts: Facts) -> Iterator[Flaw]:
    for w in facts.ambient:
        if not (own := facts.own(w)) or mode(own[0]) != "UNSET":
            continue
        ports = own[0].spec.port_level_mtls
        disabled = [port for port, entry in ports.items() if entry.mode == "DISABLE"]
        if not disabled or any(entry.mode == "PERMISSIVE" for entry in ports.values()):
            continue
        strict = facts.namespace_mode(w.namespace) == "STRICT"
        yield Flaw(
            subject=own[0].ref,
            path=("spec", "portLevelMtls", disabled[0]),
            message=f"The exception for port {', '.join(disabled)} of {w.label} {'is ignored' if strict else 'will be ignored under STRICT'}: "
                    "the workload is in ambient, and the policy sets no mode of its own.",
            because=("where the policy's own mode is unset, istiod looks for PERMISSIVE ports only",),
            fix="spec:\n  portLevelMtls:\n" + "\n".join(f'    "{port}":\n      mode: PERMISSIVE' for port in disabled),
        )


RULE = Rule(code="MT119", title="A DISABLE port on an ambient workload is ignored", severity=Severity.WARNING,
            catalogue=("AM-02",), about=("PeerAuthentication",), needs=("Pod", "Namespace"), find=find)
