"""`saelect sql`: one SELECT by whoever audits, on a copy of the catalog that nothing can change."""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from selection.core.errors import InputError
from storage.catalog.connection import (
    SELECT,
    Connection,
    DatabaseError,
    first_line,
    quoted,
    statements,
)
from storage.catalog.snapshot import open_snapshot
from storage.files.scores import iter_scores_files
from storage.files.workspace import Workspace

log = logging.getLogger(__name__)

_CHUNK = 10_000
_SCORES = "selection_id VARCHAR, example_id VARCHAR, score DOUBLE, rank BIGINT"


@dataclass(frozen=True, slots=True)
class SqlResult:
    """What a query returned.

    columns: names; types: DuckDB types; rows: values as Python objects.
    is_cut:  there were more rows than asked for.
    """

    columns: Sequence[str]
    types: Sequence[str]
    rows: Sequence[tuple[object, ...]]
    is_cut: bool

    def to_pylist(self) -> list[dict[str, object]]:
        """The rows as dicts by column name."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


@dataclass(frozen=True, slots=True)
class SqlLimits:
    """What one query may use: seconds of waiting, and megabytes of DuckDB and of its answer."""

    seconds: float
    megabytes: int


def run_sql(
    workspace: Workspace, text: str, max_rows: int | None = None, limits: SqlLimits | None = None
) -> SqlResult:
    """Run one SELECT over the snapshot's tables and views, and over `scores`.

    text: a single SELECT (also WITH, FROM, VALUES, DESCRIBE, SUMMARIZE, SHOW TABLES).
    The file is opened read-only, nothing outside the workspace can be read, nothing anywhere
    written, and no setting changed. Raises InputError for anything else and for wrong SQL.
    """
    _refuse_other_statements(text)  # before a file is opened
    if limits is not None:
        return _answer_within(limits, workspace, text, max_rows)
    with locked_snapshot(workspace) as connection:
        return answer(connection, text, max_rows)


@contextmanager
def locked_snapshot(workspace: Workspace, limits: SqlLimits | None = None) -> Iterator[Connection]:
    """The snapshot with `scores` beside it, on a connection that reads the workspace alone."""
    with open_snapshot(workspace) as connection:
        _add_scores(connection, workspace)
        if limits is not None:
            connection.execute(f"SET memory_limit = '{limits.megabytes}MB'")
        _lock(connection, workspace)
        yield connection


def _answer_within(
    limits: SqlLimits, workspace: Workspace, text: str, max_rows: int | None
) -> SqlResult:
    """The answer, given up after its seconds; this thread only waits, so Ctrl-C ends it at once.

    Some functions (`lpad` to a constant length) heed no interruption: their thread is left behind,
    with the connection, which cannot be closed under it.
    """
    results: list[SqlResult | Exception] = []
    connections: list[Connection] = []

    def work() -> None:
        try:
            with locked_snapshot(workspace, limits) as connection:
                connections.append(connection)
                results.append(answer(connection, text, max_rows, limits.megabytes * 10**6))
        except Exception as error:  # noqa: BLE001 - raised again below, in the thread that waits
            results.append(error)

    worker = Thread(target=work, daemon=True)
    worker.start()
    try:
        worker.join(limits.seconds)
        if not worker.is_alive():
            if isinstance(results[0], Exception):
                raise results[0]
            return results[0]
    finally:
        for _ in range(20):  # again and again: it may just be opening the file
            if worker.is_alive() and connections:
                connections[0].interrupt()
            worker.join(0.05)
    raise InputError(
        f"no answer within {limits.seconds:g} s",
        field="sql",
        remedy="Ask for less, or raise the limit with `--seconds`.",
    )


def answer(
    connection: Connection,
    text: str,
    max_rows: int | None = None,
    max_bytes: float = float("inf"),
) -> SqlResult:
    """Run a SELECT on a locked connection. Raises InputError for wrong SQL and large answers."""
    _refuse_other_statements(text)
    try:
        cursor = connection.execute(text)
        columns = [(str(column[0]), str(column[1])) for column in cursor.description or ()]
        rows = _fetch(cursor.fetchmany, max_rows, max_bytes)
    except MemoryError:
        raise _too_large(max_bytes) from None
    except DatabaseError as error:
        raise _explained(connection, error) from None
    except (OverflowError, ValueError) as error:  # an interval or date beyond what Python has
        raise InputError(
            f"a value of the answer cannot be shown ({error})",
            field="sql",
            remedy="Cast it to text: `column::VARCHAR`.",
        ) from None
    is_cut = max_rows is not None and len(rows) > max_rows
    names, types = [name for name, _ in columns], [kind for _, kind in columns]
    return SqlResult(names, types, rows[:max_rows] if is_cut else rows, is_cut)


def _fetch(
    fetch: Callable[[int], list[tuple[object, ...]]], max_rows: int | None, max_bytes: float
) -> list[tuple[object, ...]]:
    """Rows of a cursor, one more than `max_rows` at most. Raises InputError beyond `max_bytes`."""
    rows: list[tuple[object, ...]] = []
    n_bytes, left = 0, sys.maxsize if max_rows is None else max_rows + 1
    while left and (chunk := fetch(min(left, _CHUNK))):
        rows += chunk
        left -= len(chunk)
        n_bytes += sum(sys.getsizeof(value) for row in chunk for value in row)
        if n_bytes > max_bytes:
            raise _too_large(max_bytes)
    return rows


def _too_large(max_bytes: float) -> InputError:
    return InputError(
        f"the answer needs more than {max_bytes / 10**6:,.0f} MB",
        field="sql",
        remedy="Ask for fewer rows or columns, or raise the limit with `--memory`.",
    )


def _refuse_other_statements(text: str) -> None:
    try:
        text.encode()
        parsed = statements(text)
    except (DatabaseError, UnicodeEncodeError) as error:
        raise InputError(
            f"not valid SQL ({str(error).strip()})", field="sql", remedy="Correct the query."
        ) from None
    if not parsed:
        raise InputError("the query is empty", field="sql", remedy="Write one SELECT.")
    kinds = [statement.type for statement in parsed]
    if len(parsed) > 1:
        raise InputError(
            f"{len(parsed)} statements in one call",
            field="sql",
            remedy="Give one SELECT at a time.",
        )
    if kinds[0] != SELECT:
        raise InputError(
            f"a {kinds[0].name} statement; only SELECT is allowed, nothing is changed by SQL",
            field="sql",
            remedy="To work on a copy, open snapshot.duckdb with any DuckDB client.",
        )


def _add_scores(connection: Connection, workspace: Workspace) -> None:
    """`scores`: every eligible example of every selection, from the Parquet beside the catalog."""
    known = {row[0] for row in connection.execute("SELECT selection_id FROM selection").fetchall()}
    files = [path for path in iter_scores_files(workspace.scores)
             if path.stem in known and _is_readable(connection, path)]  # fmt: skip
    if not files:
        connection.execute(f"CREATE TEMP TABLE scores ({_SCORES})")
        return
    listed = ", ".join(quoted(str(path.absolute())) for path in files)
    connection.execute(
        "CREATE TEMP VIEW scores AS SELECT selection_id, example_id, score, rank"
        f" FROM read_parquet([{listed}], union_by_name = true)"
    )


def _is_readable(connection: Connection, path: Path) -> bool:
    """Whether a file of scores has its columns; a damaged one is named and left out."""
    try:
        connection.execute(
            "SELECT selection_id, example_id, score, rank FROM read_parquet(?) LIMIT 0", [str(path)]
        )
    except DatabaseError as error:
        log.warning("%s is damaged, and left out of `scores` (%s)", path, first_line(error))
        return False
    return True


def _lock(connection: Connection, workspace: Workspace) -> None:
    """From here on the connection reads the workspace and nothing else, and stays so."""
    root = str(workspace.root.absolute()).replace("'", "''")
    connection.execute(f"SET allowed_directories = ['{root}/']")
    connection.execute("SET enable_progress_bar = false")
    connection.execute("SET temp_directory = ''")  # sorting spills nowhere
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _explained(connection: Connection, error: DatabaseError) -> InputError:
    """DuckDB's own text, which points at the place, and the names that exist."""
    names = ", ".join(
        row[0]
        for row in connection.execute(
            "SELECT view_name FROM duckdb_views() WHERE NOT internal AND view_name LIKE 'v\\_%'"
            " ESCAPE '\\' ORDER BY 1"
        ).fetchall()
    )
    return InputError(
        str(error).strip(),
        field="sql",
        remedy=f'Views: {names}, scores. `saelect sql "SHOW TABLES"` lists all tables, and'
        ' `saelect sql "DESCRIBE v_selection"` the columns of one.',
    )
