"""Catalogs for tests: the rows of a real run, renamed, cut and extended."""

import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from selection.core.hashing import canonical_json, content_id
from storage.catalog.arrow_rows import to_arrow
from storage.catalog.commit import commit
from storage.files.workspace import Workspace, open_workspace
from tests.catalog_run import (
    N_NEAR,
    N_SELECTED,
    MadeExample,
    Rows,
    hostile_example,
    read_run,
    real_run,
    temporary_folder,
)


def make_tables(
    name: str = "calm-otter",
    *,
    target: str = "gsm8k",
    n_selected: int = N_SELECTED,
    n_near: int = N_NEAR,
    seed: int = 0,
    extra: tuple[MadeExample, ...] = (hostile_example(),),
    is_demo: bool = False,
    created_at: datetime = datetime(2026, 11, 23, 9, 30, tzinfo=UTC),
) -> dict[str, pa.Table]:
    """All tables of one run: a main selection named `name`, with random and bm25 beside it.

    seed: part of the ids of run and selections. extra: examples that take the place of the first
    picks. Every selection is cut to its first n_selected picks and n_near near misses.
    """
    tables = read_run()
    run_id = content_id(["run", name, seed])
    renamed = {str(_one(tables["run"])["run_id"]): run_id}
    names = {}
    for number, row in enumerate(tables["selection"], start=1):
        renamed[row["selection_id"]] = f"{run_id}-{number}"
        names[row["name"]] = name if row["role"] == "main" else f"{name}-{row['method']}"
    main = next(row["selection_id"] for row in tables["selection"] if row["role"] == "main")
    _cut(tables, n_selected, n_near)
    for example, old in zip(extra, _best_picks(tables, main), strict=False):
        _replace(tables, old, example)
    delay = created_at - _one(tables["run"])["created_at"].replace(tzinfo=UTC)
    for rows in tables.values():
        for row in rows:
            for column, value in row.items():
                if isinstance(value, datetime):
                    row[column] = value.replace(tzinfo=UTC) + delay
                elif column in ("run_id", "selection_id") or (column, value) in (
                    ("artifact", main),
                    ("parent", main),
                ):
                    row[column] = renamed.get(value, value)
                elif column == "target" and value == "gsm8k":
                    row[column] = target
    for row in tables["selection"]:
        row["name"] = names[row["name"]]
    _one(tables["run"]).update(name=name, is_demo=is_demo)
    return {table: to_arrow(table, rows) for table, rows in tables.items()}


def with_many_picks(tables: dict[str, pa.Table], n: int) -> dict[str, pa.Table]:
    """The main selection alone, its picks copied under new ids until there are n of them."""
    rows: dict[str, Rows] = {name: table.to_pylist() for name, table in tables.items()}
    (main,) = (row for row in rows["selection"] if row["role"] == "main")
    picks = [row for row in rows["pick"] if row["selection_id"] == main["selection_id"]]
    belonging: dict[str, dict[str, Rows]] = {"sample": {}, "occurrence": {}}
    belonging |= {name: {} for name in rows if "exemplar_rank" in tables[name].column_names}
    for name, of_example in belonging.items():
        for row in rows[name]:
            if row.get("exemplar_rank", 1) == 1:
                of_example.setdefault(row["example_id"], []).append(row)
        rows[name] = []
    rows |= {"selection": [main | {"n_selected": n, "n_eligible": n}], "pick": [], "near_miss": []}
    for number in range(n):
        pick = picks[number % len(picks)]
        new = content_id(["copy", number], 32)
        rows["pick"].append(
            pick | {"rank": number + 1, "score_rank": number + 1, "example_id": new}
        )
        for name, of_example in belonging.items():
            old = of_example[pick["example_id"]]
            rows[name] += [
                row | {"example_id": new}
                for row in old
                if row.get("selection_id") in (None, main["selection_id"])
            ]
    others = rows.keys() - {"pick", *belonging}
    for name in others:
        rows[name] = [
            row for row in rows[name] if row.get("selection_id") in (None, main["selection_id"])
        ]
    return {name: to_arrow(name, values) for name, values in rows.items()}


def write_scores(workspace: Workspace, tables: Mapping[str, pa.Table]) -> None:
    """The Parquet files of all scores that a run leaves beside the catalog."""
    workspace.scores.mkdir(exist_ok=True)
    selections = tables["selection"].to_pylist()
    for old, row in zip(read_run()["selection"], selections, strict=True):
        scores = pq.read_table(real_run() / "scores" / f"{old['selection_id']}.parquet")
        ids = pa.array([row["selection_id"]] * len(scores))
        scores = scores.set_column(
            scores.schema.get_field_index("selection_id"), "selection_id", ids
        )
        pq.write_table(scores, workspace.scores / f"{row['selection_id']}.parquet")


def made_workspace(root: Path, **options: object) -> Workspace:
    """A workspace with the run in its catalog; options as for `make_tables`."""
    shutil.copytree(_template(**options), root, dirs_exist_ok=True)
    return open_workspace(root)


@cache
def _template(**options: object) -> Path:
    """Committing costs more than copying: each workspace is committed once per process."""
    folder = temporary_folder()
    commit(open_workspace(folder), make_tables(**options))  # type: ignore[arg-type]
    return folder


def _one(rows: Rows) -> dict[str, Any]:
    (row,) = rows
    return row


def _best_picks(tables: Mapping[str, Rows], selection_id: str) -> list[str]:
    picks = [row for row in tables["pick"] if row["selection_id"] == selection_id]
    return [row["example_id"] for row in sorted(picks, key=lambda row: row["rank"])]


def _cut(tables: dict[str, Rows], n_selected: int, n_near: int) -> None:
    """Keep the first picks and near misses of every selection, and what belongs to them."""
    for row in tables["selection"]:
        if n_selected < row["n_selected"]:
            picks = [p for p in tables["pick"] if p["selection_id"] == row["selection_id"]]
            kept = [pick for pick in picks if pick["rank"] <= n_selected]
            row |= {"n_selected": n_selected, "n_tokens": sum(pick["tokens"] for pick in kept)}
            row |= {"cut_score": min(pick["score"] for pick in kept)}
            row |= {"budget": {**json.loads(row["budget"]), "examples": n_selected}}
    run = _one(tables["run"])
    config = json.loads(run["config"])
    config["budget"]["examples"] = min(n_selected, N_SELECTED)
    run["config"] = config
    last = n_selected + n_near
    later = [row for row in tables["pick"] if n_selected < row["rank"] <= last]
    near = [
        {
            column: value
            for column, value in row.items()
            if column not in ("reason", "detail", "budget")
        }
        for row in later
    ]
    tables["pick"] = [row for row in tables["pick"] if row["rank"] <= n_selected]
    tables["near_miss"] = [*near, *(r for r in tables["near_miss"] if r["rank"] <= last)]
    shown = [*tables["pick"], *tables["near_miss"]]
    pairs = {(row["selection_id"], row["example_id"]) for row in shown}
    examples = {row["example_id"] for row in shown}
    for name in ("sample", "occurrence"):
        tables[name] = [row for row in tables[name] if row["example_id"] in examples]
    for name in tables.keys() - {"pick", "near_miss", "selection_drop", "contamination"}:
        rows = tables[name]
        if rows and {"selection_id", "example_id"} <= rows[0].keys():
            kept = [row for row in rows if (row["selection_id"], row["example_id"]) in pairs]
            tables[name] = kept


def _replace(tables: dict[str, Rows], old: str, example: MadeExample) -> None:
    """Put an example in the place of another one, wherever the run names it."""
    if "token_activations" in tables:  # character positions of the other text
        marks = tables["token_activations"]
        tables["token_activations"] = [row for row in marks if row["example_id"] != old]
    for rows in tables.values():
        for row in rows:
            if row.get("example_id") == old:
                row["example_id"] = example.id
                if "messages" in row:
                    tools = None if example.tools is None else canonical_json(example.tools)
                    row |= {"messages": canonical_json(example.messages), "tools": tools}
                if "text" in row:
                    row["text"] = example.text
                if "raw" in row:
                    row["raw"] = example.raw
