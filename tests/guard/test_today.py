"""Today's flaws, told by Python about a mesh, are those that the rules' CEL tells about a request."""

import random

import pytest

from meshtls.guard import today
from meshtls.guard.achieved import Kept, toward
from meshtls.guard.rules import RULES, TARGETS, data
from meshtls.lab.api import cel
from meshtls.model.objects import DestinationRule, Pod
from meshtls.sources.build import decode
from meshtls.sources.document import Document
from tests.guard import cases

KEPT = Kept(namespace="shop", scope="namespace", workloads=({},), planes=("ambient", "sidecar"), uncaptured=("15020", "15021"),
            suffixes=(".shop.svc.cluster.local",), hosts=("x.other.svc.cluster.local",))  # fmt: skip
SEEDS = range(150)


def told(target_name: str, obj: cases.Object) -> list[str]:
    """What the rules of a target say of an object that is created; a rule that has no twin here is left out."""
    target = next(target for target in TARGETS if target.name == target_name)
    kind = {"group": "", "version": "v1", "kind": obj["kind"]}
    seen = {"object": obj, "oldObject": None, "request": {"operation": "CREATE", "kind": kind}, "namespaceObject": None}
    variables = dict(data(KEPT, target))
    for name, expression in target.variables:
        if name not in ("same", "stamps", "before_labels", "before_notes"):
            variables[name] = cel.evaluate(expression, {**seen, "variables": variables})
    rules = [rule for rule in RULES if target_name in rule.targets and rule.name != "no-sidecar"]
    return [flaw for rule in rules for flaw in cel.evaluate(rule.flaws, {**seen, "variables": variables})]


def _some(chance: random.Random, *pairs: tuple[str, list[str]]) -> dict[str, str]:
    return {key: chance.choice(values) for key, values in pairs if chance.random() < 0.35}


def random_pod(chance: random.Random) -> cases.Object:
    labels = _some(chance, ("sidecar.istio.io/inject", ["false", "true", "x"]), ("istio.io/dataplane-mode", ["none", "ambient"]),
                   ("security.istio.io/tlsMode", ["istio", "disabled"]))  # fmt: skip
    notes = _some(chance, ("sidecar.istio.io/inject", ["false", "true"]), ("ambient.istio.io/bypass-inbound-capture", ["true", "t", "false", "1"]),
                  (cases.EXCLUDE, ["", "80", "15020, 80,,9090", "15020"]), (cases.INCLUDE, ["", "*", " * ", "8080"]),
                  ("traffic.sidecar.istio.io/excludeInterfaces", ["", "eth1"]), ("sidecar.istio.io/interceptionMode", ["NONE", "REDIRECT"]),
                  ("inject.istio.io/templates", ["sidecar", "custom, sidecar", "gateway", ""]))  # fmt: skip
    user = [{}, {"runAsUser": 1337}, {"runAsGroup": 1337}, {"runAsUser": 0, "runAsGroup": 5}]
    app = {**cases.APP, "name": chance.choice(["app", "istio-proxy"]), **({"securityContext": chance.choice(user)} if chance.random() < 0.6 else {})}
    spec = {**({"securityContext": chance.choice(user)} if chance.random() < 0.5 else {}), **({"hostNetwork": chance.choice([True, False])} if chance.random() < 0.4 else {})}
    made: cases.Object = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "shop"}, "spec": {"containers": [app], **spec}}
    if chance.random() < 0.5:
        made["spec"]["initContainers"] = [{"name": "early", "image": "i", "securityContext": chance.choice(user)}]
    made["metadata"] |= {**({"labels": labels} if labels else {}), **({"annotations": notes} if notes else {})}
    return made


def _tls(chance: random.Random) -> cases.Object:
    return chance.choice([{}, {}, {"tls": {}}, {"tls": {"mode": "DISABLE"}}, {"tls": {"mode": "ISTIO_MUTUAL"}}, {"tls": {"mode": "SIMPLE"}}])


def _traffic(chance: random.Random) -> cases.Object:
    ports = [{"port": {"number": number}, **_tls(chance)} for number in (80, 81) if chance.random() < 0.4]
    return {**_tls(chance), **({"portLevelSettings": ports} if ports else {})}


def random_rule(chance: random.Random) -> cases.Object:
    hosts = ["cart.shop.svc.cluster.local", "*.shop.svc.cluster.local", "*.svc.cluster.local", "*.local", "*", "cart", "x.other.svc.cluster.local",
             "y.other.svc.cluster.local", "*.other.svc.cluster.local", "example.com", "a.cart.shop.svc.cluster.local"]  # fmt: skip
    subsets = [{"name": name, **({"trafficPolicy": _traffic(chance)} if chance.random() < 0.7 else {})} for name in ("v1", "v2") if chance.random() < 0.5]
    spec = {"host": chance.choice(hosts), **({"trafficPolicy": _traffic(chance)} if chance.random() < 0.7 else {}), **({"subsets": subsets} if subsets else {})}
    return {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": "r", "namespace": chance.choice(["shop", "free"])}, "spec": spec}


def read(obj: cases.Object) -> object:
    return decode(Document(obj["apiVersion"], obj["kind"], obj))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_pods_flaws_are_the_same_in_both_languages(seed: int) -> None:
    obj = random_pod(random.Random(seed))
    pod = read(obj)

    assert isinstance(pod, Pod)
    assert sorted(told("pods", obj)) == sorted(today.of_pod(pod, KEPT.planes, KEPT.uncaptured)), obj


@pytest.mark.parametrize("seed", SEEDS)
def test_a_rules_flaws_are_the_same_in_both_languages(seed: int) -> None:
    obj = random_rule(random.Random(seed))
    rule = read(obj)

    assert isinstance(rule, DestinationRule)
    assert told("calls", obj) == (list(today.tls(rule)) if toward(KEPT, rule.namespace, rule.spec.host) else []), obj


def test_the_random_objects_have_every_flaw_somewhere() -> None:
    """Else the two tests above would say little."""
    words = {flaw.split()[0] for seed in SEEDS for target, make in (("pods", random_pod), ("calls", random_rule)) for flaw in told(target, make(random.Random(seed)))}

    twins = {rule.name for rule in RULES if {"pods", "calls"} & set(rule.targets)} - {"no-sidecar"}
    assert words == twins
