"""A wildcard DestinationRule with TLS is a recipe from before auto mTLS: it hits every Service, those without sidecar too."""

from collections.abc import Iterator

from meshtls.audit.destinations import servers, settings, without
from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity

# wildcards of other domains, such as those of TLS origination, are none of the mesh's
DOMAINS = (".local", ".svc", ".cluster.local")


def find(facts: Facts) -> Iterator[Flaw]:
    for rule in facts.mesh.destination_rules:
        if not rule.spec.host.startswith("*") or not (rule.spec.host == "*" or rule.spec.host.endswith(DOMAINS)):
            continue
        for setting in settings(rule):
            if setting.mode == "ISTIO_MUTUAL" or (setting.mode == "DISABLE" and not servers(facts, rule)):
                bare = [w.ref for s in servers(facts, rule) for w in facts.behind(s) if facts.plane(w) == "none"]
                yield Flaw(
                    subject=rule.ref,
                    path=setting.path,
                    severity=Severity.ERROR if bare and setting.mode == "ISTIO_MUTUAL" else None,
                    message=f"{setting.mode} for every host {rule.spec.host}"
                    + (f": calls to {bare[0]}, which has no proxy, fail." if bare and setting.mode == "ISTIO_MUTUAL" else
                       ": a leftover from before clients chose mTLS by themselves."),
                    because=("without it a client uses mTLS exactly where the server has a proxy",),
                    fix=f"Take it out:\n{without(rule, setting.path)}",
                    affects=tuple({r.split('/')[1] for r in bare}),
                )
                break


RULE = Rule(code="MT206", title="A wildcard DestinationRule sets TLS", severity=Severity.WARNING,
            catalogue=("DR-08",), about=("DestinationRule",), needs=("Service", "Pod", "Namespace"), find=find)
