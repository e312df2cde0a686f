"""The chain of commits: what was written, hashed, so that every later change can be seen.

Tables only grow, and rows keep their order. A commit appends one row to `catalog_commit`, with the
number and the SHA-256 of its new rows of every table, and the hash of the commit before. `forget`
blanks texts; the hash that they had stands in `redaction`, so the chain stays as it was.
Whoever can write the file can also rewrite the whole chain: so its head stands in the manifest of
every export, and may be written down elsewhere (`saelect verify --head`, `--expect`).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from selection.core.errors import InputError
from storage.catalog.connection import (
    Connection,
    attach_read_only,
    connect_in_memory,
    connect_to_write,
    quoted,
)
from storage.catalog.schema import KEYS, SCHEMA_SHA256, TEXTS, create_schema

_BLOCK = 4096
_CHAIN = "catalog_commit"
_DEFINITIONS = """
WITH everything AS (
    SELECT database_name, schema_name, table_name AS name, sql FROM duckdb_tables()
    WHERE NOT temporary
    UNION ALL SELECT database_name, schema_name, view_name, sql FROM duckdb_views()
    WHERE NOT temporary AND NOT internal
    UNION ALL SELECT database_name, schema_name, 'index ' || index_name, sql FROM duckdb_indexes()
    UNION ALL SELECT database_name, schema_name, 'sequence ' || sequence_name, '' FROM
    duckdb_sequences()
    UNION ALL SELECT database_name, schema_name, 'type ' || type_name, '' FROM duckdb_types()
    WHERE NOT internal)
SELECT if(schema_name = 'main', '', schema_name || '.') || name, sql FROM everything
WHERE database_name = current_database()"""
"""What a database holds beside rows, with its definition; its functions: `functions_in`."""


class Head(NamedTuple):
    """The newest commit: its number and its hash; (0, "") where there is none."""

    number: int
    sha256: str

    @classmethod
    def parse(cls, text: str) -> "Head":
        """From `NUMBER:SHA256`, as `saelect verify --head` prints it. Raises InputError."""
        number, _, sha256 = text.strip().partition(":")
        if not number.isdecimal() or len(sha256) != 64:
            raise InputError(
                "not a head of the chain",
                field="--expect",
                value=text,
                remedy="Give NUMBER:SHA256 as `saelect verify --head` printed it.",
            )
        return cls(int(number), sha256)

    def __str__(self) -> str:
        """`NUMBER:SHA256`."""
        return f"{self.number}:{self.sha256}"


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it was committed. name: of a table, a view or a commit."""

    name: str
    problem: str


def head_of(connection: Connection) -> Head:
    """The newest commit of a catalog."""
    rows = connection.execute(
        f"SELECT number, sha256 FROM {_CHAIN} ORDER BY number DESC LIMIT 1"
    ).fetchall()
    return Head(*rows[0]) if rows else Head(0, "")


def row_counts(connection: Connection) -> dict[str, int]:
    """Rows of every table that the chain covers, by name."""
    names = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database()"
        f" AND NOT temporary AND table_name <> '{_CHAIN}' ORDER BY 1"
    ).fetchall()
    counts = ", ".join(f'(SELECT count(*) FROM "{name}")' for (name,) in names)
    (numbers,) = connection.execute(f"SELECT {counts}").fetchall()
    return {name: n for (name,), n in zip(names, numbers, strict=True)}


def append_commit(
    connection: Connection, before: Mapping[str, int], at: datetime, process: str
) -> None:
    """Chain the rows that the open transaction has added.

    before: `row_counts` before they were added. at: UTC without a zone.
    """
    tables = {
        name: [n - before[name], rows_sha256(connection, name, before[name])]
        for name, n in row_counts(connection).items()
        if n > before[name]
    }
    content = json.dumps({"schema": SCHEMA_SHA256, "tables": tables}, sort_keys=True)
    number, previous = head_of(connection)
    link = (number + 1, at, process, content, previous)
    connection.execute(
        f"INSERT INTO {_CHAIN} VALUES (?, ?, ?, ?, ?, ?)", [*link, _link_sha256(*link)]
    )


def refuse_unrecorded(connection: Connection, counts: Mapping[str, int]) -> None:
    """Raise InputError where a table has other rows than its commits wrote.

    A commit on top of them would make them look like decisions.
    """
    recorded = _recorded_counts(connection)
    for name, n in counts.items():
        if n != recorded.get(name, 0):
            raise InputError(
                f"table `{name}` has {n:,} rows and its commits wrote {recorded.get(name, 0):,}:"
                " it was changed by hand",
                field="catalog.duckdb",
                remedy="See `saelect verify`. If snapshot.duckdb is whole, delete catalog.duckdb:"
                " the next write restores it from there.",
            )


def rows_sha256(connection: Connection, table: str, first: int, n: int | None = None) -> str:
    """SHA-256 over n rows of a table (all that follow) from position `first`, in their order.

    Of blocks of 4,096 rows: the hash of their rows' hashes. A row is hashed as the JSON array of
    its columns; columns of text as their own hash, which `redaction` keeps once they are blank.
    """
    columns = [
        row[0]
        for row in connection.execute(
            "SELECT column_name FROM duckdb_columns() WHERE table_name = ? AND database_name ="
            " current_database() ORDER BY column_index",
            [table],
        ).fetchall()
    ]
    texts = list(TEXTS[table].blank) if table in TEXTS else []
    row, join = _json_array([name for name in columns if name not in texts]), ""
    if texts:
        row = f"concat(coalesce(r.sha256, sha256({_json_array(texts)})), {row})"
        join = f"LEFT JOIN redaction r ON r.table_name = {quoted(table)} AND r.row_number = x.rowid"
    # Rows of an open transaction have numbers far behind all others.
    where = f"x.rowid >= {first}" + ("" if n is None else f" AND x.rowid < {first + n}")
    ((sha256,),) = connection.execute(
        f"""WITH line AS (SELECT x.rowid AS i, sha256({row}) AS h FROM "{table}" x {join}
                WHERE {where}),
        block AS (SELECT (i - (SELECT min(i) FROM line)) // {_BLOCK} AS b,
                sha256(string_agg(h, '' ORDER BY i)) AS h FROM line GROUP BY b)
        SELECT coalesce(sha256(string_agg(h, '' ORDER BY b)), '') FROM block"""
    ).fetchall()
    return str(sha256)


def new_redactions(
    connection: Connection, ids: Sequence[str], latents: Sequence[str] = ()
) -> list[dict[str, object]]:
    """Rows of `redaction` for all texts of the examples that have none yet.

    latents: `SAE:latent` of descriptions that quote one of the examples.
    """
    values = {"ids": list(ids), "latents": list(latents)}
    redactions: list[dict[str, object]] = []
    for table, text in TEXTS.items():
        rows = connection.execute(
            f'SELECT x.rowid, sha256({_json_array(list(text.blank))}) FROM "{table}" x'
            f" WHERE {text.belongs} AND x.rowid NOT IN (SELECT row_number FROM redaction"
            f" WHERE table_name = {quoted(table)}) ORDER BY 1",
            {name: value for name, value in values.items() if f"${name}" in text.belongs},
        ).fetchall()
        redactions += [
            {"table_name": table, "row_number": n, "sha256": sha256} for n, sha256 in rows
        ]
    return redactions


def _json_array(columns: Sequence[str]) -> str:
    listed = ", ".join(f'x."{name}"::VARCHAR' for name in columns)
    return f"json_array({listed})::VARCHAR"


def differences(connection: Connection) -> Iterator[Difference]:
    """Everything in a catalog that is not as its commits wrote it."""
    changed = list(_definitions(connection))
    yield from changed
    if any(not each.name.startswith("v_") for each in changed):
        return  # tables of another form have other hashes anyway
    links = connection.execute(
        f"SELECT number, committed_at, process, content::VARCHAR, previous, sha256 FROM {_CHAIN}"
        " ORDER BY number"
    ).fetchall()
    previous, first = "", dict.fromkeys(row_counts(connection), 0)
    altered: dict[str, str] = {}
    for number, (*link, sha256) in enumerate(links, start=1):
        is_linked = link[0] == number and link[-1] == previous
        if not is_linked or _link_sha256(*link) != sha256:
            yield Difference(f"commit {link[0]}", "the chain is broken here")
        previous = sha256
        for name, (n, rows) in _tables(link[3]).items():
            if name not in first:
                altered[name] = "the table is missing"
            elif rows_sha256(connection, name, first[name], n) != rows:
                altered.setdefault(name, f"rows of commit {link[0]} are not as they were written")
            first[name] = first.get(name, 0) + n
    for name, n in row_counts(connection).items():
        if n != first[name]:
            altered.setdefault(name, f"{n:,} rows, of which {first[name]:,} were committed")
    yield from (Difference(name, problem) for name, problem in sorted(altered.items()))
    yield from _references(connection)
    yield from _redactions(connection)


def _definitions(connection: Connection) -> Iterator[Difference]:
    """Tables and views that are not defined as `schema.sql` has them."""
    right, present = _right_definitions(), dict(connection.execute(_DEFINITIONS).fetchall())
    for name in sorted({*right, *present}):
        if name not in present:
            yield Difference(name, "it is missing")
        elif name not in right:
            yield Difference(name, "saelect makes no such thing")
        elif right[name] != present[name]:
            yield Difference(name, "its definition was changed")


@cache
def _right_definitions() -> dict[str, str]:
    """Name -> definition, as a file gives it back: not all of it is spelled as it was written."""
    with TemporaryDirectory(prefix="saelect-schema-") as folder:
        file = Path(folder) / "schema.duckdb"
        with connect_to_write(file) as expected:
            create_schema(expected)
        with connect_in_memory() as expected:
            attach_read_only(expected, file)
            expected.execute("USE snapshot")
            return dict(expected.execute(_DEFINITIONS).fetchall())


def _references(connection: Connection) -> Iterator[Difference]:
    for key in KEYS:
        rows = connection.execute(key.query(f'"{key.table}"')).fetchmany(1)
        if rows:
            yield Difference(key.table, f"{key.problem}: {rows[0][0]}")


def _redactions(connection: Connection) -> Iterator[Difference]:
    """Rows whose text is said to be removed and is there."""
    for table, text in TEXTS.items():
        filled = " OR ".join(f'x."{c}" IS DISTINCT FROM {blank}' for c, blank in text.blank.items())
        ((n,),) = connection.execute(
            f'SELECT count(*) FROM "{table}" x JOIN redaction r ON r.row_number = x.rowid'
            f" AND r.table_name = {quoted(table)} WHERE {filled}"
        ).fetchall()
        if n:
            yield Difference(table, f"{n:,} forgotten texts are not removed yet; repeat `forget`")


def _recorded_counts(connection: Connection) -> dict[str, int]:
    counts: dict[str, int] = {}
    rows = connection.execute(f"SELECT content::VARCHAR FROM {_CHAIN}").fetchall()
    for (content,) in rows:
        for name, (n, _) in _tables(content).items():
            counts[name] = counts.get(name, 0) + n
    return counts


def _tables(content: str) -> dict[str, tuple[int, str]]:
    """Table -> (rows, SHA-256) of a commit."""
    try:
        tables = json.loads(content)["tables"]
        return {str(name): (int(n), str(sha256)) for name, (n, sha256) in tables.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # changed by hand; then its hash or the row counts do not fit


def _link_sha256(*link: object) -> str:
    """SHA-256 of a commit's own columns, joined by `|`; times as ISO."""
    parts = [part.isoformat() if isinstance(part, datetime) else str(part) for part in link]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()
