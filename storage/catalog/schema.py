"""Tables and views of the catalog, and what must hold between their rows.

`schema.sql` defines them; its line comments become comments in the database.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from selection.core.hashing import content_id

if TYPE_CHECKING:
    from storage.catalog.connection import Connection

_TEXT = (Path(__file__).parent / "schema.sql").read_text(encoding="utf-8")
_COMMENT = re.compile(r"\s*-- .*")
_CREATED = re.compile(r"CREATE (TABLE|VIEW) (\w+)")
_NAME = re.compile(r'"?(\w+)"?')

SCHEMA_SHA256 = content_id(_COMMENT.sub("", _TEXT).split(), 64)
"""Names the definitions, comments aside; every commit records it."""


def create_schema(connection: "Connection") -> None:
    """Make all tables and views, with their comments, in an empty database."""
    connection.execute(_TEXT)
    connection.execute(";\n".join(_comments()))


def _comments() -> list[str]:
    """COMMENT statements made from the line comments of `schema.sql`."""
    statements: list[str] = []
    above, is_view, name = "", False, ""
    for line in _TEXT.splitlines():
        code, _, comment = (part.strip() for part in line.partition("-- "))
        comment = comment.replace("'", "''")
        if created := _CREATED.match(code):
            kind, name = created.groups()
            is_view = kind == "VIEW"
            statements.append(f"COMMENT ON {kind} {name} IS '{above}'")
        elif comment and not code:
            above = comment
        elif comment:
            names = _NAME.findall(code)
            column = names[-1] if is_view else names[0]
            statements.append(f"COMMENT ON COLUMN {name}.\"{column}\" IS '{comment}'")
    return statements


INSERTED_ONCE = ("sample", "latent_description")
"""Tables whose rows mean the same in every run: a row that is there already is left alone."""


@dataclass(frozen=True, slots=True)
class Key:
    """A reference that must hold: `column` of `table` names a row of `target`; null refers to none.

    They are not FOREIGN KEYs, which would keep `forget` from rewriting a table.
    """

    table: str
    target: str
    column: str

    @property
    def problem(self) -> str:
        """What is wrong where it does not hold."""
        return f"rows of `{self.table}` without their `{self.target}`"

    def query(self, rows: str) -> str:
        """SQL for the dangling references among the rows of a table or view; empty if it holds."""
        return (
            f'SELECT DISTINCT x."{self.column}" FROM {rows} x WHERE x."{self.column}" IS NOT NULL'
            f' AND NOT EXISTS (FROM "{self.target}" y WHERE y."{self.column}" = x."{self.column}")'
        )


_REFERRING = {
    "run": "selection run_drop run_source exemplar occurrence artifact event contamination"
    " target_latent run_stage",
    "selection": "pick near_miss explanation export explanation_exemplar selection_drop"
    " held_out_check held_out_exemplar token_activations event outcome",
    "sample": "pick near_miss occurrence",
}
_COLUMN = {"run": "run_id", "selection": "selection_id", "sample": "example_id"}
KEYS = tuple(
    Key(table, target, _COLUMN[target])
    for target, tables in _REFERRING.items()
    for table in tables.split()
)
"""References between tables, checked over new rows at every commit and over all by `verify`."""

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
        SELECT DISTINCT w.exemplar_id FROM new_explanation w
        JOIN selection s ON s.selection_id = w.selection_id
        WHERE NOT EXISTS (
            FROM exemplar e WHERE e.run_id = s.run_id AND e.exemplar_id = w.exemplar_id)""",
}
"""What must return no row before a commit; `new_<table>` holds the rows of the commit."""


@dataclass(frozen=True, slots=True)
class RedactedText:
    """The columns of a table that hold a sample's text.

    blank:   column -> SQL of what stands there once it is removed.
    belongs: SQL: whether a row belongs to one of the example ids `$ids`, or to one of `$latents`.
    """

    blank: Mapping[str, str]
    belongs: str


def _redacted(belongs: str, **blank: str) -> RedactedText:
    return RedactedText(blank, belongs)


_OF_EXAMPLE = "list_contains($ids::VARCHAR[], example_id)"
_OF_EXEMPLAR = "list_contains($ids::VARCHAR[], exemplar_id)"
TEXTS = {
    "sample": _redacted(_OF_EXAMPLE, messages="'[]'", tools="NULL"),
    "pick": _redacted(_OF_EXAMPLE, text="NULL"),
    "near_miss": _redacted(_OF_EXAMPLE, text="NULL"),
    "occurrence": _redacted(_OF_EXAMPLE, raw="NULL"),
    "token_activations": _redacted(
        _OF_EXAMPLE, turn="NULL", first_char="NULL", end_char="NULL", activation="NULL"
    ),  # how long its words are
    "explanation": _redacted(f"({_OF_EXAMPLE} OR {_OF_EXEMPLAR})", term="NULL"),
    "exemplar": _redacted(_OF_EXEMPLAR, messages="'[]'", text="NULL", tools="NULL"),
    "latent_description": _redacted(
        "list_contains($latents::VARCHAR[], sae || ':' || latent)", description="NULL"
    ),  # it quotes a sample
    "target_latent": _redacted(
        f"(run_id, target) IN (SELECT (run_id, target) FROM exemplar WHERE {_OF_EXEMPLAR})",
        term="NULL",
    ),
}
"""What `forget` takes out of the catalog, and what a bundle without text leaves out."""
