"""Lines and aligned tables that commands write to standard output."""

import re
import sys
from collections.abc import Sequence

from selection.core.printable import printable

TEXT_WIDTH = 90


def say(line: str) -> None:
    """Write one line to standard output, at once."""
    sys.stdout.write(printable(line) + "\n")
    sys.stdout.flush()


def one_line(text: str | None) -> str:
    """The text on one line, cut for a terminal."""
    flat = printable(" ".join((text or "").split()))
    return flat if len(flat) <= TEXT_WIDTH else flat[: TEXT_WIDTH - 1] + "…"


def table_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An aligned plain table; columns of numbers are aligned to the right."""
    header, *rows = [[printable(cell) for cell in row] for row in (header, *rows)]
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    is_number = [
        all(re.fullmatch(r"[-+\d.,:%*\[\] ]*", c) for c in column[1:]) for column in columns
    ]
    text = ""
    for line in (header, *rows):
        cells = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, is_number, strict=True)
        )
        text += "  ".join(cells).rstrip() + "\n"
    return text


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write an aligned table to standard output."""
    sys.stdout.write(table_text(header, rows))
