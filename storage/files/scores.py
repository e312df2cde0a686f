"""Scores of a selection's candidates as Parquet: the only module that knows the file's columns.

IN a decided selection and ids of the pool. OUT `scores/<selection_id>.parquet`, written once: a row
per ranked example, picks first, then what could come next, then what was passed over. Columns:
selection_id, example_id, score, rank (in this order, from 1), target (whose score it is),
example_row (of the prepared pool), score_rank (by score alone, from 1).

Light commands import this module, so it loads pyarrow only where a table is made.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from storage.files.atomic import write_atomically

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from selection.picking.selections import Selection

_GROUP = 1 << 20  # Rows made and written at once.


def scores_file(folder: Path, selection_id: str) -> Path:
    """Where the scores of a selection are."""
    return folder / f"{selection_id}.parquet"


def iter_scores_files(folder: Path) -> Iterator[Path]:
    """Every file of scores in a folder, in order of name."""
    yield from sorted(folder.glob("*.parquet"))


def scores_table(
    selection: "Selection", ids: "NDArray[np.bytes_]", first: int = 0, last: int | None = None
) -> "pa.Table":
    """Rows `first` to `last` of a selection's scores, in order of rank, without reading a file.

    ids: (n,) S32 example ids of the prepared pool.
    """
    import numpy as np
    import pyarrow as pa

    order = selection.order[first:last]
    rows, n = selection.ranking.rows[order], len(order)
    owners = pa.array(selection.owners[order])
    return pa.table(
        {
            "selection_id": pa.DictionaryArray.from_arrays(
                pa.array(np.zeros(n, np.int32)), pa.array([selection.selection_id])
            ),
            "example_id": pa.array(ids[rows], pa.binary()).cast(pa.string()),
            "score": selection.ranking.scores[order],
            "rank": np.arange(first + 1, first + n + 1, dtype=np.int64),
            "target": pa.DictionaryArray.from_arrays(owners, pa.array(selection.owner_names)),
            "example_row": rows,
            "score_rank": order + 1,
        }
    )


def write_scores(selection: "Selection", file: Path, ids: "NDArray[np.bytes_]") -> None:
    """Write all of a selection's scores. ids: as in `scores_table`."""
    import pyarrow.parquet as pq

    def write(temp: Path) -> None:
        schema = scores_table(selection, ids, 0, 0).schema
        with pq.ParquetWriter(temp, schema, compression="zstd") as writer:
            for first in range(0, len(selection.order), _GROUP):
                writer.write_table(scores_table(selection, ids, first, first + _GROUP))

    write_atomically(file, write)


def read_ids(file: Path, *, by_score: bool = False, n: int | None = None) -> list[str]:
    """Example ids in the order of the selection, or by score; the first n."""
    table = _read(file, ["example_id", "score_rank"])
    if by_score:
        table = table.sort_by("score_rank")
    ids: list[str] = table["example_id"].slice(0, n).to_pylist()
    return ids


def find_rank(file: Path, example_id: str) -> tuple[int, int, float] | None:
    """(rank, rank by score, score) of an example; None where it is not ranked."""
    columns = ["rank", "score_rank", "score"]
    rows = _read(file, columns, [("example_id", "=", example_id)]).to_pylist()
    return (rows[0]["rank"], rows[0]["score_rank"], rows[0]["score"]) if rows else None


def count_scores(file: Path, after: int, until: int, least: float) -> int:
    """Examples at ranks above `after` and up to `until` that score at least `least`."""
    filters = [("rank", ">", after), ("rank", "<=", until), ("score", ">=", least)]
    n: int = _read(file, ["rank"], filters).num_rows
    return n


def _read(
    file: Path, columns: list[str], filters: Sequence[tuple[str, str, object]] | None = None
) -> "pa.Table":
    """Raises InputError for a missing or altered file."""
    import pyarrow.parquet as pq

    from storage.files.parquet_parts import damage_explained

    with damage_explained(file):
        return pq.read_table(file, columns=columns, filters=list(filters) if filters else None)
