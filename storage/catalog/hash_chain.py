"""The hash chain over decisions: every run, selection, export and event, in order of commit.

What is hashed is defined in SQL (`v_content`), so that an auditor can recheck it with DuckDB alone:
`SELECT * FROM v_altered` is empty where nothing was changed by hand. A run covers the rows that
belong to it, a selection its picks, drops and explanations. No sample's text is part of it, so
forgetting a sample breaks no link. The newest link, the head, stands in every export's manifest:
who holds an export can tell whether the history before it was rewritten.

A new column or table belongs into `v_content`, under the next number of VERSION, with the
definition before kept as `v_content_<n>` for what was chained by it; or into NOT_COVERED, with the
reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from storage.catalog.connection import Connection

VERSION = 2
"""Of what `v_content` hashes; stands with every decision that was chained by it."""

NOT_COVERED = {
    "sample": "its id is the hash of its content, which `verify` makes again",
    "latent_description": "hints that describe an SAE and decide nothing",
    "benchmark": "measures methods; no selection follows from it",
    "benchmark_result": "see benchmark",
    "benchmark_mean": "see benchmark",
    "token_activations": "may be forgotten; they explain and decide nothing",
    "target_latent": "describes exemplars, whose ids are covered; decides nothing",
    "run_stage": "how long stages took",
    "catalog_commit": "numbers commits for the publishing of snapshots",
    "exemplar.messages": "text, which may be forgotten; exemplar_id is its hash",
    "exemplar.tools": "text, which may be forgotten; exemplar_id is its hash",
    "exemplar.text": "text, which may be forgotten",
    "occurrence.raw": "text, which may be forgotten",
    "pick.text": "text, which may be forgotten",
    "near_miss.text": "text, which may be forgotten",
}
"""Tables and columns that the chain leaves out, and why; everything else is in it."""

_UNDECIDED = """
SELECT kind, subject FROM (
    SELECT 1 AS place, 'run' AS kind, run_id AS subject FROM run
    UNION ALL SELECT 2, 'selection', selection_id FROM selection
    UNION ALL SELECT 3, 'export', export_id FROM export
    UNION ALL SELECT 4, kind, subject FROM v_content WHERE kind = 'event'
    UNION ALL SELECT 5, 'forgotten', example_id FROM forgotten)
ANTI JOIN decision USING (kind, subject) ORDER BY place, subject"""

_CONTENT = "SELECT content_sha256 FROM v_content WHERE kind = ? AND subject = ?"

_ADD = """
INSERT INTO decision (number, "at", kind, subject, content_sha256, previous, version, sha256)
SELECT $1, $2::TIMESTAMP, $3, $4, $5, $6, $7,
    sha256(concat_ws('|', $1, $2::TIMESTAMP, $3, $4, $5, $6, $7)) RETURNING sha256"""


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
        # Asked one by one: a filter on constants reads the rows of one subject only.
        ((content,),) = connection.execute(_CONTENT, [kind, subject]).fetchall()
        link = [number, at, kind, subject, content, previous, VERSION]
        ((previous,),) = connection.execute(_ADD, link).fetchall()


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
