"""How rules speak: manifests for fixes, and lists that stay readable."""

from collections.abc import Iterable, Sequence

from meshtls.model.workload import Workload


def policy(namespace: str, name: str, spec: str, *, kind: str = "PeerAuthentication", api: str = "security.istio.io/v1") -> str:
    """A manifest with the lines of `spec` beneath `spec:`."""
    body = "\n".join(f"  {line}" for line in spec.split("\n"))
    return f"apiVersion: {api}\nkind: {kind}\nmetadata:\n  name: {name}\n  namespace: {namespace}\nspec:\n{body}\n"


def exception(w: Workload, labels: dict[str, str], ports: Iterable[int]) -> str:
    """The PeerAuthentication that keeps `ports` of `w` open to plaintext when its namespace goes STRICT."""
    chosen = "\n".join(f"    {key}: {quoted(value)}" for key, value in selector(labels).items())
    lines = "\n".join(f'  "{port}":\n    mode: PERMISSIVE' for port in sorted(ports))
    return policy(w.namespace, f"{w.name}-plaintext", f"selector:\n  matchLabels:\n{chosen}\nportLevelMtls:\n{lines}")


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
    safe = plain.isalnum() and plain[0].isalpha() and value.lower() not in ("true", "false", "yes", "no", "on", "off", "null", "y", "n")
    return value if safe else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def some(names: Sequence[str], most: int = 5) -> str:
    """`a, b and 3 more`."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
