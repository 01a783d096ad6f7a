"""Ambient: an empty namespace policy and a PERMISSIVE port exception open every port of the workload.

The mesh is STRICT, the namespace's policy sets no mode, the workload's policy sets no mode either and makes one port PERMISSIVE:
the workload refers to a converted policy that istiod does not publish, in place of the static STRICT one. The same where the
namespace is STRICT by a policy whose selector is empty instead of absent: conversion does not see that policy.
"""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity
from meshtls.policy.authn import mode_of as mode


def find(facts: Facts) -> Iterator[Flaw]:
    for w in facts.ambient:
        missing = facts.effective(w).missing
        if not missing:
            continue
        own, root, namespace = facts.own(w)[0], facts.wide(facts.mesh.root), facts.wide(w.namespace)
        if mode(own) != "UNSET":
            continue
        unset = namespace is None or mode(namespace) == "UNSET"
        blamed = namespace or own
        because = [f"{root.ref} makes the mesh STRICT" if root and unset else f"{blamed.ref} makes the namespace STRICT, with an empty selector"]
        if namespace and unset:
            because.append(f"{namespace.ref} exists and sets no mode")
        yield Flaw(
            subject=blamed.ref,
            path=("spec",) if unset else ("spec", "selector"),
            message=f"Every port of {w.label} accepts plaintext although {'the mesh' if unset else 'its namespace'} is STRICT: "
                    f"this policy {'sets no mode' if unset else 'has an empty selector'}, and {own.ref} excepts a port.",
            because=(*because, f"{own.ref} has a PERMISSIVE port and no mode of its own, on an ambient workload",
                     f"istiod never publishes the converted policy that the workload refers to; ztunnel logs: skipping unknown policy {missing}"),
            catalogue=("AM-18",) if unset else ("AM-18", "AM-03"),
            fix=f"Say STRICT in the namespace's policy, or delete it:\n  kubectl -n {w.namespace} patch peerauthentication {blamed.name} "
                "--type=merge -p '{\"spec\":{\"mtls\":{\"mode\":\"STRICT\"},\"selector\":null}}'",
        )


RULE = Rule(code="MT122", title="An empty namespace policy opens an ambient workload under a STRICT mesh", severity=Severity.CRITICAL,
            catalogue=("AM-18", "AM-03"), about=("PeerAuthentication",), needs=("Pod", "Namespace"), find=find)
