"""`meshtls modes [SOURCE...]`: the effective mTLS mode of every workload and port, with the object that decided."""

from typing import Any

import click

from meshtls.cli import output
from meshtls.cli.options import Options, shared


@click.command()
@click.argument("paths", nargs=-1, metavar="[SOURCE]...")
@shared("cluster", "scope", "output", "timeout")
@click.option("--apply", "overlay", multiple=True, metavar="FILE", help="As if these manifests were applied.")
def modes(options: Options, paths: tuple[str, ...], overlay: tuple[str, ...]) -> None:
    """The effective mTLS mode of every workload and port, with the object that decided.

    SOURCE is a manifest, a directory of them, a dump made by `meshtls dump`, or - for standard input. Without SOURCE the cluster
    is read. A workload in a file counts as what would run: with a sidecar where its namespace injects.
    """
    with output.stops(options.timeout_s):
        from meshtls.cli import meshes
        from meshtls.policy.documents import ModeList
        from meshtls.policy.server import modes as answer

        mesh, namespaces = meshes.read(options, paths, overlay)
        found = answer(mesh, namespaces)
        refs = meshes.chosen(options, mesh)
        if refs is not None:
            named = {(w.namespace, w.label) for w in mesh.workloads if w.ref in refs}
            found = [m for m in found if (m.namespace, m.workload) in named]
        document = ModeList(items=tuple(found), notes=meshes.notes(mesh), absent=mesh.absent)
        output.emit_document(document, options, lambda: _table(found, options.output == "wide", namespaces))
        meshes.told(options, mesh)


def _table(found: list[Any], wide: bool, namespaces: frozenset[str] | None) -> str:
    from meshtls.report.columns import columns

    if not found:
        return f"no workloads in {', '.join(sorted(namespaces))} (all namespaces: -A)\n" if namespaces else "no workloads\n"

    rows = []
    for each in found:
        other = [f"{port}={mode}" for port, mode in each.ports.items() if wide or mode != each.mode]
        why = "; ".join(str(b) for b in (each.because if wide else each.because[:1]))
        row = [each.namespace, each.workload, each.dataplane, each.mode, ",".join(other) or "-", why]
        if wide:
            row.append("; ".join(str(b) for b in each.shadowed) or "-")
        rows.append(row)
    head = ["NAMESPACE", "WORKLOAD", "DATA PLANE", "MODE", "PORTS" if wide else "OTHER PORTS", "BECAUSE"]
    if wide:
        return columns(rows, [*head, "SHADOWED"])
    return columns(rows, head, width=output.terminal_width(), below=("BECAUSE", "OTHER PORTS"))
