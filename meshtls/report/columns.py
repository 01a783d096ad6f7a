"""Rows in aligned columns: one line a row for pipes, and folded where a terminal is too narrow for that.

A row is folded, never cut: the columns named in `below` leave its line, last one first, until the rest fits, and stand under
it, indented and wrapped. The head folds with the rows, so that it still says what stands where.
"""

from collections.abc import Sequence

from meshtls.report.console import wrap
from meshtls.report.text import line

INDENT = "    "


def columns(rows: Sequence[Sequence[str]], head: Sequence[str], *, width: int = 0, below: Sequence[str] = ()) -> str:
    """The table, with every character made safe to look at. `width` 0: nobody minds how long lines are."""
    table = [tuple(line(cell) for cell in row) for row in (head, *rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    beside = list(range(len(head)))
    for name in below:
        if width and sum(widths[i] + 2 for i in beside) - 2 > width:
            beside.remove(list(head).index(name))
    under = [i for i in range(len(head)) if i not in beside]
    text = ""
    for row in table:
        text += "  ".join(row[i].ljust(widths[i]) for i in beside).rstrip() + "\n"
        text += "".join(f"{each}\n" for i in under if row[i] for each in wrap(row[i], width, INDENT))
    return text
