"""`meshtls explain CLIENT SERVER[:PORT] [SOURCE...]`: one call, step by step."""

from typing import Any

import click

from meshtls.cli import output
from meshtls.cli.options import Options, shared


@click.command()
@click.argument("client")
@click.argument("server", metavar="SERVER[:PORT]")
@click.argument("paths", nargs=-1, metavar="[SOURCE]...")
@shared("cluster", "place", "output", "timeout")
@click.option("--strict", "strict", multiple=True, metavar="NS", help="As if this namespace had gone STRICT.")
@click.option("--apply", "overlay", multiple=True, metavar="FILE", help="As if these manifests were applied.")
def explain(
    options: Options, client: str, server: str, paths: tuple[str, ...], strict: tuple[str, ...], overlay: tuple[str, ...]
) -> None:
    """One call from client to server, step by step, each with the object and line that decided.

    CLIENT is a workload or pod: Deployment/shop/web, shop/web, or web with -n shop. SERVER is a Service (shop/cart, its host
    name, or its name in the client's namespace), or a workload for a call by pod address.
    """
    with output.stops(options.timeout_s):
        from meshtls.cli import meshes
        from meshtls.policy import change
        from meshtls.policy.documents import ExplanationList
        from meshtls.policy.explain import explain as answer

        mesh = meshes.read(options, paths, overlay)[0]
        names = tuple(n.strip() for value in strict for n in value.split(",") if n.strip())
        for name in names:
            meshes.known(mesh, name)
        after = change.strict(mesh, names) if names else mesh
        found = answer(after, client, server, options.namespaces[0] if options.namespaces else "")
        document = ExplanationList(items=tuple(_plain(mesh, a) for a in found), notes=meshes.notes(mesh), absent=mesh.absent)
        output.emit_document(document, options, lambda: "\n".join(_text(mesh, a) for a in found))
        meshes.told(options, mesh)


def _place(mesh: Any, because: Any) -> str:
    """`file:line` of what decided, the object's name where no file is known."""
    if because is None or not because.object:
        return ""
    where = str(mesh.origins.where(because.object, because.steps()))
    return f"{because.object} {because.path}" + (f", {where}" if where else "")


def _text(mesh: Any, answer: Any) -> str:
    from meshtls.report.console import wrap
    from meshtls.report.text import safe

    width = output.terminal_width() or 1_000_000
    lines = [f"{answer.client} -> {answer.server}:{answer.port}"]
    for number, step in enumerate(answer.steps, 1):
        place = _place(mesh, step.because)
        said = wrap(f"{'(passed over) ' if step.shadowed else ''}{step.says}", width, "     ")
        lines += [f"{number:3}. {said[0].lstrip()}", *said[1:], *(wrap(place, width, "     ") if place else ())]
    if answer.fix:
        lines += ["", "Fix:", *(f"  {line}" for line in answer.fix.splitlines())]
    return safe("\n".join(lines) + "\n")


def _plain(mesh: Any, answer: Any) -> Any:
    from meshtls.policy.documents import Explanation, SaidStep

    steps = tuple(
        SaidStep(
            says=s.says, shadowed=s.shadowed, object=s.because.object if s.because else "", path=s.because.path if s.because else "",
            where=str(mesh.origins.where(s.because.object, s.because.steps())) if s.because and s.because.object else "",
        )
        for s in answer.steps
    )
    return Explanation(
        client=answer.client, server=answer.server, port=answer.port, sends=answer.sends, verdict=answer.verdict, steps=steps, fix=answer.fix
    )
