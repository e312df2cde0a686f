"""Samples in memory: every different conversation once, with all the places where it stands."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from selection.core.json_text import LONG, decoded_utf8
from selection.data.messages.contents import count_characters
from selection.data.messages.normalize import plain_text
from selection.data.read import ReadBatch
from selection.data.shapes.columns import ColumnKinds
from selection.data.where import (
    ROLE_TYPES,
    Kinds,
    compile_where,
    refuse_unknown_column,
    text_of_column,
)
from selection.records import DROP_SCHEMA, POOL_SCHEMA

ROLE_COLUMNS = tuple(name for name in POOL_SCHEMA.names if name not in ("messages", "tools"))


def conversations_of(
    rows: pa.Table | pa.RecordBatch,
) -> Iterator[tuple[list[dict[str, Any]], list[Any] | None]]:
    """Messages and tools of rows that hold both as JSON; one row's JSON is in memory at a time."""
    column = rows["messages"]
    for number, tools in enumerate(rows["tools"].to_pylist()):
        cell = column[number]
        text = cell.as_buffer()
        is_long = len(text) > LONG
        messages = decoded_utf8(text.to_pybytes())[0] if is_long else json.loads(cell.as_py())
        del cell, text  # copies of the row's text
        yield messages, json.loads(tools) if tools else None


def texts_of(rows: pa.Table | pa.RecordBatch) -> list[str]:
    """Plain text of rows that hold `messages` and `tools` as JSON."""
    return [plain_text(messages, tools) for messages, tools in conversations_of(rows)]


@dataclass(frozen=True, eq=False)
class Samples:
    """Different conversations, and the rows that say them.

    table:       example_id, messages and tools (canonical JSON) of the n samples.
    occurrences: every row: its sample's number `sample`, and POOL_SCHEMA without the texts.
    drops:       DROP_SCHEMA, rows that were dropped while reading.
    kinds:       columns of the rows with the types that their values have.
    """

    table: pa.Table
    occurrences: pa.Table
    drops: pa.Table
    kinds: Kinds

    def __len__(self) -> int:
        """Number of different samples."""
        return int(self.table.num_rows)

    @cached_property
    def ids(self) -> NDArray[np.str_]:
        """(n,) example ids."""
        return np.array(self.table["example_id"].to_pylist(), "U32")

    def conversation(self, number: int) -> tuple[list[dict[str, Any]], list[Any] | None]:
        """Messages and tools of one sample."""
        return next(conversations_of(self.table.slice(number, 1)))

    def first_occurrences(self, numbers: NDArray[np.int64]) -> pa.Table:
        """The first row that says each of some samples."""
        sample = self.occurrences["sample"].to_numpy()
        return self.occurrences.take(pa.array(np.searchsorted(sample, numbers)))

    def conversations(self) -> Iterator[tuple[list[dict[str, Any]], list[Any] | None]]:
        """Messages and tools of every sample, in order."""
        for batch in self.table.to_batches(max_chunksize=1024):
            yield from conversations_of(batch)

    def passing(self, where: str | None) -> NDArray[np.bool_]:
        """(n,) samples of which any occurrence passes an SQL expression over its columns."""
        if where is None:
            return np.ones(len(self), np.bool_)
        passes = self._occurrences_passing(where)
        passing = np.zeros(len(self), np.bool_)
        passing[self.occurrences["sample"].to_numpy()[passes]] = True
        return passing

    def values(self, column: str, where: str | None = None) -> tuple[list[str], NDArray[np.int32]]:
        """Values of a column, sorted, and which each sample has: of its first passing occurrence.

        Returns (names, (n,) int32 codes), -1 for none. Raises InputError for an unknown column.
        """
        refuse_unknown_column(column, self.kinds)
        passes = np.flatnonzero(self._occurrences_passing(where))
        numbers, first = np.unique(self.occurrences["sample"].to_numpy()[passes], return_index=True)
        source = column if column in ROLE_TYPES else "raw"
        frame = pl.DataFrame({source: self.occurrences[source].take(pa.array(passes[first]))})
        texts = text_of_column(frame, column)
        names = sorted({text for text in texts if text is not None})
        code = {name: number for number, name in enumerate(names)}
        codes = np.full(len(self), -1, np.int32)
        codes[numbers] = [-1 if text is None else code[text] for text in texts]
        return names, codes

    def numbers_of(self, names: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
        """Samples by example id or by the data's own id, ascending, and names that are neither."""
        wanted = set(names)
        own = self.occurrences["own_id"].to_pylist()
        sample = self.occurrences["sample"].to_pylist()
        numbers = {number for number, name in enumerate(self.ids.tolist()) if name in wanted}
        numbers |= {number for number, name in zip(sample, own, strict=True) if name in wanted}
        known = wanted & ({*self.ids.tolist()} | {*own})
        rows = np.array(sorted(numbers), np.int64)
        return rows, [name for name in dict.fromkeys(names) if name not in known]

    def _occurrences_passing(self, where: str | None) -> NDArray[np.bool_]:
        if where is None:
            return np.ones(self.occurrences.num_rows, np.bool_)
        bound = compile_where(where).bind(self.kinds)
        return bound.passes(self._frame).to_numpy()

    @cached_property
    def _frame(self) -> pl.DataFrame:
        """Occurrences with `n_chars`, as an expression sees them."""
        lengths = [count_characters(messages) for messages, _ in self.conversations()]
        n_chars = np.array(lengths, np.int64)[self.occurrences["sample"].to_numpy()]
        return pl.DataFrame(self.occurrences).with_columns(pl.Series("n_chars", n_chars))

    def texts(self) -> Iterator[str]:
        """Plain text of every sample, in order, as BM25 and decontamination read it."""
        for batch in self.table.to_batches(max_chunksize=1024):
            yield from texts_of(batch)


def gather_samples(batches: Iterable[ReadBatch]) -> Samples:
    """Read rows as samples in order of example id; occurrences in order of file and row."""
    rows, drops, kinds = [], [], ColumnKinds()
    for batch in batches:
        kinds.merge(batch.kinds)
        rows.append(pa.Table.from_batches([batch.rows]))
        drops.append(pa.Table.from_batches([batch.drops]))
    table = pa.concat_tables([POOL_SCHEMA.empty_table(), *rows])
    table = table.sort_by([(name, "ascending") for name in ("example_id", "file", "row")])
    drops_table = pa.concat_tables([DROP_SCHEMA.empty_table(), *drops])
    return _samples(table, drops_table, kinds.to_dict(), merge=True)


def samples_in_order(table: pa.Table) -> Samples:
    """Rows of POOL_SCHEMA as samples in their order, equal ones kept apart, as exemplars are."""
    return _samples(table, DROP_SCHEMA.empty_table(), {}, merge=False)


def _samples(table: pa.Table, drops: pa.Table, kinds: Kinds, *, merge: bool) -> Samples:
    ids = np.array(table["example_id"].to_pylist(), "U32")
    is_first = np.ones(len(ids), np.bool_)
    if merge:
        is_first[1:] = ids[1:] != ids[:-1]
    number = pa.array(np.cumsum(is_first) - 1, pa.int64())
    occurrences = table.select(list(ROLE_COLUMNS)).add_column(0, "sample", number)
    unique = table.filter(pa.array(is_first)).select(["example_id", "messages", "tools"])
    return Samples(unique.combine_chunks(), occurrences.combine_chunks(), drops, kinds)
