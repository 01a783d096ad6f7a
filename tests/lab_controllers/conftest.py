"""The cluster of this folder's tests. A fault that a controller logged fails the test that met it."""

from collections.abc import Callable, Iterator

import pytest

from tests.lab_controllers.cluster import Cluster


@pytest.fixture
def make_cluster(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[..., Cluster]]:
    made = []

    def make(*nodes: str, auto: bool = True) -> Cluster:
        made.append(Cluster(nodes or ("lab-1",), auto=auto))
        return made[-1]

    yield make
    for one in made:
        one.close()
    assert not [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


@pytest.fixture
def cluster(make_cluster: Callable[..., Cluster]) -> Cluster:
    return make_cluster()


@pytest.fixture
def slow(make_cluster: Callable[..., Cluster]) -> Cluster:
    """A cluster whose pods become ready, and go, only when the test says so."""
    return make_cluster(auto=False)
