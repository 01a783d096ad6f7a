"""Without an access log nobody learns which client STRICT refuses: refused plaintext is in no metric."""

from collections.abc import Iterator

from meshtls.audit import say
from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model.check import Severity

FIX = """apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata:
  name: plaintext
  namespace: NAMESPACE
spec:
  accessLogging:
  - match: {mode: SERVER}
    providers: [{name: envoy}]
    filter: {expression: "!connection.mtls"}
# Adding it, and taking it away, closes long-lived inbound connections of the pods it selects 45 s later: in a quiet hour."""


def find(facts: Facts) -> Iterator[Flaw]:
    logged = {t.namespace for t in facts.mesh.telemetries if any(entry.get("disabled") is not True for entry in t.spec.access_logging)}
    for config in facts.mesh.configs.values():
        if config.disable_envoy_listener_log:
            yield Flaw(
                subject=config.ref,
                path=("data", "mesh", "disableEnvoyListenerLog"),
                message="The log of listeners is off in the whole mesh: it alone has a line for plaintext that STRICT refuses.",
                because=("a refused connection meets no filter chain, and only the listener's own log says so",),
                fix="disableEnvoyListenerLog: false",
            )
        elif not config.access_log_file and not config.default_providers.access_logging and config.root_namespace not in logged:
            silent = sorted(facts.meshed_namespaces - logged)
            if silent or not logged:
                yield Flaw(
                    subject=config.ref,
                    path=("data", "mesh"),
                    message=f"Access logs are off in {say.some(silent) if silent else 'the whole mesh'}: a client that STRICT refuses is named nowhere else.",
                    because=("refused plaintext is not counted in istio_requests_total",
                             "the listener's log line with filter_chain_not_found carries the client's address"),
                    fix=FIX,
                )


RULE = Rule(code="MT133", title="Nothing would name a refused client", severity=Severity.WARNING,
            catalogue=("EV-01",), about=("MeshConfig",), needs=("Telemetry", "ConfigMap"), reads=("Pod", "Namespace"), find=find)
