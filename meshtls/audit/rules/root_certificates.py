"""Namespaces that trust different root certificates: mTLS between them fails once it is demanded."""

from collections import Counter
from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity

NAME, KEY = "istio-ca-root-cert", "root-cert.pem"


def find(facts: Facts) -> Iterator[Flaw]:
    import hashlib

    roots = {c.namespace: hashlib.sha256(" ".join(c.data[KEY].split()).encode()).hexdigest()[:12]
             for c in facts.mesh.config_maps if c.name == NAME and c.data.get(KEY)}
    if len(set(roots.values())) < 2:
        return
    usual = Counter(roots.values()).most_common(1)[0][0]
    for namespace, digest in sorted(roots.items()):
        if digest != usual:
            yield Flaw(
                subject=f"ConfigMap/{namespace}/{NAME}",
                path=("data", KEY),
                message=f"Namespace {namespace} trusts other root certificates than most: mTLS with the others fails once STRICT demands it.",
                because=(f"sha256 {digest}..., elsewhere {usual}...",),
                fix="Let every istiod distribute both roots while the CA changes (combined roots), then restart the workloads.",
            )


RULE = Rule(code="MT402", title="Namespaces trust different roots", severity=Severity.WARNING,
            catalogue=("CL-17",), about=("ConfigMap",), find=find)
