"""BackendTLSPolicies, as istiod turns them into DestinationRules with tls SIMPLE.

1. A target is a Service, or a ServiceEntry, of the policy's own namespace, or one port of it by name. What does not exist is
   refused, and so is a target that an older policy has already; the annotation `istio.io/ignore-policy-attachment` puts the
   whole policy aside.
2. The DestinationRule lives in the policy's namespace, is exported by the mesh's default, and is older than every other: what a
   DestinationRule of a user says for the same host wins, field by field, port by port (meshtls.policy.rules).
3. A CA that is not the system's must be a ConfigMap. Where it is not, or holds no certificate, sidecars send plaintext: istiod
   writes a reference to a secret that cannot be, and takes TLS away from sidecars with such a one.

(pilot/pkg/config/kube/gateway/backend_policies.go; core/cluster_tls.go buildUpstreamClusterTLSContext.)
"""

import msgspec

from meshtls.model.mesh import Mesh
from meshtls.model.objects import (
    BackendTLSPolicy,
    ClientTls,
    DestinationRule,
    DestinationRuleSpec,
    Metadata,
    PortPolicy,
    PortSelector,
    TargetRef,
    TrafficPolicy,
)
from meshtls.policy.attached import Attached, Ignored, hosts_of, ports_of
from meshtls.policy.because import Because

IGNORE = "istio.io/ignore-policy-attachment"
INVALID = "invalid://"
_BROKEN = frozenset({"NoValidCACertificate", "InvalidCACertificateRef", "InvalidKind"})


class BackendRule(DestinationRule, frozen=True):
    """A DestinationRule that stands for BackendTLSPolicies: port -> the policy's ref, 0 for all ports."""

    policies: dict[int, str] = msgspec.field(default_factory=dict)

    @property
    def ref(self) -> str:
        return next(iter(self.policies.values()))


def read(mesh: Mesh) -> tuple[tuple[BackendRule, ...], tuple[Ignored, ...]]:
    """(the DestinationRules that they become, what is ignored)."""
    attached = Attached(mesh)
    ignored: list[Ignored] = []
    heard = []
    for policy in mesh.backend_tls_policies:
        if policy.annotations.get(IGNORE, "").lower() == "true":
            hosts = tuple(h for t in policy.spec.target_refs for h in _hosts(attached, policy, t))
            ignored.append(Ignored(Because(policy.ref, f"metadata.annotations.{IGNORE}", "true: istiod passes the policy over"), hosts))
        else:
            heard.append(policy)
    heard.sort(key=lambda p: (p.metadata.creation_timestamp or "", p.namespace, p.name))
    taken: dict[tuple[str, TargetRef], BackendTLSPolicy] = {}
    by_host: dict[tuple[str, str, str], dict[int, tuple[ClientTls, str]]] = {}
    for policy in heard:
        for index, target in enumerate(policy.spec.target_refs):
            owner = attached.find(target.group, target.kind, policy.namespace, target.name)
            numbers = [p.number for p in ports_of(owner) if p.name == target.section_name][:1] if owner and target.section_name else [0]
            hosts = hosts_of(owner) if owner else ()
            says = ""
            if owner is None:
                says = f"there is no {target.kind} {target.name} in {policy.namespace}: istiod refuses the target"
            elif not numbers:
                says = f"{owner.ref} has no port named {target.section_name}: istiod refuses the target"
            elif (older := taken.setdefault((policy.namespace, target), policy)) is not policy:  # btlsIsConflicted
                says = f"{older.ref} is older and has this target: istiod takes that one alone"
            if says:
                ignored.append(Ignored(Because(policy.ref, f"spec.targetRefs[{index}]", says), hosts))
                continue
            for host in hosts:
                settings = by_host.setdefault((policy.namespace, f"{target.kind}/{target.name}", host), {})
                settings.setdefault(numbers[0], (_tls(policy), policy.ref))
    return tuple(_rule(namespace, target, host, ports) for (namespace, target, host), ports in sorted(by_host.items())), tuple(ignored)


def _hosts(attached: Attached, policy: BackendTLSPolicy, target: TargetRef) -> tuple[str, ...]:
    owner = attached.find(target.group, target.kind, policy.namespace, target.name)
    return hosts_of(owner) if owner else ()


def _tls(policy: BackendTLSPolicy) -> ClientTls:
    return ClientTls(said="SIMPLE", sni=policy.spec.validation.hostname, credential_name=credential(policy))


def credential(policy: BackendTLSPolicy) -> str:
    """What the CA comes from. Whether a ConfigMap holds one is not read; istiod's own word in the status counts, where it is."""
    validation = policy.spec.validation
    if validation.well_known_ca_certificates or not validation.ca_certificate_refs:
        return ""
    first = validation.ca_certificate_refs[0]
    if (first.group, first.kind) != ("", "ConfigMap"):
        return INVALID
    said = (c for a in policy.status.ancestors if a.controller_name.startswith("istio.io/") for c in a.conditions)
    return INVALID if any(c.status == "False" and c.reason in _BROKEN for c in said) else f"configmap://{policy.namespace}/{first.name}"


def _rule(namespace: str, target: str, host: str, ports: dict[int, tuple[ClientTls, str]]) -> BackendRule:
    kind, _, name = target.partition("/")
    named = f"{name}~{host.replace('.', '-')}" if kind == "ServiceEntry" else name
    settings = tuple(
        PortPolicy(port=PortSelector(number=number), tls=tls) for number, (tls, _) in sorted(ports.items(), key=lambda i: i[0]) if number
    )
    top = ports[0][0] if 0 in ports else None
    return BackendRule(
        metadata=Metadata(name=f"{named}~istio-autogenerated-k8s-gateway", namespace=namespace),
        spec=DestinationRuleSpec(host=host, traffic_policy=TrafficPolicy(tls=top, port_level_settings=settings)),
        policies={number: ref for number, (_, ref) in sorted(ports.items(), key=lambda i: i[0])},
    )

