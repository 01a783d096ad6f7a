"""The options that verbs share become one value, or a usage error that says what to write."""

import click
import pytest
from click.testing import CliRunner

from meshtls.cli.options import Options, duration, same_cluster, shared
from meshtls.model.check import Severity


def _parse(*arguments):
    got = []

    @click.command()
    @shared("cluster", "scope", "output", "report", "timeout", "threshold")
    def verb(options):
        got.append(options)

    result = CliRunner().invoke(verb, arguments)
    return got[0] if got else result


def test_without_options_there_are_defaults():
    assert _parse() == Options()


def test_everything_given_is_in_the_value():
    assert _parse("-n", "a,b", "-n", "a", "-l", "app=web", "-o", "json", "--timeout", "1m30s", "--fail-on", "never", "--show", "info",
                  "--kubeconfig", "k", "--context", "c", "--report", "junit=x.xml,html=y.html", "--report", "json=z") == Options(
        namespaces=("a", "b"), selector="app=web", output="json", timeout_s=90.0, fail_on=None, show=Severity.INFO,
        kubeconfig="k", context="c", reports=(("junit", "x.xml"), ("html", "y.html"), ("json", "z")))


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("500ms", 0.5), ("1h30m", 5400), ("1.5m", 90), ("2d", 172800)])
def test_a_duration_is_in_seconds(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "s", "5 m", "-1s", "1s2", "1y"])
def test_a_duration_needs_its_units(text):
    with pytest.raises(ValueError, match="unit"):
        duration(text)


@pytest.mark.parametrize("arguments", [
    ("-n", "a", "-A"), ("-n", "Not_A_Name"), ("--report", "junit"), ("--report", "word=x"), ("--report", "json=x,html=x"), ("--timeout", "10"),
    ("--fail-on", "worst"), ("-o", "xml")])
def test_what_cannot_be_used_is_a_usage_error(arguments):
    result = _parse(*arguments)

    assert result.exit_code == 2 and "Error" in result.output


def test_a_command_to_copy_leads_to_the_same_cluster():
    assert same_cluster(Options()) == ""
    assert same_cluster(Options(kubeconfig="/a b/c", context="prod")) == " --kubeconfig '/a b/c' --context prod"
