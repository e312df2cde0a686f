"""Look-ups in the published snapshot for `ls`, `show`, `why`, `diff` and `where-used`.

Only the snapshot is read, so everything here works without pools, shards or a running job.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TypeVar

from selection.core.errors import InputError
from storage.catalog.connection import Connection
from storage.catalog.snapshot import open_snapshot
from storage.files.workspace import Workspace

Record = TypeVar("Record")


LATEST = "latest"


SHORTEST_PREFIX = 4


_SHOWN = 8


def described(row: str) -> str:
    """SQL that joins the hint at a latent as `d`, where its SAE and hookpoint have one.

    row: alias of a table with columns latent and space; the run has to be there as `r`.
    """
    return f"""LEFT JOIN hint d ON d.sae = r.sae_sha256 AND d.latent = {row}.latent
    AND ({row}.space = r.hookpoint OR starts_with({row}.space, r.hookpoint || '/'))"""


def run_names(workspace: Workspace) -> list[str]:
    """Names of all runs, oldest first; empty where nothing has been recorded yet."""
    if not workspace.has_catalog:
        return []
    with open_snapshot(workspace) as connection:
        rows = connection.execute("SELECT name FROM run ORDER BY created_at, rowid").fetchall()
    return [row[0] for row in rows]


def free_run_name(workspace: Workspace, wanted: str) -> str:
    """The wanted name, or the first of name-2, name-3, ... that no run of the workspace has."""
    taken = set(run_names(workspace))
    numbered = (wanted if n == 1 else f"{wanted}-{n}" for n in range(1, len(taken) + 2))
    return next(name for name in numbered if name not in taken)


def find_example(workspace: Workspace, reference: str) -> str:
    """The example id meant by an id, the beginning of one, or the data's own id.

    Knows the examples that a run picked or nearly picked. Raises InputError when nothing, or
    more than one example, fits.
    """
    with open_snapshot(workspace) as connection:
        matches = connection.execute(
            "SELECT example_id FROM sample WHERE example_id = $1 UNION"
            " SELECT example_id FROM occurrence WHERE own_id = $1 ORDER BY 1",
            [reference],
        ).fetchall()
        if not matches and len(reference) >= SHORTEST_PREFIX:
            matches = connection.execute(
                "SELECT example_id FROM sample WHERE starts_with(example_id, ?) ORDER BY 1",
                [reference.lower()],
            ).fetchall()
    if len(matches) == 1:
        return str(matches[0][0])
    if not matches:
        raise InputError(
            "no picked or nearly picked example has this id",
            field="example",
            value=reference,
            remedy="`saelect show` lists ids; at least four digits are needed.",
        )
    ids = ", ".join(row[0] for row in matches[:_SHOWN])
    raise InputError(
        f"means {len(matches)} examples",
        field="example",
        value=reference,
        remedy=f"Name one of them: {ids}{', …' if len(matches) > _SHOWN else ''}.",
    )


def _begins(texts: Sequence[str], reference: str) -> bool:
    return len(reference) >= SHORTEST_PREFIX and any(t.startswith(reference) for t in texts)


def _records(
    connection: Connection, kind: type[Record], query: str, values: Sequence[object] = ()
) -> list[Record]:
    """Rows of a query as records; a record's fields name its columns, in any order."""
    cursor = connection.execute(query, list(values))
    position = {column[0]: i for i, column in enumerate(cursor.description or ())}
    wanted = [position[field.name] for field in fields(kind)]  # type: ignore[arg-type]
    return [kind(*(row[i] for i in wanted)) for row in cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class SelectionRow:
    """One selection with the name and time of its run."""

    selection_id: str
    name: str
    run_id: str
    run: str
    created_at: datetime
    target: str | None
    method: str
    role: str
    n_eligible: int
    n_selected: int
    n_replay: int | None
    n_tokens: int | None
    unused_tokens: int | None
    cut_score: float | None
    n_exports: int


def list_selections(workspace: Workspace, role: str | None = None) -> list[SelectionRow]:
    """All selections, or those of one role (main, control), newest first."""
    with open_snapshot(workspace) as connection:
        selections = _selections(connection)
    return [row for row in selections if role in (None, row.role)]


def find_selections(workspace: Workspace, reference: str) -> list[SelectionRow]:
    """The selections that a reference means.

    reference: a selection's name, its id or the beginning of either; or a run in the same ways,
               or `latest`, which mean all main selections of that run.
    An exact name wins over a beginning, a selection over a run, a newer one over an older one of
    the same name. Raises InputError when nothing, or more than one thing, fits.
    """
    with open_snapshot(workspace) as connection:
        return _find_all(connection, workspace, reference)


def find_selection(workspace: Workspace, reference: str) -> SelectionRow:
    """The one selection that a reference means. Raises InputError when it means several."""
    with open_snapshot(workspace) as connection:
        return selection_in(connection, workspace, reference)


def selection_in(connection: Connection, workspace: Workspace, reference: str) -> SelectionRow:
    """The same in a snapshot that is open already."""
    selections = _find_all(connection, workspace, reference)
    if len(selections) > 1:
        raise InputError(
            f"means {len(selections)} selections",
            field="selection",
            value=reference,
            remedy=f"Name one of them: {_names(selections)}.",
        )
    return selections[0]


def _selections(connection: Connection) -> list[SelectionRow]:
    """All selections, newest run first; within a run main ones first, then by name."""
    query = """
        SELECT s.*, r.name AS run, r.created_at,
            (SELECT count(*) FROM export e WHERE e.selection_id = s.selection_id) AS n_exports
        FROM selection s JOIN run r USING (run_id)
        ORDER BY r.created_at DESC, r.rowid DESC, s."role" = 'main' DESC, s.name"""
    return _records(connection, SelectionRow, query)


def _find_all(connection: Connection, workspace: Workspace, reference: str) -> list[SelectionRow]:
    known = _selections(connection)
    if not known:
        raise InputError(
            "no selection has been recorded in this workspace yet",
            file=workspace.root,
            remedy="Run `saelect demo` or `saelect run CONFIG` first, or name another --workspace.",
        )
    if reference == LATEST:
        return _main_of(known, known[0].run_id)
    exact = [row for row in known if reference in (row.selection_id, row.name)]
    if exact:
        return exact[:1]
    runs = [row.run_id for row in known if reference in (row.run_id, row.run)]
    if runs:
        return _main_of(known, runs[0])
    return _begins_with(known, reference)


def _begins_with(known: Sequence[SelectionRow], reference: str) -> list[SelectionRow]:
    """The one selection, or else the one run, whose id or name begins with the reference."""
    fits = [row for row in known if _begins((row.selection_id, row.name), reference)]
    runs = {row.run_id: row.run for row in known if _begins((row.run_id, row.run), reference)}
    if len(fits) == 1:
        return fits
    if len(runs) == 1:
        return _main_of(known, next(iter(runs)))
    raise InputError(
        "several selections begin with this"
        if fits or runs
        else "no selection has this name or id",
        field="selection",
        value=reference,
        remedy=f"There are: {_names(fits or known)}. `latest` means the newest run.",
    )


def _main_of(known: Sequence[SelectionRow], run_id: str) -> list[SelectionRow]:
    """The main selections of a run; all of them where none is main."""
    of_run = [row for row in known if row.run_id == run_id]
    return [row for row in of_run if row.role == "main"] or of_run


def _names(rows: Sequence[SelectionRow]) -> str:
    names = list(dict.fromkeys(row.name for row in rows))
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


@dataclass(frozen=True, slots=True)
class PickRow:
    """One chosen example (or near miss) and where it first came from."""

    rank: int
    score: float | None
    target: str | None
    example_id: str
    own_id: str | None
    source: str | None
    file: str | None
    row: int | None
    licence: str | None
    tokens: int | None
    text: str | None


def picks(
    workspace: Workspace, selection_id: str, limit: int | None = None, *, near_misses: bool = False
) -> list[PickRow]:
    """The picks of a selection in order of rank, or what just missed the cut."""
    table = "near_miss" if near_misses else "pick"
    query = f"""
        SELECT p.rank, p.score, coalesce(p.target, s.target) AS target, p.example_id, o.own_id,
            o.source, o.file, o."row", o.licence, p.tokens, p.text
        FROM {table} p JOIN selection s USING (selection_id)
        LEFT JOIN v_first_occurrence o ON o.run_id = s.run_id AND o.example_id = p.example_id
        WHERE p.selection_id = ? ORDER BY p.rank LIMIT ?"""
    with open_snapshot(workspace) as connection:
        return _records(connection, PickRow, query, [selection_id, limit])


@dataclass(frozen=True, slots=True)
class UsedRow:
    """One selection that holds an example, and one export of it; path is None if not exported."""

    selection: str
    selection_id: str
    role: str
    rank: int
    score: float | None
    format: str | None
    path: str | None
    sha256: str | None
    exported_at: datetime | None


def where_used(workspace: Workspace, example_id: str) -> list[UsedRow]:
    """Every selection that picked an example, once per export of it; newest run first."""
    query = """
        SELECT s.name AS selection, s.selection_id, s."role", p.rank, p.score, e.format, e.path,
            e.sha256, e.created_at AS exported_at
        FROM pick p JOIN selection s USING (selection_id) JOIN run r USING (run_id)
        LEFT JOIN export e ON e.selection_id = p.selection_id
            AND coalesce(p.budget <= (e.layout->>'budget')::DOUBLE, true)
        WHERE p.example_id = ?
        ORDER BY r.created_at DESC, s."role" DESC, s.name, e.created_at, e.format"""
    with open_snapshot(workspace) as connection:
        return _records(connection, UsedRow, query, [example_id])


@dataclass(frozen=True, slots=True)
class Difference:
    """Two selections compared: examples in both and in only one of them, by rank."""

    first: SelectionRow
    second: SelectionRow
    n_both: int
    only_first: Sequence[PickRow]
    only_second: Sequence[PickRow]


def diff(workspace: Workspace, first: str, second: str, limit: int | None = None) -> Difference:
    """Compare the examples of two selections; `limit` cuts both lists."""
    one, two = find_selection(workspace, first), find_selection(workspace, second)
    of_one, of_two = picks(workspace, one.selection_id), picks(workspace, two.selection_id)
    in_one, in_two = {p.example_id for p in of_one}, {p.example_id for p in of_two}
    return Difference(
        one,
        two,
        len(in_one & in_two),
        [p for p in of_one if p.example_id not in in_two][:limit],
        [p for p in of_two if p.example_id not in in_one][:limit],
    )
