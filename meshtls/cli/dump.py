"""`meshtls dump FILE`: everything the other commands read from a cluster, in one file."""

import os
import secrets
import sys

import click

from meshtls.cli import output
from meshtls.cli.options import Options, shared


@click.command()
@click.argument("file")
@shared("cluster", "place", "timeout")
@click.option("--pseudonyms", is_flag=True, help="Replace names, labels and hosts by pseudonyms; equal names stay equal.")
def dump(options: Options, file: str, pseudonyms: bool) -> None:
    """Everything these commands read from a cluster, in one file (- for standard output).

    No Secret is read. Every command takes the file in place of a cluster. With -n, objects of other namespaces are left out:
    callers from there are then unknown.
    """
    with output.stops(options.timeout_s):
        from meshtls import sources
        from meshtls.cli import meshes
        from meshtls.errors import InputError
        from meshtls.sources.dump import narrowed, write
        from meshtls.sources.live import NOT_SERVED

        with meshes.connect(options) as client:
            mesh = sources.load(client=client, namespaces=options.namespaces or None)
        for name in options.namespaces:
            meshes.known(mesh, name)
        if options.namespaces:
            mesh = narrowed(mesh, frozenset(options.namespaces))
        pieces = write(mesh, pseudonyms=pseudonyms, salt=secrets.token_hex(8))
        if file == "-":
            for piece in pieces:
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return
        try:
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as target:
                os.fchmod(target.fileno(), 0o600)
                for piece in pieces:
                    target.write(piece)
        except OSError as error:
            raise InputError(f"cannot write {file}: {error.strerror or error}", "name a file in a folder you can write") from error
        count = sum(1 for _ in mesh.objects())
        unread = [kind for kind, reason in mesh.absent.items() if reason != NOT_SERVED]
        click.echo(f"{count} objects written to {file}" + (f"; could not be read: {', '.join(unread)}" if unread else ""), err=True)
