"""The flaws that stand today, in the words of the rules: they are what the guards except. Pure.

Each function here says in Python, about the objects of a mesh, what the rule of the same name in rules.py says in CEL about
an object on its way in; a test compares the two on random pods and DestinationRules.
"""

from collections.abc import Collection, Iterator
from typing import Any

import msgspec

from meshtls.model.mesh import Mesh
from meshtls.model.objects import DestinationRule, Pod, PodTemplate, PortPolicy, SecurityContext, TrafficPolicy
from meshtls.model.workload import Workload
from meshtls.policy.dataplane import BARE, BYPASS, MODE, TRUE, to_be
from meshtls.policy.engine import Engine
from meshtls.policy.inject import INJECT
from meshtls.policy.service import TLS_MODE

TRAFFIC = "traffic.sidecar.istio.io/"
INTERCEPTION, TEMPLATES = "sidecar.istio.io/interceptionMode", "inject.istio.io/templates"
PROXY = 1337
OWN = ("istio-proxy", "istio-init", "istio-validation", "enable-core-dump")  # containers that injection adds
MUTUAL = "ISTIO_MUTUAL"


def flaws(mesh: Mesh, w: Workload, planes: Collection[str], uncaptured: Collection[str]) -> set[str]:
    """What is wrong with a workload: by its template and by its pods. Whether it has a sidecar is its template's affair, if there is one."""
    found: set[str] = set()
    bare = []
    if w.template is not None:
        meta = msgspec.structs.replace(w.template.metadata, namespace=w.namespace, name=w.name)
        bare = [to_be(Pod(metadata=meta, spec=w.template.spec), w.ref, Engine.of(mesh).injector, mesh)[0]]
        found.update(of_pod(w.template, planes, uncaptured))
    else:
        bare = [face.plane for face in Engine.of(mesh).faces_of(w)]
    for pod in w.pods:
        found.update(of_pod(pod, planes, uncaptured))
    if "ambient" not in planes and any(plane.kind == BARE for plane in bare):
        found.add("no-sidecar")
    return found


def of_pod(pod: Pod | PodTemplate, planes: Collection[str], uncaptured: Collection[str]) -> Iterator[str]:
    """What a pod's labels, annotations and spec say, in the order of the rules."""
    labels, notes, spec = pod.metadata.labels, pod.metadata.annotations, pod.spec
    proxied = any(c.name == "istio-proxy" for c in (*spec.containers, *spec.init_containers))  # a waypoint, a gateway
    if "sidecar" in planes and not proxied and labels.get(INJECT, notes.get(INJECT)) == "false":
        yield "injection-off"
    if "ambient" in planes and not proxied and labels.get(MODE) == "none":
        yield "dataplane-none"
    if "ambient" in planes and notes.get(BYPASS) in TRUE:
        yield "capture-bypassed"
    if spec.host_network:
        yield "host-network"
    yield from (f"excluded-port {port}" for port in _listed(notes.get(f"{TRAFFIC}excludeInboundPorts", "")) if port not in uncaptured)
    included = notes.get(f"{TRAFFIC}includeInboundPorts", "*")
    if included.strip() != "*":
        yield f"included-ports {included}"
    if notes.get(f"{TRAFFIC}excludeInterfaces"):
        yield f"excluded-interfaces {notes[f'{TRAFFIC}excludeInterfaces']}"
    if notes.get(INTERCEPTION) == "NONE":
        yield "interception-none"
    if TEMPLATES in notes and "sidecar" not in _listed(notes[TEMPLATES]):
        yield f"other-template {notes[TEMPLATES]}"
    if labels.get(TLS_MODE, "istio") != "istio":
        yield f"tls-mode-label {labels[TLS_MODE]}"
    for container in (*spec.containers, *spec.init_containers):
        if container.name not in OWN and PROXY in (_first(container.security_context, spec.security_context, field) for field in ("run_as_user", "run_as_group")):
            yield f"proxy-user {container.name}"


def tls(rule: DestinationRule) -> Iterator[str]:
    """Where a DestinationRule says something else than ISTIO_MUTUAL."""
    whole = rule.spec.traffic_policy
    if _mode(whole) != MUTUAL:
        yield f"client-tls {_mode(whole)}"
    yield from (f"client-tls port {port} {mode}" for port, mode in _ports(whole))
    for subset in rule.spec.subsets:
        ports = "".join(f" port {port} {mode}" for port, mode in _ports(subset.traffic_policy))
        if ports or _mode(subset.traffic_policy) != MUTUAL:
            yield f"client-tls subset {subset.name} {_mode(subset.traffic_policy)}{ports}"


def excluded_everywhere(mesh: Mesh) -> Iterator[str]:
    """The ports that the injectors' values leave out in every pod."""
    for config in mesh.config_maps:
        if config.name.startswith("istio-sidecar-injector") and "values" in config.data:
            try:
                values: Any = msgspec.json.decode(config.data["values"])
                said = values["global"]["proxy"]["excludeInboundPorts"]
            except (msgspec.DecodeError, KeyError, TypeError, RecursionError):
                continue
            yield from _listed(str(said or ""))


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _first(own: SecurityContext | None, pod: SecurityContext | None, field: str) -> int | None:
    value: int | None = getattr(own, field) if own else None
    return value if value is not None else getattr(pod, field) if pod else None


def _mode(policy: TrafficPolicy | PortPolicy | None) -> str:
    return MUTUAL if policy is None or policy.tls is None else policy.tls.mode


def _ports(policy: TrafficPolicy | None) -> Iterator[tuple[int, str]]:
    for each in policy.port_level_settings if policy else ():
        if _mode(each) != MUTUAL:
            yield each.port.number if each.port else 0, _mode(each)
