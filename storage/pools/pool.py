"""Prepared pools: every source read once, exact duplicates grouped, in order of example id.

`pools/<pool_id>/` holds `examples-*.parquet` (unique examples), `occurrences-*.parquet` (every row
that said one of them), `drops.parquet` and `manifest.json`, written last. The position of an
example is its row number everywhere else.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.data.where import (
    ROLE_TYPES,
    BoundWhere,
    compile_where,
    refuse_unknown_column,
    text_of_column,
)
from storage.files.atomic import MANIFEST, is_complete, read_json
from storage.files.parquet_parts import PartReader, damage_explained

FORMAT = 1
"""Version of the folder's layout and of the reading rules; part of every pool id."""


class PreparedPool:
    """A prepared pool on disk. Nothing is kept in memory but the manifest, by its keys.

    pool_id:     hash of file contents, settings of the sources and format version.
    n_rows:      rows read: occurrences and drops. n_examples: unique ones. n_occurrences: rows
                 that say one of these.
    drops:       rows dropped while reading, by reason; only reasons that occurred.
    first_drops: the first row of each reason: file, row, detail.
    report:      sentences about what was read of the files and their columns, and what was not.
    files:       that were read: source, file, sha256, bytes; or dataset and commit.
    columns:     of the raw rows, with the kinds of values they hold.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        """Open `folder`; see `open_pool`."""
        self.folder = folder
        self.pool_id: str = manifest["pool_id"]
        self.n_rows: int = manifest["n_rows"]
        self.n_examples: int = manifest["n_examples"]
        self.n_occurrences: int = manifest["n_occurrences"]
        self.drops: dict[str, int] = manifest["drops"]
        self.first_drops: dict[str, dict[str, object]] = manifest["first_drops"]
        self.report: list[str] = manifest["report"]
        self.files: list[dict[str, object]] = manifest["files"]
        self.columns: dict[str, dict[str, int]] = manifest["columns"]
        self._examples = PartReader(folder, "examples")
        self._occurrences = PartReader(folder, "occurrences")

    def dropped_rows(self, most: int) -> list[dict[str, object]]:
        """Rows dropped while reading, in order, at most `most` of a reason: DROP_SCHEMA."""
        kept, rows = Counter[str](), list[dict[str, object]]()
        path = self.folder / "drops.parquet"
        with damage_explained(path), pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(4096, use_threads=False):
                for row in batch.to_pylist():
                    kept[row["reason"]] += 1
                    if kept[row["reason"]] <= most:
                        rows.append(row)
        return rows

    def example_ids(self) -> NDArray[np.bytes_]:
        """(n_examples,) S32 ids, ascending."""
        ids = np.empty(self.n_examples, "S32")
        start = 0
        for batch in self._examples.iter_batches(["example_id"], batch_rows=65_536):
            text = batch.column(0).cast(pa.binary()).cast(pa.binary(32))
            data = np.frombuffer(text.buffers()[1], "S32")
            ids[start : start + len(text)] = data[text.offset : text.offset + len(text)]
            start += len(text)
        return ids

    def iter_examples(self, start_row: int = 0, batch_rows: int = 4096) -> Iterator[pa.RecordBatch]:
        """Examples in order: example_id, messages, tools, n_chars."""
        return self._examples.iter_batches(None, start_row, batch_rows)

    def examples_at(self, rows: NDArray[np.int64]) -> pa.Table:
        """The given examples, in the given order."""
        self._check_rows(rows)
        return self._examples.take(rows)

    def example_at(self, row: int) -> dict[str, str]:
        """One example: example_id, messages, tools, n_chars."""
        example: dict[str, str] = self.examples_at(np.array([row])).to_pylist()[0]
        return example

    def first_occurrence(self, row: int) -> dict[str, object]:
        """The first occurrence of one example."""
        occurrence: dict[str, object] = self.occurrences_at(np.array([row])).to_pylist()[0]
        return occurrence

    def first_labels(self, rows: NDArray[np.int64], columns: Sequence[str]) -> dict[str, list[str]]:
        """Column -> value of each example's first occurrence; "" where there is none.

        rows: ascending. Columns that occurrences do not have are left out.
        """
        table = self.occurrences_at(rows)
        _, first = np.unique(table["example_row"].to_numpy(), return_index=True)
        return {
            column: [str(value or "") for value in table[column].take(first).to_pylist()]
            for column in columns
            if column in table.column_names
        }

    def occurrences_at(self, rows: NDArray[np.int64]) -> pa.Table:
        """All occurrences of the given examples, ordered by example_row, file, row."""
        return self.passing_occurrences(rows, None)

    def passing_occurrences(self, rows: NDArray[np.int64], where: str | None) -> pa.Table:
        """Occurrences of the given examples that pass `where`, by example_row, file, row."""
        self._check_rows(rows)
        wanted = np.unique(rows)
        first, last = self._occurrence_ranges.T
        # A row group is read if any wanted row lies in its range.
        n_before = np.searchsorted(wanted, first), np.searchsorted(wanted, last, side="right")
        table = self._occurrences.groups(np.flatnonzero(n_before[1] > n_before[0]))
        table = table.filter(pa.array(np.isin(table["example_row"].to_numpy(), wanted)))
        bound = self._bound(where)
        if bound is None or table.num_rows == 0:
            return table
        frame = pl.DataFrame(table.select(bound.columns))
        return table.filter(bound.passes(frame).to_arrow())

    def eligible(self, where: str | None) -> NDArray[np.bool_]:
        """(n_examples,) whether any occurrence of the example passes `where`."""
        if where is None:
            return np.ones(self.n_examples, np.bool_)
        eligible = np.zeros(self.n_examples, np.bool_)
        for rows, passes, _ in self._answers(where):
            eligible[rows[passes]] = True
        return eligible

    def rows_with_own_id(self, own_id: str) -> NDArray[np.int64]:
        """Rows of the examples that an id of the data's own belongs to, ascending."""
        rows = [np.zeros(0, np.int64)]
        for batch in self._occurrences.iter_batches(["example_row", "own_id"]):
            is_it = pa.compute.equal(batch["own_id"], own_id).fill_null(False)
            rows.append(batch["example_row"].filter(is_it).to_numpy())
        return np.unique(np.concatenate(rows))

    def row_named(self, reference: str) -> int:
        """Row of an example id, of the beginning of one, or of the data's own id.

        Raises InputError where none or several have it.
        """
        ids = self.example_ids().astype(str)
        first = int(np.searchsorted(ids, reference))
        last = int(np.searchsorted(ids, reference + "g"))  # after every hex digit
        if last - first == 1:
            return first
        own = self.rows_with_own_id(reference)
        if len(own) == 1:
            return int(own[0])
        several = max(last - first, len(own))
        raise InputError(
            f"{several:,} samples begin with this" if several else "no sample has this id",
            field="example",
            value=reference,
            remedy="Give more of the id; `saelect sql` and exports show them."
            if several
            else "Give an example id, its beginning, or the data's own id.",
        )

    def rows_of_ids(self, names: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
        """Rows of example ids or own ids, ascending, and the names that are neither."""
        wanted = pa.array(sorted(set(names)), pa.string())
        ids = self.example_ids()
        given = np.array(wanted.to_pylist(), "U")
        by_id = np.flatnonzero(np.isin(ids.astype("U32"), given))
        known, rows = set(ids[by_id].astype(str).tolist()), [by_id]
        for batch in self._occurrences.iter_batches(["example_row", "own_id"]):
            matching = batch.filter(pa.compute.is_in(batch["own_id"], value_set=wanted))
            rows.append(matching["example_row"].to_numpy())
            known.update(matching["own_id"].to_pylist())
        unknown = [name for name in dict.fromkeys(names) if name not in known]
        return np.unique(np.concatenate(rows)).astype(np.int64), unknown

    def column_values(self, column: str, where: str | None) -> tuple[list[str], NDArray[np.int32]]:
        """Values of a column, sorted, and which of them each example has.

        column: a role or a column of the raw rows. An example has the value of its first occurrence
        that passes `where`. Returns (names, (n_examples,) int32 codes), -1 where there is no value.
        Raises InputError for a column that the pool does not have.
        """
        refuse_unknown_column(column, self.columns)
        code_of: dict[str, int] = {}
        codes, done = (np.full(self.n_examples, -1, np.int32), np.zeros(self.n_examples, np.bool_))
        source = column if column in ROLE_TYPES else "raw"
        for rows, passes, values in self._answers(where, source):
            at = np.flatnonzero(passes & ~done[rows])
            examples, first = np.unique(rows[at], return_index=True)
            done[examples] = True
            frame = pl.DataFrame({source: values.take(pa.array(at[first]))})
            for row, value in zip(examples, text_of_column(frame, column), strict=True):
                if value is not None:
                    codes[row] = code_of.setdefault(value, len(code_of))
        names = sorted(code_of)
        position = np.empty(len(names) + 1, np.int32)
        position[[code_of[name] for name in names]] = np.arange(len(names))
        position[-1] = -1
        return names, position[codes]

    def source_counts(self, mask: NDArray[np.bool_], where: str | None = None) -> dict[str, int]:
        """Source -> number of masked examples, by the first occurrence that passes `where`.

        mask: (n_examples,). Sorted by source. An example without a passing occurrence counts
        nowhere.
        """
        return self._counts("source", mask, where)

    def licence_counts(self, mask: NDArray[np.bool_], where: str | None = None) -> dict[str, int]:
        """Like `source_counts`, by licence; "" where the data names none."""
        return self._counts("licence", mask, where)

    def _counts(self, column: str, mask: NDArray[np.bool_], where: str | None) -> dict[str, int]:
        left = mask.copy()
        counts: dict[str, int] = {}
        for rows, passes, values in self._answers(where, column):
            at = np.flatnonzero(passes)
            examples, first = np.unique(rows[at], return_index=True)  # the first, in their order
            new = left[examples]
            left[examples] = False
            names = values.take(pa.array(at[first[new]])).value_counts()
            for pair in names.to_pylist():
                name = pair["values"] or ""
                counts[name] = counts.get(name, 0) + pair["counts"]
        return dict(sorted(counts.items()))

    def _answers(self, where: str | None, also: str = "example_row") -> Iterator[tuple]:  # type: ignore[type-arg]
        """Over all occurrences in order: (example rows, which pass, column `also`)."""
        bound = self._bound(where)
        needed = [] if bound is None else bound.columns
        columns = list(dict.fromkeys(["example_row", also, *needed]))
        for batch in self._occurrences.iter_batches(columns):
            rows = batch["example_row"].to_numpy()
            passes = np.ones(len(rows), np.bool_)
            if bound is not None:
                passes = bound.passes(pl.DataFrame(pa.Table.from_batches([batch]))).to_numpy()
            yield rows, passes, batch[also]

    def _bound(self, where: str | None) -> BoundWhere | None:
        return None if where is None else compile_where(where).bind(self.columns)

    @cached_property
    def _occurrence_ranges(self) -> NDArray[np.int64]:
        return self._occurrences.ranges("example_row")

    def _check_rows(self, rows: NDArray[np.int64]) -> None:
        wrong = rows[(rows < 0) | (rows >= self.n_examples)]
        if len(wrong):
            raise IndexError(f"row {wrong[0]} of a pool with {self.n_examples} examples")


def open_pool(folder: Path) -> PreparedPool:
    """Open a prepared pool. Raises InputError when it is not there whole, or of a newer format."""
    if not is_complete(folder):
        raise InputError(
            "there is no prepared pool here",
            file=folder,
            remedy="Run `saelect run` again: the pool is rebuilt from its files.",
        )
    manifest = read_json(folder / MANIFEST)
    if manifest.get("format") != FORMAT:
        raise InputError(
            f"the pool was prepared by another version of saelect (this one reads {FORMAT})",
            file=folder,
            field="format",
            value=manifest.get("format"),
            remedy="Delete the folder and run again: it is rebuilt from the pool's files.",
        )
    return PreparedPool(folder, manifest)
