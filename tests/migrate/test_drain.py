"""What is said of open connections before a change, and for how long a stage is watched."""

from typing import Any

from meshtls.migrate import drain
from meshtls.model.mesh import Mesh
from meshtls.model.objects import Container, Metadata, Pod, PodSpec


def mesh(*annotations: dict[str, str]) -> Mesh:
    pods: Any = tuple(Pod(metadata=Metadata(name=f"p{i}", namespace="shop", annotations=said)) for i, said in enumerate(annotations))
    return Mesh(pods=pods)


def test_a_pods_own_drain_is_read_from_its_annotation() -> None:
    found = mesh({"proxy.istio.io/config": "drainDuration: 2m"}, {"proxy.istio.io/config": "{"}, {"proxy.istio.io/config": "[]"}, {})

    assert [text for text in drain.durations(found, "shop") if text] == ["2m"]
    assert [text for text in drain.durations(found, "elsewhere") if text] == []


def test_sidecars_end_connections_and_ambient_pods_keep_them() -> None:
    captured = {"ambient.istio.io/redirection": "enabled"}

    assert [note.split()[0] for note in drain.notes(mesh({}), "shop", 120)] == ["every"]
    assert "within 120 s" in drain.notes(mesh({}), "shop", 120)[0]
    assert [note.split()[0] for note in drain.notes(mesh(captured), "shop", 45)] == ["ambient"]
    sidecar = Pod(metadata=Metadata(name="s", namespace="shop"), spec=PodSpec(init_containers=(Container(name="istio-proxy"),)))
    both = Mesh(pods=(*mesh(captured).pods, sidecar))
    assert [note.split()[0] for note in drain.notes(both, "shop", 45)] == ["every", "ambient"]
