"""`meshtls audit [SOURCE...]`: what would break under STRICT, and why."""

import gc

import click

from meshtls.cli import meshes, output
from meshtls.cli.options import Options, shared


@click.command()
@click.argument("paths", nargs=-1, metavar="[SOURCE]...")
@shared("cluster", "scope", "output", "report", "timeout", "threshold", "accept")
@click.option("--apply", "overlay", multiple=True, metavar="FILE", help="As if these manifests were applied.")
@click.option("--list-rules", is_flag=True, help="Print every rule and leave.")
def audit(options: Options, paths: tuple[str, ...], overlay: tuple[str, ...], list_rules: bool) -> None:
    """What would break under STRICT, and why.

    SOURCE is a manifest, a directory of them, a dump made by `meshtls dump`, or - for standard input. Without SOURCE the cluster
    is read. Findings below --show are counted and not listed; `--show info` lists everything.
    """
    if list_rules:
        _list_rules(options)
        return
    gc.disable()  # a short life: walking all that was read, again and again, would cost more than it frees
    with output.session(options, kind="AuditReport", title="Audit") as draft:
        mesh, namespaces = meshes.read(options, paths, overlay)

        from meshtls import audit as engine

        checks = engine.check(mesh, namespaces, options.selector)
        draft.coverage = engine.coverage(checks)
        if draft.accepting:
            draft.accepting.annotated(mesh)
        draft.checks += checks
        if said := meshes.notes(mesh):
            draft.facts.append(("note", "; ".join(said)))
        draft.facts.append(("coverage", "{answered} of {questions} questions answered ({percent} %)".format(**draft.coverage)))


def _list_rules(options: Options) -> None:
    from meshtls.audit.catalogue import least_sure
    from meshtls.audit.rules import RULES
    from meshtls.policy.documents import RuleItem, RuleList

    items = tuple(
        RuleItem(code=r.code, title=r.title, severity=r.severity, confidence=least_sure(r.catalogue, r.confidence), catalogue=r.catalogue,
                 about=r.about, inputs=r.inputs, docs=f"docs/findings.md#{r.code.lower()}") for r in RULES)
    document = RuleList(items=items)
    output.emit_document(document, options, lambda: "".join(
        f"{r.code}  {r.severity:<8}  {r.title}  [{', '.join(r.catalogue)}]\n" for r in RULES))

