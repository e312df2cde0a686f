"""The hash chain over decisions: every run, selection, export and event, in order of commit.

What is hashed is defined in SQL (`v_content`), so that an auditor can recheck it with DuckDB alone:
`SELECT * FROM v_altered` is empty where nothing was changed by hand. No sample's text is part of
it, so forgetting a sample breaks no link. The newest link, the head, stands in every export's
manifest: who holds an export can tell whether the history before it was rewritten.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from storage.database import Connection

_UNDECIDED = """
SELECT kind, subject FROM (
    SELECT 1 AS place, 'run' AS kind, run_id AS subject FROM run
    UNION ALL SELECT 2, 'selection', selection_id FROM selection
    UNION ALL SELECT 3, 'export', export_id FROM export
    UNION ALL SELECT 4, kind, subject FROM v_content WHERE kind = 'event'
    UNION ALL SELECT 5, 'forgotten', example_id FROM forgotten)
ANTI JOIN decision USING (kind, subject) ORDER BY place, subject"""

_ADD = """
INSERT INTO decision
SELECT $1, $2::TIMESTAMP, kind, subject, content_sha256, $3::VARCHAR,
    sha256(concat_ws('|', $1, $2::TIMESTAMP, kind, subject, content_sha256, $3::VARCHAR))
FROM v_content WHERE kind = $4 AND subject = $5 RETURNING sha256"""


@dataclass(frozen=True, slots=True)
class Altered:
    """One decision that is not what was committed. number: None for one never decided."""

    number: int | None
    kind: str
    subject: str
    problem: str


def append_decisions(connection: Connection, at: datetime) -> None:
    """Chain everything that is not in the chain yet, inside the open transaction.

    at: UTC without a zone.
    """
    number, previous = last_link(connection)
    for kind, subject in connection.execute(_UNDECIDED).fetchall():
        number += 1
        row = connection.execute(_ADD, [number, at, previous, kind, subject]).fetchall()
        previous = row[0][0]


def last_link(connection: Connection) -> tuple[int, str]:
    """Number and hash of the newest decision; (0, "") before the first."""
    found = connection.execute(
        "SELECT number, sha256 FROM decision ORDER BY number DESC LIMIT 1"
    ).fetchall()
    return (int(found[0][0]), str(found[0][1])) if found else (0, "")


def altered(connection: Connection) -> Sequence[Altered]:
    """What does not agree with the chain, in order."""
    rows = connection.execute("FROM v_altered ORDER BY number NULLS LAST, subject").fetchall()
    return [Altered(*row) for row in rows]
