"""What a recorded run was, and whether deciding again says the same, row by row.

A run that is decided again from its recorded inputs makes the same rows of the catalog, so the
comparison is one of tables: what is in the catalog and not made again, and the other way round.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from selection.core.errors import InputError
from selection.core.hashing import example_id
from selection.records import POOL_SCHEMA
from storage.catalog.arrow_rows import column_types
from storage.catalog.connection import Connection
from storage.catalog.snapshot import open_snapshot
from storage.files.parquet_parts import damage_explained
from storage.files.scores import scores_file
from storage.files.workspace import Workspace
from storage.queries.lookup import find_selections

COMPARED = {
    "run_drop": "run_id",
    "run_source": "run_id",
    "contamination": "run_id",
    "occurrence": "run_id",
    "selection": "run_id",
    "pick": "selection_id",
    "near_miss": "selection_id",
    "selection_drop": "selection_id",
    "explanation": "selection_id",
    "explanation_exemplar": "selection_id",
    "held_out_check": "selection_id",
    "held_out_exemplar": "selection_id",
    "target_latent": "run_id",
}
"""Tables that deciding again must fill alike, and the column that says whose rows they are."""

_TEXTS = {"text", "raw"}  # may be forgotten, and are hashed by their ids


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A run as the catalog keeps it. exemplars: by target, columns of POOL_SCHEMA."""

    run_id: str
    name: str
    created_at: datetime
    trigger: str
    config: Mapping[str, object]
    pool_id: str
    representation_id: str
    model_sha256: str
    sae: str
    sae_sha256: str
    exemplars: Mapping[str, pa.Table]
    read_files: Mapping[str, str]
    forgotten: frozenset[str]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows of one table of a run, recorded and made again.

    n_lost:    recorded and not made again; n_new: made, and not recorded.
    first:     one of these rows, in words.
    unrecorded: columns that the run's version did not record yet; they are not compared.
    """

    table: str
    n_recorded: int
    n_lost: int
    n_new: int
    first: str
    unrecorded: Sequence[str] = ()

    @property
    def is_same(self) -> bool:
        """Whether both sides hold the same rows."""
        return not self.n_lost and not self.n_new


def recorded_run(workspace: Workspace, reference: str) -> RecordedRun:
    """The run that a name, an id or `latest` means, or the run of a selection.

    Raises InputError for an unknown one, one without a config, and for exemplars that were
    forgotten or altered.
    """
    run_id = find_selections(workspace, reference)[0].run_id
    with open_snapshot(workspace) as connection:
        row = connection.execute(
            'SELECT run_id, name, created_at, "trigger", config, pool_id, representation_id,'
            " model_sha256, sae, sae_sha256 FROM run WHERE run_id = ?",
            [run_id],
        ).fetchall()[0]
        exemplars = _exemplars(connection, workspace, run_id)
        files = connection.execute(
            "SELECT artifact, sha256 FROM artifact WHERE run_id = ? AND step = 'read'", [run_id]
        ).fetchall()
        forgotten = connection.execute("SELECT example_id FROM forgotten").fetchall()
    if not row[4] or not row[5]:
        raise InputError(
            "the run keeps no config or no pool, so nothing says how it was made",
            file=workspace.snapshot,
            value=row[1],
            remedy="It was recorded by another program; runs of saelect keep both.",
        )
    return RecordedRun(
        run_id=run_id,
        name=row[1],
        created_at=row[2].replace(tzinfo=UTC),
        trigger=row[3] or "",
        config=json.loads(row[4]),
        pool_id=row[5],
        representation_id=row[6],
        model_sha256=row[7],
        sae=row[8],
        sae_sha256=row[9],
        exemplars=exemplars,
        read_files=dict(files),
        forgotten=frozenset(name for (name,) in forgotten),
    )


def _exemplars(connection: Connection, workspace: Workspace, run_id: str) -> dict[str, pa.Table]:
    """Exemplars by target in the order of their file, each checked against its id."""
    columns = (
        "example_id",
        "messages",
        "tools",
        "own_id",
        "source",
        "file",
        "row",
        "target",
        "subtask",
    )
    rows = connection.execute(
        "SELECT exemplar_id, messages::VARCHAR, tools::VARCHAR, own_id, coalesce(source, ''), file,"
        ' "row", target, subtask FROM exemplar WHERE run_id = ? ORDER BY rowid',
        [run_id],
    ).fetchall()
    exemplars: dict[str, list[dict[str, object]]] = {}
    for row in rows:
        made = dict(zip(columns, row, strict=True))
        if example_id(json.loads(row[1]), json.loads(row[2]) if row[2] else None) != row[0]:
            raise InputError(
                f"exemplar {row[0]} of `{row[7]}` "
                + ("was forgotten" if row[1] == "[]" else "is not what its id says"),
                file=workspace.snapshot,
                remedy="Without it no score can be made again; what was decided stays readable."
                if row[1] == "[]"
                else "It was altered, or has tools and is of a version that did not keep them.",
            )
        exemplars.setdefault(str(row[7]), []).append(made)
    if not exemplars:
        raise InputError(
            "the run has no exemplars in the catalog",
            file=workspace.snapshot,
            remedy="`saelect verify` says what else is missing.",
        )
    return {name: pa.Table.from_pylist(rows, POOL_SCHEMA) for name, rows in exemplars.items()}


def compare_tables(
    workspace: Workspace, run_id: str, made: Mapping[str, pa.Table]
) -> list[Comparison]:
    """Every table of COMPARED: the rows of a run in the catalog beside those made again."""
    with open_snapshot(workspace) as connection:
        return [
            _compare(connection, name, key, run_id, made.get(name))
            for name, key in COMPARED.items()
        ]


def _compare(
    connection: Connection, name: str, key: str, run_id: str, made: pa.Table | None
) -> Comparison:
    of_run = (
        "= ?" if key == "run_id" else "IN (SELECT selection_id FROM selection WHERE run_id = ?)"
    )
    recorded = f'(FROM "{name}" WHERE {key} {of_run})'
    ((n_recorded,),) = connection.execute(f"SELECT count(*) FROM {recorded}", [run_id]).fetchall()
    if made is None or not made.num_rows:
        first = f"{n_recorded:,} rows were not made again" if n_recorded else ""
        return Comparison(name, n_recorded, n_recorded, 0, first)
    connection.register(f"made_{name}", made)
    kinds = {c: k for c, k in column_types(name).items() if c not in _TEXTS}
    kinds = {c: k for c, k in kinds.items() if c in made.column_names}
    filled = connection.execute(
        "SELECT " + ", ".join(f'count("{c}")' for c in kinds) + f" FROM {recorded}", [run_id]
    ).fetchall()[0]
    known = [c for c, n in zip(kinds, filled, strict=True) if n or _is_empty(made, c)]
    if not known:
        return Comparison(name, 0, 0, made.num_rows, f"{made.num_rows:,} rows are new")
    listed = ", ".join(
        f'"{c}"::VARCHAR AS "{c}"' if kinds[c] == "JSON" else f'"{c}"' for c in known
    )
    old, new = f"SELECT {listed} FROM {recorded}", f"SELECT {listed} FROM made_{name}"
    lost = f"({old} EXCEPT ALL {new})"
    more = f"({new} EXCEPT ALL {old})"
    ((n_lost,),) = connection.execute(f"SELECT count(*) FROM {lost}", [run_id]).fetchall()
    ((n_new,),) = connection.execute(f"SELECT count(*) FROM {more}", [run_id]).fetchall()
    first = _first(connection, lost, run_id, "recorded") or _first(connection, more, run_id, "made")
    unrecorded = [c for c in kinds if c not in known]
    return Comparison(name, n_recorded, n_lost, n_new, first, unrecorded)


def _is_empty(made: pa.Table, column: str) -> bool:
    return bool(made[column].null_count == made.num_rows)


def _first(connection: Connection, rows: str, run_id: str, side: str) -> str:
    """The first row in order, as `column=value` pairs."""
    cursor = connection.execute(f"FROM {rows} ORDER BY ALL LIMIT 1", [run_id])
    names = [column[0] for column in cursor.description or ()]
    first_rows = cursor.fetchall()
    if not first_rows:
        return ""
    pairs = ", ".join(
        f"{n}={str(v)[:40]}"
        for n, v in zip(names, first_rows[0], strict=True)
        if v is not None and n != "selection_id"
    )
    return f"{side}: {pairs}"


def compare_scores(workspace: Workspace, files: Mapping[str, Path]) -> list[Comparison]:
    """Rankings beside those made again, whole; only those whose file is still in the workspace."""
    comparisons = []
    for selection_id, made in files.items():
        recorded = scores_file(workspace.scores, selection_id)
        if not recorded.exists():
            continue
        with damage_explained(recorded):
            old = pq.read_table(recorded)
        new = pq.read_table(made)
        columns = [name for name in new.column_names if name in old.column_names]
        old, new = old.select(columns), new.select(columns)
        n_same = 0
        if old.num_rows == new.num_rows:
            same = [_same(old[name], new[name]) for name in columns]
            n_same = sum(all(row) for row in zip(*same, strict=True))
        n = old.num_rows
        first = "" if n_same == n == new.num_rows else f"{n:,} ranks, {n_same:,} of them alike"
        comparisons.append(
            Comparison(f"scores {selection_id}", n, n - n_same, new.num_rows - n_same, first)
        )
    return comparisons


def _same(old: pa.ChunkedArray, new: pa.ChunkedArray) -> list[bool]:
    return [a == b for a, b in zip(old.to_pylist(), new.to_pylist(), strict=True)]
