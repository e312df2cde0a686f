"""Vectors that are not what was written, and numbers that are none, never reach a ranking."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flows.stages.represent.representer as vectors_stage
from flows.config.jobs import SelectConfig
from selection.core.errors import InputError
from selection.core.sparse import from_lists
from selection.picking.rules.near_duplicates import KeptVectors
from selection.records import SparseRows
from selection.representation.aggregate import FloatRows, quantize
from selection.similarity.queries import exemplar_queries, score
from selection.similarity.sketches import sketch
from storage.files.workspace import Workspace
from tests.conftest import Paths
from tests.run_stages import run_job, tiny_config
from tests.tiny_model import tiny_row, write_jsonl


@pytest.fixture(scope="module")
def done(paths: Paths, tmp_path_factory: pytest.TempPathFactory) -> tuple[SelectConfig, Workspace]:
    """A finished run, whose vectors need no model any more."""
    config = tiny_config(*paths, index=False)
    workspace, _ = run_job(config, tmp_path_factory.mktemp("done"))
    return config, workspace


@pytest.fixture
def rerun(
    done: tuple[SelectConfig, Workspace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Path], object], dict[str, Any]], str]:
    """Damages a copy of the workspace's shards and runs again; returns the refusal."""

    def no_model(*args: object, **kwargs: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(vectors_stage, "load_activation_model", no_model)

    def run(damage: Callable[[Path], object], compute: dict[str, Any]) -> str:
        config, workspace = done
        root = tmp_path / "copy"
        shutil.copytree(workspace.root, root)
        (representation,) = (root / "shards").iterdir()
        damage(representation)
        more = config.compute.model_copy(update=compute)
        with pytest.raises(InputError) as caught:
            run_job(config.model_copy(update={"compute": more}), root)
        return str(caught.value)

    return run


def units_in(representation: Path) -> list[Path]:
    return sorted(unit for unit in representation.iterdir() if not unit.name.startswith("."))


def first_unit(representation: Path) -> Path:
    return units_in(representation)[0]


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])


@pytest.mark.parametrize("damage", [flip, truncate])
@pytest.mark.parametrize("name", ["indptr.npy", "latents.npy", "values.npy"])
def test_an_altered_or_truncated_shard_is_refused_before_it_is_ranked(
    name: str, damage: Callable[[Path], None], rerun: Callable[..., str]
) -> None:
    message = rerun(lambda folder: damage(first_unit(folder) / name), {})
    assert name in message
    assert "not what was written" in message
    assert "Delete the folder" in message


def test_altered_vectors_of_exemplars_are_refused(rerun: Callable[..., str]) -> None:
    def damage(folder: Path) -> None:
        for unit in units_in(folder):  # The exemplars' unit is the one of six rows.
            if json.loads((unit / "manifest.json").read_text())["n_rows"] == 6:
                flip(unit / "values.npy")

    assert "values.npy" in rerun(damage, {})


def test_a_truncated_shard_is_refused_even_where_hashes_are_not_asked_for(
    rerun: Callable[..., str],
) -> None:
    message = rerun(
        lambda folder: truncate(first_unit(folder) / "values.npy"), {"verify_shards": False}
    )
    assert "values.npy" in message


def test_a_broken_manifest_is_named(rerun: Callable[..., str]) -> None:
    message = rerun(lambda folder: truncate(first_unit(folder) / "manifest.json"), {})
    assert "manifest.json" in message


def test_shards_of_two_representations_do_not_mix(rerun: Callable[..., str]) -> None:
    def foreign(folder: Path) -> None:
        file = first_unit(folder) / "manifest.json"
        manifest = json.loads(file.read_text())
        file.write_text(json.dumps(manifest | {"representation_id": "0123456789abcdef"}))

    message = rerun(foreign, {})
    assert "`representation_id`" in message
    assert "0123456789abcdef" in message


def test_a_renamed_shard_is_refused(rerun: Callable[..., str]) -> None:
    def rename(folder: Path) -> None:
        first_unit(folder).rename(folder / "00renamed")

    assert "`unit_id`" in rerun(rename, {})


def test_own_ids_may_repeat_and_examples_are_told_apart(paths: Paths, tmp_path: Path) -> None:
    rows = [tiny_row(i) for i in range(12)]
    rows += [
        {**tiny_row(13), "id": "row-4"},
        {**tiny_row(4), "id": "row-4"},
    ]  # Other text, and a copy.
    pool = write_jsonl(tmp_path / "pool.jsonl", rows)
    config = tiny_config(pool, *paths[1:], index=False, budget={"fraction": 1.0})
    _, results = run_job(config, tmp_path / "w")
    assert results[0]["n_selected"] == 13


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "keys",
    [
        lambda x: {"min_score": x},
        lambda x: {"budget": {"fraction": x}},
        lambda x: {"ranking": {"max_document_frequency": x}},
        lambda x: {"near_duplicates": {"similarity": x}},
        lambda x: {"diversity": {"multiple": x}},
        lambda x: {"quotas": [{"column": "source", "others": {"cap": x}}]},
        lambda x: {"representation": {"max_norm_ratio": x}},
    ],
)
def test_numbers_that_are_none_are_refused_in_a_config(
    keys: Callable[[float], dict[str, Any]], number: float, paths: Paths
) -> None:
    with pytest.raises(InputError) as caught:
        tiny_config(*paths, **keys(number))
    assert str(number) in str(caught.value)


def rows_of(values: Any) -> SparseRows:
    array = np.asarray(values)
    return SparseRows(np.array([0, len(array)]), np.arange(len(array), dtype=np.int32), array, 4)


@pytest.mark.parametrize(
    "values",
    [
        np.array([1.0, math.nan]),
        np.array([1.0, math.inf], np.float32),
        np.array([1, -1]),
        np.array([1, -1], np.int16),
    ],
)
def test_vectors_of_floats_or_signed_numbers_are_refused_by_the_kernels(values: Any) -> None:
    good, weights = from_lists([{0: 3}], 4), np.ones(4, np.int64)
    with pytest.raises(ValueError, match="uint16 or uint32"):
        score(rows_of(values), exemplar_queries(good, weights, "mean"))
    with pytest.raises(ValueError, match="uint16 or uint32"):
        exemplar_queries(rows_of(values), weights, "mean")
    with pytest.raises(ValueError, match="uint16 or uint32"):
        KeptVectors(weights, 0.9).close_to(rows_of(values), 0)
    with pytest.raises(ValueError, match="uint16 or uint32"):
        sketch(rows_of(values), 8)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -2.0])
def test_amounts_that_are_no_amounts_are_not_stored(value: float) -> None:
    rows = FloatRows(
        np.array([0, 2]), np.array([0, 1], np.int32), np.array([1.0, value], np.float32), 4
    )
    with pytest.raises(ValueError, match=r"values must (be finite|not be negative)"):
        quantize(rows, 0.5)


def test_empty_vectors_score_nothing_and_an_empty_exemplar_is_refused() -> None:
    weights, rows = np.ones(4, np.int64), from_lists([{}, {1: 2}], 4)
    scores = score(rows, exemplar_queries(from_lists([{1: 2}], 4), weights, "mean"))
    assert scores.tolist() == [0.0, 1.0]
    with pytest.raises(InputError, match="empty vector"):
        exemplar_queries(rows, weights, "mean")
