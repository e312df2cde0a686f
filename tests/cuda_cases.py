"""Samples, a model and heads on a device made of the CPU's memory, for tests of CUDA paths."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selection.activations.model import ActivationModel, load_activation_model
from selection.models.hookpoints import parse_hookpoint
from selection.models.resolve import ResolvedModel, resolve_model
from selection.records import Rendered, SparseRows
from selection.representation.heads import Head
from selection.representation.represent import UnitReport, represent_heads
from selection.sae.coder import SparseCoder
from selection.sae.formats.load import load_sae
from tests.fake_cuda import FakeCuda, fake_cuda

DEMO = Path(__file__).parents[1] / "flows" / "demo"
LENGTHS = (20, 3, 60, 5, 33, 47, 12, 60, 28)
UNIT = 1e-3


@pytest.fixture(scope="module")
def resolved(tiny_model_dir: Path) -> ResolvedModel:
    return resolve_model(str(tiny_model_dir))


@pytest.fixture(scope="module")
def coder(tiny_sae_dir: Path) -> SparseCoder:
    return load_sae(tiny_sae_dir)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    with fake_cuda(monkeypatch) as device:
        yield device


def sample(n: int, seed: int) -> Rendered:
    rng = np.random.default_rng(seed)
    counted = rng.random(n) < 0.8
    return Rendered(rng.integers(7, 300, n).astype(np.uint32), counted, n, False, False)


SAMPLES = [sample(n, seed) for seed, n in enumerate(LENGTHS)]
SAMPLES.insert(2, replace(sample(9, 99), content_mask=np.zeros(9, np.bool_)))


def loaded(
    resolved: ResolvedModel, device: str = "cuda", dtype: str = "float32", **more: Any
) -> ActivationModel:
    places = [parse_hookpoint(text, resolved.n_layers) for text in ("mlp@1", "resid@2")]
    return load_activation_model(resolved, places, device, dtype, **more)


def heads_of(model: ActivationModel, coder: SparseCoder) -> list[Head]:
    """One of every kind; the third leaves out long tokens, the fourth latents and small values."""
    low, high = model.hookpoints
    return [
        Head(high, coder, "mean", UNIT),
        Head(low, coder, "sum", UNIT),
        Head(high, coder, "max", UNIT, max_norm=12.0),
        Head(high, coder, "mean", UNIT, keep_top=5, excluded=np.array([3, 8], np.int32)),
    ]


def by_head(
    model: ActivationModel, coder: SparseCoder, tokens_per_batch: int | None = None
) -> list[tuple[SparseRows, UnitReport]]:
    return represent_heads(SAMPLES, model, heads_of(model, coder), tokens_per_batch)


def assert_equal_within_a_step(
    found: list[tuple[SparseRows, UnitReport]], expected: list[tuple[SparseRows, UnitReport]]
) -> None:
    for (rows, report), (others, other_report) in zip(found, expected, strict=True):
        assert np.array_equal(rows.indptr, others.indptr)
        assert np.array_equal(rows.latents, others.latents)
        assert np.abs(rows.values.astype(np.int64) - others.values).max() <= 1
        assert report.n_outliers == other_report.n_outliers
        assert report.mass == pytest.approx(other_report.mass, rel=1e-5)
