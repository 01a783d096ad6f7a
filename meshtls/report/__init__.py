"""A `Report` becomes text here, once for each format. Pure: files and terminals belong to `cli.output`.

    FORMATS["junit"](report) -> str

A format is the module of its name in this package with a function `render(report) -> str`, imported when it is used.
"""

import importlib
from collections.abc import Callable

from meshtls.model.check import Report


def _format(module: str) -> Callable[[Report], str]:
    def render(report: Report) -> str:
        return str(importlib.import_module(f"meshtls.report.{module}").render(report))

    return render


FORMATS: dict[str, Callable[[Report], str]] = {
    "console": _format("console"),
    "json": _format("json"),
    "junit": _format("junit"),
    "sarif": _format("sarif"),
    "html": _format("html"),
    "markdown": _format("markdown"),
}
