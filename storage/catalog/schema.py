"""Bringing an older catalog up to date: migrations it has not seen yet, in order, once each."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from selection.core.errors import InputError

if TYPE_CHECKING:
    from storage.catalog.connection import Connection


def migrate(connection: "Connection", path: Path) -> None:
    """Bring the tables up to date. Raises InputError for a catalog of a newer version."""
    connection.execute("CREATE TABLE IF NOT EXISTS migration (number INTEGER PRIMARY KEY)")
    connection.execute("ALTER TABLE migration ADD COLUMN IF NOT EXISTS name VARCHAR")
    rows = connection.execute("SELECT number, name FROM migration ORDER BY number").fetchall()
    applied = {name or FIRST for _, name in rows}
    if unknown := sorted(applied - MIGRATIONS.keys()):
        raise InputError(
            "the catalog was written by a newer saelect, with a migration that is not known here",
            file=path,
            value=unknown[0],
            remedy="Update saelect, or use another folder with --workspace DIR.",
        )
    for name in [name for name in MIGRATIONS if name not in applied]:
        connection.begin()
        connection.execute(MIGRATIONS[name])
        connection.execute(
            "INSERT INTO migration SELECT coalesce(max(number) + 1, 0), ? FROM migration", [name]
        )
        connection.commit()


def pending(connection: "Connection") -> list[str]:
    """Names of the migrations that the connection's database has not seen; changes nothing."""
    # Not duckdb_columns(): it lists the columns of views too, for which it plans each of them.
    tables = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE table_name = 'migration'"
        " AND database_name = current_database()"
    ).fetchall()
    found = connection.execute("FROM migration") if tables else None
    columns = [column[0] for column in found.description or ()] if found else []
    if found is None or "name" not in columns:
        return [name for name in MIGRATIONS if name != FIRST]
    applied = {row[columns.index("name")] or FIRST for row in found.fetchall()}
    return [name for name in MIGRATIONS if name not in applied]


_FOLDER = Path(__file__).parent / "migrations"

MIGRATIONS = {path.stem: path.read_text() for path in sorted(_FOLDER.glob("[0-9]*.sql"))}
"""Name -> SQL, in the order in which they are applied. Append only."""

FIRST = "001_tables"
"""What catalogs had applied that were written before migrations had names."""

INSERTED_ONCE = ("sample", "latent_description")
"""Tables whose rows mean the same in every run: a row that is there already is left alone."""


@dataclass(frozen=True, slots=True)
class Key:
    """A reference that must hold: the columns of a row of `table` name a row of `target`.

    columns: (column, column of the target) pairs; a null column refers to nothing.
    """

    table: str
    target: str
    columns: tuple[tuple[str, str], ...]

    @property
    def problem(self) -> str:
        """What is wrong where it does not hold."""
        return f"rows of `{self.table}` without their `{self.target}`"

    def query(self, rows: str) -> str:
        """SQL for the dangling references among the rows of a table or view; empty if it holds."""
        first = self.columns[0][0]
        match = " AND ".join(f'y."{theirs}" = x."{mine}"' for mine, theirs in self.columns)
        return (
            f'SELECT DISTINCT x."{first}" FROM {rows} x WHERE x."{first}" IS NOT NULL'
            f' AND NOT EXISTS (FROM "{self.target}" y WHERE {match})'
        )


def _key(table: str, target: str, *columns: str) -> Key:
    return Key(table, target, tuple((name, name) for name in columns))


KEYS = (
    *(_key(name, "run", "run_id") for name in ("selection", "run_drop", "run_source", "exemplar",
                                               "occurrence", "artifact", "event",
                                               "contamination", "target_latent", "run_stage")),
    *(_key(name, "selection", "selection_id") for name in ("pick", "near_miss", "why", "export",
                                                           "why_exemplar", "selection_drop",
                                                           "label_free_check", "held_out",
                                                           "token_activations", "event")),
    *(_key(name, "sample", "example_id") for name in ("pick", "near_miss", "occurrence")),
)  # fmt: skip
"""References between tables, checked over new rows at every commit and over all by `verify`.

They are not FOREIGN KEYs, which would keep `forget` from rewriting a table.
"""

CHECKS = {
    "a selection whose picks are not ranks 1 to n_selected": """
        SELECT s.selection_id FROM new_selection s
        LEFT JOIN pick p ON p.selection_id = s.selection_id
        GROUP BY s.selection_id, s.n_selected
        HAVING count(p.rank) <> s.n_selected OR max(p.rank) <> count(p.rank) OR min(p.rank) <> 1""",
    "picks or near misses without an occurrence": """
        SELECT DISTINCT p.example_id
        FROM (FROM new_pick UNION ALL BY NAME FROM new_near_miss) p
        JOIN selection s ON s.selection_id = p.selection_id
        WHERE NOT EXISTS (
            FROM occurrence o WHERE o.run_id = s.run_id AND o.example_id = p.example_id)""",
    "explanations without their exemplar": """
        SELECT DISTINCT w.exemplar_id FROM new_why w
        JOIN selection s ON s.selection_id = w.selection_id
        WHERE NOT EXISTS (
            FROM exemplar e WHERE e.run_id = s.run_id AND e.exemplar_id = w.exemplar_id)""",
}
"""What must return no row before a commit; `new_<table>` holds the rows of the commit."""


@dataclass(frozen=True, slots=True)
class TextColumn:
    """A column that holds text of a sample. value: SQL of what stands there once it is removed."""

    table: str
    column: str
    id_column: str
    value: str


TEXT_COLUMNS = (
    TextColumn("sample", "messages", "example_id", "'[]'"),
    TextColumn("sample", "tools", "example_id", "NULL"),
    TextColumn("pick", "text", "example_id", "NULL"),
    TextColumn("near_miss", "text", "example_id", "NULL"),
    TextColumn("occurrence", "raw", "example_id", "NULL"),
    *(
        TextColumn("token_activations", name, "example_id", "NULL")  # how long its tokens are
        for name in ("turn", "first_char", "end_char", "strength")
    ),
    TextColumn("exemplar", "messages", "exemplar_id", "'[]'"),
    TextColumn("exemplar", "tools", "exemplar_id", "NULL"),
    TextColumn("exemplar", "text", "exemplar_id", "NULL"),
)
"""What `forget` takes out of the catalog, and what a bundle without text leaves out."""
