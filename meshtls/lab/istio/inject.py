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
from meshtls.lab.istio import installation, template
from meshtls.lab.istio.objects import ROOT, Obj, annotations, labels, name_of, namespace_of
from meshtls.lab.istio.world import World

POLICIES = ("enabled", "disabled")
IGNORED = frozenset({"kube-system", "kube-public", "kube-node-lease", "local-path-storage"})


def selected(selector: Obj | None, found: dict[str, str]) -> bool:
    """Whether labels satisfy a Kubernetes label selector; an empty one takes all."""
    for key, value in ((selector or {}).get("matchLabels") or {}).items():
        if found.get(key) != value:
            return False
    for rule in (selector or {}).get("matchExpressions") or []:
        value, among = found.get(rule["key"]), rule.get("values") or []
        fits = {
            "In": value in among,
            "NotIn": value not in among,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not fits.get(rule["operator"], False):
            return False
    return True


def revision(pod: Obj, namespace: Obj, world: World) -> str | None:
    """The revision whose webhook takes the pod, None if no webhook does."""
    configured = world.kind("MutatingWebhookConfiguration")
    if "mutatingwebhookconfigurations.admissionregistration.k8s.io" not in world.lists:
        configured = [installation.webhook()]
    home = {"kubernetes.io/metadata.name": name_of(namespace), **labels(namespace)}
    for configuration in configured:
        for webhook in configuration.get("webhooks") or []:
            if (
                webhook["name"].endswith("sidecar-injector.istio.io")
                and selected(webhook.get("namespaceSelector"), home)
                and selected(webhook.get("objectSelector"), labels(pod))
            ):
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
        if any(s and selected(s, labels(pod)) for s in settings.get(field) or []):
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
    config, values = _settings(world, taken)
    if not required(given, config):
        return None
    asked = annotations(given).get("inject.istio.io/templates", "sidecar").split(",")
    missing = next((name.strip() for name in asked if name.strip() != "sidecar"), None)
    if missing is not None:
        raise InputError(f'failed to run injection template: requested template "{missing}" not found; have sidecar')
    return template.Injection(given, world, values, taken).pod


def _settings(world: World, rev: str) -> tuple[Obj, Obj]:
    """A revision's policy and values: ConfigMap istio-system/istio-sidecar-injector, or ...-REVISION."""
    name = "istio-sidecar-injector" + ("" if rev == "default" else f"-{rev}")
    for found in world.kind("ConfigMap"):
        if (namespace_of(found), name_of(found)) == (ROOT, name):
            data = found.get("data") or {}
            return yaml.safe_load(data.get("config") or "{}") or {}, json.loads(data.get("values") or "{}")
    return installation.CONFIG, installation.VALUES
