"""Rows of a selection as files. One place per format; each file is whole or not there."""

import json
import os
import shutil
from collections.abc import Iterator
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selection.core.errors import InputError
from selection.core.hashing import content_id
from selection.data.training_rows import Row, RowLayout, json_line, sample_weights, training_row
from storage.catalog.connection import Connection, faults_explained, quoted
from storage.export.csv_lines import csv_lines
from storage.files.atomic import (
    full_disk_explained,
    sync_file,
    sync_folder,
    temp_path,
    write_atomically,
)

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_ROWS = 2048
_ID_COLUMNS = (
    "rank",
    "score",
    "target",
    "example_id",
    "own_id",
    "source",
    "file",
    "row",
    "licence",
    "language",
)


class SelectedRows:
    """The picks of one selection, read from the snapshot in batches."""

    def __init__(
        self, connection: Connection, selection_id: str, layout: RowLayout | None = None
    ) -> None:
        """Read from an open snapshot; nothing is fetched yet. layout: by rank where none is."""
        self._connection = connection
        self._selection_id = selection_id
        self.layout = layout or RowLayout()
        self.left_out: dict[str, dict[str, list[str]]] = {}  # file -> reason -> ids; by writers

    def contents(self) -> Iterator[Row]:
        """Rows of {id, messages, tools} and the layout's; `tools` only where there are any."""
        query = f"""
            SELECT p.example_id, p.score, p.rank, p.reason, x.messages, x.tools
            FROM {self._picks} p JOIN sample x USING (example_id)
            ANTI JOIN forgotten f ON f.example_id = p.example_id
            WHERE p.selection_id = ? ORDER BY {self._order}"""
        for example_id, score, rank, reason, messages, tools in self._rows(query):
            parsed = None if tools is None else json.loads(tools)
            row = training_row(example_id, json.loads(messages), parsed, has_tools=self.has_tools)
            yield row | self._besides(example_id, score, rank, reason)

    def preferences(self) -> Iterator[Row]:
        """Rows of `preference_row` of those picks that came as preference data."""
        query = f"""
            SELECT p.example_id, p.score, p.rank, p.reason, o.raw
            FROM {self._picks} p JOIN selection s USING (selection_id)
            LEFT JOIN v_first_occurrence o
                ON o.run_id = s.run_id AND o.example_id = p.example_id
            ANTI JOIN forgotten f ON f.example_id = p.example_id
            WHERE p.selection_id = ? AND o.raw IS NOT NULL ORDER BY {self._order}"""
        from selection.data.shapes.preference import preference_row  # reads rows: numpy and pyarrow

        for example_id, score, rank, reason, raw in self._rows(query):
            if row := preference_row(example_id, json.loads(raw)):
                yield row | self._besides(example_id, score, rank, reason)

    def originals(self) -> Iterator[str | None]:
        """The raw JSON of each pick's first occurrence."""
        query = f"""
            SELECT o.raw FROM {self._picks} p JOIN selection s USING (selection_id)
            LEFT JOIN v_first_occurrence o
                ON o.run_id = s.run_id AND o.example_id = p.example_id
            ANTI JOIN forgotten f ON f.example_id = p.example_id
            WHERE p.selection_id = ? ORDER BY {self._order}"""
        return (row[0] for row in self._rows(query))

    def places(self) -> Iterator[tuple[object, ...]]:
        """Every occurrence of every pick; columns `id_columns`."""
        reason = ", p.reason" if self.has_replay else ""
        query = f"""
            SELECT p.rank, p.score, p.target, p.example_id, o.own_id, o.source, o.file, o."row",
                o.licence, o.language{reason}
            FROM {self._picks} p JOIN selection s USING (selection_id)
            JOIN occurrence o ON o.run_id = s.run_id AND o.example_id = p.example_id
            WHERE p.selection_id = ? ORDER BY p.rank, o.file, o."row", o.source"""
        return self._rows(query)

    @cached_property
    def has_replay(self) -> bool:
        """Whether any pick was drawn as replay."""
        query = f"SELECT count(*) FROM {self._picks} WHERE selection_id = ? AND reason = 'replay'"
        return bool(next(self._rows(query))[0])

    @property
    def id_columns(self) -> tuple[str, ...]:
        """Columns of `places`; `reason` only where it says something."""
        return (*_ID_COLUMNS, "reason") if self.has_replay else _ID_COLUMNS

    @cached_property
    def n_rows(self) -> int:
        """Picks that were not forgotten since."""
        query = f"""
            SELECT count(*) FROM {self._picks} p ANTI JOIN forgotten USING (example_id)
            WHERE p.selection_id = ?"""
        return int(next(self._rows(query))[0])

    @cached_property
    def has_tools(self) -> bool:
        """Whether any pick comes with tools."""
        query = f"""
            SELECT count(x.tools) FROM {self._picks} p JOIN sample x USING (example_id)
            WHERE p.selection_id = ?"""
        return bool(next(self._rows(query))[0])

    @cached_property
    def is_plain(self) -> bool:
        """Whether every message is a role and a text, and nothing else."""
        query = f"""
            SELECT coalesce(bool_and(list_sort(json_keys(m)) = ['content', 'role']
                AND json_type(m, '$.role') = 'VARCHAR'
                AND json_type(m, '$.content') = 'VARCHAR'), true)
            FROM (SELECT unnest(x.messages::JSON[]) AS m
                FROM {self._picks} p JOIN sample x USING (example_id)
                ANTI JOIN forgotten f ON f.example_id = p.example_id WHERE p.selection_id = ?)"""
        return bool(next(self._rows(query))[0])

    @cached_property
    def _weights(self) -> dict[str, float]:
        """Weight of every pick, forgotten ones among them, so that no other weight changes.

        Raises InputError for a random control.
        """
        cursor = self._cursor()
        query = "SELECT method FROM selection WHERE selection_id = ?"
        [(method,)] = cursor.execute(query, [self._selection_id]).fetchall()
        if method in ("random", "length_matched"):
            raise InputError(
                "the scores of a random control are drawn; they make no weights",
                field="column",
                value="weight",
                remedy="Leave the column out.",
            )
        query = f"""
            SELECT example_id, score, coalesce(target, ''), coalesce(reason, '') FROM {self._picks}
            WHERE selection_id = ? ORDER BY rank"""
        picks = cursor.execute(query, [self._selection_id]).fetchall()
        ids, scores, targets, reasons = zip(*picks, strict=True) if picks else ((),) * 4
        weights = sample_weights(scores, targets, reasons, self.layout.temperature)
        return dict(zip(ids, weights, strict=True))

    def _besides(self, example_id: str, score: float, rank: int, reason: str | None) -> Row:
        """The columns that the layout adds to a row."""
        values = {"score": score, "rank": rank, "reason": reason}
        return {
            name: self._weights[example_id] if name == "weight" else values[name]
            for name in self.layout.columns
        }

    @property
    def _picks(self) -> str:
        """SQL of the rows of `pick` that the layout's budget holds."""
        budget = self.layout.budget
        return "pick" if budget is None else f"(FROM pick WHERE budget <= {float(budget)!r})"

    @property
    def _order(self) -> str:
        """SQL of the layout's order; p is `pick`."""
        keys = {
            "random": f"sha256('order:{int(self.layout.seed)}:' || p.example_id)",
            "length": "p.tokens, p.rank",
        }
        return keys.get(self.layout.order, "p.rank")

    def copy_to(self, parquet: Path) -> None:
        """Write `contents` as columns of a Parquet file."""
        file = quoted(str(parquet))
        query = f"COPY ({self._columns()}) TO {file} (FORMAT parquet, COMPRESSION zstd)"
        self._cursor().execute(query, self._values())

    def table(self) -> "pa.Table":
        """The same columns in memory."""
        cursor = self._cursor()
        cursor.execute("SET arrow_lossless_conversion = true")  # JSON stays JSON
        return cursor.sql(self._columns(), params=self._values()).to_arrow_table()

    def _values(self) -> dict[str, object]:
        """What `_columns` has a name for."""
        values: dict[str, object] = {"selection": self._selection_id}
        if "weight" in self.layout.columns:
            values |= {"ids": list(self._weights), "weights": list(self._weights.values())}
        return values

    def _columns(self) -> str:
        """SQL of id, messages, the layout's columns and, where there are any, tools."""
        plain = """from_json(x.messages, '[{"role": "VARCHAR", "content": "VARCHAR"}]')"""
        messages = plain if self.is_plain else "x.messages::JSON[]"
        tools = ", x.tools::JSON[] AS tools" if self.has_tools else ""
        besides = "".join(f", {name}" for name in self.layout.columns)
        weights = "(SELECT unnest($ids) AS example_id, unnest($weights)::DOUBLE AS weight)"
        join = f"JOIN {weights} USING (example_id)" if "weight" in self.layout.columns else ""
        return f"""
            SELECT p.example_id AS id, {messages} AS messages{tools}{besides}
            FROM {self._picks} p JOIN sample x USING (example_id) {join}
            ANTI JOIN forgotten f ON f.example_id = p.example_id
            WHERE p.selection_id = $selection ORDER BY {self._order}"""

    def _rows(self, query: str) -> Iterator[tuple[Any, ...]]:
        cursor = self._cursor()
        cursor.execute(query, [self._selection_id])
        while batch := cursor.fetchmany(_BATCH_ROWS):
            yield from batch

    def _cursor(self) -> Connection:
        cursor = self._connection.cursor()  # its own result, so that two may be read at once
        cursor.execute("USE snapshot")
        return cursor


def write_jsonl(path: Path, rows: SelectedRows) -> None:
    """One {id, messages[, tools]} a line; messages as the pool has them, role first."""

    def write(temp: Path) -> None:
        with temp.open("w", encoding="utf-8", newline="\n") as file:
            for row in rows.contents():
                file.write(json_line(row))

    write_atomically(path, write)


def write_parquet(path: Path, rows: SelectedRows) -> None:
    """The same rows as Parquet.

    Plain messages are structs of role and content. With tool calls, names or parts, rows differ
    in shape, and structs would fill every gap with nulls: then each message is a JSON value, which
    `datasets` decodes to the same rows as the JSONL. DuckDB writes it: to import pyarrow takes
    longer than the whole export of a small selection.
    """
    with faults_explained(path):
        write_atomically(path, rows.copy_to)


def write_llama_factory(path: Path, rows: SelectedRows) -> tuple[int, dict[str, list[str]]]:
    """Rows as LLaMA-Factory reads them; how many train, and the ids of the others by reason.

    Raises InputError where none would train.
    """
    from selection.data.messages.llama_factory import llama_factory_row  # numpy and pyarrow

    count, left_out = 0, dict[str, list[str]]()

    def write(temp: Path) -> None:
        nonlocal count
        with temp.open("w", encoding="utf-8", newline="\n") as file:
            for sample in rows.contents():
                row = llama_factory_row(sample["id"], sample["messages"], sample.get("tools"))
                if isinstance(row, str):
                    left_out.setdefault(row, []).append(sample["id"])
                    continue
                file.write(json_line(row | {name: sample[name] for name in rows.layout.columns}))
                count += 1
        if not count:
            raise InputError(
                f"LLaMA-Factory would train on no pick ({', '.join(left_out) or 'there is none'})",
                field="format",
                value="llama_factory",
                remedy="Export as `messages` for another trainer.",
            )

    write_atomically(path, write)
    return count, left_out


def write_preferences(path: Path, rows: SelectedRows) -> int:
    """Picks with a rejected answer as {id, prompt, chosen, rejected}; returns how many there are.

    Raises InputError where no pick has one.
    """
    count = 0

    def write(temp: Path) -> None:
        nonlocal count
        with temp.open("w", encoding="utf-8", newline="\n") as file:
            for row in rows.preferences():
                file.write(json_line(row))
                count += 1
        if not count:
            raise InputError(
                "no pick came with a rejected answer",
                field="format",
                value="preference",
                remedy="Export as `messages`; preference data need rows of prompt, chosen and"
                " rejected.",
            )

    write_atomically(path, write)
    return count


def write_original(path: Path, rows: SelectedRows) -> None:
    """The pool's own rows as JSON lines, unknown columns included, spelled as they were."""

    def write(temp: Path) -> None:
        with temp.open("w", encoding="utf-8", newline="\n") as file:
            for raw in rows.originals():
                if raw is None:
                    raise InputError(
                        "the run did not record the original rows",
                        field="format",
                        value="original",
                        remedy="Export as `messages`, or run the selection again.",
                    )
                # A line break between tokens of the row; JSON has none inside strings.
                file.write(raw.replace("\r", " ").replace("\n", " ") + "\n")

    write_atomically(path, write)


def write_ids(path: Path, rows: SelectedRows) -> int:
    """Every place of every pick as CSV; returns the number of rows."""
    count = 0

    def write(temp: Path) -> None:
        nonlocal count
        with temp.open("w", encoding="utf-8", newline="") as file:
            for line in csv_lines(chain([rows.id_columns], rows.places())):
                file.write(line)
                count += 1

    write_atomically(path, write)
    return count - 1  # without the header


def write_hf_dataset(folder: Path, rows: SelectedRows) -> None:
    """A folder for `datasets.load_from_disk`; an earlier one is replaced.

    Raises InputError for rows that differ in shape with a `datasets` that has no type for them.
    """
    from datasets import Dataset, disable_progress_bars, enable_progress_bars, features
    from datasets.utils import are_progress_bars_disabled

    if (rows.has_tools or not rows.is_plain) and not hasattr(features, "Json"):
        raise InputError(
            "messages with tools, names or parts need a newer `datasets` to be saved as its folder",
            field="format",
            value="hf",
            remedy="Export as `messages`, or install datasets 4.7 or later.",
        )
    table = rows.table()
    were_disabled = are_progress_bars_disabled()
    temp = temp_path(folder)
    with full_disk_explained(folder):
        try:
            disable_progress_bars()
            # A fingerprint of its own would be random, and the folder differ at each export.
            ids = content_id([*table["id"].to_pylist(), *rows.layout.columns])
            folder.parent.mkdir(parents=True, exist_ok=True)
            Dataset(table, fingerprint=ids).save_to_disk(str(temp))
            for file in sorted(temp.rglob("*")):
                sync_file(file)
            sync_folder(temp)
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(temp, folder)
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(temp, ignore_errors=True)
            if not were_disabled:
                enable_progress_bars()
