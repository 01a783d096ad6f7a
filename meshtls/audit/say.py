"""How rules speak: manifests for fixes, and lists that stay readable."""

from collections.abc import Iterable, Mapping, Sequence

from meshtls.audit.facts import Facts
from meshtls.model.objects import LabelSelector, PeerAuthentication
from meshtls.model.workload import Workload
from meshtls.policy.authn import mode_of


def policy(namespace: str, name: str, spec: str, *, kind: str = "PeerAuthentication", api: str = "security.istio.io/v1") -> str:
    """A manifest with the lines of `spec` beneath `spec:`."""
    body = "\n".join(f"  {line}" for line in spec.split("\n"))
    return f"apiVersion: {api}\nkind: {kind}\nmetadata:\n  name: {name}\n  namespace: {namespace}\nspec:\n{body}\n"


def exception(facts: Facts, w: Workload, ports: Iterable[int], mode: str = "PERMISSIVE") -> str:
    """The PeerAuthentication that keeps `ports` of `w` open to plaintext when its namespace goes STRICT.

    Where a policy selects `w` already, that policy with the ports added: a second, younger one would count for nothing.
    """
    if own := facts.own(w):
        said: dict[str, str] = {port: entry.mode for port, entry in own[0].spec.port_level_mtls.items()}
        return with_ports(own[0], said | {str(port): mode for port in ports}, _written(facts, w) and mode_of(own[0]) == "UNSET")
    lines = "\n".join(f'  "{port}":\n    mode: {mode}' for port in sorted(ports))
    name = f"{w.name}-plaintext" if mode == "PERMISSIVE" else f"{w.name}-{mode.lower()}"
    whole = "mtls:\n  mode: STRICT\n" if _written(facts, w) else ""
    return policy(w.namespace, name, f"selector:\n  matchLabels:\n{_labels(chosen_by(facts, w))}\n{whole}portLevelMtls:\n{lines}")


def _written(facts: Facts, w: Workload) -> bool:
    """Must the mode be written out? On a captured workload that is STRICT already an exception without one might open every port."""
    return facts.plane(w) == "ambient" and facts.mode(w) == "STRICT"


def with_ports(own: PeerAuthentication, modes: Mapping[str, str], strict: bool = False) -> str:
    """A policy that is there, with these modes of ports; `strict` writes out the mode that it inherits."""
    lines = "\n".join(f'  "{port}":\n    mode: {each}' for port, each in modes.items())
    chosen = own.spec.selector.match_labels if own.spec.selector else {}
    mode = "STRICT" if strict else mode_of(own)
    whole = f"mtls:\n  mode: {mode}\n" if mode != "UNSET" else ""
    return policy(own.namespace, own.name, f"selector:\n  matchLabels:\n{_labels(chosen)}\n{whole}portLevelMtls:\n{lines}")


def _labels(labels: Mapping[str, str]) -> str:
    return "\n".join(f"    {quoted(key)}: {quoted(value)}" for key, value in labels.items())


def chosen_by(facts: Facts, w: Workload) -> dict[str, str]:
    """Labels that select `w` and, as far as it can be told, nothing else: those its owner goes by, else the best known ones."""
    wanted = getattr(getattr(w.owner, "spec", None), "selector", None)
    if isinstance(wanted, LabelSelector) and wanted.match_labels:
        labels = {k: v for k, v in wanted.match_labels.items() if k != "pod-template-hash"}
        if labels:
            return labels
    return selector(facts.face(w).metadata.labels)


def selector(labels: dict[str, str]) -> dict[str, str]:
    """The labels that name a workload best."""
    for key in ("app.kubernetes.io/name", "app", "k8s-app", "name"):
        if key in labels:
            chosen: dict[str, str] = {key: labels[key]}
            if "app.kubernetes.io/instance" in labels and key == "app.kubernetes.io/name":
                chosen["app.kubernetes.io/instance"] = labels["app.kubernetes.io/instance"]
            return chosen
    return dict(list(labels.items())[:2])


def quoted(value: str) -> str:
    """A YAML scalar that stays a string."""
    plain = value.replace("-", "").replace("_", "").replace(".", "").replace("/", "")
    safe = plain.isascii() and plain.isalnum() and value[0].isalpha() and value.lower() not in ("true", "false", "yes", "no", "on", "off", "null", "y", "n")
    return value if safe else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def some(names: Sequence[str], most: int = 5) -> str:
    """`a, b and 3 more`."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
