"""`--expect FILE`: expectations are read here, and held against a prediction or against what a probe saw."""

import datetime
from collections.abc import Sequence
from typing import Any

import click
from click.core import ParameterSource

from meshtls.cli import meshes, output
from meshtls.cli.options import Options
from meshtls.errors import InputError
from meshtls.expect.file import Expected

OPTION = click.option("--expect", "expected", multiple=True, metavar="FILE",
                      help="Whether what this file says must hold does: a check for each expectation. See docs/expectations.md.")


def read(paths: Sequence[str]) -> list[Expected]:
    """The expectations of these files. Raises InputError."""
    from meshtls.cluster.nesting import shallow
    from meshtls.expect.file import parse

    found = []
    for path in paths:
        try:
            with open(path, encoding="utf-8-sig") as file:
                text = file.read(10_000_000)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', '') or error}") from error
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
        for name in strict:
            meshes.known(mesh, name)
        mesh = change.strict(mesh, tuple(strict)) if strict else mesh
        missing, answers = meshes.unread(mesh), Predicted(mesh)
        for each in expected:
            draft.checks += judge.unknown(each, "; ".join(missing)) if missing else judge.checks(each, answers, today())
        if said := meshes.notes(mesh):
            draft.facts.append(("note", "; ".join(said)))


def today() -> datetime.date:
    """The day on which exceptions are looked at, as the user's clock has it."""
    return datetime.date.today()


def observed(files: Sequence[Expected], mesh: Any, seen: Any) -> list[Any]:
    """The checks of what a probe saw beside what is expected."""
    raise NotImplementedError
