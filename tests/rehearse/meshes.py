"""Meshes for tests of rehearsing: the example, and small ones of a few lines of YAML."""

from pathlib import Path

import yaml

from meshtls import sources
from meshtls.model.mesh import Mesh
from meshtls.sources.build import build
from meshtls.sources.document import parse

SHOP = Path(__file__).parents[2] / "examples" / "shop"
CART, BILLING, GATEWAY = "Deployment/shop/cart", "Deployment/legacy/billing", "Service/payments/gateway"


def shop() -> Mesh:
    return sources.load([str(SHOP)])


def written(text: str) -> Mesh:
    """A Mesh of YAML documents."""
    return build(parse(text.encode(), "test"))


def workload(name: str, namespace: str = "shop", *, kind: str = "Deployment", port: int = 8080, port_name: str = "http", calls: str = "", **spec: object) -> str:
    """A workload in a namespace, with a Service of its name; as YAML that ends with a separator."""
    labels = {"app": name}
    container = {"name": "main", "image": "registry.example/app:1", "ports": [{"containerPort": port, "name": port_name}],
                 "env": [{"name": "CALLS", "value": calls}] if calls else [], "readinessProbe": {"httpGet": {"port": port}}}
    owner = {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": namespace, "labels": labels},
             "spec": {"replicas": 3, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}}, **spec}}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
               "spec": {"clusterIP": "10.0.0.7", "selector": labels, "ports": [{"name": port_name, "port": 80, "targetPort": port, "nodePort": 30001}]}}
    return "".join(f"{yaml.safe_dump(obj)}---\n" for obj in (owner, service))


def namespace(name: str, **labels: str) -> str:
    marks = {key.replace("_", "-"): value for key, value in labels.items()}
    return yaml.safe_dump({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": marks}}) + "---\n"


MESHED = namespace("shop", istio_injection="enabled")
