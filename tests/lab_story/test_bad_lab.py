"""What `meshtls lab up` says of what it cannot do: one line with what to do next, the right exit code, and no lab left half made."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import scene
import yaml

from meshtls.lab import state

pytestmark = pytest.mark.lab
Up = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def up(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Up]:
    """`meshtls lab up` among the labs of `tmp_path`, with the manifests given."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    def run(*args: str, manifests: Any = None, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "manifests.yaml"
        if manifests is not None:
            file.write_text(manifests if isinstance(manifests, str) else yaml.safe_dump_all(manifests))
            args = (*args, "-f", str(file))
        return subprocess.run([*before, sys.executable, "-m", "meshtls.cli.main", "lab", "up", *args],
                              capture_output=True, text=True, timeout=120, check=False)

    yield run
    for name in list(state.names()):
        state.clear(name)


def one_line(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """What an error looks like: `words` and, in parentheses, what to do next."""
    assert done.returncode == code, done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("meshtls: ") and last.endswith(")")
    assert all(word in last for word in words), last


def thing(kind: str, **metadata: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata}


@pytest.mark.parametrize(
    ("manifests", "code", "words"),
    [
        ("a: [\n", 2, ["manifests.yaml:2:1", "broken YAML"]),
        ([{**thing("Frob", name="x"), "apiVersion": "v9"}], 2, ["manifests.yaml", "v9 Frob"]),
        ([thing("ConfigMap", name="x", namespace="nowhere")], 3, ['namespaces "nowhere" not found']),
        ([thing("ConfigMap", name="X_", namespace="default")], 2, ["'X_' is no name of a ConfigMap"]),
        ([{**thing("Service", name="x", namespace="default"), "spec": {"ports": [{"port": 0}]}}], 3, ["spec.ports[0].port"]),
    ],
    ids=["broken", "unknown-kind", "no-namespace", "bad-name", "refused"],
)
def test_manifests_that_cannot_be_had_leave_no_lab(up: Up, manifests: Any, code: int, words: list[str]) -> None:
    one_line(up(manifests=manifests), code, *words)

    assert list(state.names()) == []


def test_a_port_that_is_taken_is_named(up: Up) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        one_line(up("--port", port), 3, f"port {port} of 127.0.0.1", "--port")

    assert list(state.names()) == []


@pytest.mark.parametrize("size", ["size=16k", "nr_inodes=3"])
def test_a_full_disk_is_named_and_nothing_is_left_on_it(up: Up, tmp_path: pathlib.Path, size: str) -> None:
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare(1) here to mount a small file system with")
    inside = ("sh", "-c", f'mount -t tmpfs -o {size} tmpfs "$XDG_STATE_HOME" || exit 77; "$@"; code=$?; find "$XDG_STATE_HOME" -type f; exit $code', "-")
    done = up(before=(unshare, "--mount", *(() if os.geteuid() == 0 else ("-r",)), *inside))
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("no file system can be mounted here")

    one_line(done, 3, "No space left on device", "free space")


def test_a_proxy_that_never_becomes_ready_is_named_when_the_time_is_over(up: Up) -> None:
    late = scene.pod("late", "mesh", scene.container(scene.SERVER), annotations={"sidecar.istio.io/proxyImage": "example.com/proxy:none"})
    done = up("--wait", "--timeout", "3s", manifests=[scene.MESHED, late])

    one_line(done, 3, "not ready after 3 s", "mesh/late", "istio-init", "ErrImagePull")
    assert list(state.names()) == ["default"]  # it is there to be looked at
