"""What a guard keeps out: one literal list of rules, in the language that every engine evaluates (CEL).

A rule is an expression for the list of flaws that a request would bring in, each in words: `host-network`, `port-mode 3306
PERMISSIVE`. A flaw is let through where an exception matches `FLAW WHO`; what a request does not change is not judged. A
`Target` says which requests a rule sees and gives names to what the rules speak of; what differs between namespaces is
`DATA`, filled in from `Kept` by the engine. Only functions that Kubernetes 1.30, Kyverno and Gatekeeper all have are used.
"""

import msgspec

from meshtls.guard.achieved import LABELS, Kept, wild
from meshtls.guard.today import INTERCEPTION, MUTUAL, OWN, PROXY, TEMPLATES, TRAFFIC
from meshtls.policy.dataplane import BYPASS, MODE, TRUE
from meshtls.policy.inject import INJECT
from meshtls.policy.service import TLS_MODE

Value = str | bool | list[str] | dict[str, str] | list[dict[str, str]] | dict[str, dict[str, str]]


class Resource(msgspec.Struct, frozen=True):
    group: str
    plural: str
    kind: str


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """`where`: "namespace" (objects in the kept namespace), "everywhere", or "itself" (the Namespace object). `scopes`: the
    scopes of Kept for which it makes sense. `variables` are CEL, in the order in which they build on each other."""

    name: str
    where: str
    operations: tuple[str, ...]
    resources: tuple[Resource, ...]
    data: tuple[str, ...]
    variables: tuple[tuple[str, str], ...]
    scopes: tuple[str, ...] = ("namespace", "workloads")


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """`flaws` is CEL; `says` completes "... is kept STRICT: "; `catalogue` are the entries of docs/audit.md that it is about."""

    name: str
    targets: tuple[str, ...]
    flaws: str
    says: str
    catalogue: tuple[str, ...]

    @property
    def variable(self) -> str:
        return self.name.replace("-", "_")


def _texts(values: tuple[str, ...]) -> str:
    return f"[{', '.join(repr(value) for value in values)}]"


def _at(mapping: str, key: str, otherwise: str = "''") -> str:
    """The value of a key that may be missing."""
    return f"({key!r} in {mapping} ? {mapping}[{key!r}] : {otherwise})"


def _listed(text: str) -> str:
    return f"{text}.split(',').map(each, each.trim()).filter(each, each != '')"


def _tls(policy: str) -> str:
    """The mode of a trafficPolicy or of a port's settings; tls without mode is DISABLE."""
    return f"(has({policy}.tls) ? (has({policy}.tls.mode) ? {policy}.tls.mode : 'DISABLE') : {MUTUAL!r})"


def _weak_ports(policy: str) -> str:
    number = "(has(p.port) && has(p.port.number) ? string(p.port.number) : '0')"
    return (f"(has({policy}.portLevelSettings) ? {policy}.portLevelSettings.filter(p, {_tls('p')} != {MUTUAL!r})"
            f".map(p, 'port ' + {number} + ' ' + {_tls('p')}) : [])")  # fmt: skip


_WATCHED = (INJECT, MODE, BYPASS, INTERCEPTION, TEMPLATES, TLS_MODE, f"{TRAFFIC}excludeInboundPorts", f"{TRAFFIC}includeInboundPorts", f"{TRAFFIC}excludeInterfaces")

# what a granted exception's end is compared with: when the object is made, or else the last change of each who writes it
_STAMPS = ("request.operation == 'CREATE' ? (has(object.metadata.creationTimestamp) ? [string(object.metadata.creationTimestamp)] : []) : "
           "request.operation == 'UPDATE' && has(object.metadata.managedFields) ? "
           "object.metadata.managedFields.filter(m, has(m.time)).map(m, string(m.time)) : []")  # fmt: skip

# a probe's pod of ours: nobody owns it, no Service of an application selects it, and the kubelet ends it within the hour
PROBE = ("request.kind.kind == 'Pod' && size(variables.owners) == 0 && 'meshtls.dev/run' in variables.labels && "
         "variables.labels.all(k, k.startsWith('meshtls.dev/') || k in ['app.kubernetes.io/managed-by', 'sidecar.istio.io/inject', "
         "'istio.io/dataplane-mode']) && has(object.spec.activeDeadlineSeconds) && int(object.spec.activeDeadlineSeconds) <= 3600")  # fmt: skip

_POD = (
    ("pod", "{pod}"),
    ("labels", "has(variables.pod.metadata) && has(variables.pod.metadata.labels) ? variables.pod.metadata.labels : {{}}"),
    ("notes", "has(variables.pod.metadata) && has(variables.pod.metadata.annotations) ? variables.pod.metadata.annotations : {{}}"),
    ("containers", "variables.pod.spec.containers + (has(variables.pod.spec.initContainers) ? variables.pod.spec.initContainers : [])"),
    ("proxied", "variables.containers.exists(c, c.name == 'istio-proxy')"),
    ("user", "has(variables.pod.spec.securityContext) && has(variables.pod.spec.securityContext.runAsUser) ? int(variables.pod.spec.securityContext.runAsUser) : 0"),
    ("crew", "has(variables.pod.spec.securityContext) && has(variables.pod.spec.securityContext.runAsGroup) ? int(variables.pod.spec.securityContext.runAsGroup) : 0"),
    ("owners", "has(object.metadata.ownerReferences) ? object.metadata.ownerReferences.filter(o, has(o.controller) && o.controller) : []"),
    ("who", "size(variables.owners) > 0 ? variables.owners[0].kind + '/' + variables.owners[0].name : "
            "request.kind.kind + '/' + object.metadata.name"),
    ("stamps", _STAMPS),
    ("kept", "variables.workloads.exists(w, w.all(k, k in variables.labels && variables.labels[k] == w[k])) && !(" + PROBE + ")"),
)  # fmt: skip


def _of_pod(pod: str, same: str) -> tuple[tuple[str, str], ...]:
    return (*((name, text.format(pod=pod)) for name, text in _POD), ("same", f"request.operation == 'UPDATE' && {same}"))


_BEFORE = (("before_labels", "request.operation == 'UPDATE' && has(oldObject.metadata.labels) ? oldObject.metadata.labels : {}"),
           ("before_notes", "request.operation == 'UPDATE' && has(oldObject.metadata.annotations) ? oldObject.metadata.annotations : {}"))  # fmt: skip
_POD_DATA = ("planes", "uncaptured", "workloads")
_POLICY = (
    ("it", "request.operation == 'DELETE' ? oldObject : object"),
    ("labels", "has(variables.it.spec) && has(variables.it.spec.selector) && has(variables.it.spec.selector.matchLabels) ? variables.it.spec.selector.matchLabels : {}"),
    ("mode", "has(variables.it.spec) && has(variables.it.spec.mtls) && has(variables.it.spec.mtls.mode) ? variables.it.spec.mtls.mode : 'UNSET'"),
    ("port_modes", "has(variables.it.spec) && has(variables.it.spec.portLevelMtls) ? variables.it.spec.portLevelMtls : {}"),
    ("revision", "has(variables.it.metadata.labels) && 'istio.io/rev' in variables.it.metadata.labels ? variables.it.metadata.labels['istio.io/rev'] : ''"),
    ("revision_before", "request.operation == 'UPDATE' && has(oldObject.metadata.labels) && 'istio.io/rev' in oldObject.metadata.labels ? "
                        "oldObject.metadata.labels['istio.io/rev'] : ''"),
    ("who", "'PeerAuthentication/' + variables.it.metadata.name + (variables.it.metadata.name in variables.selectors && "
            "variables.selectors[variables.it.metadata.name] != variables.labels ? ' (with another selector)' : '')"),
    ("stamps", _STAMPS),
    ("same", "request.operation == 'UPDATE' && has(object.spec) && has(oldObject.spec) && object.spec == oldObject.spec && "
             "variables.revision == variables.revision_before"),
    ("going", "(namespaceObject != null && has(namespaceObject.metadata.deletionTimestamp)) || has(request.userInfo.username) && request.userInfo.username in "
              "['system:serviceaccount:kube-system:namespace-controller', 'system:kube-controller-manager']"),
)  # fmt: skip
_PEERS = (Resource("security.istio.io", "peerauthentications", "PeerAuthentication"),)

TARGETS: tuple[Target, ...] = (
    Target(name="policies", where="namespace", operations=("CREATE", "UPDATE", "DELETE"), resources=_PEERS,
           data=("scope", "inherits", "keepers", "strict", "ports", "selectors"), variables=_POLICY, scopes=("namespace", "workloads", "mesh")),
    Target(name="calls", where="everywhere", operations=("CREATE", "UPDATE"),
           resources=(Resource("networking.istio.io", "destinationrules", "DestinationRule"),),
           data=("domain", "hosts", "suffixes", "wild"), variables=(
        ("host", "has(object.spec) && has(object.spec.host) ? object.spec.host : ''"),
        ("full", "variables.host.contains('.') || variables.host.startsWith('*') ? variables.host : "
                 "variables.host + '.' + object.metadata.namespace + '.svc.' + variables.domain"),
        ("kept", "variables.full in variables.hosts || variables.full in variables.wild || variables.suffixes.exists(s, variables.full.endsWith(s))"),
        ("who", "'DestinationRule/' + object.metadata.namespace + '/' + object.metadata.name + ' ' + variables.host"),
        ("stamps", _STAMPS),
        ("same", "request.operation == 'UPDATE' && object.spec == oldObject.spec"),
    )),
    Target(name="pods", where="namespace", operations=("CREATE", "UPDATE"), resources=(Resource("", "pods", "Pod"),),
           data=_POD_DATA, variables=(*_BEFORE, *_of_pod("object", (
               f"{_texts(_WATCHED)}.all(k, (k in variables.labels ? variables.labels[k] : '') == (k in variables.before_labels ? variables.before_labels[k] : '') && "
               "(k in variables.notes ? variables.notes[k] : '') == (k in variables.before_notes ? variables.before_notes[k] : ''))")))),
    Target(name="workloads", where="namespace", operations=("CREATE", "UPDATE"), data=_POD_DATA,
           resources=(Resource("apps", "deployments", "Deployment"), Resource("apps", "statefulsets", "StatefulSet"),
                      Resource("apps", "daemonsets", "DaemonSet"), Resource("batch", "jobs", "Job")),
           variables=_of_pod("object.spec.template", "object.spec.template == oldObject.spec.template")),
    Target(name="cronjobs", where="namespace", operations=("CREATE", "UPDATE"), data=_POD_DATA, resources=(Resource("batch", "cronjobs", "CronJob"),),
           variables=_of_pod("object.spec.jobTemplate.spec.template", "object.spec.jobTemplate.spec.template == oldObject.spec.jobTemplate.spec.template")),
    Target(name="labels", where="itself", operations=("UPDATE",), resources=(Resource("", "namespaces", "Namespace"),),
           data=("planes", "watched"), variables=(
        ("labels", "has(object.metadata.labels) ? object.metadata.labels : {}"),
        ("before", "has(oldObject.metadata.labels) ? oldObject.metadata.labels : {}"),
        ("who", "'Namespace/' + object.metadata.name"),
        ("stamps", _STAMPS),
        ("changed", "variables.watched.filter(k, (k in variables.labels ? variables.labels[k] : '') != (k in variables.before ? variables.before[k] : ''))"),
        ("same", "size(variables.changed) == 0"),
        ("meshes", "('sidecar' in variables.planes && ('istio-injection' in variables.labels ? variables.labels['istio-injection'] == 'enabled' : "
                   "'istio.io/rev' in variables.labels && variables.labels['istio.io/rev'] != '')) || "
                   f"('ambient' in variables.planes && {_at('variables.labels', MODE)} == 'ambient')"),
    )),
)  # fmt: skip

_BOTH = ("pods", "workloads", "cronjobs")

RULES: tuple[Rule, ...] = (
    Rule(name="namespace-mode", targets=("policies",), catalogue=("PA-02", "PA-09", "PA-11"),
         says="a policy for the whole namespace must say STRICT",
         flaws="request.operation != 'DELETE' && variables.scope != 'workloads' && size(variables.labels) == 0 && variables.mode != 'STRICT' && "
               "!(variables.mode == 'UNSET' && variables.inherits) ? ['namespace-mode ' + variables.mode] : []"),
    Rule(name="workload-mode", targets=("policies",), catalogue=("PA-10",),
         says="a policy for some workloads must say STRICT or leave it to the namespace's",
         flaws="request.operation != 'DELETE' && variables.scope == 'namespace' && size(variables.labels) > 0 && "
               "variables.mode in ['PERMISSIVE', 'DISABLE'] ? ['workload-mode ' + variables.mode] : []"),
    Rule(name="port-mode", targets=("policies",), catalogue=("PA-06", "PA-08", "PA-10"),
         says="this port exception is not among those that stood when it was guarded",
         flaws="request.operation != 'DELETE' && variables.scope == 'namespace' && size(variables.labels) > 0 ? "
               "variables.port_modes.filter(p, has(variables.port_modes[p].mode) && variables.port_modes[p].mode in ['PERMISSIVE', 'DISABLE'])"
               ".map(p, 'port-mode ' + p + ' ' + variables.port_modes[p].mode) : []"),
    Rule(name="keeper-deleted", targets=("policies",), catalogue=("PA-04", "RB-04"),
         says="this policy is what keeps it STRICT and cannot be deleted",
         flaws="request.operation == 'DELETE' && variables.it.metadata.name in variables.keepers && !variables.going ? ['keeper-deleted'] : []"),
    Rule(name="keeper-changed", targets=("policies",), catalogue=("PA-12", "PA-14"),
         says="this policy is what keeps it STRICT: its selector, its modes of kept workloads and ports and the revision that reads it stay",
         flaws="request.operation == 'UPDATE' && object.metadata.name in variables.keepers && ("
               "variables.labels != variables.keepers[object.metadata.name] || variables.revision != variables.revision_before || "
               "(object.metadata.name in variables.strict && variables.mode != 'STRICT') || "
               "!variables.ports.all(p, !p.startsWith(object.metadata.name + ' ') || variables.port_modes.exists(k, "
               "object.metadata.name + ' ' + k == p && has(variables.port_modes[k].mode) && variables.port_modes[k].mode == 'STRICT'))) ? "
               "['keeper-changed'] : []"),
    Rule(name="client-tls", targets=("calls",), catalogue=("DR-01", "DR-02", "DR-03", "DR-05", "DR-08"),
         says="a DestinationRule towards its Services may say ISTIO_MUTUAL only, or no tls at all",
         flaws="!variables.kept || !has(object.spec) ? [] : ("
               f"has(object.spec.trafficPolicy) ? ({_tls('object.spec.trafficPolicy')} != {MUTUAL!r} ? [{_tls('object.spec.trafficPolicy')}] : []) + "
               f"{_weak_ports('object.spec.trafficPolicy')} : []).map(f, 'client-tls ' + f) + (has(object.spec.subsets) ? object.spec.subsets.filter(s, "
               f"has(s.trafficPolicy) && ({_tls('s.trafficPolicy')} != {MUTUAL!r} || size({_weak_ports('s.trafficPolicy')}) > 0)).map(s, "
               f"'client-tls subset ' + s.name + ' ' + {_tls('s.trafficPolicy')} + {_weak_ports('s.trafficPolicy')}.map(f, ' ' + f).join('')) : [])"),
    Rule(name="no-sidecar", targets=("pods",), catalogue=("IN-02", "IN-03", "IN-04", "PA-18", "RB-12"),
         says="a pod must have a sidecar",
         flaws="request.operation == 'CREATE' && variables.kept && !('ambient' in variables.planes) && !variables.proxied ? "
               "['no-sidecar'] : []"),
    Rule(name="injection-off", targets=_BOTH, catalogue=("IN-01", "RB-12"), says="injection must not be switched off",
         flaws=f"variables.kept && !variables.proxied && 'sidecar' in variables.planes && {_at('variables.labels', INJECT, _at('variables.notes', INJECT))} == 'false' ? ['injection-off'] : []"),
    Rule(name="dataplane-none", targets=_BOTH, catalogue=("AM-11", "RB-12"), says="a pod must not leave ambient capture",
         flaws=f"variables.kept && !variables.proxied && 'ambient' in variables.planes && {_at('variables.labels', MODE)} == 'none' ? ['dataplane-none'] : []"),
    Rule(name="capture-bypassed", targets=_BOTH, catalogue=("AM-10",), says="a pod must not have its inbound traffic bypass ztunnel",
         flaws=f"variables.kept && 'ambient' in variables.planes && {_at('variables.notes', BYPASS)} in {_texts(tuple(sorted(TRUE)))} ? ['capture-bypassed'] : []"),
    Rule(name="host-network", targets=_BOTH, catalogue=("NC-03", "PA-18"), says="pods on the host's network are never in the mesh",
         flaws="variables.kept && has(variables.pod.spec.hostNetwork) && variables.pod.spec.hostNetwork ? ['host-network'] : []"),
    Rule(name="excluded-port", targets=_BOTH, catalogue=("SE-06", "WH-07"), says="inbound ports must not be left out of interception",
         flaws=f"variables.kept ? {_listed(_at('variables.notes', f'{TRAFFIC}excludeInboundPorts'))}.filter(p, !(p in variables.uncaptured))"
               ".map(p, 'excluded-port ' + p) : []"),
    Rule(name="included-ports", targets=_BOTH, catalogue=("IN-10", "SE-06"), says="every inbound port must be intercepted",
         flaws=f"variables.kept && {_at('variables.notes', f'{TRAFFIC}includeInboundPorts', repr('*'))}.trim() != '*' ? "
               f"['included-ports ' + variables.notes['{TRAFFIC}includeInboundPorts']] : []"),
    Rule(name="excluded-interfaces", targets=_BOTH, catalogue=("IN-14",), says="no interface must be left out of interception",
         flaws=f"variables.kept && {_at('variables.notes', f'{TRAFFIC}excludeInterfaces')} != '' ? "
               f"['excluded-interfaces ' + variables.notes['{TRAFFIC}excludeInterfaces']] : []"),
    Rule(name="interception-none", targets=_BOTH, catalogue=("IN-09",), says="interception must not be switched off",
         flaws=f"variables.kept && {_at('variables.notes', INTERCEPTION)} == 'NONE' ? ['interception-none'] : []"),
    Rule(name="other-template", targets=_BOTH, catalogue=("IN-07",), says="a pod must be injected as a sidecar, not as something that enforces nothing",
         flaws=f"variables.kept && '{TEMPLATES}' in variables.notes && !('sidecar' in {_listed(f'variables.notes[{TEMPLATES!r}]')}) ? "
               f"['other-template ' + variables.notes['{TEMPLATES}']] : []"),
    Rule(name="tls-mode-label", targets=_BOTH, catalogue=("CL-03",), says="a pod must not tell its clients to send plaintext",
         flaws=f"variables.kept && {_at('variables.labels', TLS_MODE, repr('istio'))} != 'istio' ? ['tls-mode-label ' + variables.labels['{TLS_MODE}']] : []"),
    Rule(name="proxy-user", targets=_BOTH, catalogue=("CL-13",), says="no container must run as the proxy's user or group",
         flaws=f"variables.kept ? variables.containers.filter(c, !(c.name in {_texts(OWN)}) && ("
               f"(has(c.securityContext) && has(c.securityContext.runAsUser) ? int(c.securityContext.runAsUser) : variables.user) == {PROXY} || "
               f"(has(c.securityContext) && has(c.securityContext.runAsGroup) ? int(c.securityContext.runAsGroup) : variables.crew) == {PROXY}))"
               ".map(c, 'proxy-user ' + c.name) : []"),
    Rule(name="injection-label", targets=("labels",), catalogue=("IN-02", "AM-11"),
         says="the labels by which its pods come into the mesh must not be taken away",
         flaws=f"variables.changed.exists(k, k in {_texts(LABELS)}) && !variables.meshes ? ['injection-label'] : []"),
    Rule(name="discovery-label", targets=("labels",), catalogue=("PA-15",), says="the labels by which istiod sees the namespace must stay",
         flaws=f"variables.changed.filter(k, !(k in {_texts(LABELS)})).map(k, 'discovery-label ' + k)"),
)  # fmt: skip


def excused(flaw: str = "f") -> str:
    """CEL: is the flaw one of today's, or granted to somebody whose time is not over?"""
    words = f"({flaw} + ' ' + variables.who)"
    return (f"variables.excepted.exists(e, {words}.matches(e)) || (size(variables.stamps) > 0 && variables.granted.exists(e, "
            f"{words}.matches(e) && variables.stamps.all(s, timestamp(s) < timestamp(variables.granted[e]))))")  # fmt: skip


def data(kept: Kept, target: Target) -> dict[str, Value]:
    """What differs between namespaces, by the name under which the expressions know it."""
    known: dict[str, Value] = {
        "scope": kept.scope, "inherits": kept.inherits, "keepers": kept.keepers, "strict": list(kept.strict), "ports": list(kept.ports),
        "selectors": kept.selectors, "planes": list(kept.planes), "uncaptured": list(kept.uncaptured), "workloads": list(kept.workloads),
        "domain": kept.domain, "hosts": list(kept.hosts), "suffixes": list(kept.suffixes), "wild": list(wild(kept)), "watched": list(kept.labels),
    }  # fmt: skip
    return {
        "home": kept.namespace,
        **{name: known[name] for name in target.data},
        "excepted": list(_mine(kept.excepted, target)),
        "granted": {g.pattern: g.until for g in kept.granted if any(r.name == g.rule for r in of(target))},
    }


def _mine(patterns: tuple[str, ...], target: Target) -> tuple[str, ...]:
    """The exceptions from the rules of a target."""
    names = tuple("^" + rule.name.replace("-", "\\-") for rule in of(target))
    return tuple(p for p in patterns if p.startswith(names))


def of(target: Target) -> tuple[Rule, ...]:
    """The rules of a target."""
    return tuple(rule for rule in RULES if target.name in rule.targets)
