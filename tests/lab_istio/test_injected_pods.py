"""What is written into a pod, field by field, and which pods are refused: one small case for each rule of the injector."""

from pathlib import Path

import pytest
import yaml

from meshtls.errors import InputError
from meshtls.lab import istio
from meshtls.lab.istio.world import World

SECTIONS = yaml.safe_load((Path(__file__).parent / "injected_pods.yaml").read_text())
NAMESPACE = {"metadata": {"name": "shop", "labels": {"istio-injection": "enabled"}}}
WORLD = World.of(istio.installation())


def annotation(name):
    if name.startswith("T/"):
        return "traffic.sidecar.istio.io/" + name[2:]
    return name if "/" in name else f"sidecar.istio.io/{name}"


def pod(case):
    metadata = {"generateName": "web-", "namespace": "shop", "labels": case.get("labels", {})}
    metadata["annotations"] = {annotation(k): v for k, v in case.get("annotations", {}).items()}
    if "owner" in case:
        metadata["ownerReferences"] = [{"apiVersion": "apps/v1", "controller": True, **case["owner"]}]
    containers = [{"name": "app", "ports": [{"name": "http", "containerPort": 8080}], **case.get("app", {})}]
    containers += [{"name": "istio-proxy", **case["proxy"]}] if "proxy" in case else []
    return {"metadata": metadata, "spec": {"containers": containers, **case.get("spec", {})}}


def parts(result):
    by_name = {c["name"]: c for field in ("containers", "initContainers") for c in result["spec"][field]}
    proxy = by_name["istio-proxy"]
    return {
        "app": by_name["app"],
        "proxy": proxy,
        "init": by_name.get("istio-init"),
        "env": {e["name"]: e.get("value") for e in proxy["env"]},
        "labels": result["metadata"]["labels"],
        "annotations": result["metadata"]["annotations"],
        "spec": result["spec"],
    }


def at(value, path):
    """The field at a path; keys may have slashes of their own."""
    while path:
        if isinstance(value, list):
            first, _, path = path.partition("/")
            value = value[int(first)]
            continue
        if path in value:
            return value[path]
        first, _, path = path.partition("/")
        value = value.get(first)
        if value is None:
            return None
    return value


@pytest.mark.parametrize("case", [c for section in SECTIONS.values() for c in section], ids=lambda c: c["name"])
def test_the_pod_is_the_injectors(case):
    if "refused" in case:
        with pytest.raises(InputError) as error:
            istio.inject(pod(case), NAMESPACE, WORLD)
        assert case["refused"] in error.value.message
        return
    result = parts(istio.inject(pod(case), NAMESPACE, WORLD))
    assert case["expect"]
    assert {path: at(result, path) for path in case["expect"]} == case["expect"]
