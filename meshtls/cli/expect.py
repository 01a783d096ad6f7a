"""`--expect FILE`: expectations are read here, and held against a prediction or against what a probe saw."""

import datetime
from collections.abc import Sequence
from typing import Any

import click
import msgspec
from click.core import ParameterSource

from meshtls.cli import meshes, output, yamlfiles
from meshtls.cli.options import Options
from meshtls.errors import InputError
from meshtls.expect.file import Expected
from meshtls.model.check import Check, Confidence
from meshtls.model.mesh import Mesh

OWNER = "app.kubernetes.io/managed-by"

OPTION = click.option("--expect", "expected", multiple=True, metavar="FILE",
                      help="Whether what this file says must hold does: a check for each expectation. See docs/expectations.md.")


def read(paths: Sequence[str]) -> list[Expected]:
    """The expectations of these files. Raises InputError."""
    from meshtls.cluster.nesting import shallow
    from meshtls.expect.file import parse

    found = []
    for path in paths:
        text = yamlfiles.text(path)
        shallow(text, path)
        found.append(parse(text, path))
    return found


def needed(*names: str) -> None:
    """Raises click's UsageError for an option that was given and means nothing without --expect."""
    context = click.get_current_context()
    for name in names:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            flag = next(p.opts[0] for p in context.command.params if p.name == name)
            raise click.UsageError(f"{flag} needs --expect FILE")


def predicted(options: Options, paths: Sequence[str], overlay: Sequence[str], strict: Sequence[str], files: Sequence[str]) -> None:
    """The report of what is predicted beside what is expected. Leaves with its exit code."""
    from meshtls.expect import judge
    from meshtls.expect.predicted import Predicted
    from meshtls.policy import change

    with output.session(options, kind="ExpectationReport", title="Expectations") as draft:
        expected = read(files)
        mesh, _ = meshes.read(options, paths, overlay)
        if draft.accepting:
            draft.accepting.annotated(mesh)
        for name in strict:
            meshes.known(mesh, name)
        mesh = change.strict(mesh, tuple(strict)) if strict else mesh
        missing, answers = meshes.unread(mesh), Predicted(_theirs(mesh), frozenset(options.namespaces))
        for each in expected:
            draft.checks += judge.unknown(each, "; ".join(missing)) if missing else judge.checks(each, answers, datetime.date.today())
        if said := meshes.notes(mesh):
            draft.facts.append(("note", "; ".join(said)))


class Asked:
    """The expectations that a probe is to look at: `also` are handshakes that it makes for them, `namespaces` where it needs pods."""

    MOST = 10  # namespaces in which probe pods are started without being named

    def __init__(self, files: Sequence[str]) -> None:
        self.expected = read(files)
        self.also: frozenset[tuple[str, str, str, int]] = frozenset()
        self.namespaces: tuple[str, ...] = ()

    def look(self, mesh: Mesh) -> None:
        """What has to be asked in this mesh. Raises InputError where that would be in too many namespaces for nobody to have named them."""
        from meshtls.expect.observed import questions
        from meshtls.expect.predicted import Predicted

        self.predicted = Predicted(_theirs(mesh))
        self.also, spaces = questions(self.predicted, self.expected)
        self.namespaces = tuple(sorted(spaces))

    def named(self) -> tuple[str, ...]:
        """The namespaces to probe where the user named none."""
        if len(self.namespaces) > self.MOST:
            raise InputError(f"the expectations are about {len(self.namespaces)} namespaces", "name those in which probe pods may run with -n")
        return self.namespaces

    def checks(self, mesh: Mesh, plan: Any, seen: Any, namespaces: Sequence[str]) -> list[Check]:
        """What the probe saw beside what is expected."""
        from meshtls.expect import judge
        from meshtls.expect.observed import Observed, PortSeen, Seen
        from meshtls.probe import compare
        from meshtls.probe.known import CLIENT_SIDE

        ports = {(origin, t.namespace, t.pod, t.port.number): PortSeen(str(mode), why, own)
                 for (origin, t), (mode, why, own) in compare.ports_seen(plan, seen).items()}
        missing = "; ".join(f"{kind}s could not be read: {mesh.absent[kind]}" for kind in CLIENT_SIDE if kind in mesh.absent)
        answers = Observed(self.predicted, Seen(ports, compare.mutual_seen(plan, seen)), namespaces, missing)
        today = datetime.date.today()
        return [check for each in self.expected for check in judge.checks(each, answers, today, Confidence.MEASURED)]


def _theirs(mesh: Mesh) -> Mesh:
    """The mesh without what meshtls itself runs in it for a while."""
    return msgspec.structs.replace(mesh, **{field: tuple(o for o in getattr(mesh, field) if o.metadata.labels.get(OWNER) != "meshtls")
                                            for field in ("pods", "services", "jobs", "endpoint_slices")})
