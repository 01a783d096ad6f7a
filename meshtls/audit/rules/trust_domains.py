"""istiods with different trust domains and no alias for each other: servers of one refuse clients of the other."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    configs = list(facts.mesh.configs.values())
    domains = {c.trust_domain for c in configs}
    ambient = any(facts.plane(w) == "ambient" for w in facts.workloads)
    for config in configs:
        accepted = {config.trust_domain, *config.trust_domain_aliases}
        accepted.update(str(d) for entry in config.ca_certificates for d in (entry.get("trustDomains") or ()))
        foreign = sorted(domains - accepted)
        if foreign:
            yield Flaw(
                subject=config.ref,
                path=("data", "mesh"),
                message=f"Workloads of revision {config.revision} ({config.trust_domain}) refuse certificates of {', '.join(foreign)} once they demand one.",
                because=("a server accepts its own trust domain, its aliases, and those of extra CAs",),
                catalogue=("CL-16",),
                fix="trustDomainAliases:\n" + "\n".join(f"- {domain}" for domain in foreign),
            )
        if ambient and config.trust_domain_aliases:
            yield Flaw(
                subject=config.ref,
                path=("data", "mesh", "trustDomainAliases"),
                severity=Severity.INFO,
                message="ztunnel of some versions does not learn trustDomainAliases across clusters: mTLS fails outright there.",
                catalogue=("AM-15",),
                fix="Prove mTLS between the clusters before the switch: meshtls probe",
            )


RULE = Rule(code="MT401", title="Trust domains do not accept each other", severity=Severity.WARNING,
            catalogue=("CL-16", "AM-15"), about=("MeshConfig",), needs=("ConfigMap",), reads=("Pod", "Namespace"), find=find)
