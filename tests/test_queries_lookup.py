import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from selection.core.errors import InputError
from storage.audit.explain import explain
from storage.catalog.arrow_rows import to_arrow
from storage.catalog.commit import commit
from storage.files.workspace import Workspace, open_workspace
from storage.queries import lookup
from storage.queries.lookup import SelectionRow
from storage.queries.sql import run_sql
from tests.catalog_fixture import made_workspace, make_tables
from tests.catalog_run import DESCRIPTIONS, SPACE

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Two runs; the second is newer and selects other examples for another target."""
    made = made_workspace(tmp_path)
    later = make_tables(
        "brisk-heron",
        target="humaneval",
        seed=1,
        n_selected=30,
        created_at=datetime(2026, 11, 24, tzinfo=UTC),
    )
    commit(made, later)
    return made


def names(rows: list[SelectionRow]) -> list[str]:
    return [row.name for row in rows]


def test_runs_and_selections_are_listed_newest_first_and_main_before_controls(
    workspace: Workspace,
) -> None:
    assert lookup.run_names(workspace) == ["calm-otter", "brisk-heron"]
    assert names(lookup.list_selections(workspace)) == [
        "brisk-heron",
        "brisk-heron-bm25",
        "brisk-heron-random",
        "calm-otter",
        "calm-otter-bm25",
        "calm-otter-random",
    ]
    assert names(lookup.list_selections(workspace, "main")) == ["brisk-heron", "calm-otter"]


def test_a_workspace_without_runs_has_no_names_and_says_what_to_do(tmp_path: Path) -> None:
    empty = open_workspace(tmp_path)
    assert lookup.run_names(empty) == []
    with pytest.raises(InputError, match=r"nothing has been recorded.*saelect demo"):
        lookup.list_selections(empty)
    commit(empty, {"event": to_arrow("event", [])})
    with pytest.raises(InputError, match=r"no selection has been recorded.*saelect demo"):
        lookup.find_selections(empty, "latest")


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("latest", ["brisk-heron"]),
        ("calm-otter", ["calm-otter"]),
        ("calm-otter-random", ["calm-otter-random"]),
        ("calm-otter-b", ["calm-otter-bm25"]),
        ("calm", ["calm-otter"]),  # as a run: its main selections
    ],
)
def test_a_selection_is_found_by_name_beginning_or_latest(
    workspace: Workspace, reference: str, expected: list[str]
) -> None:
    assert names(lookup.find_selections(workspace, reference)) == expected


def test_a_selection_is_found_by_the_beginning_of_its_id(workspace: Workspace) -> None:
    for row in lookup.list_selections(workspace):
        assert lookup.find_selection(workspace, row.selection_id[:18]) == row
        assert lookup.find_selection(workspace, row.selection_id) == row
    run_id = lookup.find_selection(workspace, "calm-otter").run_id
    assert names(lookup.find_selections(workspace, run_id[:6])) == ["calm-otter"]


def test_an_unknown_or_ambiguous_selection_lists_names(workspace: Workspace) -> None:
    with pytest.raises(InputError, match=r"no selection has this name or id .*brisk-heron, "):
        lookup.find_selection(workspace, "nope")
    with pytest.raises(InputError, match=r"`latest` means the newest run"):
        lookup.find_selection(workspace, "ca")  # too short to be a beginning


def test_a_name_used_twice_means_the_newer_selection(workspace: Workspace) -> None:
    again = make_tables("calm-otter", seed=9, created_at=datetime(2026, 11, 25, tzinfo=UTC))
    commit(workspace, again)
    newer = again["selection"]["selection_id"][0].as_py()
    assert lookup.find_selection(workspace, "calm-otter").selection_id == newer


def test_picks_come_in_order_of_rank_with_their_place(workspace: Workspace) -> None:
    chosen = lookup.find_selection(workspace, "calm-otter")
    rows = lookup.picks(workspace, chosen.selection_id)
    assert [row.rank for row in rows] == list(range(1, 121))
    assert rows[1].file == f"data/{rows[1].source}.jsonl"
    assert lookup.picks(workspace, chosen.selection_id, 5) == rows[:5]
    near = lookup.picks(workspace, chosen.selection_id, near_misses=True)
    assert [row.rank for row in near] == list(range(121, 171))


def test_why_lists_latents_in_their_recorded_order_and_the_rest_last(workspace: Workspace) -> None:
    chosen = lookup.find_selection(workspace, "calm-otter")
    example = lookup.picks(workspace, chosen.selection_id, 2)[1].example_id
    all_rows = explain(workspace, chosen.name, example).latents
    rows = [row for row in all_rows if row.exemplar_id == all_rows[0].exemplar_id]
    parts = [row.contribution for row in rows]
    assert rows[-1].latent < 0
    key = f"selection_id = '{chosen.selection_id}' AND example_id = '{example}'"
    key += f" AND exemplar_id = '{rows[0].exemplar_id}'"
    in_order = run_sql(
        workspace, f"SELECT contribution FROM explanation WHERE {key} ORDER BY position"
    ).rows
    assert parts == [part for (part,) in in_order]
    found = run_sql(workspace, f"SELECT DISTINCT numerator FROM explanation WHERE {key}").rows
    assert [(sum(parts),)] == list(found)
    described = {row.latent: row.description for row in rows if row.space == SPACE}
    assert described
    assert all(text == DESCRIPTIONS.get(latent) for latent, text in described.items())
    assert explain(workspace, chosen.name, "0" * 32).latents == []


def test_an_example_is_found_by_id_beginning_or_own_id(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    chosen = lookup.find_selection(workspace, "calm-otter")
    row = lookup.picks(workspace, chosen.selection_id, 2)[1]
    assert row.own_id is not None
    for reference in (row.example_id, row.example_id[:8], row.example_id[:8].upper(), row.own_id):
        assert lookup.find_example(workspace, reference) == row.example_id
    for reference in ("nope", "", row.example_id[:3]):
        with pytest.raises(InputError, match="no picked or nearly picked example"):
            lookup.find_example(workspace, reference)


def test_an_own_id_that_two_examples_share_is_refused(workspace: Workspace) -> None:
    shared = lookup.find_selection(workspace, "calm-otter")
    ids = [row.example_id for row in lookup.picks(workspace, shared.selection_id, 2)]
    rows = [
        {"run_id": shared.run_id, "example_id": i, "own_id": "7", "source": "s", "file": "f",
         "row": 1}
        for i in ids
    ]  # fmt: skip
    commit(workspace, {"occurrence": to_arrow("occurrence", rows)})
    with pytest.raises(InputError, match=r"means 2 examples.*Name one of them"):
        lookup.find_example(workspace, "7")


def test_where_used_names_selections_and_exports(workspace: Workspace) -> None:
    chosen = lookup.find_selection(workspace, "calm-otter")
    example = lookup.picks(workspace, chosen.selection_id, 2)[1].example_id
    at = datetime(2026, 11, 26, tzinfo=UTC)
    export = {
        "export_id": "e1",
        "selection_id": chosen.selection_id,
        "format": "messages",
        "path": "exports/calm-otter/train.jsonl",
        "sha256": "ab",
        "rows": 120,
        "created_at": at,
    }
    uses = lookup.where_used(workspace, example)
    assert ("calm-otter", None) in [(use.selection, use.path) for use in uses]
    assert all(use.path is None for use in uses)
    commit(workspace, {"export": to_arrow("export", [export])})
    (use,) = (use for use in lookup.where_used(workspace, example) if use.path)
    assert (use.selection, use.rank, use.path, use.format) == (
        "calm-otter",
        2,
        "exports/calm-otter/train.jsonl",
        "messages",
    )
    assert use.exported_at == datetime(2026, 11, 26)
    assert lookup.find_selection(workspace, "calm-otter").n_exports == 1


def test_a_difference_has_both_sides_and_what_is_shared(workspace: Workspace) -> None:
    found = lookup.diff(workspace, "calm-otter", "calm-otter-bm25")
    a = {p.example_id for p in lookup.picks(workspace, found.first.selection_id)}
    b = {p.example_id for p in lookup.picks(workspace, found.second.selection_id)}
    assert found.n_both == len(a & b)
    assert {p.example_id for p in found.only_first} == a - b
    assert {p.example_id for p in found.only_second} == b - a
    assert len(lookup.diff(workspace, "calm-otter", "calm-otter-bm25", limit=3).only_first) == 3


@pytest.mark.parametrize(
    "module",
    [
        "queries.lookup",
        "queries.sql",
        "export.export",
        "catalog.commit",
        "report.page",
        "files.workspace",
        "catalog.connection",
        "audit.explain",
        "catalog.integrity",
        "audit.exclusions",
    ],
)
def test_light_modules_import_nothing_heavy(module: str) -> None:
    heavy = "torch polars prefect datasets pyarrow jinja2 numba faiss transformers numpy".split()  # noqa: SIM905 - as a line
    code = f"import sys, storage.{module}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_reading_leaves_the_snapshot_unchanged(workspace: Workspace) -> None:
    before = workspace.snapshot.read_bytes()
    lookup.list_selections(workspace)
    assert workspace.snapshot.read_bytes() == before
