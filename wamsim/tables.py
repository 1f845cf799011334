"""One table structure and its renderings: terminal, Markdown, CSV, JSON, LaTeX.

Every rendering starts from the same rows, so that no number can differ between a paper
and a terminal. Texts show a dash where there is no data; CSV leaves the cell empty and
JSON writes null.
"""

from __future__ import annotations

import csv
import enum
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rich.console import Console, ConsoleOptions

from wamsim.intervals import Interval

DASH = "-"


class Score(NamedTuple):
    """A rate with its interval.

    Attributes:
        rate: In [0, 1].
        interval: Its limits.
    """

    rate: float
    interval: Interval | None


class Share(NamedTuple):
    """Successes of scored episodes.

    Attributes:
        k: Successes.
        n: Scored episodes.
    """

    k: int
    n: int


def _percent(x: float) -> str:
    return f"{round(100 * x, 1) + 0.0:.1f}"  # adding 0.0 makes -0.0 plain


def _points(x: float) -> str:
    return f"{round(100 * x, 1) + 0.0:+.1f}"


def _interval(x: Interval) -> str:
    return f"[{_percent(x.low)}, {_percent(x.high)}]"


def _score(x: Score) -> str:
    return _percent(x.rate) + (f" {_interval(x.interval)}" if x.interval else "")


def _three_digits(x: float) -> str:
    if 1e4 <= abs(x) < math.inf:
        return f"{x:.1e}"
    digits = 2 if abs(x) < 10 else 1 if abs(x) < 100 else 0
    return f"{round(x, digits) + 0.0:.{digits}f}"


def _estimate(x: Score) -> str:
    value, limits = x
    if limits is None:
        return _three_digits(value)
    return f"{_three_digits(value)} [{_three_digits(limits.low)}, {_three_digits(limits.high)}]"


def _finite(x: float | None) -> float | None:
    return x if x is None or math.isfinite(x) else None  # JSON knows no infinity


def _p_value(x: float) -> str:
    return "<0.001" if x < 0.001 else f"{x:.3f}"


class Kind(enum.Enum):
    """What a column holds: decides its text and its flat fields."""

    TEXT = "text"
    COUNT = "count"  # int
    RATE = "rate"  # fraction, shown in percent
    POINTS = "points"  # signed difference of rates, shown in percentage points
    INTERVAL = "interval"  # Interval of fractions, shown in percent
    SCORE = "score"  # Score
    SHARE = "share"  # Share
    SECONDS = "seconds"
    NUMBER = "number"
    P = "p"


_SHOW: Mapping[Kind, Callable[[Any], str]] = {
    Kind.TEXT: str,
    Kind.COUNT: str,
    Kind.RATE: _percent,
    Kind.POINTS: _points,
    Kind.INTERVAL: _interval,
    Kind.SCORE: _score,
    Kind.SHARE: lambda x: f"{x.k}/{x.n}",
    Kind.SECONDS: lambda x: f"{x:.3f}",
    Kind.NUMBER: lambda x: f"{x:.0f}",
    Kind.P: _p_value,
}

# The same kinds for numbers that are no fractions.
_SHOW_PLAIN: Mapping[Kind, Callable[[Any], str]] = {
    Kind.RATE: _three_digits,
    Kind.SCORE: _estimate,
}


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: Name of its cells and of its fields in CSV and JSON.
        title: Heading in texts.
        kind: What it holds.
        quiet: True to leave it out on a terminal while it holds nothing but zeros.
        percent: False to show a rate or score as the number that it is, with three digits.
    """

    key: str
    title: str
    kind: Kind = Kind.TEXT
    quiet: bool = False
    percent: bool = True

    def show(self, value: Any) -> str:
        """Write a cell for people."""
        if value is None or value == "":
            return DASH
        return (_SHOW if self.percent else _SHOW_PLAIN)[self.kind](value)

    def flat(self, value: Any) -> dict[str, Any]:
        """Write a cell as named numbers at full precision; None where there is no data."""
        if self.kind is Kind.INTERVAL:
            return _limits(self.key, value)
        if self.kind is Kind.SCORE:
            rate, interval = value or (None, None)
            return {self.key: _finite(rate), **_limits(self.key, interval)}
        if self.kind is Kind.SHARE:
            k, n = value or (None, None)
            return {self.key: k, f"{self.key}_of": n}
        if self.kind is Kind.RATE:
            return {self.key: _finite(value)}
        return {self.key: value}


def _limits(key: str, interval: Interval | None) -> dict[str, Any]:
    low, high = interval or (None, None)
    return {f"{key}_low": low, f"{key}_high": high}


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        kind: What it stands for ("task", "micro", "run", ...); a field of the exports.
        cells: Column key -> value; a missing key is no data.
        strong: True for totals.
        rule: True to draw a line above.
    """

    kind: str
    cells: Mapping[str, Any]
    strong: bool = False
    rule: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows for every rendering; `rich.print` draws it.

    Attributes:
        title: Heading.
        columns: In order.
        rows: In order.
        notes: Sentences below the table.
        common: Facts that hold for every row: in the title of texts, a field of every
            exported row.
        heading: Keys of columns that are the same for many rows on end: the terminal shows
            them once, above those rows.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    common: Mapping[str, Any] = field(default_factory=dict[str, Any])
    heading: tuple[str, ...] = ()

    def texts(self, row: Row) -> list[str]:
        """Write a row's cells for people."""
        return [column.show(row.cells.get(column.key)) for column in self.columns]

    def flat(self) -> list[dict[str, Any]]:
        """Give all rows as mappings of equal keys to text, numbers and None."""
        out: list[dict[str, Any]] = []
        for row in self.rows:
            one: dict[str, Any] = {"row": row.kind, **self.common}
            for column in self.columns:
                one.update(column.flat(row.cells.get(column.key)))
            out.append(one)
        return out

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[object]:
        from wamsim.terminal import draw  # it needs this module's types

        yield from draw(self, options.max_width)


def is_text(column: Column) -> bool:
    """Whether a column holds words, which stand to the left and may be folded."""
    return column.kind is Kind.TEXT


def to_markdown(table: Table) -> str:
    """Write as a GitHub table, notes below."""

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"

    lines = [f"**{table.title}**", "", line([c.title for c in table.columns])]
    lines.append("|" + "|".join(":--" if is_text(c) else "--:" for c in table.columns) + "|")
    for row in table.rows:
        texts = table.texts(row)
        lines.append(line([f"**{t}**" if row.strong and t != DASH else t for t in texts]))
    for note in table.notes:
        lines += ["", note]
    return "\n".join(lines) + "\n"


def to_csv(table: Table) -> str:
    """Write full-precision fields, one header line; an empty field is no data."""
    rows = table.flat()
    out = io.StringIO()
    if rows:
        writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return out.getvalue()


def to_json(table: Table) -> str:
    """Write title, rows of full-precision fields, and notes; null is no data."""
    document = {"title": table.title, "rows": table.flat(), "notes": list(table.notes)}
    return json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{c: f"\\{c}" for c in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
    }
)


def _latex(text: str) -> str:
    if text == DASH:
        return "--"
    escaped = text.translate(_LATEX)
    # After \\ a bracket would be an argument of the line break.
    return f"{{{escaped}}}" if escaped.startswith("[") else escaped


def to_latex(table: Table) -> str:
    """Write a ``table`` environment for the booktabs package; notes in the caption."""
    spec = "".join("l" if is_text(c) else "r" for c in table.columns)
    caption = ". ".join([table.title, *(note.rstrip(".") for note in table.notes)]) + "."
    lines = [
        r"\begin{table}",
        rf"\caption{{{_latex(caption)}}}",
        rf"\begin{{tabular}}{{{spec}}}",
        r"\toprule",
        " & ".join(_latex(c.title) for c in table.columns) + r" \\",
        r"\midrule",
    ]
    for i, row in enumerate(table.rows):
        if row.rule and i:
            lines.append(r"\midrule")
        texts = [_latex(text) for text in table.texts(row)]
        if row.strong:
            texts = [rf"\textbf{{{text}}}" for text in texts]
        lines.append(" & ".join(texts) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"
