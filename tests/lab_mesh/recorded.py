"""A recorded mesh brought up on the lab, and its recorded questions asked on the wire."""

from collections.abc import Iterator
from typing import Any

import msgspec
import yaml

from meshtls.lab.istio.world import World
from tests.lab_mesh.rig import Json, Rig, Saw, account

POLICIES = ("PeerAuthentication", "DestinationRule", "VirtualService", "Sidecar")
TRIES = 24
DROPPED = ("creationTimestamp", "uid", "resourceVersion", "ownerReferences")


class Cell(msgspec.Struct, frozen=True, order=True):
    """One endpoint of one call: pod, port, what leaves the client, what becomes of it."""

    pod: str
    port: int
    sends: str
    verdict: str


NOTHING = Cell("", 0, "none", "BREAKS")


class Question(msgspec.Struct, frozen=True):
    """A recorded call, with where a client connects: the Service's address, or one of the pods'."""

    text: str
    client: str
    service: str
    pods: tuple[str, ...]
    port: int
    protocol: str
    host: str
    expected: frozenset[Cell]
    itself: bool = False  # the client is behind the Service, too: what it sends to itself never meets the wire


def settings(objects: list[Json]) -> Json:
    """The mesh's own configuration."""
    config = next(one for one in objects if one["kind"] == "ConfigMap" and one["metadata"]["name"] == "istio")
    loaded: Json = yaml.safe_load(config["data"]["mesh"])
    return loaded


def declared(objects: list[Json]) -> Iterator[Json]:
    """Everything but the pods, as it is applied: endpoints and addresses are the lab's own.

    Policies created within one second are of the same age; their names then order them, so these say who was older.
    """
    aged = sorted((one for one in objects if one["kind"] in POLICIES), key=lambda one: (one["metadata"]["creationTimestamp"], one["metadata"]["name"]))
    for number, obj in enumerate([*(one for one in objects if one["kind"] not in POLICIES), *aged]):
        metadata = {key: value for key, value in obj["metadata"].items() if key not in DROPPED}
        if obj["kind"] == "Namespace":
            yield {**obj, "metadata": metadata}
        elif obj["kind"] in POLICIES:
            yield {**obj, "metadata": {**metadata, "name": f"p{number:03}-{metadata['name']}"}}
        elif obj["kind"] == "Service":
            headless = obj["spec"].get("clusterIP") == "None"
            spec = {key: value for key, value in obj["spec"].items() if key not in ("clusterIP", "clusterIPs")}
            yield {**obj, "metadata": metadata, "spec": {**spec, **({"clusterIP": "None"} if headless else {})}}
    for namespace, name in sorted({(pod["metadata"]["namespace"], pod["spec"]["serviceAccountName"]) for pod in _pods(objects)}):
        yield account(namespace, name)


def pods(objects: list[Json], questions: list[Question]) -> Iterator[Json]:
    """The pods, each listening wherever a recorded call ends. Whether one has a sidecar is the injector's to say; a label that a user
    has set stays."""
    for pod in _pods(objects):
        metadata = {key: value for key, value in pod["metadata"].items() if key not in (*DROPPED, "annotations")}
        metadata["labels"] = {key: value for key, value in metadata["labels"].items() if (key, value) != ("security.istio.io/tlsMode", "istio")}
        ports = {port["containerPort"]: port for port in pod["spec"]["containers"][0]["ports"]}
        for number in {cell.port for question in questions for cell in question.expected if cell.pod == _name(pod)}:
            ports.setdefault(number, {"containerPort": number})
        spec = {"serviceAccountName": pod["spec"]["serviceAccountName"], "containers": [{"name": "app", "ports": list(ports.values())}]}
        yield {"metadata": metadata, "spec": spec}


def questions(objects: list[Json], answers: Json) -> list[Question]:
    """The recorded calls, with HTTP or other bytes as they were recorded."""
    world = World.of(objects)
    by_ip = {pod["status"]["podIP"]: _name(pod) for pod in _pods(objects)}
    found = []
    for text, recorded in answers["outbound"].items():
        client, server, number = text.split()
        kind, namespace, name = server.split("/")
        expected = frozenset(Cell(pod, port, sends, verdict) if sends != "none" else NOTHING for pod, port, sends, verdict, _ in recorded)
        if kind == "Pod":
            found.append(Question(text, client, "", (f"{namespace}/{name}",), int(number), answers["protocol"][text], "", expected))
            continue
        service = world.by_hostname[f"{name}.{namespace}.svc.cluster.local"][namespace]
        headless = service.resolution == "PASSTHROUGH"
        endpoints = tuple(by_ip[one.address] for one in world.endpoints(service, int(number)))
        behind = endpoints if headless else ()
        found.append(Question(text, client, "" if headless else f"{namespace}/{name}", behind, int(number), answers["protocol"][text],
                              service.hostname, expected, client in endpoints))
    return found


def ask(rig: Rig, question: Question) -> set[Cell]:
    """What the wire says to a question: asked until every expected endpoint was met, or often enough."""
    met: set[Cell] = set()
    places = [rig.services[question.service]] if question.service else [rig.addresses[pod] for pod in question.pods if pod != question.client]
    for place in places:
        for _ in range(TRIES):
            saw = rig.call(question.client, place, question.port, question.protocol, question.host or place)
            if saw.answered != question.client:
                met |= cells(saw)
            if question.itself and NOTHING not in question.expected:
                met.discard(NOTHING)
            if len(places) > 1 or met == question.expected or (met and not met <= question.expected):
                break
    return met


def cells(saw: Saw) -> set[Cell]:
    """What one call showed. Of several connections, those before the last were attempts that the client's proxy gave up."""
    if not saw.flows:
        return {NOTHING} if not saw.answered else set()
    found = set()
    for pod, port, kind, reply in saw.flows:
        if saw.answered == pod:
            verdict = "WORKS"
        else:
            # a TLS hello that the application itself answers, with something that is not TLS
            verdict = "APP" if kind == "tls" and reply == "plaintext" else "BREAKS"
        found.add(Cell(pod, port, kind, verdict))
    return found


def _pods(objects: list[Json]) -> list[Any]:
    return [one for one in objects if one["kind"] == "Pod"]


def _name(pod: Json) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
