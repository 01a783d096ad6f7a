"""A matrix on a terminal: expectation beside observation in each cell, and as many columns a block as the width holds.

A cell reads `expected` where the observation agrees, and `expected>observed` where it does not; the mark in front says
which: agreement, disagreement, or unknown. A pair that was not asked stays empty.
"""

from typing import TYPE_CHECKING

from meshtls.model.check import Cell, Matrix
from meshtls.report.text import line, plural

if TYPE_CHECKING:
    from meshtls.report.console import Style

_MARKS = {True: {True: "✓", False: "✗", None: "?"}, False: {True: "+", False: "!", None: "?"}}
_CODES = {True: "32", False: "1;31", None: "33"}


def grid(matrix: Matrix, style: "Style") -> list[str]:
    """The table's lines, its title first, its disagreements in words last."""
    cells = {(cell.row, cell.column): cell for cell in matrix.cells}
    marks = _MARKS[style.unicode]
    label = min(max((len(line(row)) for row in matrix.rows), default=0), style.width // 2)
    lines = [line(matrix.title)]
    for block in _blocks(matrix, cells, style, label):
        widths = [_width(column, matrix, cells) for column in block]
        lines.append(" " * label + "".join(f"  {line(c)[:w]:<{w}}" for c, w in zip(block, widths, strict=True)))
        for row in matrix.rows:
            text = f"{line(row, label):<{label}}"
            for column, width in zip(block, widths, strict=True):
                cell = cells.get((row, column))
                shown = f"{marks[cell.ok]} {_words(cell)}" if cell else ""
                code = _CODES[cell.ok] if cell else ""
                painted = f"\x1b[{code}m{shown}\x1b[0m" if style.colour and cell else shown
                text += "  " + painted + " " * (width - len(shown))
            lines.append(text)
    wrong = sum(cell.ok is False for cell in matrix.cells)
    unknown = sum(cell.ok is None for cell in matrix.cells)
    lines.append(f"{plural(len(matrix.cells), 'cell')}: {len(matrix.cells) - wrong - unknown} as expected, {wrong} not, "
                 f"{unknown} unknown")
    return lines


def _words(cell: Cell) -> str:
    expected, observed = line(cell.expected, 24), line(cell.observed, 24)
    return expected if cell.ok and expected == observed else f"{expected}>{observed}"


def _width(column: str, matrix: Matrix, cells: dict[tuple[str, str], Cell]) -> int:
    shown = [len(_words(cells[row, column])) + 2 for row in matrix.rows if (row, column) in cells]
    return max([len(line(column, 32)), *shown])


def _blocks(matrix: Matrix, cells: dict[tuple[str, str], Cell], style: "Style", label: int) -> list[list[str]]:
    """Columns in groups that fit beside the row labels; at least one a group."""
    blocks: list[list[str]] = []
    used = style.width
    for column in matrix.columns:
        width = _width(column, matrix, cells) + 2
        if not blocks or used + width > style.width:
            blocks.append([])
            used = label
        blocks[-1].append(column)
        used += width
    return blocks
