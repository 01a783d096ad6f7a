"""The generated parts of docs/guard.md. Write them anew with `python -m tests.guard.pages`; a test compares."""

from pathlib import Path

from meshtls.guard.admission import ENGINES
from meshtls.guard.regression import QUESTIONS
from meshtls.guard.rules import RULES

PAGE = Path(__file__).parents[2] / "docs/guard.md"


def parts() -> dict[str, str]:
    """Name of the part -> its lines."""
    rules = ["", "| rule | what it says | catalogue |", "|---|---|---|"]
    rules += [f"| `{rule.name}` | {rule.says} | {', '.join(rule.catalogue)} |" for rule in RULES]
    engines = [line for name, engine in ENGINES.items() for line in (
        f"- `--engine {name}`: {engine.name}. Needs {engine.needs}. The way out deletes: {engine.resource}.", *(f"  - {limit}" for limit in engine.limits))]
    codes = ["", "| code | finds |", "|---|---|", *(f"| [{q.code}](findings.md#{q.code.lower()}) | {q.title} |" for q in QUESTIONS), ""]
    return {"codes": "\n".join(codes), "rules": "\n".join([*rules, ""]), "engines": "\n".join(engines)}


def page(current: str) -> str:
    for name, text in parts().items():
        begin, end = f"<!-- {name}: python -m tests.guard.pages -->", f"<!-- end of {name} -->"
        before, _, rest = current.partition(begin)
        _, _, after = rest.partition(end)
        current = f"{before}{begin}\n{text}\n{end}{after}"
    return current


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
