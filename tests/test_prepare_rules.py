"""Rules of a whole run on the tiny model: who is taken, who is not, and what the catalog says."""

from pathlib import Path
from typing import Any

import pytest

from flows.config.jobs import SelectConfig
from flows.stages.prepare.inputs import prepare
from flows.stages.validate import check_before_model
from selection.core.errors import InputError
from storage.files.workspace import Workspace, open_workspace
from storage.queries.sql import run_sql
from tests.run_stages import run_job, tiny_config
from tests.tiny_model import tiny_row, write_jsonl

LONG = "The old harbor town held its market every second Sunday under the lime trees by the river"


def question(text: str, answer: str, name: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
    return {"id": name, "messages": messages, "source": "extra", "licence": "MIT"}


@pytest.fixture(scope="module")
def files(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, tiny_sae_dir: Path
) -> tuple[Path, Path, Path, Path, Path]:
    """Pool with a near copy of a row and a copy of an evaluation item; evaluation file."""
    folder = tmp_path_factory.mktemp("files")
    copy = {**tiny_row(8), "id": "near-copy"}
    copy["messages"] = [dict(message) for message in copy["messages"]]
    copy["messages"][0]["content"] += " "
    rows = [tiny_row(i) for i in range(40)] + [
        {**tiny_row(8), "id": "near-copy", "messages": [*tiny_row(8)["messages"]]},
        question(f"Repeat: {LONG}.", "It did, they say.", "copied"),
    ]
    rows[40]["messages"][-1] = {"role": "assistant", "content": "Yes."}
    pool = write_jsonl(folder / "pool.jsonl", rows)
    evaluation = write_jsonl(folder / "eval.jsonl", [question(LONG, "True", "item-1")])
    exemplars = write_jsonl(folder / "ex.jsonl", [tiny_row(i) for i in (400, 404, 408)])
    return pool, exemplars, tiny_model_dir, tiny_sae_dir, evaluation


def config_of(files: tuple[Path, Path, Path, Path, Path], **more: Any) -> SelectConfig:
    return tiny_config(*files[:4], index=False, **more)


def query(workspace: Workspace, sql: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = run_sql(workspace, sql).to_pylist()
    return rows


def test_every_rule_is_kept_and_told(
    files: tuple[Path, Path, Path, Path, Path], tmp_path: Path
) -> None:
    listed = tmp_path / "never.txt"
    listed.write_text("row-4\nnot-in-the-pool\n")
    config = config_of(
        files,
        budget={"examples": 10},
        include=["row-39"],
        exclude=str(listed),
        length={"max_tokens": 100},
        quotas=[{"column": "quality", "values": {"3": {"floor": 3}}, "others": {"cap": 0.3}}],
        near_duplicates={"similarity": 0.5, "text_overlap": 0.3},
        diversity={"trade": 0.6},
        decontamination={"files": [str(files[4])]},
        controls=["random", "length_matched"],
    )
    workspace, results = run_job(config, tmp_path / "w")
    assert [r["n_selected"] for r in results] == [10, 10, 10]
    picks = query(
        workspace,
        "SELECT p.*, o.own_id, o.raw FROM pick p JOIN selection s USING (selection_id)"
        " JOIN v_first_occurrence o ON o.example_id = p.example_id AND o.run_id = s.run_id"
        " WHERE s.role = 'main' ORDER BY rank",
    )
    names = [row["own_id"] for row in picks]
    assert (names[0], picks[0]["reason"]) == ("row-39", "included")
    assert not {"row-4", "copied"} & set(names)
    assert not {"row-8", "near-copy"} <= set(names)
    quality = [int(n.split("-")[1]) % 7 for n in names if n.startswith("row")]
    assert quality.count(3) >= 3
    assert max(quality.count(q) for q in range(7) if q != 3) <= 3
    assert {row["reason"] for row in picks} <= {"included", "floor", "diversity", "score"}
    drops = query(workspace, "SELECT stage, reason, n, example_id FROM v_drops")
    counts = {(d["stage"], d["reason"]): d["n"] for d in drops if d["stage"] == "filter"}
    assert counts["filter", "excluded"] == 1
    assert counts["filter", "contaminated"] == 1
    one_by_one = [d for d in drops if d["stage"] == "select"]
    assert one_by_one
    assert all(d["example_id"] and d["n"] == 1 for d in one_by_one)
    held = query(workspace, "SELECT * FROM contamination WHERE dropped")
    assert [(row["item"], row["matched"] == row["counted"]) for row in held] == [("item-1", True)]
    sql = "SELECT count(*) AS n, max(rank) AS last, count(DISTINCT example_id) AS d FROM scores"
    for row in query(workspace, f"{sql} GROUP BY selection_id"):
        assert row["n"] == row["last"] == row["d"]


def test_quotas_columns_and_lists_are_refused_before_the_model(
    files: tuple[Path, Path, Path, Path, Path], tmp_path: Path
) -> None:
    workspace = open_workspace(tmp_path / "w")
    pool = prepare(config_of(files), workspace)

    def check(**more: Any) -> None:
        check_before_model(config_of(files, **more), workspace, pool.pool_id)

    check(quotas=[{"column": "source", "values": {"extra": {"floor": 1}}}])
    with pytest.raises(InputError, match=r"at least 5 picks are asked for, and 1 eligible"):
        check(quotas=[{"column": "source", "values": {"extra": {"floor": 5}}}])
    with pytest.raises(InputError, match=r"no such column.*Columns: own_id, source"):
        check(quotas=[{"column": "colour"}])
    with pytest.raises(InputError, match="1 of 2 ids are not in the pool"):
        check(include=["row-1", "row-1000"])
    with pytest.raises(InputError, match="both included and excluded"):
        check(include=["row-1"], exclude=["row-1"])
    with pytest.raises(InputError, match="cannot be read"):
        check(exclude=str(tmp_path / "nothing.txt"))
    with pytest.raises(InputError, match="nothing lies between"):
        check(length={"min_tokens": 9, "max_tokens": 8})
    with pytest.raises(InputError, match="`shortest` is 20 and `longest` 13"):
        check(decontamination={"shortest": 20})


def test_targets_share_a_budget_by_weight(
    files: tuple[Path, Path, Path, Path, Path], tmp_path: Path
) -> None:
    targets = tmp_path / "targets.jsonl"
    rows = [("sums", (400, 404)), ("french", (401, 405))]
    write_jsonl(targets, [{"target": n, "exemplars": [tiny_row(i) for i in of]} for n, of in rows])
    pool, _, model, sae, _ = files
    config = tiny_config(
        pool, targets, model, sae, index=False, combine="joint",
        target_weights={"sums": 2}, min_score=0.0, budget={"examples": 9},
    )  # fmt: skip
    workspace, _ = run_job(config, tmp_path / "w")
    counts = query(workspace, "SELECT target, count(*) AS n FROM v_selection GROUP BY target")
    assert {row["target"]: row["n"] for row in counts} == {"sums": 6, "french": 3}
