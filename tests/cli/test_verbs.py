"""What every verb owes its user, whatever is asked: an exit code, one line, and no success where nothing was looked at."""

import contextlib
import os
import pty
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from meshtls.cli.main import cli
from meshtls.errors import InputError, MeshtlsError
from tests.cli import served

ROOT = Path(__file__).parents[2]


class _Empty(served.Answering):
    """An API server that holds nothing."""

    def do_GET(self) -> None:
        kind, name = self.plain_path.rsplit("/", 2)[-2:]
        if kind != "namespaces":
            self.answer({"kind": "List", "apiVersion": "v1", "items": []})
        else:
            self.answer({"kind": "Status", "reason": "NotFound", "code": 404, "details": {"name": name, "kind": "namespaces"}}, 404)


@pytest.fixture
def empty_cluster(tmp_path: Path):
    """The path of a kubeconfig of a cluster that holds nothing."""
    with served.kubeconfig(tmp_path, _Empty) as path:
        yield path


@pytest.mark.parametrize("verb", ["cleanup", "probe", "migrate plan", "migrate status", "migrate apply --yes", "migrate rollback --yes"])
def test_a_namespace_that_does_not_exist_is_an_error_of_usage(empty_cluster: str, verb: str) -> None:
    done = CliRunner().invoke(cli, [*verb.split(), "-n", "nope", "--kubeconfig", empty_cluster])

    code = done.exception.exit_code if isinstance(done.exception, MeshtlsError) else done.exit_code
    said = str(done.exception) if isinstance(done.exception, InputError) else done.output
    assert code == 2
    assert "namespace nope does not exist" in said


def _on_terminal(*arguments: str) -> list[str]:
    """What a verb prints on a terminal of 80 columns."""
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update({"TERM": "xterm", "PYTHONPATH": str(ROOT)})
        os.execvp("sh", ["sh", "-c", 'stty cols 80 rows 50 && exec "$0" "$@"', sys.executable, "-m", "meshtls.cli.main", *arguments])
    raw = b""
    with contextlib.suppress(OSError):
        while piece := os.read(fd, 65536):
            raw += piece
    os.waitpid(pid, 0)
    os.close(fd)
    return raw.decode().replace("\r", "").splitlines()


@pytest.mark.parametrize("words", ["modes {shop}", "predict {shop}", "predict {shop} --strict shop", "diff {shop} {after}"])
def test_a_table_fits_a_terminal_of_80_columns_and_is_one_line_a_row_in_a_pipe(tmp_path: Path, words: str) -> None:
    after = tmp_path / "after.yaml"
    strict = "kind: PeerAuthentication\napiVersion: security.istio.io/v1\nmetadata: {name: default, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n"
    after.write_text("\n---\n".join([*(p.read_text() for p in sorted((ROOT / "examples/shop").glob("*.yaml"))), strict]))
    arguments = words.format(shop=ROOT / "examples/shop", after=after).split()
    shown = _on_terminal(*arguments)
    piped = CliRunner().invoke(cli, arguments).stdout.splitlines()

    assert any("BECAUSE" in line for line in shown)
    assert [line for line in shown if len(line) > 80 and not line.startswith("note: ")] == []
    assert any(len(line) > 80 for line in piped), "the example must be one that has to be folded"
    assert any(line.startswith(("NAMESPACE", "VERDICT", "WORKLOAD")) and line.endswith("BECAUSE") for line in piped)


def test_an_explanation_is_wrapped_on_a_terminal_and_whole_in_a_pipe() -> None:
    arguments = ["explain", "legacy/billing", "shop/cart", str(ROOT / "examples/shop"), "--strict", "shop"]
    shown, piped = "\n".join(_on_terminal(*arguments)).partition("Fix:")[0].splitlines(), CliRunner().invoke(cli, arguments).stdout.partition("Fix:")[0]

    assert any(len(line) > 80 for line in piped.splitlines())
    assert " ".join(" ".join(shown).split()) == " ".join(piped.split())
    assert [line for line in shown if len(line) > 80 and len(line.split()) > 1] == []
