"""One case: files as people have them, and what must become of every row."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cases.talks import Talk, Turn

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A pool under a name.

    write:    writes its files into a folder, and gives the path to read.
    talks:    the conversations that must come out, in any order.
    tools:    tools of each talk, where they have any.
    drops:    reason -> rows that must be dropped with it.
    n_rows:   rows that are read; the talks and the drops unless a row holds several.
    refused:  words of the refusal, for a pool that must not be read at all.
    settings: what the pool's config says beside its path.
    says:     words that the report on what was read must have.
    """

    name: str
    write: Callable[[Path], Path]
    talks: Sequence[Talk] = ()
    tools: Sequence[list[Turn]] = ()
    drops: Mapping[str, int] = field(default_factory=dict)
    n_rows: int | None = None
    refused: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    says: tuple[str, ...] = ()

    @property
    def rows_read(self) -> int:
        """Rows in: rows out and drops."""
        return len(self.talks) + sum(self.drops.values()) if self.n_rows is None else self.n_rows


def jsonl(rows: Sequence[Row], name: str = "pool.jsonl") -> Callable[[Path], Path]:
    """Writes rows as JSON lines."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return raw(text.encode(), name)


def raw(content: bytes, name: str) -> Callable[[Path], Path]:
    """Writes bytes."""
    return files({name: content}, name)


def files(contents: Mapping[str, bytes], read: str = "pool") -> Callable[[Path], Path]:
    """Writes several files; `read` is the path to read."""

    def write(folder: Path) -> Path:
        for name, content in contents.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return folder / read

    return write


def lines(rows: Sequence[Row]) -> bytes:
    """JSON lines as bytes."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def table(
    rows: Sequence[Row], name: str = "pool.csv", encoding: str = "utf-8", **options: Any
) -> Callable[[Path], Path]:
    """Writes rows as CSV."""

    def write(folder: Path) -> Path:
        with (folder / name).open("w", encoding=encoding, newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), **options)
            writer.writeheader()
            writer.writerows(rows)
        return folder / name

    return write
