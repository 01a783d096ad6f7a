"""`meshtls audit [PATH...]`: what would break under STRICT, and why."""

import datetime
import gc
import json
from typing import Any

import click

from meshtls.cli import meshes, output, yamlfiles
from meshtls.cli.options import Options, shared
from meshtls.errors import InputError


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@shared("cluster", "scope", "output", "report", "timeout", "threshold")
@click.option("--apply", "overlay", multiple=True, metavar="FILE", help="As if these manifests were applied.")
@click.option("--baseline", metavar="FILE", help="An earlier report (-o json) to compare with.")
@click.option("--fail-on-new", is_flag=True, help="Findings of the baseline are accepted; only new ones fail.")
@click.option("--suppress", "suppress", multiple=True, metavar="FILE", help="Accepted findings, with owner, reason and expiry.")
@click.option("--list-rules", is_flag=True, help="Print every rule and leave.")
def audit(options: Options, paths: tuple[str, ...], overlay: tuple[str, ...], baseline: str | None, fail_on_new: bool,
          suppress: tuple[str, ...], list_rules: bool) -> None:
    """What would break under STRICT, and why.

    PATH is a manifest, a directory of them, a dump made by `meshtls dump`, or - for standard input. Without PATH the cluster
    is read. Findings below --show are counted and not listed; `--show info` lists everything.
    """
    if list_rules:
        _list_rules(options)
        return
    if fail_on_new and not baseline:
        raise click.UsageError("--fail-on-new needs --baseline FILE")
    gc.disable()  # a short life: walking all that was read, again and again, would cost more than it frees
    with output.session(options, kind="AuditReport", title="Audit") as draft:
        accepted = [entry for path in suppress for entry in _suppressions(path)]
        held = _baseline(baseline) if baseline else None
        mesh, namespaces = meshes.read(options, paths, overlay)

        from meshtls import audit as engine
        from meshtls.audit import accept

        checks = engine.check(mesh, namespaces, options.selector)
        draft.coverage = engine.coverage(checks)
        for ref, text in accept.annotated(mesh):
            accepted += _parsed(text, ref, f"{ref}, annotation {accept.ANNOTATION}", ref)
        checks = accept.accept(checks, accepted, datetime.date.today())
        if held is not None:
            found = {accept.identity(f) for check in checks for f in check.findings}
            draft.facts.append(("baseline", f"{len(found - held)} new, {len(found & held)} known, {len(held - found)} gone"))
            if fail_on_new:
                checks = accept.known(checks, held, baseline or "")
        draft.checks += checks
        if said := meshes.notes(mesh):
            draft.facts.append(("note", "; ".join(said)))
        draft.facts.append(("coverage", "{answered} of {questions} questions answered ({percent} %)".format(**draft.coverage)))


def _suppressions(path: str) -> list[Any]:
    return _parsed(yamlfiles.text(path), path, path, "")


def _parsed(text: str, file: str, where: str, subject: str) -> list[Any]:
    from meshtls.audit.accept import entries

    hint = "see docs/audit.md for the form of a suppression"
    try:
        return entries(yamlfiles.parsed(text, file, hint), where, subject)
    except ValueError as error:
        raise InputError(f"{file}: {' '.join(str(error).split())[:300]}", hint) from error


def _baseline(path: str) -> set[tuple[str, str, tuple[str, ...]]]:
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
        if document["kind"] != "AuditReport":
            raise ValueError(f"it is a {document['kind']}")
        return {(str(f["code"]), str(f["subject"]), tuple(map(str, f["path"]))) for f in document["findings"]}
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is no audit report: {error}", "write one with: meshtls audit -o json > FILE") from error


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

