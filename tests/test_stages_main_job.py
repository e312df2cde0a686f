"""The main job end to end on the tiny model, against a slow definition of every number."""

import json
import shutil
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

import flows.stages.represent.representer as vectors_stage
from flows.config.jobs import SelectConfig
from selection.records import Rendered
from selection.representation import represent
from storage.audit.explain import explain
from storage.export.export import export_selection
from storage.files.workspace import Workspace
from storage.queries.lookup import picks
from storage.queries.sql import run_sql
from storage.report.page import write_report
from tests.oracles import generalized_jaccard
from tests.read_shards import stored_vectors
from tests.run_stages import run_job, tiny_config
from tests.tiny_model import tiny_row, write_jsonl


@pytest.fixture(scope="module")
def done(
    paths: tuple[Path, Path, Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[SelectConfig, Workspace, list[dict[str, Any]]]:
    config = tiny_config(*paths, controls=["random", "bm25"])
    workspace, results = run_job(config, tmp_path_factory.mktemp("job"))
    return config, workspace, results


@pytest.fixture
def forwarded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the samples that go through the model."""
    counts: Counter[str] = Counter()
    original = represent.represent_heads

    def counting(samples: list[Rendered], *args: Any, **kwargs: Any) -> Any:
        counts["samples"] += len(samples)
        return original(samples, *args, **kwargs)

    monkeypatch.setattr(vectors_stage, "represent_heads", counting)
    return counts


def query(workspace: Workspace, sql: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = run_sql(workspace, sql).to_pylist()
    return rows


def test_the_selection_is_what_the_definition_says(
    done: tuple[SelectConfig, Workspace, list[dict[str, Any]]],
) -> None:
    """Scores by exact fractions: idf-weighted Jaccard, rounded to 2^-40, mean over exemplars."""
    _, workspace, results = done
    pool, exemplars = stored_vectors(workspace)
    frequency = Counter(latent for vector in pool.values() for latent in vector)
    n = len(pool)
    weights = {
        latent: max(1, round(np.log((1 + n) / (1 + df)) * 1024)) for latent, df in frequency.items()
    }
    for vector in exemplars.values():
        for latent in vector:
            weights.setdefault(latent, round(np.log(1 + n) * 1024))

    def score(vector: dict[int, int]) -> Fraction:
        parts = [generalized_jaccard(vector, other, weights) for other in exemplars.values()]
        return sum((Fraction(round(part * 2**40), 2**40) for part in parts), Fraction(0)) / len(
            parts
        )

    expected = sorted(pool, key=lambda example: (-score(pool[example]), example))[:7]
    main = results[0]["selection_id"]
    rows = query(
        workspace,
        f"SELECT example_id, score FROM v_selection WHERE selection_id = '{main}' ORDER BY rank",
    )
    assert [row["example_id"] for row in rows] == expected
    assert [row["score"] for row in rows] == [float(score(pool[example])) for example in expected]


def test_controls_have_the_budget_and_come_from_the_same_rows(
    done: tuple[SelectConfig, Workspace, list[dict[str, Any]]],
) -> None:
    _, workspace, results = done
    assert [(r["method"], r["role"], r["n_selected"]) for r in results] == [
        ("jaccard", "main", 7),
        ("random", "control", 7),
        ("bm25", "control", 7),
    ]
    chosen = query(workspace, "SELECT selection_id, example_id FROM v_selection")
    assert len({(row["selection_id"], row["example_id"]) for row in chosen}) == 21


def test_the_counts_add_up_to_the_pool(
    done: tuple[SelectConfig, Workspace, list[dict[str, Any]]],
) -> None:
    _, workspace, _ = done
    snapshot = duckdb.connect(str(workspace.snapshot), read_only=True)
    with snapshot:
        counts = json.loads(snapshot.execute("SELECT counts FROM run").fetchall()[0][0])
        licences = snapshot.execute("SELECT data_licences FROM run").fetchall()[0][0]
    assert json.loads(licences) == Counter(tiny_row(i)["licence"] for i in range(60))
    dropped = sum(counts["dropped_while_reading"].values())
    assert counts["rows"] == dropped + counts["occurrences"] == 60
    assert counts["examples"] == sum(counts["dropped_before_ranking"].values()) + counts["ranked"]


def test_contributions_of_a_pick_add_up_to_its_numerator(
    done: tuple[SelectConfig, Workspace, list[dict[str, Any]]],
) -> None:
    _, workspace, _ = done
    rows = query(
        workspace,
        "SELECT w.selection_id, example_id, sum(contribution) AS total, sum(share) AS share"
        " FROM v_why w JOIN pick USING (selection_id, example_id)"
        " WHERE exemplar_rank = 1 GROUP BY ALL",
    )
    assert len(rows) == 7
    assert all(abs(row["share"] - 1) < 1e-12 for row in rows)


def test_tokens_of_the_first_picks_say_where_their_latents_fire(
    done: tuple[SelectConfig, Workspace, list[dict[str, Any]]],
) -> None:
    _, workspace, _ = done
    rows = query(workspace, "SELECT * FROM v_token_activations")
    explained = query(workspace, "SELECT DISTINCT example_id, latent FROM v_why WHERE latent >= 0")
    assert {(r["example_id"], r["latent"]) for r in rows} <= {
        (r["example_id"], r["latent"]) for r in explained
    }
    assert {r["rank"] for r in rows} == set(range(1, 13))  # 7 picks, 5 near misses
    texts = {
        r["example_id"]: [turn["content"] for turn in json.loads(r["messages"])]
        for r in query(workspace, "SELECT example_id, messages FROM sample")
    }
    for row in rows:
        turn = texts[row["example_id"]][row["turn"]]
        assert row["token"] == turn[row["first_char"] : row["end_char"]] != ""
        assert row["activation"] > 0


def token_activations_of(
    workspace: Workspace, results: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Rows of `token_activations` of a run, less the selection's id."""
    mine = [str(row["selection_id"]) for row in results]
    return [
        {name: value for name, value in row.items() if name != "selection_id"}
        for row in query(workspace, "SELECT * FROM token_activations ORDER BY ALL")
        if row["selection_id"] in mine
    ]


def test_tokens_that_were_found_before_need_no_model(
    done: tuple[SelectConfig, Workspace, list[dict[str, Any]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, workspace, results = done
    shutil.copytree(workspace.root, tmp_path / "w")
    copy = Workspace(tmp_path / "w")
    (kept,) = copy.token_activations.glob("*/*.parquet")

    def no_model(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the model was loaded")

    with monkeypatch.context() as patched:
        patched.setattr(vectors_stage, "load_activation_model", no_model)
        _, again = run_job(config, copy.root)
        assert token_activations_of(copy, again) == token_activations_of(copy, results) != []
        whole = kept.read_bytes()
        # Another question, and an answer that does not read, are for the model.
        with pytest.raises(AssertionError, match="was loaded"):
            run_job(config.model_copy(update={"explain_tokens": 3}), copy.root)
        # Another rendering or batch is another question.
        for key, value in (("rendering", {"truncation": "start"}),
                           ("compute", {"tokens_per_batch": 64})):  # fmt: skip
            changed = getattr(config, key).model_copy(update=value)
            with pytest.raises(AssertionError, match="was loaded"):
                run_job(config.model_copy(update={key: changed}), copy.root)
        kept.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
        with pytest.raises(AssertionError, match="was loaded"):
            run_job(config, copy.root)
    _, again = run_job(config, copy.root)
    assert token_activations_of(copy, again) == token_activations_of(copy, results)
    assert kept.read_bytes() == whole


def test_a_run_goes_on_where_the_places_cannot_be_kept(
    paths: tuple[Path, Path, Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "token_activations").write_text("in the way of the folder")
    copy, results = run_job(tiny_config(*paths), tmp_path / "w")
    assert token_activations_of(copy, results)
    assert (copy.root / "token_activations").is_file()


def test_target_tasks_are_described_by_the_latents_their_exemplars_are_made_of(
    done: tuple[SelectConfig, Workspace, list[dict[str, Any]]],
) -> None:
    _, workspace, _ = done
    rows = query(workspace, "SELECT * FROM target_latent ORDER BY target, position")
    worth = [row["share"] * (1 - row["pool_share"]) for row in rows]
    assert worth == sorted(worth, reverse=True)
    assert 0 < sum(row["share"] for row in rows) <= 1 + 1e-9
    stages = query(workspace, "SELECT stage, seconds FROM run_stage ORDER BY number")
    assert [row["stage"] for row in stages][-3:] == ["explain picks", "model", "mark tokens"]
    assert all(row["seconds"] >= 0 for row in stages)


def test_export_and_report_need_neither_pool_nor_shards(
    done: tuple[SelectConfig, Workspace, list[dict[str, Any]]], tmp_path: Path
) -> None:
    _, workspace, results = done
    copy = Workspace(tmp_path / "copy")
    shutil.copytree(workspace.root, copy.root)
    for folder in (copy.pools, copy.shards, copy.indexes):
        shutil.rmtree(folder)
    name = str(results[0]["name"])
    export_selection(copy, name, formats=("messages",), out=tmp_path / "out")
    lines = (tmp_path / "out" / "train.jsonl").read_text().splitlines()
    assert len(lines) == 7
    assert {"role", "content"} <= json.loads(lines[0])["messages"][0].keys()
    write_report(copy, name)
    assert name in (copy.reports / f"{name}.html").read_text()


def test_a_second_target_needs_no_forward_pass_over_the_pool(
    done: tuple[SelectConfig, Workspace, list[dict[str, Any]]],
    paths: tuple[Path, Path, Path, Path],
    forwarded: Counter[str],
    tmp_path: Path,
) -> None:
    _, workspace, _ = done
    second = write_jsonl(tmp_path / "second.jsonl", [tiny_row(i) for i in range(401, 413, 4)])
    pool, _, model, sae = paths
    run_job(tiny_config(pool, second, model, sae, name="second"), workspace.root)
    assert forwarded["samples"] == 3  # the new exemplars


def test_a_grown_pool_embeds_only_the_new_rows(
    done: tuple[SelectConfig, Workspace, list[dict[str, Any]]],
    paths: tuple[Path, Path, Path, Path],
    forwarded: Counter[str],
    tmp_path: Path,
) -> None:
    _, workspace, _ = done
    _, exemplars, model, sae = paths
    grown = write_jsonl(tmp_path / "grown.jsonl", [tiny_row(i) for i in range(62)])
    run_job(tiny_config(grown, exemplars, model, sae, name="grown"), workspace.root)
    assert forwarded["samples"] == 2


def test_the_same_job_in_an_empty_workspace_leaves_the_same_shards_and_picks(
    done: tuple[SelectConfig, Workspace, list[dict[str, Any]]], tmp_path: Path
) -> None:
    config, workspace, results = done
    again, repeated = run_job(config, tmp_path / "again")
    (before,), (after,) = workspace.shards.iterdir(), again.shards.iterdir()
    assert before.name == after.name
    first = {p.relative_to(after): p.read_bytes() for p in after.rglob("*.npy")}
    assert first
    assert all((before / name).read_bytes() == content for name, content in first.items())
    sql = "SELECT example_id, score FROM v_selection WHERE selection_id = '{}' ORDER BY rank"
    for old, new in zip(results, repeated, strict=True):
        assert query(workspace, sql.format(old["selection_id"])) == query(
            again, sql.format(new["selection_id"])
        )


def test_two_targets_are_selected_apart_or_jointly(
    paths: tuple[Path, Path, Path, Path], tmp_path: Path
) -> None:
    pool, _, model, sae = paths
    targets = tmp_path / "targets.jsonl"
    write_jsonl(
        targets,
        [
            {"target": "sums", "exemplars": [tiny_row(i) for i in (400, 404, 408)]},
            {"target": "french", "exemplars": [tiny_row(i) for i in (401, 405)]},
        ],
    )
    apart = tiny_config(pool, targets, model, sae, index=False, controls=["random"])
    workspace, results = run_job(apart, tmp_path / "w")
    main, controls = results[:2], results[2:]
    assert [(r["target"], r["n_selected"]) for r in main] == [("sums", 7), ("french", 7)]
    drawn = [
        query(workspace, f"FROM v_selection WHERE selection_id = '{r['selection_id']}'")
        for r in controls
    ]
    assert len({frozenset(str(row["example_id"]) for row in rows) for rows in drawn}) == 2
    report = (workspace.reports / f"{main[0]['name']}.html").read_text()
    assert report.count("</a> shares") == 1  # the other target's control is not its business
    joint = tiny_config(pool, targets, model, sae, index=False, combine="joint", name="joint")
    _, (result,) = run_job(joint, workspace.root)
    rows = query(
        workspace,
        "SELECT target, example_id FROM v_selection"
        f" WHERE selection_id = '{result['selection_id']}' ORDER BY rank",
    )
    assert [row["target"] for row in rows] == ["sums", "french"] * 3 + ["sums"]
    assert len({row["example_id"] for row in rows}) == 7


def test_a_token_budget_is_never_exceeded_and_a_larger_one_contains_the_smaller(
    paths: tuple[Path, Path, Path, Path], tmp_path: Path
) -> None:
    picks = []
    for tokens in (300, 600):
        config = tiny_config(*paths, index=False, budget={"tokens": tokens}, name=f"t{tokens}")
        workspace, (result,) = run_job(config, tmp_path / "w")
        assert int(str(result["n_tokens"])) <= tokens
        rows = query(
            workspace,
            "SELECT example_id, tokens FROM v_selection"
            f" WHERE selection_id = '{result['selection_id']}' ORDER BY rank",
        )
        assert sum(row["tokens"] for row in rows) == result["n_tokens"]
        picks.append([row["example_id"] for row in rows])
    assert picks[1][: len(picks[0])] == picks[0]
    assert len(picks[1]) > len(picks[0])


def test_where_is_a_drop_reason(paths: tuple[Path, Path, Path, Path], tmp_path: Path) -> None:
    config = tiny_config(*paths, index=False, where="licence = 'MIT' AND quality > 2")
    workspace, (result,) = run_job(config, tmp_path / "w")
    kept = sum(1 for i in range(60) if i % 3 and i % 7 > 2)
    assert result["n_eligible"] == kept
    drops = query(workspace, "SELECT reason, n FROM v_drops")
    assert {"reason": "where", "n": 60 - kept} in drops
    licences = query(workspace, "SELECT DISTINCT licence FROM v_selection")
    assert licences == [{"licence": "MIT"}]


def test_exemplars_without_a_response_are_compared_by_prompts(
    paths: tuple[Path, Path, Path, Path], tmp_path: Path
) -> None:
    pool, _, model, sae = paths
    questions = [{"messages": tiny_row(i)["messages"][:1]} for i in (400, 404)]
    exemplars = write_jsonl(tmp_path / "questions.jsonl", questions)
    prompts = {"counted": "prompt", "max_length": 128}
    config = tiny_config(pool, exemplars, model, sae, rendering=prompts, index=False)
    _, (result,) = run_job(config, tmp_path / "w")
    assert result["n_selected"] == 7


def test_an_sae_is_trained_once_and_does_not_follow_the_pool(
    paths: tuple[Path, Path, Path, Path], tmp_path: Path
) -> None:
    pool, exemplars, model, _ = paths
    train = {"num_latents": 64, "k": 4, "tokens": 4096, "batch_tokens": 256}
    config = tiny_config(pool, exemplars, model, {"train": train}, index=False)
    workspace, _ = run_job(config, tmp_path / "w")
    weights = {p: p.stat().st_mtime_ns for p in workspace.saes.rglob("sae.safetensors")}
    assert len(weights) == 1
    grown = write_jsonl(tmp_path / "grown.jsonl", [tiny_row(i) for i in range(70)])
    more = tiny_config(grown, exemplars, model, {"train": train}, index=False)
    run_job(more, workspace.root)
    assert {p: p.stat().st_mtime_ns for p in workspace.saes.rglob("sae.safetensors")} == weights


def test_every_pick_and_near_miss_is_explained_to_the_last_unit(
    done: tuple[SelectConfig, Workspace, list[dict[str, Any]]],
) -> None:
    _, workspace, results = done
    main = str(results[0]["name"])
    ranked = [*picks(workspace, str(results[0]["selection_id"]))]
    ranked += picks(workspace, str(results[0]["selection_id"]), near_misses=True)
    assert len(ranked) > 7
    for pick in ranked:
        found = explain(workspace, main, pick.example_id)
        parts = [each.part or 0 for each in found.exemplars]
        assert len(parts) == 6  # five and the rest
        assert sum(parts) / (sum(each.n for each in found.exemplars) * 2**40) == pick.score
        for each in found.exemplars[:5]:
            shared = [x for x in found.latents if x.exemplar_id == each.exemplar_id]
            assert sum(x.contribution for x in shared) == each.numerator
            assert each.similarity == each.numerator / each.denominator  # type: ignore[operator]
        assert found.margin == pick.score - ranked[6].score  # type: ignore[operator]
        assert (found.change is None) == (pick.rank <= 7)
