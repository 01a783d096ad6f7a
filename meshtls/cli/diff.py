"""`meshtls diff BEFORE AFTER`: what changes in modes and calls between two sources."""

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
        from meshtls.cli import meshes
        from meshtls.policy.difference import call_changes, mode_changes
        from meshtls.policy.predict import expand
        from meshtls import sources

        old, new = sources.load([before]), sources.load([after])
        for name in options.namespaces:
            if name not in old.namespace_names:
                meshes.known(new, name)
        wanted = frozenset(options.namespaces) or None
        modes, calls = mode_changes(old, new, wanted), call_changes(old, new, wanted)
        worse = [g for g in calls if g.verdict == "BREAKS" and (g.was is None or g.was.verdict != "BREAKS")]
        if options.output in ("json", "yaml"):
            items: list[dict[str, Any]] = []
            for group in calls:
                was = {"sends": group.was.sends, "verdict": group.was.verdict} if group.was else None
                for each in expand(new, [group]):
                    items.append({
                        "client": each.client, "server": each.server, "port": each.port, "targetPort": each.target_port,
                        "before": was, "after": {"sends": each.sends, "verdict": each.verdict},
                        "because": each.because, "fix": each.fix,
                    })  # fmt: skip
            document = {"apiVersion": "meshtls.dev/v1", "kind": "Difference", "modes": modes, "calls": items}
            output.emit_document(document, options, str)
        else:
            output.echo(_text(modes, calls))
        if exit_code and worse:
            raise click.exceptions.Exit(output.FINDINGS)


def _text(modes: list[Any], calls: list[Any]) -> str:
    from meshtls.cli.meshes import columns

    if not modes and not calls:
        return "no difference in modes or calls\n"
    text = ""
    if modes:
        rows = [[m.workload, m.port, m.before or "-", m.after or "-", str(m.because[0]) if m.because else ""] for m in modes]
        text += columns(rows, ["WORKLOAD", "PORT", "BEFORE", "AFTER", "BECAUSE"]) + "\n"
    if calls:
        rows = []
        for each in sorted(calls, key=lambda g: (g.verdict, g.server, g.port, g.clients)):
            who = ", ".join(each.clients) if len(each.clients) <= 2 else f"{each.clients[0]} and {len(each.clients) - 1} more"
            was = f"{each.was.sends} {each.was.verdict}" if each.was else "-"
            rows.append([f"{each.server}:{each.port}", who, was, f"{each.sends} {each.verdict}", str(each.outcome.because[-1]) if each.outcome.because else ""])
        text += columns(rows, ["SERVER", "CLIENTS", "BEFORE", "AFTER", "BECAUSE"])
    return text
