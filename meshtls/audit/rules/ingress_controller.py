"""An ingress controller without sidecar sends plaintext to the mesh; one with a sidecar goes to pod addresses.

A Gateway of another class than Istio's is such a controller too.
nginx sends to pod addresses unless `service-upstream` and `upstream-vhost` say otherwise: its sidecar does not know them.
"""

from collections.abc import Iterator

from meshtls.audit.destinations import refusing
from meshtls.audit.facts import Facts
from meshtls.audit.rule import Flaw, Rule
from meshtls.model import objects as o
from meshtls.model.check import Severity

NGINX = "nginx.ingress.kubernetes.io/"
# controllers that run outside the cluster's pods and go to pod or node addresses
CLOUD = ("alb", "k8s.aws", "gce", "gke.io", "azure/application-gateway", "application-gateway")
DEFAULT = "ingressclass.kubernetes.io/is-default-class"
ISTIO = ("istio.io/ingress-controller", "istio.io/gateway-controller")


def find(facts: Facts) -> Iterator[Flaw]:
    classes = {c.name: c.spec.controller for c in facts.mesh.ingress_classes}
    default = next((c.name for c in facts.mesh.ingress_classes if c.annotations.get(DEFAULT) == "true"), "")
    for ingress in facts.mesh.ingresses:
        name = ingress.spec.ingress_class_name or ingress.annotations.get("kubernetes.io/ingress.class", "") or default
        controller = classes.get(name, name)
        if controller in ISTIO or name == "istio":
            continue
        hits = [(s, hit) for s in _backends(facts, ingress) if (hit := refusing(facts, s))]
        if not hits:
            continue
        service, (first, *_) = hits[0]
        meshed = _controller_meshed(facts, controller or name)
        if meshed is False or (meshed is None and "nginx" not in f"{controller}{name}"):
            yield Flaw(
                subject=ingress.ref,
                path=("spec", "rules"),
                severity=None if meshed is False else Severity.WARNING,
                message=f"The ingress controller ({name or 'the default class'}) {'has no sidecar' if meshed is False else 'is not in the input'}: "
                        f"{'' if meshed is False else 'without a sidecar '}its calls to {service.ref} are plaintext, and STRICT on {first[0].label} refuses them (502, 503).",
                because=(f"{service.ref} leads to {first[0].ref} port {first[1]}, which is in the mesh",),
                catalogue=("LB-02", *(("AM-14",) if facts.plane(first[0]) == "ambient" else ())),
                fix="Put the controller into the mesh (label its namespace istio-injection=enabled, exclude its inbound ports 80 and 443 from interception), or use a gateway of the mesh.",
            )
        elif "nginx" in f"{controller}{name}" and not (
                ingress.annotations.get(NGINX + "service-upstream") == "true" and ingress.annotations.get(NGINX + "upstream-vhost")):
            yield Flaw(
                subject=ingress.ref,
                path=("metadata", "annotations"),
                severity=None if meshed else Severity.WARNING,
                message=f"nginx sends to the pod addresses of {service.ref}, which its sidecar does not know: plaintext, refused by STRICT on {first[0].label}.",
                because=("a call to a pod's address goes to PassthroughCluster",),
                catalogue=("LB-03",),
                fix=f"metadata:\n  annotations:\n    {NGINX}service-upstream: \"true\"\n    {NGINX}upstream-vhost: {service.name}.{service.namespace}.svc.cluster.local",
            )
    yield from _routes(facts)


def _routes(facts: Facts) -> Iterator[Flaw]:
    """Routes of the Gateway API that hang on a gateway that is not Istio's."""
    controllers = {c.name: c.spec.controller_name for c in facts.mesh.gateway_classes}
    gateways = {(g.namespace, g.name): g for g in facts.mesh.k8s_gateways}
    for route in (*facts.mesh.http_routes, *facts.mesh.grpc_routes, *facts.mesh.tcp_routes, *facts.mesh.tls_routes):
        for parent in route.spec.parent_refs:
            gateway = gateways.get((parent.namespace or route.namespace, parent.name)) if parent.kind == "Gateway" else None
            name = gateway.spec.gateway_class_name if gateway else ""
            controller = controllers.get(name, name)
            if not gateway or controller.startswith("istio.io/") or name.startswith("istio"):
                continue
            named = [s for rule in route.spec.rules for b in rule.backend_refs if b.kind == "Service"
                     and (s := facts.mesh.services_by_name.get((b.namespace or route.namespace, b.name)))]
            hits = [(s, hit) for s in named if (hit := refusing(facts, s))]
            meshed = _controller_meshed(facts, controller)
            if hits and not meshed:
                service, (first, *_) = hits[0]
                yield Flaw(
                    subject=route.ref,
                    path=("spec", "parentRefs"),
                    severity=None if meshed is False else Severity.WARNING,
                    message=f"{gateway.ref} is not Istio's (class {name}): {'its proxies have' if meshed is False else 'where its proxies have'} no sidecar, "
                            f"calls to {service.ref} are plaintext, and STRICT on {first[0].label} refuses them (502, 503).",
                    because=(f"{service.ref} leads to {first[0].ref} port {first[1]}, which is in the mesh", f"class {name} belongs to {controller}"),
                    catalogue=("LB-02", *(("AM-14",) if facts.plane(first[0]) == "ambient" else ())),
                    fix="Put that gateway's proxies into the mesh, or use a Gateway of class istio.",
                )
                break


def _backends(facts: Facts, ingress: o.Ingress) -> list[o.Service]:
    spec = ingress.spec
    named = [p.backend for rule in spec.rules if rule.http for p in rule.http.paths]
    if spec.default_backend:
        named.append(spec.default_backend)
    found = {}
    for entry in named:
        if entry.service and (service := facts.mesh.services_by_name.get((ingress.namespace, entry.service.name))):
            found[service.ref] = service
    return list(found.values())


def _controller_meshed(facts: Facts, controller: str) -> bool | None:
    """Has the controller's workload a sidecar? None where it is not in the input."""
    if any(cloud in controller for cloud in CLOUD):
        return False
    word = next((w for w in ("nginx", "traefik", "haproxy", "kong", "contour", "envoy", "nginx") if w in controller), "")
    for w in facts.workloads:
        if word and any(word in c.image and ("ingress" in c.image or "controller" in c.image or word != "nginx") for c in facts.face(w).spec.containers):
            return facts.meshed(w)
    return None


RULE = Rule(code="MT261", title="An ingress controller reaches the mesh in plaintext", severity=Severity.ERROR,
            catalogue=("LB-02", "LB-03", "AM-14"), about=("Ingress", "HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute"),
            needs=("Service", "Pod", "PeerAuthentication", "Namespace"), reads=("IngressClass", "GatewayClass", "K8sGateway"), find=find)
