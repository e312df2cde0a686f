"""What the files beside an export say about its selection, gathered from the snapshot."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selection.core.errors import InputError
from storage.catalog.connection import Connection
from storage.queries.lookup import SelectionRow
from storage.wording.checks import check_sentences, in_lines

JsonRow = dict[str, object]
_SELECTION = "SELECT * FROM selection WHERE selection_id = ?"
_BUDGETS = """
SELECT budget, n_selected, n_replay, n_tokens, cut_score FROM v_budgets
WHERE selection_id = ? ORDER BY budget"""


@dataclass(frozen=True, slots=True)
class SourceShare:
    """Picks of one source and licence; an empty licence is one that the pool does not name."""

    source: str
    licence: str
    n: int


@dataclass(frozen=True, slots=True)
class SelectionFacts:
    """A selection and its run, as far as training files need it.

    run:              the run's row of the catalog, JSON columns parsed.
    selection:        the selection's row, likewise.
    targets:          exemplars per target task.
    sources:          picks by source and licence of the first row that holds them, most first.
    licences:         picks by licence of any row that holds them, most first.
    check:            what the held-out check found, in sentences that quote no exemplar.
    n_content_bytes:  length of all messages, to guess the size of the files.
    budget:           of a sweep, where only its picks count; `selection` is about them too.
    """

    run: Mapping[str, object]
    selection: Mapping[str, object]
    targets: Mapping[str, int]
    sources: Sequence[SourceShare]
    licences: Mapping[str, int]
    check: Sequence[str]
    n_content_bytes: int
    budget: float | None = None

    @property
    def selection_id(self) -> str:
        """Id of the selection."""
        return str(self.selection["selection_id"])

    @property
    def run_id(self) -> str:
        """Id of its run."""
        return str(self.run["run_id"])

    @property
    def name(self) -> str:
        """Name of the selection."""
        return str(self.selection["name"])

    @property
    def n_selected(self) -> int:
        """Number of picks."""
        return int(str(self.selection["n_selected"]))


def selection_facts(
    connection: Connection, chosen: SelectionRow, budget: float | None = None
) -> SelectionFacts:
    """Gather the facts of one selection, or of one budget of its sweep. Raises InputError."""
    key, run_key = [chosen.selection_id], [chosen.run_id]
    selection = json_rows(connection, _SELECTION, key)[0]
    within = ""
    if budget is not None:
        sweep = json_rows(connection, _BUDGETS, key)
        of_it = [row for row in sweep if row["budget"] == budget]
        if not of_it:
            raise InputError(
                "the selection has no such budget",
                field="budget",
                value=budget,
                remedy=f"There are: {', '.join(str(row['budget']) for row in sweep) or 'none'}.",
            )
        selection |= {**of_it[0], "budget": {"within": budget, **json_object(selection["budget"])}}
        selection["unused_tokens"] = None
        within = f" AND budget <= {float(budget)!r}"
    targets = connection.execute(
        "SELECT target, count(*) FROM exemplar WHERE run_id = ? GROUP BY target ORDER BY target",
        run_key,
    ).fetchall()
    sources = connection.execute(
        "SELECT coalesce(source, ''), coalesce(licence, ''), count(*) FROM v_selection"
        f" WHERE selection_id = ?{within} GROUP BY ALL ORDER BY 3 DESC, 1, 2",
        key,
    ).fetchall()
    licences = connection.execute(
        "SELECT licence, count(*) FROM (SELECT unnest(licences) AS licence FROM v_selection"
        f" WHERE selection_id = ?{within}) GROUP BY licence ORDER BY 2 DESC, 1",
        key,
    ).fetchall()
    size = connection.execute(
        "SELECT coalesce(sum(strlen(x.messages) + coalesce(strlen(x.tools), 0)), 0) FROM pick p"
        " JOIN sample x USING (example_id) WHERE p.selection_id = ?",
        key,
    ).fetchall()
    return SelectionFacts(
        run=json_rows(connection, "SELECT * FROM run WHERE run_id = ?", run_key)[0],
        selection=selection,
        targets=dict(targets),
        sources=[SourceShare(*row) for row in sources],
        licences=dict(licences),
        check=in_lines([s for s in check_sentences(connection, *key) if s.topic != "exemplar"]),
        n_content_bytes=int(size[0][0]),
        budget=budget,
    )


def json_object(value: object) -> Mapping[str, Any]:
    """A parsed JSON value as an object; empty where it is none, for instance null."""
    return value if isinstance(value, dict) else {}


def json_rows(connection: Connection, query: str, values: Sequence[object]) -> list[JsonRow]:
    """The rows of a query by column name, JSON columns parsed."""
    cursor = connection.execute(query, list(values))
    columns = [(column[0], str(column[1])) for column in cursor.description or ()]
    return [
        {
            name: json.loads(value) if kind == "JSON" and value is not None else value
            for (name, kind), value in zip(columns, row, strict=True)
        }
        for row in cursor.fetchall()
    ]
