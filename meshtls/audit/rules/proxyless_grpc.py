"""Proxyless gRPC: PERMISSIVE acts as STRICT with the label `security.istio.io/tlsMode: istio`, as plaintext without."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts, inside
from meshtls.audit.rule import WORKLOADS, Flaw, Rule
from meshtls.model.check import Severity

TEMPLATES = ("grpc-agent", "grpc-simple")


def find(facts: Facts) -> Iterator[Flaw]:
    for w in facts.workloads:
        meta = facts.face(w).metadata
        if not any(t in meta.annotations.get("inject.istio.io/templates", "") for t in TEMPLATES):
            continue
        labelled = meta.labels.get("security.istio.io/tlsMode") == "istio"
        says = "refuses plaintext already under PERMISSIVE" if labelled else "accepts plaintext only, whatever the policy says short of STRICT"
        yield Flaw(
            subject=w.ref,
            path=inside(w, "metadata", "annotations", "inject.istio.io/templates"),
            message=f"{w.label} is proxyless gRPC: it {says}, and as a client it never uses mTLS by itself.",
            because=("the gRPC server configuration takes PERMISSIVE for STRICT where the pod has the label security.istio.io/tlsMode: istio",),
            fix="Before STRICT, label the pod security.istio.io/tlsMode: istio, and give its clients a DestinationRule with tls.mode ISTIO_MUTUAL.",
        )


RULE = Rule(code="MT116", title="Proxyless gRPC follows rules of its own", severity=Severity.WARNING,
            catalogue=("PA-19",), about=WORKLOADS, find=find)
