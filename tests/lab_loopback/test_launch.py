"""Where a lab cannot be, it says so in one line before it has made anything; and whose addresses it takes where they are few."""

import os
import pathlib

import pytest

from meshtls.errors import LabError
from meshtls.lab import addresses, launch, state
from meshtls.lab.node import images


@pytest.mark.parametrize("mode", ["", state.NAMESPACES, state.LOOPBACK])
def test_a_system_that_cannot_fork_is_told_so(mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.delattr(os, "fork")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    with pytest.raises(LabError, match="needs Linux or macOS"):
        launch.launch("here", mode=mode)
    assert not list(tmp_path.iterdir())


def test_a_package_without_an_envoy_for_this_system_is_told_from_none(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    (tmp_path / "envoy" / "_bin").mkdir(parents=True)
    (tmp_path / "envoy" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("MESHTLS_ENVOY", raising=False)

    with pytest.raises(LabError, match="has no Envoy for this system"):
        images.envoy()


def few(monkeypatch: pytest.MonkeyPatch, user: int, *blocks: int) -> None:
    """A loopback interface that has the addresses of these blocks only."""
    monkeypatch.setattr(addresses, "there", lambda block: block in blocks)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(addresses, "FIRST_PORT", 30000 + os.getpid() % 2000)  # labs beside the test have theirs


def test_a_user_takes_a_block_that_is_there_and_is_told_how_to_add_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, 501, 248)
    held = addresses.claim()

    assert (held.block, held.pods, held.missing) == (248, 84, False)
    with held.line, pytest.raises(LabError, match=r"one more lab .*sudo sh -c 'for i in \$\(seq 252\); do ifconfig lo0 alias 127\.64\.0\.\$i; done'"):
        addresses.claim()
    with addresses.claim().line:
        pass  # free again


def test_root_takes_a_block_of_which_nothing_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, 0, *range(64, 249))
    held = addresses.claim()

    with held.line:
        assert (held.block, held.pods, held.missing) == (249, 84, True)
