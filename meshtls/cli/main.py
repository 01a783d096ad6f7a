"""The command line: `meshtls VERB`. A verb's module is imported only when that verb is called, so that help is instant."""

import contextlib
import importlib
import os
import sys
from typing import TYPE_CHECKING

import click

import meshtls

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# verb -> (module under meshtls.cli, one line of help); in the order in which a migration meets them
VERBS: dict[str, tuple[str, str]] = {
    "audit": ("audit", "What would break under STRICT, and why."),
    "modes": ("modes", "The effective mTLS mode of every workload and port, with the object that decided."),
    "predict": ("predict", "Who can call whom, now or as it would be after a change."),
    "explain": ("explain", "One call from client to server, step by step."),
    "diff": ("diff", "What changes in modes and calls between two sources."),
    "dump": ("dump", "Everything these commands read from a cluster, in one file."),
    "probe": ("probe", "Prove on the wire what is reachable in plaintext and what by mTLS."),
    "observe": ("observe", "Name the clients that still send plaintext."),
    "shadow": ("shadow", "Count on live traffic what STRICT would refuse, refusing nothing."),
    "pki": ("pki", "A test CA and SPIFFE certificates, good and flawed."),
    "migrate": ("migrate", "Move namespaces to STRICT in steps, with gates and rollback."),
    "rehearse": ("rehearse", "A migration on this machine before it touches production."),
    "guard": ("guard", "Keep what was achieved: admission policies, and a check for CI."),
    "cleanup": ("cleanup", "Remove what a killed run left in the cluster."),
    "lab": ("lab", "A mesh on this machine: real Envoys, no Kubernetes needed."),
    "completion": ("completion", "Completion of all this in bash, zsh or fish."),
}


COMPLETE = "_MESHTLS_COMPLETE"  # set by a shell that asks for completions
CLOSED_PIPE = 141  # nobody reads on: what a shell makes of SIGPIPE


class Verbs(click.Group):
    """The group that imports a verb when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        command: click.Command = getattr(importlib.import_module(f"meshtls.cli.{VERBS[name][0]}"), name)
        if os.environ.get(COMPLETE):
            from meshtls.cli.completion import dress

            return dress(command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Verbs by their names, without importing one; options where one is begun."""
        from click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [CompletionItem(verb, help=help_) for verb, (_, help_) in VERBS.items() if verb.startswith(incomplete)]

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # click would make it a 1, which says that there are findings
            _silence()
            raise click.exceptions.Exit(CLOSED_PIPE) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, help_) for verb, (_, help_) in VERBS.items()])


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(meshtls.__version__, prog_name="meshtls")
def cli() -> None:
    """Move Kubernetes namespaces to Istio STRICT mutual TLS, and know what breaks before it does.

    Exit codes: 0 ok, 1 findings, 2 usage or unreadable input, 3 could not evaluate, 4 gate not met or rolled back,
    124 timeout, 130 interrupted. Options that all verbs share may come from the environment: MESHTLS_CONTEXT is --context.
    """


def main() -> None:
    """Run the command line and exit with the code that the outcome has."""
    from meshtls.errors import MeshtlsError

    name = "kubectl meshtls" if os.path.basename(sys.argv[0]).startswith("kubectl") else "meshtls"
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM", "") in ("dumb", "")
    try:
        code = cli.main(prog_name=name, standalone_mode=False, color=False if plain else None, complete_var=COMPLETE)
    except (click.exceptions.Abort, KeyboardInterrupt):
        with contextlib.suppress(OSError):
            click.echo(f"{name}: interrupted", err=True)
        code = 130
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except MeshtlsError as error:
        from meshtls.report.text import safe

        click.echo(safe(f"{name}: {error}"), err=True)
        code = error.exit_code
    except BrokenPipeError:
        _silence()
        code = CLOSED_PIPE
    except OSError as error:
        _silence()
        with contextlib.suppress(OSError):
            click.echo(f"{name}: cannot go on: {error} (is the disk full, or the terminal gone?)", err=True)
        code = 3
    _leave(code if isinstance(code, int) else 0)


def _leave(code: int) -> None:
    """Exit, whatever signal still comes: it ends the wait for threads, and cannot change the code while Python takes itself down."""
    import atexit
    import signal

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(code))
        atexit.register(signal.signal, number, signal.SIG_IGN)
    sys.exit(code)


def _silence() -> None:
    """Nobody reads standard output any more: what is still buffered must not raise once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
