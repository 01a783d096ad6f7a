"""Injection: would a pod get a sidecar, and why.

1. A webhook of the injector must select the namespace (by its labels) and the pod (by its labels; annotations do not count).
2. Then host network and the system namespaces refuse; the label `sidecar.istio.io/inject`, else the annotation, decides if it
   says `true` or `false`; else the injector's never- and always-selectors, else its policy. A policy that is neither `enabled`
   nor `disabled` injects nothing at all.
3. The webhook's configuration says whose injector answers (its label `istio.io/rev`, else its Service): a tag's leads to the
   revision that the tag stands for, and that revision's settings count.
4. Where the input has no injection webhook, those of a default installation are assumed, and that is said.

(templates/mutatingwebhook.yaml; injectRequired in pkg/kube/inject/inject.go.)
"""

from collections.abc import Mapping
from functools import cached_property

import msgspec
import yaml

from meshtls.model.mesh import Mesh
from meshtls.model.objects import LabelSelector, PodSpec, Requirement, Webhook
from meshtls.policy.because import Because
from meshtls.policy.select import matches

INJECT, REV, NAMESPACE = "sidecar.istio.io/inject", "istio.io/rev", "istio-injection"
IGNORED = frozenset({"kube-system", "kube-public", "kube-node-lease", "local-path-storage"})
SETTINGS = "istio-sidecar-injector"  # the ConfigMap of the default revision; others add -REVISION
ASSUMED = "no injection webhook in the input: those of a default installation are assumed"
NO_ISTIO = "no Istio is in sight: the cluster has neither its mesh configuration nor an injection webhook, so nothing enforces a policy here"


def _selector(*requirements: tuple[str, str, tuple[str, ...]]) -> LabelSelector:
    return LabelSelector(match_expressions=tuple(Requirement(key=k, operator=o, values=v) for k, o, v in requirements))


_NOT_REFUSED = (INJECT, "NotIn", ("false",))
_NO_REV, _NO_LABEL = (REV, "DoesNotExist", ()), (NAMESPACE, "DoesNotExist", ())

# the webhooks of a default installation, in its order
DEFAULT: tuple[Webhook, ...] = (
    Webhook(
        name="rev.namespace.sidecar-injector.istio.io",
        namespace_selector=_selector((REV, "In", ("default",)), _NO_LABEL),
        object_selector=_selector(_NOT_REFUSED),
    ),
    Webhook(
        name="rev.object.sidecar-injector.istio.io",
        namespace_selector=_selector(_NO_REV, _NO_LABEL),
        object_selector=_selector(_NOT_REFUSED, (REV, "In", ("default",))),
    ),
    Webhook(
        name="namespace.sidecar-injector.istio.io",
        namespace_selector=_selector((NAMESPACE, "In", ("enabled",))),
        object_selector=_selector(_NOT_REFUSED),
    ),
    Webhook(
        name="object.sidecar-injector.istio.io",
        namespace_selector=_selector(_NO_LABEL, _NO_REV),
        object_selector=_selector((INJECT, "In", ("true",)), _NO_REV),
    ),
)


def _served_by(hook: Webhook) -> str:
    """The revision in the name of the Service behind a webhook, "" where it says none."""
    service = hook.client_config.service
    return service.name.removeprefix("istiod-") if service is not None and service.name.startswith("istiod-") else ""


class Decision(msgspec.Struct, frozen=True):
    """`revision` is the one whose webhook takes the pod ("default" where it has no name, "" where none does)."""

    injected: bool
    because: Because
    revision: str = ""


class _Settings(msgspec.Struct, rename="camel"):
    policy: str = "enabled"
    never_inject_selector: tuple[LabelSelector, ...] = ()
    always_inject_selector: tuple[LabelSelector, ...] = ()


def _assumed(hook: Webhook, namespace: str) -> Because:
    """The label that a webhook which is only assumed goes by: the namespace's, else the pod's own."""
    for selector, owner in ((hook.namespace_selector, f"Namespace/{namespace}"), (hook.object_selector, "")):
        key = next((need.key for need in selector.match_expressions if need.operator == "In"), "")
        if key:
            return Because(owner, f"metadata.labels.{key}", f"has it injected ({ASSUMED})")
    return Because(f"Namespace/{namespace}", "metadata.labels", f"has it injected ({ASSUMED})")


class Injector:
    """The injection of one mesh. `assumed`: the webhooks are not from the input; `no_istio`: a whole cluster has no trace of it."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        found = [
            (config.ref, config.metadata.labels.get(REV) or _served_by(hook), hook)
            for config in mesh.mutating_webhooks
            for hook in config.webhooks
            if hook.name.endswith("sidecar-injector.istio.io")
            or (hook.client_config.service is not None and hook.client_config.service.path.startswith("/inject"))
        ]
        sure = mesh.live and "MutatingWebhookConfiguration" not in mesh.absent
        self.assumed = not found and not sure
        self.no_istio = not found and sure and not mesh.configs and "ConfigMap" not in mesh.absent
        self._hooks = [("", "default", hook) for hook in DEFAULT] if self.assumed else found

    @cached_property
    def _settings(self) -> dict[str, tuple[str, _Settings]]:
        """Revision -> the ConfigMap of its injector, and what that says."""
        found = {}
        for config in self._mesh.config_maps:
            if config.name.startswith(SETTINGS) and "config" in config.data:
                try:
                    value = yaml.load(config.data["config"], Loader=yaml.CSafeLoader)
                    said = msgspec.convert({k: v for k, v in value.items() if v is not None}, _Settings)
                except (yaml.YAMLError, msgspec.ValidationError, AttributeError, ValueError):
                    said = _Settings()
                found[config.name.removeprefix(SETTINGS).lstrip("-") or "default"] = (config.ref, said)
        return found

    @property
    def selectors(self) -> tuple[LabelSelector, ...]:
        """The never- and always-selectors of the injectors' settings."""
        return tuple(s for _, each in self._settings.values() for s in each.never_inject_selector + each.always_inject_selector)

    def decide(
        self, namespace: str, namespace_labels: Mapping[str, str], labels: Mapping[str, str], annotations: Mapping[str, str], spec: PodSpec
    ) -> Decision:
        """Would a pod created like this have a sidecar?"""
        whole = {"kubernetes.io/metadata.name": namespace, **namespace_labels}
        chosen = next(
            ((ref, rev, h) for ref, rev, h in self._hooks if matches(h.namespace_selector, whole) and matches(h.object_selector, labels)),
            None,
        )
        if chosen is None:
            return Decision(False, Because(f"Namespace/{namespace}", "metadata.labels", "no injection webhook selects this pod"))
        ref, revision, hook = chosen
        revision = revision or labels.get(REV) or namespace_labels.get(REV) or "default"
        where = Because(ref, f"webhooks.{hook.name}", "selects this pod") if ref else _assumed(hook, namespace)
        injected, because = self._required(revision, namespace, labels, annotations, spec, where)
        return Decision(injected, because, revision)

    def _required(
        self,
        revision: str,
        namespace: str,
        labels: Mapping[str, str],
        annotations: Mapping[str, str],
        spec: PodSpec,
        where: Because,
    ) -> tuple[bool, Because]:
        if spec.host_network:
            return False, Because("", "spec.hostNetwork", "pods on the host network are never injected")
        if namespace in IGNORED:
            return False, Because("", "metadata.namespace", f"pods in {namespace} are never injected")
        ref, settings = self._settings.get(revision, ("", _Settings()))
        if settings.policy not in ("enabled", "disabled"):
            return False, Because(ref, "data.config", f"policy {settings.policy} is none: the injector injects nothing")
        field = "labels" if INJECT in labels else "annotations"
        said = labels.get(INJECT, annotations.get(INJECT, ""))
        if said in ("true", "false"):
            return said == "true", Because("", f"metadata.{field}.{INJECT}", f"says {said}")
        for selectors, answer in ((settings.never_inject_selector, False), (settings.always_inject_selector, True)):
            if any((s.match_labels or s.match_expressions) and matches(s, labels) for s in selectors):
                return answer, Because(ref, "data.config", f"{'always' if answer else 'never'} injects these labels")
        if settings.policy == "disabled":
            return False, Because(ref, "data.config", "policy disabled: only pods that ask for a sidecar get one")
        return True, where
