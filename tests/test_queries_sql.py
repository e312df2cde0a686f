import os
import shutil
from pathlib import Path

import pytest

from selection.core.errors import InputError
from storage.files.workspace import Workspace
from storage.queries.sql import run_sql
from tests.catalog_fixture import made_workspace, make_tables, write_scores


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = made_workspace(tmp_path / "w")
    write_scores(made, make_tables())
    return made


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_select_returns_names_types_and_rows(workspace: Workspace) -> None:
    result = run_sql(
        workspace,
        "SELECT selection, count(*) AS n, min(score) AS lowest FROM v_selection"
        " GROUP BY ALL ORDER BY 1",
    )
    assert list(result.columns) == ["selection", "n", "lowest"]
    assert list(result.types) == ["VARCHAR", "BIGINT", "DOUBLE"]
    assert [row[:2] for row in result.rows] == [
        ("calm-otter", 120),
        ("calm-otter-bm25", 120),
        ("calm-otter-random", 120),
    ]
    assert result.to_pylist()[0]["n"] == 120
    assert not result.is_cut


def test_scores_of_the_whole_ranking_are_beside_the_views(workspace: Workspace) -> None:
    joined = run_sql(
        workspace,
        "SELECT count(*), count(*) FILTER (s.score = p.score) FROM v_selection p"
        " JOIN scores s USING (selection_id, example_id)",
    )
    assert joined.rows == [(357, 357)]  # the first pick of each was put in the place of a real one


def test_scores_are_empty_where_no_parquet_is_left(workspace: Workspace) -> None:
    shutil.rmtree(workspace.scores)
    assert run_sql(workspace, "SELECT count(*) FROM scores").rows == [(0,)]


def test_many_rows_can_be_cut(workspace: Workspace) -> None:
    query = "SELECT rank FROM v_selection WHERE selection = 'calm-otter' ORDER BY rank"
    assert run_sql(workspace, query, max_rows=3).rows == [(1,), (2,), (3,)]
    assert run_sql(workspace, query, max_rows=3).is_cut
    assert not run_sql(workspace, query, max_rows=120).is_cut
    assert len(run_sql(workspace, query, max_rows=120).rows) == 120


@pytest.mark.parametrize(
    "query",
    [
        "FROM v_drops",
        "WITH x AS (SELECT 1) FROM x;",
        "VALUES (1)",
        "DESCRIBE v_selection",
        "SUMMARIZE pick",
        "SHOW TABLES",
        "-- why?\nSELECT config->>'$.where' FROM run",
    ],
)
def test_whatever_reads_is_allowed(workspace: Workspace, query: str) -> None:
    assert run_sql(workspace, query).rows


@pytest.mark.parametrize(
    "query",
    [
        "COPY pick TO '{root}/scores/x.parquet'",
        "COPY (SELECT 1) TO '{outside}'",
        "COPY (SELECT 1) TO '{root}/exports/train.jsonl'",
        "COPY pick FROM '{root}/scores/x.parquet'",
        "EXPORT DATABASE '{root}/exports/all'",
        "IMPORT DATABASE '{root}/exports/all'",
        "ATTACH '{root}/catalog.duckdb' AS other",
        "ATTACH '{root}/snapshot.duckdb' AS other (READ_WRITE)",
        "DETACH snapshot",
        "USE memory",
        "FORCE INSTALL json",
        "PRAGMA database_list",
        "PRAGMA enable_profiling",
        "SET enable_external_access = true",
        "SET VARIABLE x = 1",
        "ATTACH '{outside}' AS other",
        "INSTALL httpfs",
        "LOAD json",
        "PRAGMA version",
        "SET threads = 1",
        "RESET lock_configuration",
        "CALL pragma_version()",
        "EXPORT DATABASE '{outside}'",
        "CREATE TEMP TABLE x AS SELECT 1",
        "DROP VIEW v_selection",
        "DELETE FROM pick",
        "UPDATE pick SET score = 1",
        "CHECKPOINT",
        "VACUUM",
        "PREPARE q AS SELECT 1",
        "BEGIN",
    ],
)
def test_any_other_statement_is_refused_by_name(
    workspace: Workspace, tmp_path: Path, query: str
) -> None:
    before = content(workspace.root)
    text = query.format(root=workspace.root, outside=tmp_path / "outside")
    with pytest.raises(InputError, match=r"a [A-Z_]+ statement; only SELECT is allowed"):
        run_sql(workspace, text)
    assert content(workspace.root) == before
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM read_csv('{outside}')",
        "SELECT * FROM '{outside}'",
        "SELECT * FROM glob('/*')",
        "FROM sniff_csv('{outside}')",
        "FROM enable_logging(storage = 'file', storage_path = '{outside}')",
        "FROM query('COPY pick TO ''{outside}''')",
        "WITH x AS (DELETE FROM pick RETURNING *) FROM x",
        "SELECT * FROM read_text('{root}/../outside')",
        "SELECT * FROM read_text('{root}/link')",
    ],
)
def test_a_select_reaches_nothing_outside_and_changes_nothing(
    workspace: Workspace, tmp_path: Path, query: str
) -> None:
    (tmp_path / "outside").write_text("secret\n")
    os.symlink(tmp_path / "outside", workspace.root / "link")
    before = content(tmp_path)
    text = query.format(root=workspace.root, outside=tmp_path / "outside")
    with pytest.raises(InputError):
        run_sql(workspace, text)
    assert content(tmp_path) == before


def test_a_second_statement_is_refused(workspace: Workspace) -> None:
    with pytest.raises(InputError, match="2 statements in one call"):
        run_sql(workspace, "SELECT 1; SELECT 2")


@pytest.mark.parametrize("query", ["", "  ;  ", "-- nothing"])
def test_an_empty_query_is_refused(workspace: Workspace, query: str) -> None:
    with pytest.raises(InputError, match="the query is empty"):
        run_sql(workspace, query)


def test_wrong_sql_is_explained_with_duckdbs_own_words(workspace: Workspace) -> None:
    with pytest.raises(InputError, match=r'syntax error at or near "selct"'):
        run_sql(workspace, "selct 1")
    with pytest.raises(InputError, match=r"(?s)selections does not exist.*v_selection.*scores"):
        run_sql(workspace, "SELECT * FROM selections")
    with pytest.raises(InputError, match=r'(?s)column "rnk" not found.*"rank".*DESCRIBE'):
        run_sql(workspace, "SELECT rnk FROM v_selection")


def test_a_folder_with_a_quote_in_its_name_works(tmp_path: Path) -> None:
    made = made_workspace(tmp_path / "it's")
    write_scores(made, make_tables())
    assert run_sql(made, "SELECT count(*) FROM scores").rows == [(3 * 320,)]


def test_a_damaged_snapshot_is_named(workspace: Workspace) -> None:
    workspace.snapshot.write_bytes(b"not a database" * 1000)
    with pytest.raises(InputError, match=r"snapshot\.duckdb: not readable as a DuckDB database"):
        run_sql(workspace, "SELECT 1")


def test_what_python_cannot_hold_is_refused_with_a_way_out(workspace: Workspace) -> None:
    with pytest.raises(InputError, match=r"cannot be shown.*::VARCHAR"):
        run_sql(workspace, "SELECT INTERVAL 99999999 YEARS")
    assert run_sql(workspace, "SELECT (INTERVAL 99999999 YEARS)::VARCHAR").rows
    with pytest.raises(InputError, match="not valid SQL"):
        run_sql(workspace, "SELECT '\ud800'")


def test_a_damaged_file_of_scores_is_left_out_by_name(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    whole = run_sql(workspace, "SELECT count(DISTINCT selection_id) FROM scores").rows
    first, *_ = sorted(workspace.scores.iterdir())
    first.write_bytes(b"no Parquet")
    assert run_sql(workspace, "SELECT count(*) FROM pick").rows
    left = run_sql(workspace, "SELECT count(DISTINCT selection_id) FROM scores").rows
    assert [(int(str(n)) - 1,) for (n,) in whole] == list(left)
    assert first.name in caplog.text
