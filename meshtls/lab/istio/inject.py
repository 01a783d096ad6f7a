"""The sidecar injector: whether a pod gets a proxy, and what is written into it (pkg/kube/inject,
injection-template.yaml).

Decided by the webhook's selectors over the namespace's and the pod's labels, then by the pod's label or annotation
`sidecar.istio.io/inject`; a pod in the host's network never gets one. By default the proxy is a native sidecar, an init
container that stays; classic on the annotation `sidecar.istio.io/nativeSidecar: "false"` or by the injector's values.
"""

import copy
import json

import yaml

from meshtls.errors import InputError
from meshtls.lab.api import select
from meshtls.lab.istio import installation, template
from meshtls.lab.istio.objects import Obj, annotations, labels, name_of, namespace_of
from meshtls.lab.istio.world import World

POLICIES = ("enabled", "disabled")
IGNORED = frozenset({"kube-system", "kube-public", "kube-node-lease", "local-path-storage"})


def revision(pod: Obj, namespace: Obj, world: World) -> str | None:
    """The revision whose webhook takes the pod, None if no webhook does."""
    configured = world.kind("MutatingWebhookConfiguration")
    if "mutatingwebhookconfigurations.admissionregistration.k8s.io" not in world.lists:
        configured = [installation.webhook()]
    home = {"kubernetes.io/metadata.name": name_of(namespace), **labels(namespace)}
    for configuration in configured:
        for webhook in configuration.get("webhooks") or []:
            asked = ((webhook.get("namespaceSelector"), home), (webhook.get("objectSelector"), labels(pod)))
            ours = webhook["name"].endswith("sidecar-injector.istio.io")
            if ours and all(select.selected(selector or {}, marks) for selector, marks in asked):
                return labels(configuration).get("istio.io/rev", "default")
    return None


def required(pod: Obj, settings: Obj) -> bool:
    """What the injector says once the webhook has called it (injectRequired)."""
    policy = settings.get("policy", "enabled")
    if (pod.get("spec") or {}).get("hostNetwork") or namespace_of(pod) in IGNORED or policy not in POLICIES:
        return False
    wish = labels(pod).get("sidecar.istio.io/inject", annotations(pod).get("sidecar.istio.io/inject", ""))
    if wish in ("true", "false"):
        return wish == "true"
    for field, answer in (("neverInjectSelector", False), ("alwaysInjectSelector", True)):
        if any(s and select.selected(s, labels(pod)) for s in settings.get(field) or []):
            return answer
    return bool(policy == "enabled")


def inject(pod: Obj, namespace: Obj, world: World) -> Obj | None:
    """The pod with its proxy, None where it gets none. The pod given is left as it is. Raises InputError for a pod that
    the injector refuses, in its words."""
    home = name_of(namespace)
    given = copy.deepcopy(pod)
    given.setdefault("metadata", {}).setdefault("namespace", home)
    taken = revision(given, namespace, world)
    if taken is None:
        return None
    data = world.settings_of("istio-sidecar-injector" + ("" if taken == "default" else f"-{taken}"))
    config = installation.CONFIG if data is None else yaml.safe_load(data.get("config") or "{}") or {}
    if not required(given, config):
        return None
    values = installation.VALUES if data is None else json.loads(data.get("values") or "{}")
    asked = annotations(given).get("inject.istio.io/templates", "sidecar").split(",")
    missing = next((name.strip() for name in asked if name.strip() != "sidecar"), None)
    if missing is not None:
        raise InputError(f'failed to run injection template: requested template "{missing}" not found; have sidecar')
    return copy.deepcopy(template.Injection(given, world, values, taken).pod)
