"""`--baseline` and `--suppress`: what was accepted is read before a command begins, and marked when its report is made."""

import datetime
import json
from typing import TYPE_CHECKING, Any

from meshtls.cli.options import Options
from meshtls.errors import InputError

if TYPE_CHECKING:
    from meshtls.cli.output import Draft
    from meshtls.model.mesh import Mesh

_FORM = "see docs/report.md for the form of a suppression"


class Accepting:
    """What the user's files accept. Raises InputError for one that cannot be used."""

    def __init__(self, options: Options, kind: str) -> None:
        self.options, self.kind = options, kind
        self.held = _baseline(options.baseline, kind) if options.baseline else None
        self.suppressions = [entry for path in options.suppress for entry in _suppressions(path)]

    def annotated(self, mesh: "Mesh") -> None:
        """Take in what objects say by annotation; one that cannot be read is told by the audit, and counts for nothing."""
        from meshtls.report import accept

        for ref, text in accept.annotated(mesh):
            try:
                self.suppressions += _entries(text, ref, ref)
            except InputError as error:
                self.suppressions.append(accept.broken(ref, error.message))

    def mark(self, draft: "Draft", whole: bool) -> None:
        """Mark what is accepted among the checks of a report. `whole`: the command came to its end."""
        from meshtls.report import accept

        if not self.suppressions and self.held is None:
            return
        told = accept.looked_for(self.kind, draft.checks, self.options.namespaces, bool(self.options.selector) or not whole)
        checks = accept.accept(draft.checks, self.suppressions, datetime.date.today(), told)
        if self.held is not None:
            found = {accept.identity(f) for check in checks for f in check.findings}
            gone = f"{len(self.held - found)} gone" if whole else "what is gone is not known"
            draft.facts.append(("baseline", f"{len(found - self.held)} new, {len(found & self.held)} known, {gone}"))
            if self.options.fail_on_new:
                checks = accept.known(checks, self.held, self.options.baseline or "")
        draft.checks = checks


def _suppressions(path: str) -> list[Any]:
    from meshtls.cli import yamlfiles

    return _entries(yamlfiles.text(path), path, "")


def _entries(text: str, file: str, subject: str) -> list[Any]:
    from meshtls.cli import yamlfiles
    from meshtls.report.accept import Malformed, entries

    data, marks = yamlfiles.parsed(text, file, _FORM)
    try:
        return entries(data, marks, file, subject)
    except Malformed as error:
        raise InputError(str(error), _FORM, file=file, line=error.line) from error


def _baseline(path: str, kind: str) -> set[tuple[str, str, tuple[str, ...]]]:
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
        if document["kind"] != kind:
            raise ValueError(f"it is a {document['kind']}")
        return {(str(f["code"]), str(f["subject"]), tuple(map(str, f["path"]))) for f in document["findings"]}
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is no {kind}: {error}", "write one with the same verb and: -o json > FILE") from error
