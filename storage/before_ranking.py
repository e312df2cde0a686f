"""Why an example of a pool was not even ranked: which rule took it out before.

Drops before ranking are counted, not listed, so the prepared pool is asked where it is still there.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from selection.errors import InputError
from storage.database import Connection
from storage.files import is_complete
from storage.refusals import Refusal, config_of
from storage.rows import SelectionRow
from storage.workspace import Workspace

_DECIDED = ("where", "is_exemplar", "excluded", "contaminated")
"""Reasons that can be told for a single example; of others only the counts are known."""


def drop_of(
    connection: Connection, workspace: Workspace, chosen: SelectionRow, example_id: str
) -> Refusal:
    """The first rule that keeps an example out of the ranking, in the order of a run."""
    config = config_of(connection, chosen.run_id)
    own_ids = _own_ids(connection, workspace, chosen, example_id)
    if own_ids is None:
        return Refusal("pool", "it is not in the pool of this run")
    if not own_ids[1]:
        return Refusal("where", f"no row that holds it passes `{config.get('where')}`")
    key = [chosen.run_id, example_id]
    if config.get("drop_exemplar_copies", True):
        copied = connection.execute(
            "SELECT target FROM exemplar WHERE run_id = ? AND exemplar_id = ?", key
        ).fetchall()
        if copied:
            words = f"it is an exact copy of an exemplar of `{copied[0][0]}`"
            return Refusal("drop_exemplar_copies", words)
    listed = config.get("exclude") or []
    if isinstance(listed, list) and {example_id, *own_ids[0]} & set(listed):
        return Refusal("exclude", "it stands on the list of examples never to take")
    held = connection.execute(
        "SELECT file, item, matched, counted FROM contamination"
        " WHERE run_id = ? AND example_id = ? AND dropped",
        key,
    ).fetchall()
    if held:
        file, item, matched, counted = held[0]
        words = f"it holds {matched} of {counted} runs of words of the item {item} of {file}"
        return Refusal("decontamination", words)
    return Refusal("before ranking", _counted(connection, chosen, config))


def row_in_pool(
    connection: Connection, workspace: Workspace, chosen: SelectionRow, reference: str
) -> str | None:
    """Example id of a whole id or an own id in the pool of a run, where the pool is still there.

    Raises InputError for an own id that several examples have.
    """
    pool = _pool_folder(connection, workspace, chosen)
    if pool is None:
        return None
    from storage.prepared_pool import open_pool  # numpy and polars; most questions need neither

    opened = open_pool(pool)
    rows, _ = opened.rows_of_ids([reference])
    names = opened.examples_at(rows)["example_id"].to_pylist()
    if len(names) > 1:
        raise InputError(
            f"means {len(names)} examples of the pool",
            field="example",
            value=reference,
            remedy=f"Name one of them: {', '.join(names[:8])}.",
        )
    return str(names[0]) if names else None


def _own_ids(
    connection: Connection, workspace: Workspace, chosen: SelectionRow, example_id: str
) -> tuple[Sequence[str], bool] | None:
    """(own ids, whether `where` lets it pass) of an example; None where the pool lacks it.

    Without the pool, what the catalog knows, and that it passes.
    """
    folder = _pool_folder(connection, workspace, chosen)
    if folder is None:
        known = connection.execute(
            "SELECT DISTINCT own_id FROM occurrence WHERE example_id = ? AND own_id IS NOT NULL",
            [example_id],
        ).fetchall()
        return [row[0] for row in known], True
    from storage.prepared_pool import open_pool

    pool = open_pool(folder)
    rows, unknown = pool.rows_of_ids([example_id])
    if unknown:
        return None
    where = config_of(connection, chosen.run_id).get("where")
    all_rows = pool.occurrences_at(rows)
    passing = pool.passing_occurrences(rows, where if isinstance(where, str) else None)
    return [name for name in all_rows["own_id"].to_pylist() if name], passing.num_rows > 0


def _pool_folder(connection: Connection, workspace: Workspace, chosen: SelectionRow) -> Path | None:
    ((pool_id,),) = connection.execute(
        "SELECT pool_id FROM run WHERE run_id = ?", [chosen.run_id]
    ).fetchall()
    folder = workspace.pools / str(pool_id)
    return folder if pool_id and is_complete(folder) else None


def _counted(connection: Connection, chosen: SelectionRow, config: Mapping[str, object]) -> str:
    """What else may have taken it out, with counts."""
    listed_in_file = isinstance(config.get("exclude"), str) and config.get("exclude")
    open_reasons = [
        (reason, n)
        for reason, n in connection.execute(
            "SELECT reason, sum(n)::BIGINT FROM run_drop WHERE run_id = ? AND stage = 'filter'"
            " GROUP BY ALL ORDER BY 2 DESC, 1",
            [chosen.run_id],
        ).fetchall()
        if reason not in _DECIDED or (reason == "excluded" and listed_in_file)
    ]
    if not open_reasons:
        return "it was not ranked, and no reason is recorded"
    named = ", ".join(f"{n:,} {reason}" for reason, n in open_reasons)
    return f"it was dropped with others before ranking ({named})"
