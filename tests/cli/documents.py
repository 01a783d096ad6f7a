"""The published schemas. Write them anew with `python tests/cli/documents.py`; a test compares."""

import json
from pathlib import Path

from meshtls.expect.file import schema as expectations
from meshtls.migrate.register import MigrationList
from meshtls.migrate.waves import WavePlan
from meshtls.policy.documents import DOCUMENTS, schema
from meshtls.report.json import schema as report

FOLDER = Path(__file__).parents[2] / "docs/schemas"


def published() -> dict[str, str]:
    """File name -> what it must hold."""
    made = {f"{d.__name__.lower()}.schema.json": schema(d) for d in (*DOCUMENTS, WavePlan, MigrationList)} | {"report.schema.json": report(), "expectations.schema.json": expectations()}
    return {name: json.dumps(value, indent=2) + "\n" for name, value in made.items()}


if __name__ == "__main__":
    for name, text in published().items():
        (FOLDER / name).write_text(text)
