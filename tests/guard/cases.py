"""Requests that a guard is asked about: for every rule what it must refuse and what it must let through.

    CASES: each has a name, the rule that must refuse it ("" where none may), the operation, the object and what it was before.

The world of world.yaml is what was achieved; `before` is an object of it, or one made for the case.
"""

import copy
from pathlib import Path
from typing import Any

import msgspec
import yaml

from meshtls.guard.achieved import Kept, achieved
from meshtls.sources import load

WORLD = Path(__file__).with_name("world.yaml")
Object = dict[str, Any]


class Case(msgspec.Struct, frozen=True):
    name: str
    rule: str
    operation: str
    object: Object | None
    before: Object | None = None

    @property
    def subject(self) -> Object:
        found = self.object if self.object is not None else self.before
        assert found is not None
        return found


def world() -> list[Object]:
    return list(yaml.safe_load_all(WORLD.read_text()))


def kept() -> list[Kept]:
    return achieved(load([str(WORLD)]))[0]


def existing(kind: str, name: str, namespace: str = "shop") -> Object:
    return next(o for o in world() if o["kind"] == kind and o["metadata"]["name"] == name and o["metadata"].get("namespace", namespace) == namespace)


def merged(obj: Object, change: Object) -> Object:
    """A merge patch, applied."""
    found = copy.deepcopy(obj)
    for key, value in change.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, dict) and isinstance(found.get(key), dict):
            found[key] = merged(found[key], value)
        else:
            found[key] = value
    return found


def policy(mode: str | None = None, ports: dict[str, str] | None = None, labels: dict[str, str] | None = None, name: str = "new", namespace: str = "shop") -> Object:
    spec: Object = {}
    if labels is not None:
        spec["selector"] = {"matchLabels": labels}
    if mode is not None:
        spec["mtls"] = {"mode": mode}
    if ports:
        spec["portLevelMtls"] = {port: {"mode": value} for port, value in ports.items()}
    return {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def rule(host: str, traffic: Object | None = None, subsets: list[Object] | None = None, name: str = "new", namespace: str = "free") -> Object:
    spec: Object = {"host": host, **({"trafficPolicy": traffic} if traffic else {}), **({"subsets": subsets} if subsets else {})}
    return {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


APP: Object = {"name": "app", "image": "i"}
PROXY: Object = {"name": "istio-proxy", "image": "proxy", "securityContext": {"runAsUser": 1337, "runAsGroup": 1337}}


def template(labels: dict[str, str] | None = None, notes: dict[str, str] | None = None, app: Object | None = None, **spec: Any) -> Object:
    return {"metadata": {"labels": {"app": "new", **(labels or {})}, "annotations": notes or {}}, "spec": {"containers": [{**APP, **(app or {})}], **spec}}


def pod(labels: dict[str, str] | None = None, notes: dict[str, str] | None = None, app: Object | None = None, *, bare: bool = False, native: bool = False,
        owner: tuple[str, str] | None = None, name: str = "new", namespace: str = "shop", **spec: Any) -> Object:  # fmt: skip
    made = template(labels, notes, app, **spec)
    if native:
        made["spec"]["initContainers"] = [{**PROXY, "restartPolicy": "Always"}]
    elif not bare:
        made["spec"]["containers"] = [*made["spec"]["containers"], PROXY]
    owners = [{"apiVersion": "apps/v1", "kind": owner[0], "name": owner[1], "uid": "00000000-0000-0000-0000-000000000001", "controller": True}] if owner else []
    return {"apiVersion": "v1", "kind": "Pod", **made, "metadata": {**made["metadata"], "name": name, "namespace": namespace, **({"ownerReferences": owners} if owners else {})}}


def deployment(labels: dict[str, str] | None = None, notes: dict[str, str] | None = None, app: Object | None = None, *, name: str = "new",
               namespace: str = "shop", kind: str = "Deployment", **spec: Any) -> Object:  # fmt: skip
    body: Object = {"selector": {"matchLabels": {"app": "new"}}, "template": template(labels, notes, app, **spec)}
    if kind == "StatefulSet":
        body["serviceName"] = "x"
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": body}


def job(labels: dict[str, str] | None = None, notes: dict[str, str] | None = None, *, name: str = "new", owner: tuple[str, str] | None = None) -> Object:
    owners = [{"apiVersion": "batch/v1", "kind": owner[0], "name": owner[1], "uid": "00000000-0000-0000-0000-000000000001", "controller": True}] if owner else []
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": "shop", **({"ownerReferences": owners} if owners else {})},
            "spec": {"template": template(labels, notes, restartPolicy="Never")}}  # fmt: skip


def cronjob(labels: dict[str, str] | None = None, notes: dict[str, str] | None = None, name: str = "new") -> Object:
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"schedule": "0 1 * * *", "jobTemplate": {"spec": {"template": template(labels, notes, restartPolicy="Never")}}}}  # fmt: skip


def create(name: str, refused_by: str, obj: Object) -> Case:
    return Case(name, refused_by, "CREATE", obj)


def update(name: str, refused_by: str, before: Object, change: Object) -> Case:
    return Case(name, refused_by, "UPDATE", merged(before, change), before)


def delete(name: str, refused_by: str, before: Object) -> Case:
    return Case(name, refused_by, "DELETE", None, before)


PROBE: Object = {
    "apiVersion": "v1", "kind": "Pod", "spec": {"activeDeadlineSeconds": 180, "restartPolicy": "Never", "containers": [APP]},
    "metadata": {"name": "meshtls-1-bare", "namespace": "shop", "labels": {"app.kubernetes.io/managed-by": "meshtls", "meshtls.dev/run": "1"}},
}  # fmt: skip
OFF = {"sidecar.istio.io/inject": "false"}
EXCLUDE, INCLUDE = "traffic.sidecar.istio.io/excludeInboundPorts", "traffic.sidecar.istio.io/includeInboundPorts"
DISABLE, MUTUAL = {"tls": {"mode": "DISABLE"}}, {"tls": {"mode": "ISTIO_MUTUAL"}}
CART = "cart.shop.svc.cluster.local"
_DEFAULT, _DB, _OLD = (existing("PeerAuthentication", name) for name in ("default", "db", "old"))
_MESH = existing("PeerAuthentication", "default", "istio-system")
_WEB = existing("PeerAuthentication", "web", "part")
_PLAIN = existing("DestinationRule", "plain")
_CART, _METERED, _LEGACY = (existing("Deployment", name) for name in ("cart", "metered", "legacy"))
_SHOP, _AMB = existing("Namespace", "shop"), existing("Namespace", "amb")
_RUNNING, _CAPTURED = pod(name="running"), pod(name="captured", namespace="amb", bare=True)

CASES: tuple[Case, ...] = (
    # the namespace's mode
    create("a PERMISSIVE policy for the namespace", "namespace-mode", policy("PERMISSIVE")),
    create("a DISABLE policy for the namespace", "namespace-mode", policy("DISABLE")),
    create("a policy for the namespace without mode", "namespace-mode", policy()),
    create("an UNSET policy with an empty selector, which is the namespace's", "namespace-mode", policy("UNSET", labels={})),
    create("another STRICT policy for the namespace", "", policy("STRICT")),
    create("a policy in a namespace that is not kept", "", policy("DISABLE", namespace="free")),
    update("the keeper made PERMISSIVE", "namespace-mode", _DEFAULT, {"spec": {"mtls": {"mode": "PERMISSIVE"}}}),
    update("the keeper labelled", "", _DEFAULT, {"metadata": {"labels": {"team": "x"}}}),
    create("a policy that inherits from the STRICT mesh", "", policy("UNSET", namespace="inherits")),
    create("a policy that undercuts the STRICT mesh", "namespace-mode", policy("PERMISSIVE", namespace="inherits")),
    update("the mesh's policy made PERMISSIVE", "namespace-mode", _MESH, {"spec": {"mtls": {"mode": "PERMISSIVE"}}}),
    update("the mesh's policy made UNSET", "namespace-mode", _MESH, {"spec": {"mtls": {"mode": "UNSET"}}}),
    create("a second policy of the mesh that is PERMISSIVE", "namespace-mode", policy("PERMISSIVE", namespace="istio-system")),
    create("a selector in the root namespace, which counts for nothing", "", policy("PERMISSIVE", labels={"app": "x"}, namespace="istio-system")),
    create("a namespace policy where only workloads are kept", "", policy("PERMISSIVE", namespace="part")),
    # workloads' modes
    create("a PERMISSIVE workload", "workload-mode", policy("PERMISSIVE", labels={"app": "cart"})),
    create("a workload that inherits", "", policy(labels={"app": "cart"})),
    create("a workload that says UNSET", "", policy("UNSET", labels={"app": "cart"})),
    update("an exception made worse", "workload-mode", _OLD, {"spec": {"mtls": {"mode": "DISABLE"}}}),
    update("an exception for other workloads", "workload-mode", _OLD, {"spec": {"selector": {"matchLabels": {"app": "cart"}}}}),
    update("an exception labelled", "", _OLD, {"metadata": {"labels": {"team": "x"}}}),
    update("an exception that ends", "", _OLD, {"spec": {"mtls": {"mode": "STRICT"}}}),
    create("an exception of today, made again", "", _OLD),
    # ports' modes
    create("a port made PERMISSIVE", "port-mode", policy("STRICT", {"80": "PERMISSIVE"}, {"app": "cart"})),
    create("a port made DISABLE where the mode is inherited", "port-mode", policy(None, {"80": "DISABLE"}, {"app": "cart"})),
    create("a STRICT port and one that inherits", "", policy("STRICT", {"80": "STRICT", "81": "UNSET"}, {"app": "cart"})),
    update("a port exception made worse", "port-mode", _DB, {"spec": {"portLevelMtls": {"3306": {"mode": "DISABLE"}}}}),
    update("a second port beside the exception", "port-mode", _DB, {"spec": {"portLevelMtls": {"3307": {"mode": "PERMISSIVE"}}}}),
    update("a port exception that ends", "", _DB, {"spec": {"portLevelMtls": {"3306": {"mode": "STRICT"}}}}),
    update("a port exception's policy labelled", "", _DB, {"metadata": {"labels": {"team": "x"}}}),
    # the keepers
    delete("the keeper deleted", "keeper-deleted", _DEFAULT),
    delete("the mesh's policy deleted", "keeper-deleted", _MESH),
    delete("a workload's keeper deleted", "keeper-deleted", _WEB),
    delete("an exception deleted", "", _DB),
    delete("a policy of a namespace that is not kept deleted", "", existing("PeerAuthentication", "default", "free")),
    update("the keeper narrowed by a selector", "keeper-changed", _DEFAULT, {"spec": {"selector": {"matchLabels": {"app": "cart"}}}}),
    update("the keeper hidden from its istiod", "keeper-changed", _DEFAULT, {"metadata": {"labels": {"istio.io/rev": "other"}}}),
    update("a workload's keeper made PERMISSIVE", "keeper-changed", _WEB, {"spec": {"mtls": {"mode": "PERMISSIVE"}}}),
    update("a workload's keeper that loses a port", "keeper-changed", _WEB, {"spec": {"portLevelMtls": {"8080": None}}}),
    update("a workload's keeper that selects another workload", "keeper-changed", _WEB, {"spec": {"selector": {"matchLabels": {"app": "other"}}}}),
    update("a workload's keeper that gains a port", "", _WEB, {"spec": {"portLevelMtls": {"8081": {"mode": "STRICT"}}}}),
    # clients
    create("plaintext to a Service of it", "client-tls", rule(CART, DISABLE)),
    create("TLS of the client's own", "client-tls", rule(CART, {"tls": {"mode": "SIMPLE"}})),
    create("tls without a mode", "client-tls", rule(CART, {"tls": {"sni": "x"}})),
    create("plaintext to one port", "client-tls", rule(CART, {"portLevelSettings": [{"port": {"number": 80}, **DISABLE}]})),
    create("plaintext to a subset", "client-tls", rule(CART, subsets=[{"name": "v1", "trafficPolicy": DISABLE}])),
    create("plaintext to a port of a subset", "client-tls", rule(CART, subsets=[
        {"name": "v1", "trafficPolicy": {"portLevelSettings": [{"port": {"number": 80}, **DISABLE}]}}])),
    create("plaintext by a wildcard over the namespace", "client-tls", rule("*.shop.svc.cluster.local", DISABLE)),
    create("plaintext by a wildcard over the cluster", "client-tls", rule("*.local", DISABLE)),
    create("plaintext by a short name", "client-tls", rule("cart", DISABLE, namespace="shop")),
    create("the same short name elsewhere", "", rule("cart", DISABLE)),
    create("plaintext to another namespace", "", rule("x.free.svc.cluster.local", DISABLE)),
    create("mTLS written out", "", rule(CART, {**MUTUAL, "portLevelSettings": [{"port": {"number": 80}, **MUTUAL}]})),
    create("a rule without tls", "", rule(CART, {"loadBalancer": {"simple": "LEAST_REQUEST"}})),
    update("a rule that turns to plaintext", "client-tls", existing("DestinationRule", "pooled", "free"), {"spec": {"trafficPolicy": DISABLE}}),
    update("today's plaintext rule, retuned", "", _PLAIN, {"spec": {"trafficPolicy": {"loadBalancer": {"simple": "RANDOM"}}}}),
    update("today's plaintext rule, made SIMPLE", "client-tls", _PLAIN, {"spec": {"trafficPolicy": {"tls": {"mode": "SIMPLE"}}}}),
    update("today's plaintext rule, for another host", "client-tls", _PLAIN, {"spec": {"host": CART}}),
    create("plaintext to a kept workload's Service", "client-tls", rule("web.part.svc.cluster.local", DISABLE)),
    create("plaintext to another workload's Service beside it", "", rule("other.part.svc.cluster.local", DISABLE)),
    # pods
    create("a pod without sidecar", "no-sidecar", pod(bare=True)),
    create("a pod with a sidecar", "", pod()),
    create("a pod with a native sidecar", "", pod(native=True)),
    create("a pod of today's workload without sidecar", "", pod(OFF, bare=True, owner=("ReplicaSet", "legacy-6d9f7c"))),
    create("a pod of another workload whose name begins alike", "no-sidecar", pod(bare=True, owner=("ReplicaSet", "legacy-web-6d9f7c"))),
    create("a pod of today's CronJob", "", pod(None, OFF, bare=True, owner=("Job", "nightly-29012345"))),
    create("a pod without sidecar where only workloads are kept", "", pod(bare=True, namespace="part")),
    create("a kept workload's pod without sidecar", "no-sidecar", pod({"app": "web"}, bare=True, namespace="part")),
    create("a captured pod has no sidecar", "", pod(bare=True, namespace="amb")),
    create("a pod in a namespace that is not kept", "", pod(bare=True, namespace="free")),
    create("a probe's pod of meshtls", "", PROBE),
    create("a pod that only calls itself one", "no-sidecar", merged(PROBE, {"spec": {"activeDeadlineSeconds": None}})),
    create("a probe's pod that an application's Service could select", "no-sidecar", merged(PROBE, {"metadata": {"labels": {"app": "cart"}}})),
    create("injection switched off by a label", "injection-off", deployment(OFF)),
    create("injection switched off by an annotation", "injection-off", deployment(None, OFF)),
    create("an annotation that the label outdoes", "", deployment({"sidecar.istio.io/inject": "true"}, OFF)),
    create("a Job without injection", "injection-off", job(OFF)),
    create("a CronJob without injection", "injection-off", cronjob(None, OFF)),
    create("a StatefulSet without injection", "injection-off", deployment(OFF, kind="StatefulSet")),
    create("a DaemonSet without injection", "injection-off", deployment(OFF, kind="DaemonSet")),
    create("a Job of today's CronJob", "", job(None, OFF, name="nightly-29012345", owner=("CronJob", "nightly"))),
    create("a CronJob like others", "", cronjob()),
    create("a Deployment like others", "", deployment()),
    update("a Deployment that leaves the mesh", "injection-off", _CART, {"spec": {"template": {"metadata": {"labels": OFF}}}}),
    update("today's exception, scaled", "", _LEGACY, {"spec": {"replicas": 3}}),
    update("today's exception, restarted", "", _LEGACY, {"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}}}}),
    create("a pod that leaves ambient", "dataplane-none", deployment({"istio.io/dataplane-mode": "none"}, namespace="amb")),
    create("a waypoint, which is a proxy itself", "", merged(
        deployment({"istio.io/dataplane-mode": "none", "sidecar.istio.io/inject": "false"}, namespace="amb"),
        {"spec": {"template": {"spec": {"containers": [PROXY]}}}})),
    create("a gateway that brings its own proxy", "", merged(deployment(OFF), {"spec": {"template": {"spec": {"containers": [PROXY]}}}})),
    create("the same label where sidecars are", "", deployment({"istio.io/dataplane-mode": "none"})),
    update("a running pod taken out of ambient", "dataplane-none", _CAPTURED, {"metadata": {"labels": {"istio.io/dataplane-mode": "none"}}}),
    update("a running pod labelled", "", _CAPTURED, {"metadata": {"labels": {"team": "x"}}}),
    create("a pod whose inbound traffic bypasses ztunnel", "capture-bypassed", pod(None, {"ambient.istio.io/bypass-inbound-capture": "true"}, bare=True, namespace="amb")),
    create("a bypass that says false", "", pod(None, {"ambient.istio.io/bypass-inbound-capture": "false"}, bare=True, namespace="amb")),
    create("a Deployment on the host's network", "host-network", deployment(hostNetwork=True)),
    create("a Deployment that says no to the host's network", "", deployment(hostNetwork=False)),
    create("an excluded inbound port", "excluded-port", deployment(None, {EXCLUDE: "15020, 8080"})),
    create("the proxy's own ports excluded", "", deployment(None, {EXCLUDE: "15020,15021,15090"})),
    update("one excluded port more", "excluded-port", _METERED, {"spec": {"template": {"metadata": {"annotations": {EXCLUDE: "9090,8080"}}}}}),
    update("today's excluded port, and another image", "", _METERED, {"spec": {"template": {"metadata": {"annotations": {"x": "y"}}}}}),
    create("only some inbound ports intercepted", "included-ports", deployment(None, {INCLUDE: "8080"})),
    create("no inbound port intercepted", "included-ports", deployment(None, {INCLUDE: ""})),
    create("every inbound port intercepted", "", deployment(None, {INCLUDE: "*"})),
    create("an interface left out", "excluded-interfaces", deployment(None, {"traffic.sidecar.istio.io/excludeInterfaces": "eth1"})),
    create("an empty list of interfaces", "", deployment(None, {"traffic.sidecar.istio.io/excludeInterfaces": ""})),
    create("interception NONE", "interception-none", deployment(None, {"sidecar.istio.io/interceptionMode": "NONE"})),
    create("interception TPROXY", "", deployment(None, {"sidecar.istio.io/interceptionMode": "TPROXY"})),
    create("a template that enforces nothing", "other-template", deployment(None, {"inject.istio.io/templates": "grpc-agent"})),
    create("a template beside the sidecar's", "", deployment(None, {"inject.istio.io/templates": "custom, sidecar"})),
    create("a label that has clients send plaintext", "tls-mode-label", pod({"security.istio.io/tlsMode": "disabled"})),
    create("the label as injection sets it", "", pod({"security.istio.io/tlsMode": "istio"})),
    update("a running pod told to be plaintext", "tls-mode-label", _RUNNING, {"metadata": {"labels": {"security.istio.io/tlsMode": "disabled"}}}),
    create("a container with the proxy's user", "proxy-user", deployment(app={"securityContext": {"runAsUser": 1337}})),
    create("a pod with the proxy's group", "proxy-user", deployment(securityContext={"runAsGroup": 1337})),
    create("a pod's group that the container outdoes", "", deployment(app={"securityContext": {"runAsGroup": 7}}, securityContext={"runAsGroup": 1337})),
    create("another user", "", deployment(app={"securityContext": {"runAsUser": 1000}})),
    # the namespace's labels
    update("injection taken from the namespace", "injection-label", _SHOP, {"metadata": {"labels": {"istio-injection": "disabled"}}}),
    update("the injection label removed", "injection-label", _SHOP, {"metadata": {"labels": {"istio-injection": None}}}),
    update("the namespace moved to a revision", "", _SHOP, {"metadata": {"labels": {"istio-injection": None, "istio.io/rev": "canary"}}}),
    update("the namespace labelled", "", _SHOP, {"metadata": {"labels": {"team": "x"}}}),
    update("ambient taken from the namespace", "injection-label", _AMB, {"metadata": {"labels": {"istio.io/dataplane-mode": None}}}),
    update("the namespace hidden from istiod", "discovery-label", _SHOP, {"metadata": {"labels": {"mesh": None}}}),
    update("a namespace that is not kept, hidden", "", existing("Namespace", "free"), {"metadata": {"labels": {"mesh": None}}}),
)  # fmt: skip
