"""The client's side: what leaves its pod towards the endpoints of a cluster.

1. A DestinationRule's `tls` for this port and subset decides, whatever the endpoints are. A `portLevelSettings` entry without
   `tls` takes nothing from the top level; a subset inherits what it does not say.
2. Else automatic mTLS, unless the service is external, automatic mTLS is off, the service's namespace (or the mesh) is DISABLE,
   or the service is passed through and an endpoint has no sidecar, or it has none at all.
3. Then for each endpoint: mTLS if its label `security.istio.io/tlsMode` is `istio` and its effective mode on the target port is
   not DISABLE. A service that is passed through has no such choice: mTLS to all.
4. STRICT and PERMISSIVE are the same to a client.

(cluster_tls.go buildUpstreamTLSSettings, cluster_builder.go buildSubsetCluster, endpoints/mtls_checker.go.)
"""

from collections.abc import Mapping
from functools import cached_property

import msgspec

from meshtls.model.objects import ClientTls, PortPolicy, TrafficPolicy
from meshtls.policy.authn import DISABLE, Authn
from meshtls.policy.backend_tls import INVALID
from meshtls.policy.because import Because
from meshtls.policy.outbound import Cluster
from meshtls.policy.registry import Registry
from meshtls.policy.rules import Rule, Rules
from meshtls.policy.scope import Scope
from meshtls.policy.select import subset
from meshtls.policy.service import DNS, PASSTHROUGH, UDP, Endpoint, Host, answering

MTLS, TLS, PLAINTEXT, NONE = "mtls", "tls", "plaintext", "none"


class Offer(msgspec.Struct, frozen=True, gc=False):
    """What is sent to one endpoint."""

    endpoint: Endpoint
    sends: str


class Sent(msgspec.Struct, frozen=True, gc=False):
    """What a cluster sends. `dialled`: all of it goes to the address that was called, and is `sends`.

    `missing` says why there is no such cluster, "" where there is one; `doubt` why it may have no endpoints all the same.
    """

    offers: tuple[Offer, ...] = ()
    because: tuple[Because, ...] = ()
    dialled: bool = False
    sends: str = ""
    missing: str = ""
    doubt: str = ""


class _Policy(msgspec.Struct, frozen=True):
    """A traffic policy for one port: `tls` and load balancing after the port's own settings took over."""

    tls: ClientTls | None
    passthrough: bool
    path: str
    by_port: bool


def _for_port(policy: TrafficPolicy | None, port: int, at: str) -> _Policy:
    if policy is None:
        return _Policy(None, False, at, False)
    for index, entry in enumerate(policy.port_level_settings):
        if entry.port is not None and entry.port.number == port:
            return _Policy(entry.tls, _passes(entry), f"{at}.portLevelSettings[{index}]", True)
    return _Policy(policy.tls, _passes(policy), at, False)


def _passes(policy: TrafficPolicy | PortPolicy | None) -> bool:
    return policy is not None and policy.load_balancer is not None and policy.load_balancer.simple == "PASSTHROUGH"


def _endpoint_mode(policy: TrafficPolicy | None, port: int) -> str | None:
    """The mode that decides for endpoints, where a port without `tls` does inherit (trafficPolicyTLSModeForPort)."""
    if policy is None:
        return None
    for entry in policy.port_level_settings:
        if entry.port is not None and entry.port.number == port and entry.tls is not None:
            return entry.tls.mode
    return policy.tls.mode if policy.tls else None


class Client:
    """What proxies of one namespace (and of the labels that its rules look at) send."""

    def __init__(
        self, registry: Registry, rules: Rules, authn: Authn, scope: Scope, namespace: str, labels: Mapping[str, str]
    ) -> None:
        self.registry, self.rules, self.authn, self.scope = registry, rules, authn, scope
        self.namespace, self.labels = namespace, labels
        self._sent: dict[Cluster, Sent] = {}

    def send(self, cluster: Cluster) -> Sent:
        found = self._sent.get(cluster)
        if found is None:
            found = self._decide(cluster)
            host = self.scope.by_host.get(cluster.host)
            if host is not None and host.kubernetes and "~" in host.export_to and not found.missing and not found.dialled:
                says = f"{host.ref} is exported to nobody: whether istiod tells its endpoints to those whom a route leads there changes from start to start"
                found = msgspec.structs.replace(found, doubt=says)
            self._sent[cluster] = found
        return found

    @cached_property
    def _known(self) -> frozenset[str]:
        """The namespaces whose policies reach the proxy: the root's, its own, and those of services that it knows (selectAuthnPolicies)."""
        return frozenset({self.authn.root, self.namespace, *(h.namespace for h in self.scope.by_host.values())})

    def _decide(self, cluster: Cluster) -> Sent:
        host = self.scope.by_host.get(cluster.host)
        if not cluster.host:
            return Sent(missing="the route names a backend that istiod does not accept")
        if host is None:
            return Sent(missing=f"the client's proxy knows no service {cluster.host}")
        port = host.port(cluster.port)
        if port is None or port.protocol == UDP:
            return Sent(missing=f"{host.ref} has no port {cluster.port}")
        rule = self.rules.find(self.namespace, self.labels, host.hostname, host.namespace)
        part = rule.subsets.get(cluster.subset) if rule and cluster.subset else None
        if cluster.subset and part is None:
            return Sent(missing=f"no DestinationRule that the client uses has a subset {cluster.subset} of {cluster.host}")
        endpoints = self.registry.balanced(host, cluster.port)
        if host.resolution in DNS and not endpoints:
            return Sent(missing=f"{host.ref} has no endpoints")

        top = _for_port(rule.policy if rule else None, cluster.port, "spec.trafficPolicy")
        tls, passes, owner = top.tls, top.passthrough, rule.policy_from if rule else None
        path, hint_policy = top.path, rule.policy if rule else None
        inner: TrafficPolicy | None = None
        base_dialled = host.resolution == PASSTHROUGH or passes
        if part is not None:
            inner, hint_policy = part[0].traffic_policy, part[0].traffic_policy
            sub = _for_port(inner, cluster.port, f"spec.subsets.{cluster.subset}.trafficPolicy")
            if sub.tls is not None or sub.by_port:
                tls, path, owner = sub.tls, sub.path, part[1]
            if inner is not None and (sub.by_port or inner.load_balancer is not None):
                passes = sub.passthrough
            passes = passes or _passes(inner)
        dialled = base_dialled or passes

        if not dialled:
            labels = part[0].labels if part is not None else {}
            endpoints = answering(e for e in endpoints if subset(labels, e.labels))
        if tls is not None:
            assert rule is not None and owner is not None
            ref, field = ("", "") if path.startswith("spec.subsets") else rule.said_by(cluster.port if top.by_port else 0)
            return self._written(tls, ref or owner.ref, field or f"{path}.tls.mode", rule, endpoints, dialled)
        return self._automatic(host, cluster, rule, inner, hint_policy, endpoints, dialled)

    def _written(
        self, tls: ClientTls, ref: str, path: str, rule: Rule, endpoints: tuple[Endpoint, ...], dialled: bool
    ) -> Sent:
        sends, says = {
            "DISABLE": (PLAINTEXT, "the client sends plaintext"),
            "SIMPLE": (TLS, "the client starts TLS of its own, without a certificate"),
            "MUTUAL": (TLS, "the client starts TLS with a certificate that is not the mesh's"),
            "ISTIO_MUTUAL": (MTLS, "the client sends mTLS to every endpoint, with sidecar or without"),
        }[tls.mode]
        held = tls.credential_name and not tls.credential_name.startswith("configmap://")
        if sends == TLS and held and rule.selector is None:
            sends, says = PLAINTEXT, "credentialName counts in a sidecar only with a workloadSelector: plaintext is sent"
            if tls.credential_name == INVALID:
                says = "its CA is no ConfigMap with a certificate: istiod leaves sidecars without TLS, plaintext is sent"
        because = Because(ref, path, says if ref.startswith("BackendTLSPolicy/") else f"{tls.mode}: {says}")
        return Sent(tuple(Offer(e, sends) for e in endpoints), (because,), dialled, sends)

    def _automatic(
        self,
        host: Host,
        cluster: Cluster,
        rule: Rule | None,
        inner: TrafficPolicy | None,
        hint_policy: TrafficPolicy | None,
        endpoints: tuple[Endpoint, ...],
        dialled: bool,
    ) -> Sent:
        off = self._off(host, cluster.port, hint_policy)
        if off is not None:
            return Sent(tuple(Offer(e, PLAINTEXT) for e in endpoints), (off,), dialled, PLAINTEXT)
        if dialled:
            says = "the address that was called is used: mTLS to every endpoint, since all have a sidecar"
            return Sent(tuple(Offer(e, MTLS) for e in endpoints), (Because(host.ref, "spec", says),), dialled, MTLS)
        mode = None
        if rule is not None:
            mode = _endpoint_mode(inner, cluster.port) if cluster.subset else None
            mode = mode or _endpoint_mode(rule.policy, cluster.port)
        offers: list[Offer] = []
        because: dict[Because, None] = {}
        for endpoint in endpoints:
            sends, why = self._endpoint(endpoint, mode, rule)
            offers.append(Offer(endpoint, sends))
            because[why] = None
        return Sent(tuple(offers), tuple(because), dialled)

    def _off(self, host: Host, port: int, policy: TrafficPolicy | None) -> Because | None:
        """Why there is no automatic mTLS for a service at all, if so."""
        config = self.registry.config
        if host.external:
            return Because(host.ref, "spec.location", "outside the mesh: no automatic mTLS")
        if not config.enable_auto_mtls:
            return Because(config.ref, "data.mesh.enableAutoMtls", "false: clients send plaintext")
        if host.resolution == PASSTHROUGH or _passes(policy):
            everyone = self.registry.instances(host, port)
            if not everyone:
                return Because(host.ref, "spec.clusterIP", "passed through, and no endpoint has a sidecar: plaintext")
            naked = next((e for e in everyone if e.tls_mode == "disabled"), None)
            if naked is not None:
                whose = naked.pod.ref if naked.pod else naked.address
                return Because(host.ref, "spec.clusterIP", f"passed through, and {whose} has no sidecar: plaintext to all")
        mode, why = self.authn.hint(host.namespace)
        if mode == DISABLE:
            return Because(why.object, why.path, "DISABLE for the service's namespace: clients send plaintext to all of it")
        return None

    def _endpoint(self, endpoint: Endpoint, mode: str | None, rule: Rule | None) -> tuple[str, Because]:
        whose = endpoint.pod.ref if endpoint.pod else endpoint.address
        if mode is not None and mode != "ISTIO_MUTUAL":
            ref = rule.policy_from.ref if rule else ""
            return PLAINTEXT, Because(ref, "spec.trafficPolicy.tls", f"{mode} at the top: not marked for mTLS on this port")
        if endpoint.tls_mode != "istio":
            return PLAINTEXT, Because(
                whose, "metadata.labels.security.istio.io/tlsMode", "no sidecar by its label: plaintext is sent"
            )
        if mode is None and endpoint.namespace in self._known:
            effective = self.authn.effective(endpoint.namespace, endpoint.labels)
            if effective.on(endpoint.port) == DISABLE:
                decided = effective.because[0]
                for b in effective.because:
                    if b.path.endswith(f"portLevelMtls.{endpoint.port}"):
                        decided = b
                return PLAINTEXT, Because(decided.object, decided.path, f"DISABLE on port {endpoint.port}: plaintext is sent")
        return MTLS, Because("", "", "automatic mTLS: the endpoint has a sidecar")
