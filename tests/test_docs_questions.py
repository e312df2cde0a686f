"""Every query of docs/reference/questions.md on a real catalog, some against plain Python."""

import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from storage.audit.explain import explain
from storage.export.outcome import record_outcome
from storage.files.workspace import Workspace
from storage.queries.lookup import find_selection, picks
from storage.queries.sql import run_sql
from tests.run_stages import run_job, tiny_config

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/reference/questions.md"
QUESTIONS = dict(re.findall(r"^## (.+?)\n.*?```sql\n(.+?)```", PAGE.read_text(), re.S | re.M))
PRESETS = ROOT / "flows/config/presets"
PAPER = yaml.safe_load((PRESETS / "paper.yaml").read_text())
BEST = yaml.safe_load((PRESETS / "best.yaml").read_text())
MAY_BE_EMPTY = {
    "Which picks stand in several rows of the files?",
    "Was anything changed by hand?", "What entered only because of one exemplar?",
    "Does a stored score follow from its parts?",
    "Which samples left one by one, and which was kept instead?",
    "Which samples hold an evaluation item or an exemplar, and how much of it?",
    "What was forgotten, when, by whom and why?",
}  # fmt: skip  # a list of names

Names = dict[str, str]


@pytest.fixture(scope="module")
def asked(
    tiny_pool_path: Path,
    tiny_exemplars_path: Path,
    tiny_model_dir: Path,
    tiny_sae_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Workspace, Names]:
    config = tiny_config(
        tiny_pool_path,
        tiny_exemplars_path,
        tiny_model_dir,
        tiny_sae_dir,
        controls=["bm25"],
        where="quality < 6",
        index=False,
    )
    workspace, results = run_job(config, tmp_path_factory.mktemp("questions"))
    chosen = find_selection(workspace, str(results[0]["name"]))
    record_outcome(workspace, chosen.selection_id, "accuracy", 0.5)
    first = picks(workspace, chosen.selection_id)[0]
    nearest = explain(workspace, chosen.name, first.example_id).exemplars[0].exemplar_id
    names = {
        "SELECTION": chosen.name,
        "OTHER": str(results[1]["name"]),
        "EXEMPLAR": str(nearest),
        "OWN-ID": str(first.own_id),
        "WORDS": str(first.text)[-20:].replace("'", "''"),
    }
    return workspace, names


def answer(asked: tuple[Workspace, Names], question: str) -> list[dict[str, Any]]:
    workspace, names = asked
    query = QUESTIONS[question]
    for name, value in names.items():
        query = query.replace(f"'{name}'", f"'{value}'")
    return run_sql(workspace, query).to_pylist()


def test_there_are_at_least_twelve_questions() -> None:
    assert len(QUESTIONS) >= 12


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_has_an_answer(asked: tuple[Workspace, Names], question: str) -> None:
    assert answer(asked, question) or question in MAY_BE_EMPTY


def test_the_licences_are_those_of_the_picks(asked: tuple[Workspace, Names]) -> None:
    workspace, names = asked
    chosen = find_selection(workspace, names["SELECTION"])
    chosen_picks = picks(workspace, chosen.selection_id)
    places = run_sql(workspace, "FROM occurrence").to_pylist()
    counts = Counter(
        licence
        for pick in chosen_picks
        for licence in {
            place["licence"] for place in places if place["example_id"] == pick.example_id
        }
    )
    rows = answer(asked, "What share of the picks has which licence?")
    assert {row["licence"]: row["n"] for row in rows} == counts
    shares = {row["licence"]: row["share"] for row in rows}
    assert shares == {name: n / len(chosen_picks) for name, n in counts.items()}


def test_scores_follow_from_their_parts_and_a_changed_one_does_not(
    asked: tuple[Workspace, Names], tmp_path: Path
) -> None:
    workspace, names = asked
    question = "Does a stored score follow from its parts?"
    assert answer(asked, question) == []
    copy = tmp_path / "copy.duckdb"
    shutil.copyfile(workspace.snapshot, copy)
    query = QUESTIONS[question].replace("'SELECTION'", f"'{names['SELECTION']}'")
    with duckdb.connect(str(copy)) as connection:
        for table, column, where in (
            ("pick", "score", "rank = 2"),
            ("explanation", "contribution", "exemplar_rank = 1 AND position = 1"),
            ("explanation_exemplar", "similarity", "exemplar_rank = 1"),
        ):
            assert connection.execute(query).fetchall() == []
            connection.begin()
            change = f"UPDATE {table} SET {column} = {column} + 1 WHERE {where}"
            connection.execute(change)
            assert connection.execute(query).fetchall() != []
            connection.rollback()


def test_what_an_exemplar_brought_in_is_what_the_mean_without_it_leaves_out(
    asked: tuple[Workspace, Names],
) -> None:
    workspace, names = asked
    chosen = find_selection(workspace, names["SELECTION"])
    expected = []
    for pick in picks(workspace, chosen.selection_id):
        parts = explain(workspace, chosen.name, pick.example_id).exemplars
        mine = [part for part in parts if part.exemplar_id == names["EXEMPLAR"]]
        if mine:
            left = sum(part.part or 0 for part in parts) - (mine[0].part or 0)
            score = left / ((sum(part.n for part in parts) - 1) * 2**40)
            if score < (chosen.cut_score or 0):
                expected.append(pick.example_id)
    found = answer(asked, "What entered only because of one exemplar?")
    assert [row["example_id"] for row in found] == expected


def test_what_picks_share_is_counted_over_picks_in_one_space(
    asked: tuple[Workspace, Names],
) -> None:
    workspace, names = asked
    chosen = find_selection(workspace, names["SELECTION"])
    ids = [pick.example_id for pick in picks(workspace, chosen.selection_id)]
    rows = answer(asked, "Which latents make this selection what it is?")
    assert 1 < max(row["picks"] for row in rows) <= len(ids)
    shared = answer(asked, "Which picks share a latent?")
    assert len({(row["space"], row["latent"]) for row in shared}) == 1
    expected = []
    for example in ids:
        found = explain(workspace, chosen.name, example)
        nearest = found.exemplars[0].exemplar_id
        mine = {each.latent for each in found.latents if each.exemplar_id == nearest}
        expected += [example] if shared[0]["latent"] in mine else []
    assert [row["example_id"] for row in shared] == expected


def test_the_hash_of_a_target_is_that_of_its_exemplars(asked: tuple[Workspace, Names]) -> None:
    rows = answer(asked, "Are the exemplars those that the target's hash names?")
    assert [row["same"] for row in rows] == [True]
    assert rows[0]["n_exemplars"] > 1


def test_where_a_sample_was_used_names_selection_and_export(
    asked: tuple[Workspace, Names],
) -> None:
    _, names = asked
    for question in (
        "Where was a sample ever used (by the data's own id)?",
        "Where was a text ever used (by words in it)?",
    ):
        found = answer(asked, question)
        assert names["SELECTION"] in {row["selection"] for row in found}
        assert any(str(row["export"]).endswith("train.jsonl") for row in found)


def recipe(name: str) -> Any:
    """A function of the page's Python."""
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.+?)```", PAGE.read_text(), re.S):
        exec(code, names)
    return names[name]


JOINED = {
    "representation": {"spaces": [{"kind": "words", "weight": 3}, "sae"]},
    "ranking": {"exemplar_reduction": "max", "weights": "idf", "normalize": "l1"},
}
COMMON = {
    "representation": {"spaces": ["sae", {"token_aggregate": "max"}, "tokens"]},
    "ranking": {
        "exemplar_reduction": "prototype", "normalize": "pool", "max_document_frequency": 0.5
    },
}  # fmt: skip  # as a config has them


@pytest.mark.parametrize("settings", [PAPER, BEST, JOINED, COMMON])
def test_scores_are_made_again_by_hand_from_vectors(
    settings: dict[str, Any],
    tiny_pool_path: Path,
    tiny_exemplars_path: Path,
    tiny_model_dir: Path,
    tiny_sae_dir: Path,
    tmp_path: Path,
) -> None:
    """By the recipe of the page alone: of the presets, and of settings that neither has."""
    inputs = (tiny_pool_path, tiny_exemplars_path, tiny_model_dir, tiny_sae_dir)
    rendering = {**settings.get("rendering", {}), "max_length": 128}
    config = tiny_config(*inputs, **{**settings, "rendering": rendering}, index=False)
    workspace, results = run_job(config, tmp_path)
    rows = recipe("scores_again")(workspace.root, str(results[0]["name"]))
    assert len(rows) > 5
    assert [made for _, _, made in rows] == [recorded for _, recorded, _ in rows]
    assert len({recorded for _, recorded, _ in rows}) > 3


def test_scores_of_controls_are_made_again_by_hand(
    tiny_pool_path: Path,
    tiny_exemplars_path: Path,
    tiny_model_dir: Path,
    tiny_sae_dir: Path,
    tmp_path: Path,
) -> None:
    inputs = (tiny_pool_path, tiny_exemplars_path, tiny_model_dir, tiny_sae_dir)
    controls = ["random", "length_matched", "bm25"]
    config = tiny_config(*inputs, controls=controls, index=False)
    workspace, results = run_job(config, tmp_path)
    for result in results[1:]:
        rows = recipe("control_again")(workspace.root, str(result["name"]))
        recorded, made = [row[1] for row in rows], [row[2] for row in rows]
        assert len(set(recorded)) > 3
        assert made == pytest.approx(recorded, rel=1e-12 if "bm25" in str(result["name"]) else 0)
