"""Long TCP connections: each change of a policy, a Telemetry or an AuthorizationPolicy closes them, mTLS ones too, after the drain.

A change of the mode changes filter chains; connections of the chains that went are closed when the drain ends (45 s unless
drainDuration says otherwise). HTTP clients renew theirs without notice; databases, queues and their pools see them break.
"""

from collections.abc import Iterator

from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model import objects as o
from meshtls.model.check import Severity
from meshtls.model.workload import Workload
from meshtls.policy.service import TCP, protocol_of

DEFAULT = "45s"
# usual ports of protocols whose clients keep connections for as long as they live
LONG = {1433: "SQL Server", 1521: "Oracle", 1883: "MQTT", 2181: "ZooKeeper", 3306: "MySQL", 4222: "NATS", 5432: "PostgreSQL", 5672: "AMQP",
        6379: "Redis", 9042: "Cassandra", 9092: "Kafka", 11211: "memcached", 27017: "MongoDB"}


def find(facts: Facts) -> Iterator[Flaw]:
    drain = facts.mesh.config.default_config.drain_duration or DEFAULT
    for w in facts.sidecars:
        ports = {p: what for p, what in _tcp(facts, w).items() if not facts.skipped(w, p)}
        if not ports or not facts.refuses(w) or all(facts.mode(w, p) == "STRICT" for p in ports):
            continue
        named = ", ".join(f"{port} ({what})" for port, what in sorted(ports.items()))
        yield Flaw(
            subject=w.ref,
            message=f"Connections to port {named} of {w.label} are closed {drain} after each change of its mode, mTLS ones too; "
                    "a Telemetry or an AuthorizationPolicy that is added or removed does the same.",
            because=("the filter chains of a listener change with the policy, and the old ones are drained", f"drainDuration is {drain}"),
            fix="Switch the HTTP ports first and these ports in a quiet hour (portLevelMtls); see that clients connect again by themselves.",
        )


def _tcp(facts: Facts, w: Workload) -> dict[int, str]:
    """Ports that Services declare as TCP, or that are known for long connections: number -> what they are."""
    found: dict[int, str] = {}
    for service in facts.services_of.get(w.ref, ()):
        for port in service.spec.ports:
            target = facts.target(port, w)
            kind = protocol_of(o.ServicePort(name=port.name, app_protocol=port.app_protocol, port=port.port)) if port.protocol in ("TCP", "") else ""
            if target and (kind in TCP - {"HTTPS"} or (kind and kind not in ("HTTP", "HTTP2", "GRPC") and target in LONG)):
                found[target] = LONG.get(target, kind)
    return found


RULE = Rule(code="MT273", title="Long connections are cut by each change of policy", severity=Severity.INFO,
            catalogue=("RB-02",), about=("Service",), needs=("Pod", "PeerAuthentication", "Namespace"),
            find=find)
