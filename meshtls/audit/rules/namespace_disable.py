"""A namespace's DISABLE keeps clients from offering mTLS at all; a STRICT workload in it is then unreachable.

Source: BestEffortInferServiceMTLSMode looks at mesh and namespace policies only, never at a workload's.
"""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    for namespace in sorted(facts.meshed_namespaces):
        if facts.namespace_mode(namespace) != "DISABLE":
            continue
        decided = facts.decider(namespace)
        if decided is None:
            continue
        for w in facts.workloads_in.get(namespace, ()):
            if not facts.sidecar(w):
                continue
            strict = [port for port in (0, *facts.ports(w)) if facts.mode(w, port) == "STRICT"]
            if strict:
                own = facts.own(w)[0]
                yield Flaw(
                    subject=own.ref,
                    message=f"No meshed client reaches {w.label}{'' if strict[0] == 0 else f' port {strict[0]}'}: it is STRICT, and namespace {namespace} is DISABLE.",
                    because=(f"{decided.ref} makes clients of every Service in {namespace} send plaintext", f"{own.ref} refuses plaintext"),
                    fix=f"Make the namespace PERMISSIVE first, wait until clients have it, then STRICT:\n"
                        f"apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  name: {decided.name if decided.namespace == namespace else 'default'}\n"
                        f"  namespace: {namespace}\nspec:\n  mtls:\n    mode: PERMISSIVE\n",
                )


RULE = Rule(code="MT211", title="A STRICT workload in a DISABLE namespace is unreachable", severity=Severity.ERROR,
            catalogue=("CL-02", "RB-11"), about=("PeerAuthentication",), needs=("Pod", "Service", "Namespace"), find=find)
