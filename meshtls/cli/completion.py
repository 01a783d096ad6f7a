"""`meshtls completion bash|zsh|fish`: what a shell asks when TAB is pressed, and what it is told.

The scripts and the protocol are click's. Verbs come from the list, without importing them; files where a file is meant; contexts
from the kubeconfig; namespaces from the cluster, in one request that may take WAIT_S: a TAB never fails and never hangs.
"""

import contextlib
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from meshtls.cli.main import COMPLETE

WAIT_S = 2.0


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes meshtls in a shell.

    \b
    bash:  source <(meshtls completion bash)           in ~/.bashrc
    zsh:   source <(meshtls completion zsh)            in ~/.zshrc, after compinit
    fish:  meshtls completion fish > ~/.config/fish/completions/meshtls.fish
    """
    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(click.get_current_context().find_root().command, {}, "meshtls", COMPLETE).source_template % _names())


def _names() -> dict[str, str]:
    return {"complete_func": "_meshtls_completion", "complete_var": COMPLETE, "prog_name": "meshtls"}


def contexts(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The contexts of the kubeconfig that is meant."""
    from meshtls.cluster import auth

    with contextlib.suppress(Exception):  # nobody reads an error under the cursor
        return [CompletionItem(name) for name in auth.contexts(ctx.params.get("kubeconfig")) if name.startswith(incomplete)]
    return []


def namespaces(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The namespaces of the cluster that is meant; after a comma, one more."""
    from meshtls.cluster.client import Client

    before, comma, last = incomplete.rpartition(",")
    given: dict[str, Any] = ctx.params
    with contextlib.suppress(Exception), Client.connect(given.get("kubeconfig"), given.get("context"), WAIT_S) as client:
        names = [item["metadata"]["name"] for item in client.list("Namespace")]
        return [CompletionItem(before + comma + name) for name in names if name.startswith(last)]
    return []


def dress(command: click.Command) -> click.Command:
    """The command, with files completed where a file is meant."""
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        dress(inner)
    for param in command.params:
        if param.type is click.STRING and (param.metavar in ("FILE", "DIR", "[SOURCE]...") or (isinstance(param, click.Argument) and param.name in ("before", "after", "file"))):
            param.type = click.Path()
    return command
