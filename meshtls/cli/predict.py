"""`meshtls predict [SOURCE...]`: who can call whom, now or as it would be after a change."""

import sys
from collections.abc import Iterator
from typing import Any

import click
import msgspec

from meshtls.cli import expect, output
from meshtls.cli.options import Options, shared


@click.command()
@click.argument("paths", nargs=-1, metavar="[SOURCE]...")
@shared("cluster", "scope", "output", "report", "timeout", "threshold", "accept")
@click.option("--strict", "strict", multiple=True, metavar="NS", help="As if this namespace had gone STRICT; only what changes is shown.")
@click.option("--apply", "overlay", multiple=True, metavar="FILE", help="As if these manifests were applied; only what changes is shown.")
@click.option("--all", "everything", is_flag=True, help="With --strict or --apply: show what stays the same, too.")
@click.option("--direct", is_flag=True, help="Also calls by pod address.")
@expect.OPTION
def predict(
    options: Options, paths: tuple[str, ...], strict: tuple[str, ...], overlay: tuple[str, ...], everything: bool, direct: bool,
    expected: tuple[str, ...],
) -> None:
    """Who can call whom, now or as it would be after a change.

    SOURCE is a manifest, a directory of them, a dump made by `meshtls dump`, or - for standard input. Without SOURCE the cluster
    is read. With -n, calls from and to these namespaces are shown; a change is followed into all namespaces without it.

    With --expect a report says which expectations hold: it may be written to files (--report), and --fail-on decides about
    the exit code. With -n, what concerns none of these namespaces is left out and counted.
    """
    names = tuple(n.strip() for value in strict for n in value.split(",") if n.strip())
    if expected:
        if everything or direct or options.selector:
            raise click.UsageError("--expect excludes --all, --direct and -l: the file says what is asked")
        expect.predicted(msgspec.structs.replace(options, all_namespaces=not options.namespaces), paths, overlay, names, expected)
    expect.needed("reports", "fail_on", "show", "baseline", "suppress")
    with output.stops(options.timeout_s):
        from meshtls import sources
        from meshtls.cli import meshes
        from meshtls.policy import change
        from meshtls.policy.predict import groups
        from meshtls.policy.select import matches, selector

        changed = bool(strict or overlay)
        if changed and not options.namespaces:  # what breaks lives where the change is, not where the context points
            options = msgspec.structs.replace(options, all_namespaces=True)
        before, namespaces = meshes.read(options, paths)
        after = sources.over(before, overlay) if overlay else before
        for name in names:
            meshes.known(after, name)
        if names:
            after = change.strict(after, names)
        wanted = selector(options.selector)
        found = groups(
            after,
            before if changed and not everything else None,
            direct=direct,
            clients=(lambda labels: matches(wanted, labels)) if options.selector else None,
            namespaces=namespaces,
        )
        if options.output in ("json", "yaml"):
            _stream(options, after, found, meshes.notes(before))
        else:
            output.echo(_table(list(found), options.output == "wide", changed))
        meshes.told(options, before)


def _stream(options: Options, mesh: Any, found: Iterator[Any], notes: tuple[str, ...]) -> None:
    """Items are written as they are found: a large mesh has many, and none of them has to be kept."""
    from meshtls.policy.predict import expand

    if options.output == "yaml":
        from meshtls.policy.documents import PredictionList

        output.emit_document(PredictionList(items=tuple(expand(mesh, found)), notes=notes, absent=mesh.absent), options, str)
        return
    head = msgspec.json.encode({"apiVersion": "meshtls.dev/v1", "kind": "PredictionList", "notes": notes, "absent": mesh.absent})
    sys.stdout.write(head.decode()[:-1] + ',"items": [')
    start = "\n"
    buffer: list[str] = []
    for item in expand(mesh, found):
        buffer.append(start + msgspec.json.encode(item).decode())
        start = ",\n"
        if len(buffer) > 500:
            sys.stdout.write("".join(buffer))
            buffer.clear()
    sys.stdout.write("".join(buffer) + "\n]}\n")
    sys.stdout.flush()


def _table(found: list[Any], wide: bool, changed: bool) -> str:
    from meshtls.report.columns import columns

    if not found:
        return "nothing changes\n" if changed else "no calls: no Service with a TCP port, or no workload\n"
    order = {"BREAKS": 0, "UNKNOWN": 1, "WORKS": 2}
    found.sort(key=lambda g: (order[g.verdict], g.server, g.port, g.clients))
    rows = []
    for each in found:
        who = ", ".join(each.clients) if wide or len(each.clients) <= 2 else f"{each.clients[0]} and {len(each.clients) - 1} more"
        was = f"{each.was.sends} {each.was.verdict}" if each.was else "-"
        why = "; ".join(str(b) for b in (each.outcome.because if wide else each.outcome.because[-1:]))
        row = [each.verdict, each.sends, f"{each.server}:{each.port}", who, why]
        rows.append([*row[:2], was, *row[2:]] if changed else row)
    head = ["VERDICT", "SENDS", "SERVER", "CLIENTS", "BECAUSE"]
    count = {v: sum(len(g.clients) for g in found if g.verdict == v) for v in order}
    said = ", ".join(f"{n} {v}" for v, n in count.items() if n)
    width = 0 if wide else output.terminal_width()
    return columns(rows, [*head[:2], "WAS", *head[2:]] if changed else head, width=width, below=("BECAUSE", "CLIENTS")) + f"{said}\n"
