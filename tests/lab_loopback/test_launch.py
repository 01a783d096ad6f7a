"""Where a lab cannot be, it says so in one line before it has made anything."""

import pathlib
import sys

import pytest

from meshtls.errors import LabError
from meshtls.lab import launch, state


@pytest.mark.parametrize("mode", ["", state.NAMESPACES, state.LOOPBACK])
def test_a_system_that_is_not_linux_is_told_so(mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    with pytest.raises(LabError, match="needs Linux"):
        launch.launch("here", mode=mode)
    assert not list(tmp_path.iterdir())
