"""The cluster of this folder's tests."""
from collections.abc import Iterator

import pytest

from tests.lab_controllers.cluster import Cluster


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    one = Cluster()
    yield one
    one.close()


@pytest.fixture
def slow() -> Iterator[Cluster]:
    """A cluster whose pods become ready, and go, only when the test says so."""
    one = Cluster(auto=False)
    yield one
    one.close()
