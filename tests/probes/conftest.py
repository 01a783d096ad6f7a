"""Certificates of a mesh and of a stranger, made once."""

import pytest
from loopback import Pki


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))
