"""A mesh whose trust domain is renamed while its proxies still have certificates of the old name: whom they take, by the certificates themselves."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.lab_mesh.rig import Json, Rig, account, rig

pytestmark = pytest.mark.lab
PORT = 9000
MESH = {
    "trustDomain": "old.example",
    "accessLogFormat": "%DOWNSTREAM_PEER_URI_SAN% to %DOWNSTREAM_LOCAL_URI_SAN%\n",
    "defaultConfig": {"drainDuration": "1s"},
}
OLD, NEW = (f"spiffe://{domain}.example/ns/my/sa" for domain in ("old", "new"))


def objects() -> Iterator[Json]:
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "my", "labels": {"istio-injection": "enabled"}}}
    yield from (account("my", name) for name in ("server", "friend", "other"))
    strict = {"mtls": {"mode": "STRICT"}}
    yield {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"namespace": "my", "name": "default"}, "spec": strict}
    friends = {"rules": [{"from": [{"source": {"principals": ["cluster.local/ns/my/sa/friend"]}}]}]}
    yield {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"namespace": "my", "name": "friends"}, "spec": friends}
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "my", "name": "server"},
        "spec": {"selector": {"app": "server"}, "ports": [{"name": "tcp", "port": PORT}]},
    }


def person(name: str) -> Json:
    spec = {"serviceAccountName": name, "containers": [{"name": "app", "ports": [{"name": "tcp", "containerPort": PORT}]}]}
    return {"metadata": {"namespace": "my", "name": name, "labels": {"app": name}}, "spec": spec}


@pytest.fixture
def wire() -> Iterator[Rig]:
    with rig(objects(), [person("server"), person("friend"), person("other")], MESH) as one:
        yield one


def answered(wire: Rig, client: str) -> bool:
    """Whether the server answered; whatever it was, mTLS was offered."""
    saw = wire.call(f"my/{client}", wire.services["my/server"], PORT, "tcp")
    assert {flow[2] for flow in saw.flows} <= {"mtls"}, saw
    return saw.answered == "my/server"


def until(what: Callable[[], Any]) -> None:
    """Envoy acknowledges a configuration or a certificate a moment before all of its workers have it."""
    assert any(what() for _ in range(100))


def test_the_old_name_counts_as_long_as_it_is_an_alias(wire: Rig) -> None:
    with wire.lab.client() as client:

        def renamed(**fields: Any) -> None:
            text = yaml.safe_load(client.get("ConfigMap", "istio", "istio-system")["data"]["mesh"]) | {"trustDomain": "new.example", **fields}
            client.patch("ConfigMap", "istio", "istio-system", {"data": {"mesh": yaml.safe_dump(text)}})
            wire.lab.wait()

        def rotated(name: str) -> None:
            client.patch("Pod", name, "my", {"metadata": {"annotations": {"lab.meshtls.dev/rotate": "again"}}})

        def met(peer: str, local: str) -> bool:
            """Whether a call of a friend's was answered, and its certificates were these."""
            return answered(wire, "friend") and f"{peer}/friend to {local}/server" in list(client.logs("my", "server", "istio-proxy", tail=1))

        until(lambda: met(OLD, OLD))
        assert not answered(wire, "other")

        renamed(trustDomainAliases=["old.example"])
        until(lambda: met(OLD, OLD))
        rotated("server")
        until(lambda: met(OLD, NEW))
        assert not answered(wire, "other")

        renamed(trustDomainAliases=[])
        until(lambda: not answered(wire, "friend"))
        assert not any(answered(wire, "friend") for _ in range(10))
        rotated("friend")
        until(lambda: met(NEW, NEW))
        assert not answered(wire, "other")
