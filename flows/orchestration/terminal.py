"""What commands write to a terminal: lines and plain aligned tables."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

TEXT_WIDTH = 90
_collector: ContextVar[list[str] | None] = ContextVar("collector", default=None)


def say(line: str) -> None:
    """One line to standard output, at once; or to the list of an enclosing `collected`."""
    collector = _collector.get()
    if collector is not None:
        collector.append(line.strip("\n"))
        return
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@contextmanager
def collected() -> Iterator[list[str]]:
    """Collect what is said in the block instead of writing it."""
    lines: list[str] = []
    token = _collector.set(lines)
    try:
        yield lines
    finally:
        _collector.reset(token)


def one_line(text: str | None) -> str:
    """Text on one line, cut for a terminal."""
    flat = " ".join((text or "").split())
    return flat if len(flat) <= TEXT_WIDTH else flat[: TEXT_WIDTH - 1] + "…"


def table_text(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: set[int] | None = None
) -> str:
    """An aligned plain table; columns numbered in `right` are aligned to the right."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = ""
    for line in lines:
        cells = (
            cell.rjust(width) if column in (right or set()) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        text += "  ".join(cells).rstrip() + "\n"
    return text
