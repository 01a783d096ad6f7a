"""StatefulSets behind a headless Service often call their peers by pod address: plaintext, refused under STRICT.

One with a single replica has no peers; it is only mentioned.
"""

from collections.abc import Iterator

from meshtls.audit import say
from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model import objects as o
from meshtls.model.check import Confidence, Severity


def find(facts: Facts) -> Iterator[Flaw]:
    for w in facts.workloads:
        if w.kind != "StatefulSet" or not facts.sidecar(w):
            continue
        headless = [s for s in facts.services_of.get(w.ref, ()) if s.spec.cluster_ip == "None"]
        ports = sorted(p for p in facts.ports(w) if facts.refuses(w, p))
        if headless and ports:
            alone = isinstance(w.owner, o.StatefulSet) and w.owner.spec.replicas in (None, 0, 1) and len(w.pods) < 2
            yield Flaw(
                subject=w.ref,
                severity=Severity.INFO if alone else None,
                message=f"{w.label} sits behind the headless {headless[0].ref}: peers and clients that use pod addresses send plaintext, which STRICT refuses.",
                because=("a call to a pod's address is not known to a proxy unless it goes by the pod's name in the headless Service",
                         "clusters of databases and queues do so while they form"),
                fix="Let peers use names (" + f"{w.name}-0.{headless[0].name}.{w.namespace}.svc.cluster.local), prove it with meshtls probe, "
                    "or keep the ports of the peers open:\n" + say.exception(facts, w, ports),
            )


RULE = Rule(code="MT272", title="Peers of a StatefulSet may call each other by address", severity=Severity.WARNING, confidence=Confidence.INFERRED,
            catalogue=("ST-01", "CL-07"), about=("StatefulSet",), needs=("Service", "PeerAuthentication", "Namespace"), find=find)
