"""Every recorded answer of istiod comes out of the policy engine, cell by cell.

The recorded istiod had no cluster domain to complete short host names in its configuration with; the engine is told the same.
"""

import json

import msgspec
import policy_meshes as meshes
import pytest

from meshtls.model.mesh import Mesh
from meshtls.model.objects import Metadata, MutatingWebhookConfiguration, PodSpec, Webhook
from meshtls.policy.change import strict
from meshtls.policy.engine import Engine
from meshtls.policy.inject import Injector
from meshtls.policy.server import modes

INJECTION = json.loads((meshes.DATA / "injection.json").read_text())


def wrong_modes(found, answers):
    have = {w.workload.replace("/", f"/{w.namespace}/", 1): w for w in modes(found)}
    for pod, ports in answers.items():
        mode = have[meshes.workload(pod)]
        for port, want in ports.items():
            got = mode.mode if port == "*" else mode.ports.get(port, mode.mode)
            if got != want:
                yield f"{pod} {port}: istiod {want}, meshtls {got}"


def want_of(endpoints):
    sends, verdicts = {e[2] for e in endpoints}, {e[3] for e in endpoints}
    verdict = "BREAKS" if "BREAKS" in verdicts else "WORKS" if verdicts == {"WORKS"} else "UNKNOWN"
    return (sends.pop() if len(sends) == 1 else "mixed"), verdict


def own(objects):
    """(pod, Service) where the pod is an endpoint: calls of a workload to itself are not compared."""
    return {
        (f"{e['targetRef']['namespace']}/{e['targetRef']['name']}",
         f"Service/{o['metadata']['namespace']}/{o['metadata']['labels']['kubernetes.io/service-name']}")
        for o in objects if o["kind"] == "EndpointSlice" for e in o["endpoints"]
    }  # fmt: skip


def wrong_calls(found, answers, skipped):
    have = meshes.calls(found, direct=True)
    for question, endpoints in answers.items():
        client, server, port = question.split()
        if (client, server) in skipped:
            continue
        kind, namespace, name = server.split("/")
        target = meshes.workload(f"{namespace}/{name}") if kind == "Pod" else server
        want, got = want_of(endpoints), have.get((meshes.workload(client), target, int(port)))
        if got != want and not (want == ("tls", "UNKNOWN") and got == ("tls", "BREAKS")):  # up to the application
            yield f"{question}: istiod {want}, meshtls {got}"


def test_every_mode_of_sidecars():
    wrong = [f"mesh {m['seed']}: {w}" for m in meshes.recorded("istiod.jsonl.gz") for w in wrong_modes(meshes.mesh(m["objects"]), m["now"]["inbound"])]
    assert wrong == []


def test_every_mode_of_ambient_pods():
    wrong = [f"mesh {m['seed']}: {w}" for m in meshes.recorded("ambient.jsonl.gz") for w in wrong_modes(meshes.mesh(m["objects"]), m["now"]["inbound"])]
    assert wrong == []


@pytest.mark.parametrize("variant", ["now", "a-strict"])
def test_every_call(variant):
    wrong, asked = [], 0
    for recorded in meshes.recorded("istiod.jsonl.gz"):
        found = meshes.mesh(recorded["objects"], domain="")
        if variant == "a-strict":
            found = strict(found, ["a"])
            Engine.of(found, "")
        asked += len(recorded[variant]["outbound"])
        wrong += [f"mesh {recorded['seed']}: {w}" for w in wrong_calls(found, recorded[variant]["outbound"], own(recorded["objects"]))]
    assert wrong == []
    assert asked > 30_000


@pytest.mark.parametrize("given", [True, False], ids=["webhooks in the input", "webhooks assumed"])
def test_every_injection(given):
    hooks = tuple(msgspec.convert(INJECTION["webhooks"], list[Webhook]))
    config = MutatingWebhookConfiguration(metadata=Metadata(name="istio-sidecar-injector"), webhooks=hooks)
    injector = Injector(Mesh(mutating_webhooks=(config,) if given else ()))
    wrong = [
        case
        for case in INJECTION["cases"]
        if injector.decide(
            "x", case["namespaceLabels"], case["podLabels"], case["annotations"], msgspec.convert(case["spec"], PodSpec)
        ).injected
        != case["injected"]
    ]
    assert wrong == []
    assert len(INJECTION["cases"]) == 180
    assert injector.assumed is not given
