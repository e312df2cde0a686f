import json
import shutil
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from flows.config.jobs import SelectConfig
from flows.config.load import resolve
from flows.orchestration.run_page import selection_page
from flows.stages.prepare.inputs import read_targets
from flows.stages.prepare.render import open_model_input, render_rows
from selection.core.sparse import from_lists
from selection.data.messages.normalize import plain_text
from selection.evaluation.bm25 import bm25_of_sets
from selection.evaluation.held_out import median_interval
from selection.rendering.renderer import render_key
from selection.similarity.weights import latent_weights
from storage.catalog.snapshot import open_snapshot
from storage.files.workspace import Workspace
from storage.queries.lookup import find_selection
from storage.queries.sql import run_sql
from storage.report.gather import report_facts
from storage.wording.checks import check_lines
from tests.conftest import Paths
from tests.oracles import generalized_jaccard, mean_of_fixed_points, prototype_jaccard
from tests.read_shards import stored_vectors
from tests.run_stages import run_job, tiny_config
from tests.tiny_model import tiny_row, write_jsonl

Vectors = Mapping[str, dict[int, int]]


@pytest.fixture(scope="module")
def embedded(paths: Paths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the vectors are there already."""
    root = tmp_path_factory.mktemp("check") / "w"
    run_job(tiny_config(*paths, index=False, name="first", check=None), root)
    return root


@pytest.fixture
def run(paths: Paths, embedded: Path, tmp_path: Path) -> Any:
    """Run a job in a copy of that workspace; returns it and the main selection's row."""

    def start(*files: Path, **more: Any) -> tuple[Workspace, dict[str, Any]]:
        root = tmp_path / "copy"
        if not root.exists():
            shutil.copytree(embedded, root)
        pool, exemplars = [*files, *paths[len(files) : 2]]
        config = tiny_config(pool, exemplars, *paths[2:], **{"index": False, **more})
        workspace, results = run_job(config, root)
        return workspace, results[0]

    return start


def query(workspace: Workspace, sql: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = run_sql(workspace, sql).to_pylist()
    return rows


def of_selection(workspace: Workspace, table: str, selection_id: object) -> list[dict[str, Any]]:
    return query(workspace, f"FROM {table} WHERE selection_id = '{selection_id}'")


def own_checks(workspace: Workspace, selection_id: object) -> list[dict[str, Any]]:
    rows = of_selection(workspace, "v_held_out_check", selection_id)
    return [row for row in rows if row["is_own"]]


def weights_of(kind: str, pool: Vectors, kept: Vectors) -> dict[int, int]:
    """By the tested function of weights."""
    frequency = Counter(latent for vector in pool.values() for latent in vector)
    counts = np.array([frequency[latent] for latent in range(64)])
    exemplars = from_lists(list(kept.values()), 64)
    found = latent_weights(kind, counts, len(pool), exemplars=exemplars)  # type: ignore[arg-type]
    return dict(enumerate(found.tolist()))


def score(how: str, vector: dict[int, int], kept: Vectors, weights: dict[int, int]) -> Fraction:
    if how == "prototype":
        return prototype_jaccard(vector, list(kept.values()), weights)
    pairs = [generalized_jaccard(vector, other, weights) for other in kept.values()]
    return (
        Fraction(mean_of_fixed_points([float(x) for x in pairs])) if how == "mean" else max(pairs)
    )


@pytest.mark.parametrize(
    ("how", "kind"),
    [("mean", "idf"), ("max", "idf"), ("prototype", "none"), ("mean", "target_unique")],
)
def test_percentiles_are_what_the_definition_says(run: Any, how: str, kind: str) -> None:
    """Scores by exact fractions, by the exemplars that are not held out."""
    ranking = {"exemplar_reduction": how, "weights": kind}
    workspace, main = run(ranking=ranking, name="oracle", check={"folds": 4})
    pool, exemplars = stored_vectors(workspace)
    rows = of_selection(workspace, "held_out_exemplar", main["selection_id"])
    mine = {row["exemplar_id"]: row for row in rows if row["method"] == "jaccard"}
    # Keys of vectors are not example ids; the exemplars' order of percentiles identifies them.
    folds = Counter(row["fold"] for row in mine.values())
    assert sorted(folds.values()) == [1, 1, 2, 2]
    vectors = dict(zip(mine, in_order(workspace, mine, exemplars), strict=True))
    for name, row in mine.items():
        kept = {k: v for k, v in vectors.items() if mine[k]["fold"] != row["fold"]}
        weights = weights_of(kind, pool, kept)
        own = float(score(how, vectors[name], kept, weights))
        others = [float(score(how, vector, kept, weights)) for vector in pool.values()]
        below = sum(1.0 if x < own else 0.5 if x == own else 0.0 for x in others)
        assert row["percentile"] == pytest.approx(100 * below / len(pool), abs=1e-9)
    (found,) = [
        r for r in of_selection(workspace, "v_held_out_check", main["selection_id"]) if r["is_own"]
    ]
    expected = median_interval(np.array([row["percentile"] for row in mine.values()]))
    assert found["percentile"] == pytest.approx(expected.median)
    assert found["n_close"] == pytest.approx(2 * (1 - found["percentile"] / 100) * len(pool))


def in_order(workspace: Workspace, ids: Any, exemplars: Vectors) -> list[dict[int, int]]:
    """The exemplars' vectors by example id: the key of a vector is the hash of its rendering."""
    text = query(workspace, "SELECT config FROM run ORDER BY created_at DESC LIMIT 1")[0]["config"]
    config: SelectConfig = resolve(json.loads(text))
    found = {}
    renderer = open_model_input(config).renderer
    for table in read_targets(config.exemplars).values():
        for name, sample in zip(
            table["example_id"].to_pylist(), render_rows(renderer, table), strict=True
        ):
            found[name] = exemplars[render_key(sample).hex()]
    return [found[name] for name in ids]


def test_bm25_and_random_are_ranked_too_and_random_is_chance(run: Any) -> None:
    workspace, main = run(name="controls")
    rows = of_selection(workspace, "held_out_check", main["selection_id"])
    assert {row["method"] for row in rows} == {"jaccard", "bm25", "random"}
    (random,) = [row for row in rows if row["method"] == "random"]
    assert random["percentile_lo"] < 50 < random["percentile_hi"]
    assert random["n_close"] is None
    assert random["depth"] is None
    texts = [plain_text(tiny_row(i)["messages"], None) for i in range(60)]
    held = [row for row in of_selection(workspace, "held_out_exemplar", main["selection_id"])
            if row["method"] == "bm25"]  # fmt: skip
    own = {row["exemplar_id"]: row for row in query(workspace, "FROM exemplar")}
    assert len(held) == len(own) > 1
    ids = [row["exemplar_id"] for row in held]
    for i, row in enumerate(held):
        rest = np.array([j for j, other in enumerate(held) if other["fold"] != row["fold"]])
        mine = [own[name]["text"] for name in ids]
        (of_texts, of_exemplars) = bm25_of_sets(texts, mine, [rest])
        scores, score = of_texts[:, 0], of_exemplars[i, 0]
        below = (scores < score).mean() + 0.5 * (scores == score).mean()
        assert row["percentile"] == pytest.approx(100 * below)


def test_a_copy_in_the_pool_does_not_compete_with_its_exemplar(run: Any, tmp_path: Path) -> None:
    rows = [tiny_row(i) for i in (*range(60), 400)]  # 400 is an exemplar
    pool = write_jsonl(tmp_path / "pool.jsonl", rows)
    workspace, main = run(pool, drop_exemplar_copies=False, decontamination=None, name="copy")
    (found,) = [
        r for r in of_selection(workspace, "v_held_out_check", main["selection_id"]) if r["is_own"]
    ]
    assert found["n_ranked"] == 61
    among = {
        row["own_id"]: row["percentile"]
        for row in query(
            workspace,
            "SELECT own_id, percentile FROM held_out_exemplar JOIN exemplar USING (exemplar_id)"
            " WHERE method = 'random'",
        )
    }
    assert len(among) > 1
    assert "row-400" in among
    for own_id, percentile in among.items():  # no ties at random: a whole number of samples
        n = 60 if own_id == "row-400" else 61
        assert percentile * n / 100 == pytest.approx(round(percentile * n / 100), abs=1e-6)


def test_a_single_exemplar_is_said_to_be_too_few_and_the_reach_is_still_measured(
    run: Any, paths: Paths, tmp_path: Path
) -> None:
    one = write_jsonl(tmp_path / "one.jsonl", [tiny_row(400), tiny_row(400)])  # a copy is no second
    workspace, main = run(paths[0], one, name="one")
    (row,) = of_selection(workspace, "held_out_check", main["selection_id"])
    assert (row["n_exemplars"], row["n_folds"], row["percentile"]) == (1, None, None)
    assert row["depth"] is not None
    lines = check_lines(workspace, str(main["selection_id"]))
    assert any("a single exemplar cannot be held out" in line for line in lines)


def test_the_check_can_be_turned_off(run: Any) -> None:
    workspace, main = run(check=None, name="off")
    assert of_selection(workspace, "held_out_exemplar", main["selection_id"]) == []
    assert check_lines(workspace, str(main["selection_id"])) == []
    report = (workspace.reports / f"{main['name']}.html").read_text()
    assert '<section id="check">' not in report


def test_every_target_of_a_joint_selection_is_checked(
    run: Any, paths: Paths, tmp_path: Path
) -> None:
    targets = [
        {"target": "sums", "exemplars": [tiny_row(i) for i in (400, 404, 408)]},
        {"target": "french", "exemplars": [tiny_row(i) for i in (401, 405)]},
    ]
    file = write_jsonl(tmp_path / "targets.jsonl", targets)
    workspace, main = run(paths[0], file, combine="joint", name="joint")
    rows = [
        r for r in of_selection(workspace, "v_held_out_check", main["selection_id"]) if r["is_own"]
    ]
    picks = {row["target"]: row["n_picks"] for row in rows}
    assert picks == {"sums": 4, "french": 3}
    lines = check_lines(workspace, str(main["selection_id"]))
    assert {line.removeprefix("! ").split(":")[0] for line in lines} == {"sums", "french"}


def test_sentences_stand_in_terminal_report_and_page_and_change_with_no_thread_or_sample(
    run: Any, tmp_path: Path
) -> None:
    """A pool larger than what exemplars are ranked among, so that it is sampled, twice."""
    pool = write_jsonl(tmp_path / "large.jsonl", [tiny_row(i) for i in range(500, 1600)])
    found = []
    for threads in (1, 2):
        compute = {"unit_examples": 256, "tokens_per_batch": 8192, "threads": threads}
        workspace, main = run(
            pool, name=f"threads-{threads}", compute=compute, check={"max_rows": 1000}
        )
        rows = of_selection(workspace, "held_out_check", main["selection_id"])
        rows += of_selection(workspace, "held_out_exemplar", main["selection_id"])
        found.append([{k: v for k, v in r.items() if k != "selection_id"} for r in rows])
    assert found[0] == found[1]
    (own,) = [row for row in found[0] if row.get("depth") is not None]
    assert (own["n_rows"], own["n_ranked"]) == (1000, 1100)
    lines = check_lines(workspace, str(main["selection_id"]))
    assert any("Measured among 1,000 samples drawn from 1,100." in line for line in lines)
    shown = CliRunner().invoke(app, ["show", str(main["name"]), "-w", str(workspace.root)])
    assert all(line in shown.stdout for line in lines)
    report = (workspace.reports / f"{main['name']}.html").read_text()
    assert all(line.removeprefix("! ") in report for line in lines if "\u201c" not in line)
    with open_snapshot(workspace) as connection:
        said = report_facts(connection, find_selection(workspace, str(main["name"])))
    page = selection_page(workspace, said, [])
    assert "### Label-free check" in page
    assert page.count("held-out exemplar ranks above") == 1
