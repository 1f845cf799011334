"""Tables on a terminal: what is equal or empty is not repeated, and nothing is cut off.

A table that is wider than the terminal goes on below, with its names again, as many times
as it takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import rich.box
import rich.table
import rich.text

from wamsim.tables import DASH, Column, Table, is_text

NAME_LETTERS = 24  # of a name before it is folded, when room is dear
NAMES = 3  # at most so many columns at the left are names, and are repeated
GAP = 2  # between columns


def draw(table: Table, width: int) -> Iterator[rich.table.Table]:
    """Draw a table in as many pieces as fit the width.

    Args:
        table: What to draw.
        width: Of the terminal, in letters.
    """
    kept = [column for column in table.columns if _shown(table, column)]
    pieces = _pieces(table, kept, width - GAP)
    for number, columns in enumerate(pieces):
        yield _piece(table, columns, first=number == 0, last=number == len(pieces) - 1)


def _shown(table: Table, column: Column) -> bool:
    nothing = (None, "", 0 if column.quiet else None)
    return column.key not in table.heading and any(
        row.cells.get(column.key) not in nothing for row in table.rows
    )


def _pieces(table: Table, kept: Sequence[Column], width: int) -> list[list[Column]]:
    """Cut the columns so that each piece fits, the names at the left in every one."""
    texts = [i for i, column in enumerate(kept[:NAMES]) if is_text(column)]
    split = texts[-1] + 1 if texts else 0
    names, rest = list(kept[:split]), kept[split:]
    taken = sum(_needed(table, column) for column in names)
    pieces: list[list[Column]] = [[]]
    used = taken
    for column in rest:
        more = _needed(table, column)
        if pieces[-1] and used + more > width:
            pieces.append([])
            used = taken
        pieces[-1].append(column)
        used += more
    return [names + piece for piece in pieces]


def _needed(table: Table, column: Column) -> int:
    longest = _longest(table, column)
    if is_text(column):
        longest = min(longest, NAME_LETTERS)
    return max(longest, len(column.title)) + GAP


def _longest(table: Table, column: Column) -> int:
    return max((len(column.show(row.cells.get(column.key))) for row in table.rows), default=0)


def _piece(table: Table, columns: Sequence[Column], *, first: bool, last: bool) -> rich.table.Table:
    drawn = rich.table.Table(
        title=rich.text.Text(table.title) if first else None,
        caption=rich.text.Text("\n".join(table.notes)) if table.notes and last else None,
        box=rich.box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
        collapse_padding=True,
    )
    for column in columns:
        left = is_text(column)
        drawn.add_column(
            rich.text.Text(column.title),
            justify="left" if left else "right",
            overflow="fold",
            no_wrap=not left,
            min_width=min(NAME_LETTERS, _longest(table, column)) if left else None,
        )
    above: list[str] = []
    for i, row in enumerate(table.rows):
        heads = [
            text
            for column in table.columns
            if column.key in table.heading
            and (text := column.show(row.cells.get(column.key))) != DASH
        ]
        # Text, not str: "[" would be markup.
        if heads != above:
            drawn.add_row(rich.text.Text(", ".join(heads)), style="bold cyan")
            above = heads
        following = table.rows[i + 1] if i + 1 < len(table.rows) else None
        drawn.add_row(
            *(rich.text.Text(column.show(row.cells.get(column.key))) for column in columns),
            style="bold" if row.strong else None,
            end_section=following is not None and following.rule,
        )
    return drawn
