"""`meshtls diff BEFORE AFTER`: what changes in modes and calls between two sources."""

from collections.abc import Sequence
from typing import Any

import click

from meshtls.cli import output
from meshtls.cli.options import Options, shared


@click.command()
@click.argument("before")
@click.argument("after")
@shared("place", "output", "timeout")
@click.option("--exit-code", "exit_code", is_flag=True, help="Exit with 1 if a call that worked would break.")
def diff(options: Options, before: str, after: str, exit_code: bool) -> None:
    """What changes in modes and calls between two sources: files, directories or dumps.

    For a pull request: `meshtls diff main/ branch/`.
    """
    with output.stops(options.timeout_s):
        from meshtls import sources
        from meshtls.cli import meshes
        from meshtls.policy.difference import call_changes, gone_calls, mode_changes

        old, new = sources.load([before]), sources.load([after])
        for name in options.namespaces:
            if name not in old.namespace_names:
                meshes.known(new, name)
        wanted = frozenset(options.namespaces) or None
        modes, calls, gone = mode_changes(old, new, wanted), call_changes(old, new, wanted), gone_calls(old, new, wanted)
        worse = [g for g in calls if g.verdict == "BREAKS" and (g.was is None or g.was.verdict != "BREAKS")]
        if options.output in ("json", "yaml"):
            output.emit_document(_document(old, new, modes, calls, gone), options, str)
        else:
            output.echo(_text(modes, calls, gone, 0 if options.output == "wide" else output.terminal_width()))
        if exit_code and worse:
            raise click.exceptions.Exit(output.FINDINGS)
        meshes.told(options, old, new)


def _document(old: Any, new: Any, modes: list[Any], calls: list[Any], gone: list[Any]) -> Any:
    from meshtls.cli import meshes
    from meshtls.policy.documents import CallDifference, Difference, Ends, ModeDifference
    from meshtls.policy.predict import expand

    items = []
    for mesh, groups, exists in ((new, calls, True), (old, gone, False)):
        for group in groups:
            was = group.was if exists else group.outcome
            for each in expand(mesh, [group]):
                items.append(CallDifference(
                    client=each.client, server=each.server, port=each.port, target_port=each.target_port,
                    before=Ends.of(was) if was else None, after=Ends.of(group.outcome) if exists else None,
                    because=each.because, fix=each.fix if exists else "",
                ))  # fmt: skip
    changed = tuple(ModeDifference(workload=m.workload, port=m.port, before=m.before, after=m.after, because=m.because) for m in modes)
    return Difference(modes=changed, calls=tuple(items), notes=meshes.notes(old, new), absent={**old.absent, **new.absent})


def _text(modes: list[Any], calls: list[Any], gone: list[Any], width: int) -> str:
    from meshtls.report.columns import columns

    if not modes and not calls and not gone:
        return "no difference in modes or calls\n"
    text = ""
    if modes:
        rows = [[m.workload, m.port, m.before or "-", m.after or "-", str(m.because[0]) if m.because else ""] for m in modes]
        text += columns(rows, ["WORKLOAD", "PORT", "BEFORE", "AFTER", "BECAUSE"], width=width, below=("BECAUSE",)) + "\n"
    if calls or gone:
        rows = []
        for each in sorted(calls, key=lambda g: (g.verdict, g.server, g.port, g.clients)):
            was = f"{each.was.sends} {each.was.verdict}" if each.was else "-"
            rows.append([f"{each.server}:{each.port}", _who(each.clients), was, f"{each.sends} {each.verdict}", str(each.outcome.because[-1]) if each.outcome.because else ""])
        for each in sorted(gone, key=lambda g: (g.server, g.port, g.clients)):
            rows.append([f"{each.server}:{each.port}", _who(each.clients), f"{each.sends} {each.verdict}", "-", "the call is gone"])
        text += columns(rows, ["SERVER", "CLIENTS", "BEFORE", "AFTER", "BECAUSE"], width=width, below=("BECAUSE", "CLIENTS"))
    return text


def _who(clients: Sequence[str]) -> str:
    return ", ".join(clients) if len(clients) <= 2 else f"{clients[0]} and {len(clients) - 1} more"
