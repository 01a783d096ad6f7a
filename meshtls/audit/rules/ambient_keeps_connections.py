"""Ambient: plaintext connections that are open when STRICT comes stay open and served; only new ones are refused.

With sidecars every connection ends with the drain. Here STRICT is complete once the clients have connected again.
"""

from collections.abc import Iterator

from meshtls.audit import say
from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    if not facts.lone:
        return
    ahead: dict[str, list[str]] = {}
    for w in facts.ambient:
        if facts.ports(w) and facts.mode(w) != "STRICT" and facts.refuses(w):
            ahead.setdefault(w.namespace, []).append(w.label)
    for namespace, labels in ahead.items():
        yield Flaw(
            subject=f"Namespace/{namespace}",
            message=f"Plaintext connections to {say.some(labels)} that are open when {namespace} goes STRICT stay open and served; only new ones are refused.",
            because=("ztunnel judges an open connection by what it knew of the workload when it was opened", f"{namespace} is in ambient and not STRICT yet"),
            fix="After the switch restart the clients outside the mesh, or the servers, in a quiet hour; judge by new connections.",
        )


RULE = Rule(code="MT136", title="Open plaintext connections outlive STRICT in ambient", severity=Severity.WARNING,
            catalogue=("RB-03",), about=("Pod", "Deployment", "StatefulSet", "DaemonSet"), needs=("PeerAuthentication", "Namespace"),
            reads=("Service",), find=find)
