"""Whoever is named by --as is who asks, and only whom the flags name is asked: no verb goes past them."""

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import meshtls.cli
from meshtls.cli.demo import Story
from meshtls.cli.main import cli
from meshtls.cli.options import environment
from meshtls.cli.rehearse import _verb


def test_every_verb_connects_as_whom_the_flags_name() -> None:
    files = sorted(Path(meshtls.cli.__file__).parent.glob("*.py"))
    past = [file.name for file in files if "Client.connect(options." in file.read_text(encoding="utf-8")]

    assert past == ["meshes.py"]


def options(command: click.Command) -> Iterator[click.Parameter]:
    yield from command.params
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            sub = command.get_command(click.Context(command), name)
            assert sub is not None
            yield from options(sub)


def test_commands_of_our_own_take_no_option_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    named = {str(option.envvar) for option in options(cli) if option.envvar}
    for name in (*named, "MESHTLS_ENVOY"):
        monkeypatch.setenv(name, "x")

    assert "MESHTLS_KUBECONFIG" in named and not named & environment().keys() and "MESHTLS_ENVOY" in environment()


def test_the_demo_and_a_rehearsal_stay_in_their_lab_whatever_cluster_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHTLS_KUBECONFIG", str(tmp_path / "production"))
    monkeypatch.setenv("MESHTLS_CONTEXT", "production")
    heard: list[str] = []
    lab = tmp_path / "lab"
    lab.write_text(json.dumps({"current-context": "lab", "contexts": [{"name": "lab", "context": {"cluster": "lab"}}],
                               "clusters": [{"name": "lab", "cluster": {"server": "http://127.0.0.1:9"}}]}))  # fmt: skip
    _verb(["migrate", "status", "-n", "shop"], str(lab), heard.append)

    assert heard and "production" not in "".join(heard)
    assert "MESHTLS_KUBECONFIG" not in Story("x", "auto").environment
