"""`meshtls guard`: keep what was achieved."""

import datetime
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from meshtls.cli import output
from meshtls.cli.options import OUTPUTS, Options, shared

if TYPE_CHECKING:
    from meshtls.guard.achieved import Kept

_ENGINES, _ACTIONS = ("vap", "kyverno", "gatekeeper"), ("audit", "warn", "deny")


@click.group()
def guard() -> None:
    """Keep what was achieved: admission policies that refuse what weakens it, and a check that finds what did.

    Exit codes: 0 as it should be, 1 something got weaker, 2 usage, 3 could not evaluate, 4 there is nothing to keep.
    """


@guard.command(short_help="Manifests that keep STRICT what is STRICT.")
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@click.option("-o", "--output", type=click.Choice(OUTPUTS), default="yaml", show_default=True,
              help="Manifests as yaml or json; table and wide tell what they keep.")  # fmt: skip
@shared("cluster", "place", "timeout")
@click.option("--engine", type=click.Choice(_ENGINES), default="vap", show_default=True, help="Who refuses.")
@click.option("--action", type=click.Choice(_ACTIONS), default="deny", show_default=True, help="Introduce a guard in this order.")
@click.option("--exception", "exceptions", multiple=True, metavar="FILE", help="Exceptions beyond today's, with owner, reason and expiry.")
def admission(options: Options, sources: tuple[str, ...], engine: str, action: str, exceptions: tuple[str, ...]) -> None:
    """Manifests that keep STRICT what is STRICT, with the exceptions that stand today: apply them with kubectl.

    SOURCE is a manifest, a directory of them, a dump made by `meshtls dump`, or - for standard input. Without SOURCE the
    cluster is read. What is kept is what the source has achieved; run it again after the next migration.
    """
    with output.stops(options.timeout_s):
        from meshtls.cli import meshes, yamlfiles
        from meshtls.errors import GateError
        from meshtls.guard.achieved import achieved
        from meshtls.guard.admission import ENGINES, admission
        from meshtls.guard.exceptions import entries, over, with_granted

        read = [one for path in exceptions for one in entries(yamlfiles.parsed(yamlfiles.text(path), path, "see docs/guard.md"), path)]
        mesh, namespaces = meshes.read(options, sources)
        if missing := meshes.unread(mesh):  # an exception that is not seen would be refused at its next write
            _say("nothing is written", *missing)
            raise click.exceptions.Exit(output.NOT_EVALUATED)
        kept, nothing = achieved(mesh, namespaces)
        if not kept or (options.namespaces and nothing):
            names = ",".join(sorted(nothing)) if options.namespaces else "NS"
            said = "; ".join(nothing.values()) or "no namespace has a STRICT policy"
            raise GateError(f"{said}: there is no STRICT to keep", f"migrate first: meshtls migrate plan -n {names}")
        ended = over(read, datetime.date.today())
        kept = with_granted(kept, [one for one in read if one not in ended])
        made = admission(kept, engine, action)
        if options.output == "yaml":
            output.echo(_yaml(made))
        elif options.output == "json":
            output.echo(json.dumps({"apiVersion": "v1", "kind": "List", "items": made}, indent=2) + "\n")
        else:
            output.echo(_table(kept, options.output == "wide"))
        _say(*meshes.notes(mesh), *(f"not kept: {why}" for why in nothing.values()),
             *(f"left out, its time was over on {one.until[:10]}: {one.rule} of {one.subject} ({one.owner})" for one in ended),
             *(f"{each.namespace}: nothing in it is in the mesh, so pods are not judged" for each in kept if not each.planes and each.scope != "mesh"),
             f"for {ENGINES[engine].name}, needs {ENGINES[engine].needs}; action {action}", *ENGINES[engine].limits)  # fmt: skip


@guard.command(short_help="What got weaker between two readings.")
@click.argument("before")
@click.argument("after", required=False)
@shared("cluster", "place", "output", "report", "timeout", "threshold", "accept")
@click.option("--apply", "overlay", multiple=True, metavar="FILE", help="As if these manifests were applied to AFTER; without AFTER, to BEFORE.")
def check(options: Options, before: str, after: str | None, overlay: tuple[str, ...]) -> None:
    """What got weaker between two readings: modes, workloads in the mesh, calls by mTLS, guards.

    BEFORE is a file that `meshtls dump` wrote, or any other source. AFTER is another one; without AFTER it is the cluster, or,
    with --apply, BEFORE as the files would change it: so a pull request is checked without a cluster.
    """
    with output.session(options, kind="GuardReport", title="Guard") as draft:
        from meshtls import sources
        from meshtls.cli import meshes
        from meshtls.guard.regression import regression

        old = sources.load([before])
        if after is None and overlay:
            new = sources.over(old, overlay)
        elif after is not None:
            new = sources.load([after], overlay=overlay)
        else:
            new, _ = meshes.read(msgspec.structs.replace(options, all_namespaces=True, namespaces=()), ())
        for name in options.namespaces:
            if name not in old.namespace_names:
                meshes.known(new, name)
        if draft.accepting:
            draft.accepting.annotated(new)
        wanted = frozenset(options.namespaces) or None
        other = after or ("the cluster" if not overlay else f"itself as {', '.join(overlay)} would change it")
        draft.facts.append(("compared", f"{before} with {other}"))
        draft.checks += regression(old, new, datetime.date.today(), wanted, meshes.unread(old, new))
        if said := meshes.notes(old, new):
            draft.facts.append(("note", "; ".join(said)))


def _say(*notes: str) -> None:
    for note in dict.fromkeys(notes):
        click.echo(f"note: {note}", err=True)


def _yaml(manifests: Sequence[Any]) -> str:
    import yaml

    class Plain(yaml.SafeDumper):
        """Without anchors: what two manifests share is written twice."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    return yaml.dump_all(manifests, Dumper=Plain, sort_keys=False, allow_unicode=True, width=140)


def _table(kept: Sequence["Kept"], wide: bool) -> str:
    from meshtls.guard.rules import RULES
    from meshtls.report.columns import columns

    what = {"namespace": "the namespace", "workloads": "some workloads", "mesh": "the mesh's policy"}
    rows = []
    for each in kept:
        by = ", ".join(sorted(each.keepers)) + (" (the mesh's)" if each.inherits else "")
        rows.append([each.namespace, what[each.scope], by.strip(), ", ".join(each.planes) or "-", str(len(each.excepted)), str(len(each.granted))])
    text = columns(rows, ["NAMESPACE", "KEPT", "BY", "DATA PLANE", "EXCEPTIONS", "GRANTED"])
    if wide:
        excepted = [[each.namespace, _words(one), "stands today"] for each in kept for one in each.excepted]
        excepted += [[each.namespace, f"{g.rule} {g.subject}", f"{g.owner} until {g.until[:10]}: {g.reason}"] for each in kept for g in each.granted]
        text += "\n" + columns(excepted, ["NAMESPACE", "EXCEPTION", "WHY"]) if excepted else ""
        text += "\n" + columns([[r.name, ", ".join(r.catalogue), r.says] for r in RULES], ["RULE", "CATALOGUE", "SAYS"])
    return text


def _words(pattern: str) -> str:
    """An exception's pattern as a person reads it."""
    return pattern.strip("^$").replace("\\", "")
