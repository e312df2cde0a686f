"""Joined spaces through the whole job, against exact fractions."""

from dataclasses import replace
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.config.jobs import SelectConfig
from flows.stages.prepare.render import open_model_input
from flows.stages.represent import units
from flows.stages.represent.exemplars import embed_samples
from flows.stages.represent.representer import open_representer, represent_samples
from flows.stages.represent.spaces import open_sources, open_spaces
from selection.core.errors import InputError
from selection.core.sparse import document_frequency
from selection.core.words import words
from selection.sae.formats.load import load_sae
from selection.sae.formats.save import save_sparsify
from selection.similarity.weights import idf_weights
from storage.files.workspace import Workspace
from storage.pools.renderings import open_rendering
from storage.queries.sql import run_sql
from tests.conftest import Paths
from tests.oracles import generalized_jaccard
from tests.run_stages import run_job, tiny_config

SPACES = [
    "sae",
    {"kind": "words", "weight": 2},
    {"kind": "sae", "token_aggregate": "max"},
    "tokens",
]


def query(workspace: Workspace, sql: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = run_sql(workspace, sql).to_pylist()
    return rows


def config_of(paths: Paths, spaces: list[Any], **ranking: Any) -> SelectConfig:
    return tiny_config(
        *paths,
        representation={"spaces": spaces},
        ranking={"normalize": "l1", **ranking},
        index=False,
    )


@pytest.fixture(scope="module")
def joined(
    paths: Paths, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SelectConfig, Workspace, list[dict[str, Any]]]:
    config = config_of(paths, SPACES)
    workspace, results = run_job(config, tmp_path_factory.mktemp("spaces"))
    return config, workspace, results


def whole(parts: list[Any], i: int, weights: list[Any], factors: list[int]) -> dict[int, int]:
    """One sample's vector of all spaces, by fractions."""
    found, first = {}, 0
    for rows, weight, factor in zip(parts, weights, factors, strict=True):
        span = slice(rows.indptr[i], rows.indptr[i + 1])
        pairs = zip(rows.latents[span].tolist(), rows.values[span].tolist(), strict=True)
        amounts = {c: int(weight[c]) * value for c, value in pairs}
        total = sum(amounts.values())
        for c, amount in amounts.items():
            found[first + c] = factor * floor(Fraction(amount * 2**20, total))
        first += rows.n_latents
    return {c: amount for c, amount in found.items() if amount}


def test_scores_are_one_jaccard_over_all_spaces(
    joined: tuple[SelectConfig, Workspace, list[dict[str, Any]]], paths: Paths
) -> None:
    config, workspace, results = joined
    (pool_id,) = (p.name for p in workspace.pools.iterdir() if (p / "manifest.json").exists())
    representer = open_representer(config, workspace, str(paths[3]))
    vectors = open_spaces(config, representer, pool_id)
    assert [s.name for s in vectors.sources] == ["resid@2", "words", "resid@2/max", "tokens"]
    n = len(vectors.parts[0].usable)
    pool = vectors.gather(np.arange(n))
    exemplars = exemplar_parts(config, workspace, representer)
    weights = [idf_weights(document_frequency(part), n) for part in pool]
    factors = [1, 2, 1, 1]
    known = [whole(exemplars, j, weights, factors) for j in range(len(exemplars[0]))]
    picks = query(
        workspace,
        "SELECT example_id, score FROM v_selection WHERE selection_id ="
        f" '{results[0]['selection_id']}' ORDER BY rank",
    )
    scores = []
    for i in range(n):
        vector = whole(pool, i, weights, factors)
        parts = [generalized_jaccard(vector, other) for other in known]
        rounded = [Fraction(round(Fraction(float(part)) * 2**40), 2**40) for part in parts]
        scores.append(float(sum(rounded, Fraction(0)) / len(rounded)))
    assert [pick["score"] for pick in picks] == sorted(scores, reverse=True)[: len(picks)]


def exemplar_parts(config: SelectConfig, workspace: Workspace, representer: Any) -> list[Any]:
    from flows.stages.prepare.inputs import read_targets
    from flows.stages.prepare.render import render_rows
    from storage.pools.shards import open_shards

    (table,) = read_targets(config.exemplars).values()
    samples = render_rows(representer.model_input.renderer, table)
    parts = []
    for source in open_sources(config, representer):
        if source.is_lexical:
            parts.append(source.counts(samples))
        else:
            keys = embed_samples(source.representer, samples)
            parts.append(open_shards(workspace.shards / source.shards_id).gather(keys))
    return parts


def test_explanations_name_the_space_and_the_word(
    joined: tuple[SelectConfig, Workspace, list[dict[str, Any]]],
) -> None:
    _, workspace, _ = joined
    rows = query(
        workspace,
        "SELECT w.space, w.latent, w.description, e.text, s.text AS picked FROM v_why w"
        " JOIN exemplar e USING (exemplar_id) JOIN v_selection s USING (selection_id, example_id)",
    )
    assert {"resid@2", "words", "resid@2/max"} <= {row["space"] for row in rows}
    for row in rows:
        if row["space"] == "words":
            assert row["description"] in words(row["text"])
            assert row["description"] in words(row["picked"])
        assert (row["space"] is None) == (row["latent"] < 0)
    lineage = query(workspace, "SELECT artifact FROM artifact WHERE step = 'represent'")
    assert sum(row["artifact"].startswith("shards/") for row in lineage) == 4


def test_words_and_tokens_that_explain_are_marked_where_they_stand(
    joined: tuple[SelectConfig, Workspace, list[dict[str, Any]]],
) -> None:
    _, workspace, _ = joined
    rows = query(
        workspace,
        "SELECT DISTINCT f.space, f.example_id, f.latent, f.token, w.description"
        " FROM v_token_activations f"
        " JOIN v_why w USING (selection_id, example_id, space, latent)",
    )
    assert {"words", "tokens", "resid@2"} <= {row["space"] for row in rows}
    explained = query(workspace, "SELECT DISTINCT space, example_id, latent FROM v_why")
    for row in rows:
        if row["space"] == "words":
            assert words(row["token"]) == [row["description"]]
        if row["space"] == "tokens":
            assert row["token"].strip() in row["description"]
        assert {name: row[name] for name in ("space", "example_id", "latent")} in explained


def test_lexical_shards_are_made_once_and_hold_what_counts(
    joined: tuple[SelectConfig, Workspace, list[dict[str, Any]]], paths: Paths
) -> None:
    config, workspace, _ = joined
    before = {p: p.stat().st_mtime_ns for p in workspace.shards.rglob("*.npy")}
    again, _ = run_job(config_of(paths, ["words", "sae"]), workspace.root)
    assert {p: p.stat().st_mtime_ns for p in again.shards.rglob("*.npy")} == before
    (pool_id,) = (p.name for p in workspace.pools.iterdir() if (p / "manifest.json").exists())
    model_input = open_model_input(config)
    rendering = workspace.pools / pool_id / "renderings" / model_input.renderer.rendering_id
    samples = open_rendering(rendering).samples(np.arange(3))
    source = open_sources(config, open_representer(config, workspace, str(paths[3])))[3]
    stored = source.vectors(pool_id).gather(np.arange(3))
    for i, sample in enumerate(samples):
        span = slice(stored.indptr[i], stored.indptr[i + 1])
        tokens, counts = np.unique(sample.tokens[sample.content_mask], return_counts=True)
        assert stored.latents[span].tolist() == tokens.tolist()
        assert stored.values[span].tolist() == counts.tolist()


def test_all_hookpoints_and_aggregates_come_from_one_pass_with_the_bytes_of_separate_ones(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coder = load_sae(paths[3])
    shallow = tmp_path / "layers.1"
    save_sparsify(replace(coder, info=replace(coder.info, hookpoint="layers.1")), shallow)
    spaces = [
        "sae",
        {"kind": "sae", "sae": str(shallow)},
        {"kind": "sae", "token_aggregate": "max"},
    ]
    together: list[int] = []

    def counted(representers: Any, samples: Any, on_batch: Any) -> Any:
        together.append(len(representers))
        return represent_samples(representers, samples, on_batch)

    monkeypatch.setattr(units, "represent_samples", counted)
    joined, _ = run_job(config_of(paths, spaces), tmp_path / "joined")
    n_units = len(together)
    assert set(together) == {3}
    at_block_1: dict[str, Any] = {"model": {"name": str(paths[2]), "hookpoint": "resid@1"}}
    by_maximum: dict[str, Any] = {"representation": {"token_aggregate": "max"}}
    separate = [(paths[3], {}), (shallow, at_block_1), (paths[3], by_maximum)]
    for number, (sae, change) in enumerate(separate):
        config = tiny_config(*paths[:3], sae, index=False, **change)
        alone, _ = run_job(config, tmp_path / f"alone-{number}")
        (folder,) = [each for each in alone.shards.iterdir() if each.is_dir()]
        files = sorted(folder.rglob("*.npy"))
        assert len(files) >= 4 * n_units
        for file in files:
            twin = joined.shards / file.relative_to(alone.shards)
            assert twin.read_bytes() == file.read_bytes()
    assert together[n_units:] == [1] * (3 * n_units)


@pytest.mark.parametrize(
    ("reduction", "weights"),
    [("round_robin", "idf"), ("mean", "none"), ("max", "idf"), ("prototype", "idf")],
)
def test_every_reduction_runs_end_to_end(
    joined: tuple[SelectConfig, Workspace, list[dict[str, Any]]],
    paths: Paths,
    reduction: str,
    weights: str,
) -> None:
    _, workspace, _ = joined
    config = config_of(paths, ["sae", "words"], exemplar_reduction=reduction, weights=weights)
    _, results = run_job(config, workspace.root)
    selection = results[0]["selection_id"]
    rows = query(
        workspace,
        f"SELECT score, rank FROM v_selection WHERE selection_id = '{selection}' ORDER BY rank",
    )
    scores = [row["score"] for row in rows]
    assert len(scores) == 7
    assert all(0 < score <= 1 for score in scores)
    if reduction != "round_robin":
        assert scores == sorted(scores, reverse=True)
    stored = query(
        workspace,
        f"SELECT exemplar_reduction, weights FROM selection WHERE selection_id = '{selection}'",
    )
    assert stored == [{"exemplar_reduction": reduction, "weights": weights}]


@pytest.mark.parametrize(
    ("spaces", "message"),
    [
        (["words"], "names the run's own SAE 0 times"),
        (["sae", "sae"], "names the run's own SAE 2 times"),
        (["sae", {"kind": "words", "sae": "demo"}], "has no SAE, hookpoint or aggregate"),
        (["sae", {"kind": "sae", "hookpoint": "resid@1"}], "needs its own `sae`"),
        (["sae", {"kind": "words", "weight": 0}], "greater than or equal to 1"),
    ],
)
def test_spaces_that_make_no_sense_are_refused(
    paths: Paths, spaces: list[Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        config_of(paths, spaces)


def test_two_equal_spaces_are_refused(paths: Paths, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two spaces are the same"):
        run_job(config_of(paths, ["sae", "words", "words"]), tmp_path)
