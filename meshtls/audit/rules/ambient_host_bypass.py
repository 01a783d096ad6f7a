"""Ambient: a process in a node's own network reaches ambient pods of that node in plaintext, STRICT or not."""

from collections.abc import Iterator

from meshtls.audit import say
from meshtls.audit.facts import Facts, inside
from meshtls.audit.rule import WORKLOADS, Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    ambient = sorted({w.namespace for w in facts.workloads if facts.plane(w) == "ambient"})
    if not ambient:
        return
    for w in facts.workloads:
        if facts.face(w).spec.host_network:
            single = " This cluster has one node, so a test here shows nothing of other nodes." if len(facts.mesh.nodes) == 1 else ""
            yield Flaw(
                subject=w.ref,
                path=inside(w, "spec", "hostNetwork"),
                message=f"{w.label} runs in the host's network: ambient pods on its own node answer it in plaintext under STRICT, those on others refuse it.{single}",
                because=("traffic from the node's own network is taken for the kubelet's and is not captured",
                         f"ambient workloads live in {say.some(ambient)}"),
                fix="Give it a pod network of its own (hostNetwork: false) if it must be refused, or an mTLS path if it must be let in.",
                affects=tuple(ambient),
            )


RULE = Rule(code="MT124", title="A host-network pod bypasses STRICT of ambient pods on its node", severity=Severity.WARNING,
            catalogue=("AM-08",), about=WORKLOADS, needs=("Namespace",), reads=("Node",), find=find)
