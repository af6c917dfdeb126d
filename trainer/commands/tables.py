"""Rows as aligned text, and numbers as people read them.

    >>> from trainer.commands import tables
    >>> tables.render([{"step": 5, "path": "runs/a/recent/ckpt-5"}], width=80)
    ['step  path', '   5  runs/a/recent/ckpt-5']

A table that is wider than the terminal is folded between words, never inside one: what
can't be folded, such as a path, gets a line of its own below its row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len

from trainer.reporting.plain_text import plain

_GAP = 2
_NUMBER = re.compile(r"(-?[\d.]+(e[-+]?\d+)?|nan|-?inf)( (B|[kMGT]B|s|min|h|d))?|-?")
_UNITS = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))

Row = Mapping[str, str]


def render(rows: Sequence[Mapping[str, Any]], *, width: int | None) -> list[str]:
    """The lines of a table.

    Args:
      rows: with the same keys; these are the titles of the columns.
      width: of the terminal in cells; None for a program that reads: nothing is
        folded, and nothing is aligned to the right.
    """
    if not rows:
        return ["none"]
    cells = [{k: plain(str(v), keep="") for k, v in row.items()} for row in rows]
    table: list[Row] = [{name: plain(name, keep="") for name in rows[0]}, *cells]
    numeric = {
        name
        for name in rows[0]
        if width is not None and all(_NUMBER.fullmatch(row[name]) for row in cells)
    }
    widths = {name: max(cell_len(row[name]) for row in table) for name in rows[0]}
    below: list[str] = []
    while width is not None:
        least = {
            name: widths[name] if name in numeric else _longest_word(table, name)
            for name in widths
        }
        texts = [name for name in widths if name not in numeric]
        if _total(least) <= width or not texts:
            widths = _shrunk(widths, least, width)
            break
        below.append(max(texts, key=lambda name: least[name]))
        del widths[below[-1]]
    lines: list[str] = []
    for row in table:
        lines += _row_lines(row, widths, numeric)
        lines += [f"{' ' * _GAP}{row[name]}" for name in below if row[name]]
    return lines


def size(count: int) -> str:
    """Bytes with three digits, such as `1.83 MB`."""
    for unit, factor in _UNITS:
        if count >= factor:
            value = count / factor
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
    return f"{count} B"


def age(secs: float) -> str:
    """A time in its largest unit, such as `3 min`."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if secs >= length:
            return f"{secs / length:.0f} {unit}"
    return f"{max(secs, 0):.0f} s"


def number(value: float) -> str:
    """A metric with four decimals; very small and large ones with an exponent."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:.4f}"
    return f"{value:.3e}"


def _total(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + _GAP * (len(widths) - 1)


def _longest_word(table: Sequence[Row], name: str) -> int:
    words = (word for row in table for word in row[name].split())
    return max(map(cell_len, words), default=0)


def _shrunk(
    widths: Mapping[str, int], least: Mapping[str, int], width: int
) -> dict[str, int]:
    """The widest columns give first, down to their longest word."""
    shrunk = dict(widths)
    while _total(shrunk) > width:
        givers = [name for name in shrunk if shrunk[name] > least[name]]
        if not givers:
            break
        shrunk[max(givers, key=lambda name: shrunk[name])] -= 1
    return shrunk


def _row_lines(row: Row, widths: Mapping[str, int], numeric: set[str]) -> Iterator[str]:
    """One line, or as many as the most folded cell has."""
    folded = {name: fold(row[name], width) for name, width in widths.items()}
    for number in range(max(map(len, folded.values()), default=0)):
        line = []
        for name, lines in folded.items():
            text = lines[number] if number < len(lines) else ""
            space = " " * (widths[name] - cell_len(text))
            line.append(space + text if name in numeric else text + space)
        yield (" " * _GAP).join(line).rstrip()


def fold(text: str, width: int) -> list[str]:
    """The lines of a text that is folded between words."""
    if cell_len(text) <= width:
        return [text]
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if lines[-1] and cell_len(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
