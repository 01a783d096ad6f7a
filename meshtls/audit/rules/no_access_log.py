"""Without an access log nobody learns which client STRICT refuses: refused plaintext is in no metric."""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity


def find(facts: Facts) -> Iterator[Flaw]:
    config = facts.mesh.config
    if config.access_log_file or not config.ref:
        return
    if any(t.spec.access_logging for t in facts.mesh.telemetries):
        return
    yield Flaw(
        subject=config.ref,
        path=("data", "mesh"),
        message="Access logs are off in the whole mesh: a client that STRICT refuses is named nowhere else.",
        because=("refused plaintext is not counted in istio_requests_total", "the listener's log line with filter_chain_not_found carries the client's address"),
        fix="apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata:\n  name: plaintext\n  namespace: NAMESPACE\nspec:\n  accessLogging:\n"
            "  - match: {mode: SERVER}\n    providers: [{name: envoy}]\n    filter: {expression: \"!connection.mtls\"}\n"
            "It closes long-lived inbound connections of the pods it selects after 45 s: do it in a quiet hour.",
    )


RULE = Rule(code="MT133", title="Nothing would name a refused client", severity=Severity.INFO,
            catalogue=("EV-01",), about=("MeshConfig",), needs=("Telemetry", "ConfigMap"), find=find)
