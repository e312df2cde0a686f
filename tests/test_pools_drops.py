"""Rows dropped while reading are named: in the manifest, in the run's lines and in the catalog."""

from pathlib import Path

from flows.orchestration.progress import Lines, listening
from storage.queries.sql import run_sql
from tests.conftest import Paths
from tests.run_stages import run_job, tiny_config
from tests.tiny_model import tiny_row, write_jsonl


def test_every_dropped_row_is_in_the_catalog_and_said_with_its_remedy(
    tmp_path: Path, paths: Paths
) -> None:
    rows: list[object] = [tiny_row(i) for i in range(20)]
    rows[4] = {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "critic", "content": "Bad"}]
    }
    rows[7] = rows[9] = {"messages": [{"role": "user", "content": 7}]}
    rows[11] = {"messages": [{"role": "user", "content": "No answer?"}]}
    pool = write_jsonl(tmp_path / "pool.jsonl", rows)
    config = tiny_config(pool, *paths[1:], budget={"examples": 2})
    said: list[str] = []
    with listening(Lines(write=said.append)):
        workspace, _ = run_job(config, tmp_path / "workspace")
    found = run_sql(
        workspace,
        "SELECT stage, reason, n, file, row, detail FROM v_drops"
        " WHERE stage IN ('read', 'filter') ORDER BY stage DESC, reason, row",
    )
    assert [tuple(row) for row in found.rows] == [
        ("read", "not_text", 1, str(pool), 8, "turn 1: `content` is the number 7, not a text"),
        ("read", "not_text", 1, str(pool), 10, "turn 1: `content` is the number 7, not a text"),
        ("read", "unknown_role", 1, str(pool), 5, "turn 2: role `critic` is not known"),
        ("filter", "no_response", 1, str(pool), 12, None),
    ]
    lines = "\n".join(said)
    assert f"dropped 2 not_text (first: {pool}, row 8" in lines
    assert "roles: {NAME: assistant}" in lines
    assert f"dropped 1 no_response (first: {pool}, row 12)" in lines
    assert "exemplars: " in lines
    assert f"{pool}: 20 rows, 17 as messages; columns read:" in lines
