"""What a rehearsal cannot know, said of this mesh in particular. Pure.

Each limit is a check that is skipped, with its reason: it stands in every report, and is no success. What is left out although it
belongs to the answer (a known call, a workload of the namespace) is a check that could not be evaluated: then no exit code 0.
"""

from collections.abc import Iterable, Iterator

from meshtls.model.check import Check, Status
from meshtls.model.mesh import Mesh
from meshtls.model.objects import Object
from meshtls.policy.dataplane import AMBIENT
from meshtls.policy.engine import Engine
from meshtls.rehearse.calls import PREDICTED, Known
from meshtls.rehearse.scope import Scope, gateways
from meshtls.rehearse.stand import is_outside

GROUP = "what a rehearsal cannot know"
NOT_SERVED = "the cluster does not serve this kind"


def checks(mesh: Mesh, namespace: str, known: Known, scope: Scope) -> tuple[Check, ...]:
    """The limits that hold of every rehearsal, and those of this one."""
    said = [*_always(mesh, namespace, known), *_here(mesh, scope)]
    found = [Check(id=f"rehearse/limit/{name}", title=title, status=Status.SKIP, reason=reason, group=GROUP) for name, title, reason in said if reason]
    for left in scope.left:
        found.append(Check(id=f"rehearse/left-out/{left.what}", title=f"{left.what} is part of the rehearsal", group="what was left out",
                           status=Status.SKIP if left.whole else Status.ERROR, reason=f"left out: {left.what}: {left.why}"))  # fmt: skip
    return tuple(found)


def _always(mesh: Mesh, namespace: str, known: Known) -> Iterator[tuple[str, str, str]]:
    assumed = "; every one of them is assumed, so who is refused here may never call" if known.source.startswith(PREDICTED) else ""
    yield ("clients", "every client is known",
           f"the calls come from {known.source}{assumed}; who calls {namespace} and is not among them is not here: listen first, for as long as the "
           "rarest job takes (meshtls observe)")  # fmt: skip
    called = {call.server for call in known.calls}
    silent = [s.ref for s in mesh.services_in.get(namespace, ()) if s.spec.selector and s.ref not in called]
    yield "uncalled", "every Service has a known client", _of("nobody is known to call them, so nothing is known of who would be refused there", silent)
    yield ("applications", "applications behave as in life",
           "stand-ins answer at once and speak HTTP or echo; what an application does with a refusal, its own protocol, TLS and retries, "
           "connections that stay open, and load are not rehearsed")  # fmt: skip
    yield ("control-plane", "istiod pushes as in life",
           "the lab translates Istio's objects itself and in milliseconds, with one revision and the newest Istio; a large or old mesh takes longer "
           "(try --fault slow-control-plane=30s)")  # fmt: skip
    yield ("elsewhere", "other places are as in the source",
           f"namespaces other than {namespace}, its clients and its servers are not here, nor is what is outside the cluster")


def _here(mesh: Mesh, scope: Scope) -> Iterator[tuple[str, str, str]]:
    faces = Engine.of(mesh).faces
    ambient = [w.ref for w in mesh.workloads if w.namespace in scope.namespaces and any(f.plane.kind == AMBIENT for f in faces[w.ref])]
    homes = scope.namespaces | {mesh.root}
    yield "ambient", "ambient workloads", _of("the lab has no ambient data plane", ambient)
    yield "gateways", "gateways", _of("a gateway stands in as a client with a sidecar; its routes and listeners are not tried", gateways(scope))
    for name, title, objects, why in (
        ("envoyfilters", "EnvoyFilters", mesh.envoy_filters, "the lab does not apply them, and they may change whom a proxy refuses"),
        ("authorization", "CUSTOM authorization", [p for p in mesh.authorization_policies if p.spec.action == "CUSTOM"], "the lab asks no authorizer"),
        ("outside", "what is outside the cluster", [e for e in mesh.service_entries if is_outside(e)], "they are left out, and nobody calls there"),
        ("routes", "VirtualServices", mesh.virtual_services, "of them only hosts, matches and destinations are here: no timeouts, retries, faults, rewrites"),
        ("networkpolicies", "NetworkPolicies with addresses", [p for p in mesh.network_policies if _has_addresses(p)],
         "pods and nodes have other addresses in the lab, so rules with ipBlock match others"),
    ):  # fmt: skip
        yield name, title, _of(why, [o.ref for o in objects if o.namespace in homes])
    hooks = [config.ref for configs in (mesh.validating_webhooks, mesh.mutating_webhooks) for config in configs for hook in config.webhooks
             if hook.client_config.service and hook.client_config.service.namespace in scope.namespaces]  # fmt: skip
    yield "webhooks", "admission webhooks", _of("they are not in the lab: whether STRICT cuts one off from the API server, and the rollback with it, "
                                                "the audit and the baseline of `migrate plan` on the cluster say", hooks)  # fmt: skip
    guarded = [f"Namespace/{name}" for name in sorted(scope.namespaces) if any(k.startswith("pod-security.") for k in mesh.namespace_labels.get(name, {}))]
    yield "pod-security", "Pod Security", _of("its labels are left out here, quotas and limits too: whether probe pods are admitted shows on the cluster", guarded)
    if len(mesh.configs) > 1:
        yield "revisions", "revisions", f"all proxies are of one revision here, with the settings of {mesh.config.ref or 'none'}: {', '.join(sorted(mesh.configs))}"
    if not mesh.configs:
        yield "settings", "mesh configuration", "the source has none, so Istio's defaults were taken, with access logs on"
    absent = [f"{kind}: {reason}" for kind, reason in mesh.absent.items() if reason != NOT_SERVED]
    yield "unread", "kinds that could not be read", "; ".join(absent[:5])
    beside = [stand.workload.ref for stand in scope.stands if not stand.first]
    yield "mixed", "workloads of which some pods have a sidecar", _of("they stand in twice, with and without", beside)


def _has_addresses(policy: Object) -> bool:
    spec = policy.spec  # type: ignore[attr-defined]
    return any(peer.ip_block for rule in spec.ingress for peer in rule.from_) or any(peer.ip_block for rule in spec.egress for peer in rule.to)


def _of(why: str, refs: Iterable[str]) -> str:
    names = sorted(set(refs))
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{why}: {', '.join(names[:5])}{more}" if names else ""
