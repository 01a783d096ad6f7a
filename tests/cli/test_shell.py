"""What surrounds a command: completion, options from the environment, colours, and asking as somebody else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import click
import pytest
import yaml
from click.testing import CliRunner

from meshtls.cli.main import VERBS, cli
from meshtls.cli.options import Options, same_cluster, shared
from meshtls.cluster import auth
from tests.cli import served

ROOT = Path(__file__).parents[2]
SHOP = str(ROOT / "examples/shop")


class _Asked(served.Answering):
    """An API server with the namespaces shop, shipping and data, which remembers as whom it was asked."""

    asked: ClassVar[list[tuple[str, str | None, list[str] | None]]] = []

    def do_GET(self) -> None:
        self.asked.append((self.plain_path, self.headers.get("Impersonate-User"), self.headers.get_all("Impersonate-Group")))
        items = [{"metadata": {"name": name}} for name in ("shop", "shipping", "data")] if self.plain_path.endswith("/namespaces") else []
        self.answer({"kind": "NamespaceList" if items else "List", "apiVersion": "v1", "items": items})


@pytest.fixture
def cluster(tmp_path: Path):
    """(path of a kubeconfig with two contexts, what was asked)."""
    with served.kubeconfig(tmp_path, _Asked, ("here", "there")) as path:
        _Asked.asked = asked = []
        yield path, asked


def completed(*words: str, **environment: str) -> list[str]:
    """What a shell is told for the last of these words."""
    line = {"_MESHTLS_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(["meshtls", *words]), "COMP_CWORD": str(len(words))}
    done = subprocess.run([sys.executable, "-m", "meshtls.cli.main"], env=os.environ | {"PYTHONPATH": str(ROOT)} | line | environment, capture_output=True,
                          text=True, check=True, timeout=30)
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if line]


def test_verbs_options_and_values_are_completed() -> None:
    assert completed("pr") == ["plain,predict", "plain,probe"]
    assert completed("predict", "--str") == ["plain,--strict"]
    assert completed("audit", "--fail-on", "c") == ["plain,critical"]
    assert completed("lab", "u") == ["plain,up"]


@pytest.mark.parametrize("words", [
    ("predict", "exa"), ("audit", "--apply", "exa"), ("diff", "exa"), ("probe", "--expect", "exa"), ("probe", "--kubeconfig", "exa"), ("rehearse", "exa"),
    ("guard", "admission", "exa"), ("guard", "check", "exa"), ("migrate", "plan", "--emit", "exa"), ("migrate", "plan", "--kubeconfig", "exa"),
])  # fmt: skip
def test_files_are_completed_where_a_file_is_meant(words: tuple[str, ...]) -> None:
    assert completed(*words) == ["file,exa"]


def test_contexts_and_namespaces_are_completed(cluster) -> None:
    path, asked = cluster

    assert completed("audit", "--context", "t", KUBECONFIG=path) == ["plain,there"]
    assert completed("audit", "-n", "sh", KUBECONFIG=path) == ["plain,shop", "plain,shipping"]
    assert completed("audit", "-n", "data,sho", KUBECONFIG=path) == ["plain,data,shop"]
    assert len(asked) == 2, "one request each"


def test_a_cluster_that_cannot_be_asked_completes_nothing_and_says_nothing() -> None:
    assert completed("audit", "-n", "sh", KUBECONFIG="/no/such/file") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_can_be_read_by_it(shell: str) -> None:
    script = CliRunner().invoke(cli, ["completion", shell]).stdout

    assert f"_MESHTLS_COMPLETE={shell}_complete" in script
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=script, text=True, capture_output=True).stderr == ""


def read(*arguments: str, **environment: str) -> Options:
    """The options that a verb gets."""
    got: list[Options] = []

    @click.command()
    @shared("cluster", "scope", "output", "report", "timeout", "threshold", "accept")
    def verb(options: Options) -> None:
        got.append(options)

    done = CliRunner().invoke(verb, arguments, env=environment)
    assert done.exit_code == 0, done.output
    return got[0]


def test_options_come_from_the_environment_and_flags_count_more() -> None:
    found = read("--fail-on", "never", MESHTLS_FAIL_ON="warning", MESHTLS_NAMESPACE="a,b", MESHTLS_CONTEXT="c", MESHTLS_OUTPUT="json", MESHTLS_TIMEOUT="5m",
                 MESHTLS_AS="jane", MESHTLS_KUBECONFIG="/k")

    assert (found.fail_on, found.namespaces, found.context, found.output, found.timeout_s) == (None, ("a", "b"), "c", "json", 300.0)
    assert (found.as_user, found.kubeconfig) == ("jane", "/k")


def test_all_namespaces_on_the_command_line_beats_namespaces_from_the_environment() -> None:
    assert read("-A", MESHTLS_NAMESPACE="a").namespaces == ()
    assert not read(MESHTLS_ALL_NAMESPACES="1").all_namespaces and read(MESHTLS_SELECTOR="a=b").selector == ""


def test_a_bad_value_from_the_environment_is_named_as_such() -> None:
    done = CliRunner().invoke(cli, ["audit", SHOP], env={"MESHTLS_TIMEOUT": "soon"})

    assert done.exit_code == 2 and "soon" in done.output


def test_one_asks_as_another_user_and_what_is_to_be_run_later_says_so(cluster) -> None:
    path, asked = cluster
    done = CliRunner().invoke(cli, ["modes", "-A", "--kubeconfig", path, "--as", "jane", "--as-group", "ops", "--as-group", "dev"])

    assert done.exit_code in (0, 3)
    assert asked and {(user, tuple(groups or ())) for _, user, groups in asked} == {("jane", ("ops", "dev"))}
    assert same_cluster(Options(context="c", as_user="jane doe", as_groups=("ops",))) == " --context c --as 'jane doe' --as-group ops"


def test_a_kubeconfig_that_asks_as_somebody_is_obeyed(cluster) -> None:
    path, _ = cluster
    config = yaml.safe_load(Path(path).read_text())
    config["users"][0]["user"] |= {"as": "joe", "as-groups": ["qa"]}
    Path(path).write_text(yaml.safe_dump(config))

    assert (auth.load(path).as_user, auth.load(path).as_groups) == ("joe", ("qa",))
    assert auth.contexts(path) == ["here", "there"]


def test_groups_without_a_user_are_an_error_of_usage() -> None:
    done = CliRunner().invoke(cli, ["modes", SHOP, "--as-group", "ops"])

    assert done.exit_code == 2 and "--as-group needs --as USER" in done.output


@pytest.mark.parametrize(("flag", "environment", "coloured"), [
    ((), {}, False), (("--color", "always"), {}, True), (("--color", "always"), {"NO_COLOR": "1", "TERM": "dumb"}, True), (("--color", "never"), {}, False),
])  # fmt: skip
def test_colour_is_what_was_asked_for(flag: tuple[str, ...], environment: dict[str, str], coloured: bool) -> None:
    done = subprocess.run([sys.executable, "-m", "meshtls.cli.main", "audit", SHOP, "--fail-on", "never", *flag],
                          env=os.environ | {"PYTHONPATH": str(ROOT)} | environment, capture_output=True, text=True, check=True)

    assert ("\x1b[" in done.stdout) is coloured


def test_as_a_plugin_of_kubectl_help_says_so(tmp_path: Path) -> None:
    plugin = tmp_path / "kubectl-meshtls"
    plugin.write_text(f"#!{sys.executable}\nfrom meshtls.cli.main import main\nmain()\n")
    plugin.chmod(0o755)
    done = subprocess.run([str(plugin), "predict", "--help"], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)

    assert done.stdout.startswith("Usage: kubectl meshtls predict [OPTIONS]")


def test_every_verb_is_listed_with_its_help() -> None:
    shown = CliRunner().invoke(cli, ["--help"]).output

    assert all(f"  {verb} " in shown for verb in VERBS)
