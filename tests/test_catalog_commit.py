import json
import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from storage.catalog import commit as catalog
from storage.catalog.arrow_rows import column_types, to_arrow
from storage.files.workspace import open_workspace
from storage.queries.sql import run_sql
from tests.catalog_fixture import made_workspace, make_tables
from tests.catalog_run import DESCRIPTIONS, SPACE, make_example

ROOT = Path(__file__).resolve().parent.parent
VIEWS = {
    "v_selection": "selection_id selection target rank example_id own_id source file row licence"
    " licences score score_meaning tokens text reason budget",
    "v_why": "selection_id example_id exemplar_id exemplar_rank similarity space latent description"
    " contribution share",
    "v_source_mix": "selection_id source n_pool n_selected share_pool share_selected",
    "v_drops": "selection_id stage reason n example_id file row detail other_id",
    "v_lineage": "selection_id step artifact sha256 parent",
}


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    """What an auditor's plain client sees."""
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def run_names(path: Path) -> list[object]:
    return [row[0] for row in query(path, "SELECT name FROM run ORDER BY name")]


def test_every_row_comes_back_as_written(tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path)
    tables = make_tables()
    catalog.commit(workspace, tables)
    for name, rows in tables.items():
        found = query(workspace.snapshot, f'SELECT count(*) FROM "{name}"')[0][0]
        assert found == rows.num_rows, name
    columns = "rank, example_id, score, tokens, text"
    found = query(workspace.snapshot, f"SELECT {columns} FROM pick ORDER BY selection_id, rank")
    expected = tables["pick"].sort_by([("selection_id", "ascending"), ("rank", "ascending")])
    assert found == list(zip(*(expected[c].to_pylist() for c in columns.split(", ")), strict=True))


def test_a_snapshot_copied_elsewhere_works_on_its_own(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path / "w")
    copied = tmp_path / "audit" / "copied.duckdb"
    copied.parent.mkdir()
    shutil.copy(workspace.snapshot, copied)
    shutil.rmtree(workspace.root)
    with duckdb.connect(str(copied)) as connection:
        for view, columns in VIEWS.items():
            relation = connection.sql(f"FROM {view}")
            assert relation.columns == columns.split(), view
            assert relation.fetchall(), view


def test_a_pick_has_one_row_and_its_first_occurrence(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    rows = query(
        workspace.snapshot,
        "SELECT rank, example_id, own_id, source, file FROM v_selection"
        " WHERE selection = 'calm-otter' ORDER BY rank",
    )
    assert [row[0] for row in rows] == list(range(1, 121))
    places = query(
        workspace.snapshot, "SELECT example_id, file, row, source, own_id FROM occurrence"
    )
    for _, example, own_id, source, file in rows:
        first = min(place for place in places if place[0] == example)
        assert (first[1], first[3], first[4]) == (file, source, own_id)


def test_the_source_mix_adds_up_to_pool_and_selection(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    sums = query(
        workspace.snapshot,
        "SELECT sum(n_pool), sum(n_selected), sum(share_pool), sum(share_selected)"
        " FROM v_source_mix GROUP BY selection_id",
    )
    assert [tuple(round(float(str(x)), 9) for x in row) for row in sums] == [(320, 120, 1, 1)] * 3


def test_explanations_carry_the_description_of_their_own_latent_and_sae(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    other = {"sae": "another SAE", "latent": 28, "description": "of another SAE"}
    catalog.commit(workspace, {"latent_description": to_arrow("latent_description", [other])})
    rows = query(
        workspace.snapshot, "SELECT space, latent, description, contribution, share FROM v_why"
    )
    described = {(latent, text) for space, latent, text, _, _ in rows if space == SPACE}
    assert {latent for latent, _ in described} > {28, 31}
    for latent, text in described:
        assert text == DESCRIPTIONS.get(int(str(latent)))
    made = make_tables()["explanation"].to_pylist()
    assert sorted((r[1], r[3]) for r in rows) == sorted(
        (row["latent"], row["contribution"]) for row in made
    )


def test_drops_of_the_run_belong_to_each_of_its_selections(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    rows = query(
        workspace.snapshot,
        "SELECT selection, reason, sum(n), count(d.example_id) FROM v_drops d"
        " JOIN (SELECT selection_id, name AS selection FROM selection) USING (selection_id)"
        " GROUP BY ALL ORDER BY ALL",
    )
    assert [row[1:] for row in rows if row[0] == "calm-otter-random"] == [
        ("image_or_audio", 6, 0),
        ("is_exemplar", 1, 0),
        ("no_text", 14, 0),
        ("where", 23, 0),
    ]


def test_content_shared_by_two_runs_is_stored_once(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    before = query(workspace.snapshot, "SELECT count(*) FROM sample")
    catalog.commit(workspace, make_tables("second"))
    assert query(workspace.snapshot, "SELECT count(*) FROM sample") == before
    assert run_names(workspace.snapshot) == ["calm-otter", "second"]


def test_a_repeated_commit_changes_nothing(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    catalog.commit(workspace, make_tables())
    assert query(workspace.snapshot, "SELECT count(*), count(DISTINCT run_id) FROM run") == [(1, 1)]
    assert query(workspace.snapshot, "SELECT count(*) FROM explanation")[0][0] == len(
        make_tables()["explanation"]
    )
    tables = make_tables()
    tables["selection"] = tables["selection"].slice(0, 1)
    with pytest.raises(ValueError, match="in the catalog already, with other selections"):
        catalog.commit(workspace, tables)


def without(tables: dict[str, pa.Table], name: str, keep: int) -> dict[str, pa.Table]:
    return {**tables, name: tables[name].slice(0, keep)}


@pytest.mark.parametrize(
    ("name", "keep", "said"),
    [
        ("run", 0, "rows of `selection` without their `run`"),
        ("selection", 2, "rows of `pick` without their `selection`"),
        ("pick", 359, "picks are not ranks 1 to n_selected"),
        ("sample", 0, "without their `sample`"),
        ("occurrence", 200, "picks or near misses without an occurrence"),
        ("exemplar", 7, "explanations without their exemplar"),
    ],
)
def test_rows_that_contradict_each_other_are_refused_whole(
    tmp_path: Path, name: str, keep: int, said: str
) -> None:
    workspace = made_workspace(tmp_path)
    new = make_example(7_000, np.random.default_rng(7))
    with pytest.raises(ValueError, match=said):
        catalog.commit(workspace, without(make_tables("second", extra=(new,)), name, keep))
    catalog.commit(workspace, {"event": to_arrow("event", [])})
    assert run_names(workspace.catalog) == ["calm-otter"]
    assert query(workspace.catalog, "SELECT count(*) FROM pick") == [(360,)]


def test_ranks_with_a_gap_are_refused(tmp_path: Path) -> None:
    tables = make_tables(n_selected=3)
    ranks = pa.array([1, 2, 4] + [1, 2, 3] * 2, pa.int64())
    tables["pick"] = tables["pick"].set_column(1, "rank", ranks)
    with pytest.raises(ValueError, match="ranks 1 to n_selected"):
        catalog.commit(open_workspace(tmp_path), tables)


def test_an_unknown_table_or_column_is_named(tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path)
    with pytest.raises(ValueError, match=r"no table `runs`; it has .*run, run_drop"):
        catalog.commit(workspace, {"runs": pa.table({"a": [1]})})
    with pytest.raises(ValueError, match=r"`run_drop` has no columns \['count'\]"):
        catalog.commit(workspace, {"run_drop": pa.table({"count": [1]})})
    with pytest.raises(ValueError, match=r"`run_drop` has no columns \['count'\]"):
        to_arrow("run_drop", [{"count": 1}])


def test_a_missing_required_value_is_named(tmp_path: Path) -> None:
    rows = to_arrow("run_drop", [{"run_id": "r", "stage": "read", "reason": "no_text"}])
    with pytest.raises(ValueError, match=r"rows of `run_drop` are not valid.*run_drop\.n"):
        catalog.commit(open_workspace(tmp_path), {"run_drop": rows})


def test_python_values_become_what_the_columns_hold() -> None:
    zone = timezone(timedelta(hours=2))
    moment = datetime(2026, 11, 23, 12, 0, tzinfo=zone)
    table = to_arrow("run", [{"run_id": "r", "created_at": moment, "config": {"b": [1], "a": "ü"}}])
    assert list(table.column_names) == list(column_types("run"))
    row = table.to_pylist()[0]
    assert row["created_at"] == datetime(2026, 11, 23, 10, 0)
    assert row["config"] == '{"a":"ü","b":[1]}'
    assert row["note"] is None


def test_a_few_rows_as_mappings_are_stored_as_arrow_rows_are(tmp_path: Path) -> None:
    at = datetime(2026, 11, 23, 12, 0, tzinfo=timezone(timedelta(hours=2)))
    events = [
        {"at": at, "action": "exported", "detail": {"folder": "Ü", "files": ["b", "a"]}},
        {"action": "forgot", "at": at, "run_id": None},
    ]
    found = []
    for place, rows in (("few", events), ("arrow", to_arrow("event", events))):
        workspace = open_workspace(tmp_path / place)
        catalog.commit(workspace, {"event": rows, "forgotten": []})
        found.append(run_sql(workspace, "FROM event ORDER BY action").rows)
    assert found[0] == found[1]
    assert found[0][0][0] == datetime(2026, 11, 23, 10, 0)
    with pytest.raises(ValueError, match=r"`event` has no columns \['count'\]"):
        catalog.commit(open_workspace(tmp_path / "few"), {"event": [{"count": 1}]})
    with pytest.raises(ValueError, match="rows of `event` are not valid"):
        catalog.commit(open_workspace(tmp_path / "few"), {"event": [{"at": "never"}]})


def test_json_columns_can_be_queried(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    asked = query(workspace.snapshot, "SELECT config->>'$.where', counts->'$.rows' FROM run")
    assert asked == [("quality > 0.5", "396")]
    raw = query(workspace.snapshot, "SELECT raw FROM occurrence ORDER BY file, row LIMIT 1")[0][0]
    assert json.loads(str(raw))["quality"] == 1.0
    assert '"quality": 1.0, ' in str(raw)  # as the file spelled it
