"""`ranking.search: faiss`: exact scores for what the sketches bring up, and what that misses."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from selection.core.errors import InputError
from storage.files.workspace import Workspace
from storage.pools.index import SKETCHES
from storage.queries.sql import run_sql
from tests.conftest import Paths
from tests.run_stages import run_job, tiny_config


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search")


def run(
    paths: Paths, root: Path, budget: int = 7, **ranking: Any
) -> tuple[dict[str, float], dict[str, Any]]:
    """Scores by example id of one run, and its counts."""
    config = tiny_config(*paths, ranking=ranking, controls=["random"], budget={"examples": budget})
    workspace, results = run_job(config, root)
    main = next(str(row["selection_id"]) for row in results if row["role"] == "main")
    table = pq.read_table(workspace.scores / f"{main}.parquet", columns=["example_id", "score"])
    scores = dict(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))
    (row,) = run_sql(
        workspace,
        f"SELECT counts FROM run JOIN selection USING (run_id) WHERE selection_id = '{main}'",
    ).to_pylist()
    return scores, {**json.loads(str(row["counts"])), "selection_id": main, "results": results}


@pytest.fixture(scope="module")
def exact(paths: Paths, root: Path) -> dict[str, float]:
    scores, counts = run(paths, root)
    assert "search" not in counts
    return scores


def test_all_candidates_give_the_exact_ranking(
    paths: Paths, root: Path, exact: dict[str, float]
) -> None:
    scores, counts = run(paths, root, search="faiss", candidates=60)
    assert list(scores.items()) == list(exact.items())
    target = counts["search"]["recall"]["target"]
    assert (counts["search"]["candidates"], target["recall"]) == (60, 1.0)


def test_few_candidates_keep_their_scores_and_the_loss_is_measured_and_counted(
    paths: Paths, root: Path, exact: dict[str, float]
) -> None:
    budget = 10
    scores, counts = run(paths, root, budget, search="faiss", candidates=3)
    assert budget <= len(scores) < 40
    assert all(exact[example] == score for example, score in scores.items())
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    cut = list(scores.values())[budget - 1]
    good = [example for example, score in exact.items() if score >= cut]
    share = sum(example in scores for example in good) / len(good)
    assert share < 1
    recall = counts["search"]["recall"]
    assert recall == {"sampled": 60, "target": {"recall": share, "of": len(good)}}
    workspace = Workspace(root)
    (drop,) = run_sql(
        workspace,
        "SELECT n FROM v_drops WHERE reason = 'not_retrieved'"
        f" AND selection_id = '{counts['selection_id']}'",
    ).to_pylist()
    assert drop["n"] == 60 - len(scores)
    random = next(row for row in counts["results"] if row["role"] == "control")
    file = workspace.scores / f"{random['selection_id']}.parquet"
    assert pq.read_metadata(file).num_rows == 60  # Controls draw from all.


def test_the_recall_may_be_measured_on_some_shards(
    paths: Paths, root: Path, exact: dict[str, float]
) -> None:
    _, counts = run(paths, root, search="faiss", candidates=8, recall_vectors=20)
    assert 0 < counts["search"]["recall"]["sampled"] < 40
    assert len([f for f in Workspace(root).indexes.iterdir() if f.name != SKETCHES]) == 1


def test_fewer_candidates_than_the_budget_and_a_search_without_index_are_refused(
    paths: Paths, root: Path, exact: dict[str, float]
) -> None:
    with pytest.raises(InputError, match=r"`ranking\.candidates`.*candidates were retrieved.*7"):
        run(paths, root, search="faiss", candidates=1)
    with pytest.raises(InputError, match="needs `index: true`"):
        tiny_config(*paths, ranking={"search": "faiss"}, index=False)
