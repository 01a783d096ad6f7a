"""An API alone on loopback, with one pretended node and a log that the tests write."""
import os
import ssl
import subprocess
from collections.abc import Callable, Iterator

import httpx
import pytest
from lone import KUBECTL, WrittenLog, node

from tests.lone_api import Standalone, standalone


@pytest.fixture(scope="module")
def log() -> WrittenLog:
    return WrittenLog()


@pytest.fixture(scope="module")
def api(log: WrittenLog) -> Iterator[Standalone]:
    with standalone(log_source=log, prepare=node) as running:
        yield running


@pytest.fixture(scope="module")
def http(api: Standalone) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=api.server, verify=ssl.create_default_context(cafile=api.ca), timeout=30,
                      headers={"Authorization": f"Bearer {api.token}"}) as client:
        yield client


@pytest.fixture(scope="module")
def kubectl(api: Standalone, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Run kubectl; its output, or an AssertionError with what it said."""
    home = tmp_path_factory.mktemp("home")

    def run(*arguments: str, stdin: str = "", code: int = 0) -> str:
        environment = {"HOME": str(home), "PATH": os.environ["PATH"], "KUBECONFIG": api.kubeconfig}
        done = subprocess.run([str(KUBECTL), *arguments], input=stdin, env=environment, capture_output=True, text=True,
                              timeout=60)
        said = f"{done.stdout}\n{done.stderr}"
        assert done.returncode == code, f"kubectl {' '.join(arguments)}: {done.returncode}\n{said}"
        return done.stdout + done.stderr
    run.environment = {"HOME": str(home), "PATH": os.environ["PATH"],
                       "KUBECONFIG": api.kubeconfig}  # type: ignore[attr-defined]
    return run
