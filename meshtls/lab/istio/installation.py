"""What an Istio installation leaves in a cluster, as far as the lab and its tools read it (Helm chart istiod, default
values).

The namespace, MeshConfig, the injector's settings and its webhook's selectors. Classic sidecars everywhere: set
`pilot.env.ENABLE_NATIVE_SIDECARS` to "false" in the injector's values, as with the chart.
"""

import json
from typing import Any

import yaml

from meshtls.lab.istio import meshconfig
from meshtls.lab.istio.objects import DOMAIN, ROOT, Obj, overlaid

VERSION = "1.32-dev"
LABELS = {"istio.io/rev": "default", "app.kubernetes.io/name": "istiod", "app.kubernetes.io/part-of": "istio"}
MESH: Obj = {
    "accessLogFile": "/dev/stdout",
    "defaultConfig": {"discoveryAddress": f"istiod.{ROOT}.svc:15012"},
    "defaultProviders": {"metrics": ["prometheus"]},
    "enableAutoMtls": True,
    "enablePrometheusMerge": True,
    "rootNamespace": ROOT,
    "trustDomain": DOMAIN,
}
VALUES: Obj = {
    "global": {"proxy": {"image": "proxyv2"}},
    "pilot": {"env": {}},
    "sidecarInjectorWebhook": {"rewriteAppHTTPProbe": True},
}
CONFIG: Obj = {"policy": "enabled", "neverInjectSelector": [], "alwaysInjectSelector": []}


def _rule(key: str, operator: str, *values: str) -> Obj:
    return {"key": key, "operator": operator, **({"values": list(values)} if values else {})}


INJECT, REV, NAMESPACE = "sidecar.istio.io/inject", "istio.io/rev", "istio-injection"
NOT_REFUSED = _rule(INJECT, "NotIn", "false")
UNLABELLED = [_rule(REV, "DoesNotExist"), _rule(NAMESPACE, "DoesNotExist")]

# name -> (what the namespace must say, what the pod must say)
SELECTORS: dict[str, tuple[list[Obj], list[Obj]]] = {
    "rev.namespace.": ([_rule(REV, "In", "default"), _rule(NAMESPACE, "DoesNotExist")], [NOT_REFUSED]),
    "rev.object.": (UNLABELLED, [NOT_REFUSED, _rule(REV, "In", "default")]),
    "namespace.": ([_rule(NAMESPACE, "In", "enabled")], [NOT_REFUSED]),
    "object.": (
        [_rule(NAMESPACE, "DoesNotExist"), _rule(REV, "DoesNotExist")],
        [_rule(INJECT, "In", "true"), _rule(REV, "DoesNotExist")],
    ),
}


def _object(api_version: str, kind: str, name: str, marks: dict[str, str], **fields: Any) -> Obj:
    metadata = {"name": name, **({"namespace": ROOT} if kind == "ConfigMap" else {}), "labels": marks}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields}


def webhook() -> Obj:
    """The injector's MutatingWebhookConfiguration; the lab answers it itself, there is no istiod behind it."""
    same = {
        "clientConfig": {"service": {"name": "istiod", "namespace": ROOT, "path": "/inject", "port": 443}},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "scope": "*"}],
        "failurePolicy": "Fail",
        "matchPolicy": "Equivalent",
        "reinvocationPolicy": "Never",
        "sideEffects": "None",
        "timeoutSeconds": 10,
        "admissionReviewVersions": ["v1"],
    }
    webhooks = [
        {
            "name": f"{prefix}sidecar-injector.istio.io",
            "namespaceSelector": {"matchExpressions": namespace},
            "objectSelector": {"matchExpressions": pod},
            **same,
        }
        for prefix, (namespace, pod) in SELECTORS.items()
    ]
    kind, marks = "MutatingWebhookConfiguration", {**LABELS, "app": "sidecar-injector"}
    return _object("admissionregistration.k8s.io/v1", kind, "istio-sidecar-injector", marks, webhooks=webhooks)


def installation(mesh: Obj | None = None, values: Obj | None = None) -> list[Obj]:
    """The objects to create first. `mesh` and `values` are laid over the defaults, key by key. Raises InputError for a `mesh` that
    is no MeshConfig."""
    text = yaml.safe_dump({**MESH, **(mesh or {})})
    meshconfig.mesh(text)
    injector = {"config": yaml.safe_dump(CONFIG), "values": json.dumps(overlaid(VALUES, values or {}))}
    settings = {"mesh": text, "meshNetworks": "networks: {}\n"}
    return [
        _object("v1", "Namespace", ROOT, {"kubernetes.io/metadata.name": ROOT}),
        _object("v1", "ConfigMap", "istio", LABELS, data=settings),
        _object("v1", "ConfigMap", "istio-sidecar-injector", LABELS, data=injector),
        webhook(),
    ]
