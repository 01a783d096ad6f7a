"""A workload's own policy keeps it open when its namespace goes STRICT: intended, or forgotten.

Before the switch an exception for a port is only mentioned. A policy that repeats what its namespace says, such as that of a
canary, is a leftover: it would hide the namespace's next change.
"""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity
from meshtls.policy.authn import mode_of as mode

OPEN = ("PERMISSIVE", "DISABLE")


def find(facts: Facts) -> Iterator[Flaw]:
    for w in facts.in_mesh:
        if not (own := facts.own(w)):
            continue
        policy = own[0]
        strict = facts.namespace_mode(w.namespace) == "STRICT"
        said = mode(policy)
        open_ports = sorted(port for port, entry in policy.spec.port_level_mtls.items()
                            if entry.mode in OPEN or (entry.mode == "UNSET" and said in OPEN))
        if said in OPEN:
            what, path = f"all ports but those it names are {said}", ("spec", "mtls", "mode")
        elif open_ports:
            what, path = f"port {', '.join(open_ports)} accepts plaintext", ("spec", "portLevelMtls", open_ports[0])
        elif strict and said == "STRICT" and not policy.spec.port_level_mtls:
            yield Flaw(
                subject=policy.ref,
                path=("spec", "mtls", "mode"),
                severity=Severity.INFO,
                message=f"Says for {w.label} what namespace {w.namespace} says for all: STRICT. It would keep it so when the namespace changes.",
                because=("a policy with a selector counts more than the namespace's",),
                catalogue=("RB-15", "PA-10"),
                fix=f"  kubectl -n {policy.namespace} delete peerauthentication {policy.name}",
            )
            continue
        else:
            continue
        now = "is STRICT, and" if strict else "going STRICT does not reach it:"
        yield Flaw(
            subject=policy.ref,
            path=path,
            severity=None if said in OPEN or said == "STRICT" or strict else Severity.INFO,
            catalogue=("PA-10", "PA-08"),
            message=f"An exception for {w.label}: namespace {w.namespace} {now} {what}.",
            because=("a policy with a selector counts more than the namespace's",),
            fix=f"If it is no longer needed:\n  kubectl -n {policy.namespace} delete peerauthentication {policy.name}\n"
                "If it is, accept this finding with an owner, a reason and a date (docs/audit.md).",
        )


RULE = Rule(code="MT106", title="A workload's own policy stays weaker than STRICT", severity=Severity.WARNING,
            catalogue=("PA-10", "PA-08", "RB-15"), about=("PeerAuthentication",), needs=("Pod", "Namespace"), find=find)
