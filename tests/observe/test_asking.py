"""The options that say how to ask a Prometheus: what does not go together, and what cannot be used, is said before anything is read."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from meshtls.cli.main import cli


@pytest.mark.parametrize(("options", "words"), [
    ("--prometheus-token-file x", "give --prometheus URL too"),
    ("--prometheus http://p --prometheus-token-file x --prometheus-user ann", "not both"),
    ("--prometheus http://p --prometheus-password-file x", "needs --prometheus-user"),
    ("--prometheus p:9090", "no URL of a Prometheus"),
    ("--prometheus http://p --prometheus-token-file /nowhere", "cannot read /nowhere"),
    ("--prometheus http://p --prometheus-ca /nowhere", "cannot use /nowhere"),
])  # fmt: skip
@pytest.mark.parametrize("verb", ["observe", "migrate plan", "migrate apply --yes"])
def test_it_is_an_error_of_usage(verb: str, options: str, words: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, [*verb.split(), "-n", "shop", *options.split(), "--kubeconfig", str(tmp_path / "none")])

    said = done.output + str(done.exception)
    assert done.exit_code == 2 and words in " ".join(said.split())
