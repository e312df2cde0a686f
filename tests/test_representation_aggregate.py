import math
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from selection.core.sparse import indptr_of
from selection.representation.aggregate import (
    FloatRows,
    TokenAggregate,
    calibrate_unit,
    float_rows,
    keep_top,
    quantize,
)
from selection.representation.aggregate_kernels import aggregate_cpu, aggregate_device, cells_of

M, K = 30, 4


def tokens(
    lengths: list[int], seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Top acts with some zeros, distinct indices, and the sample of each token."""
    rng = np.random.default_rng(seed)
    n = sum(lengths)
    acts = rng.random((n, K), dtype=np.float32) * (rng.random((n, K)) < 0.8)
    indices = np.argsort(rng.random((n, M)), axis=1)[:, :K]
    return acts.astype(np.float32), indices, np.repeat(np.arange(len(lengths)), lengths)


def slowly(
    acts: NDArray[np.float32],
    indices: NDArray[np.int64],
    sample_of_token: NDArray[np.int64],
    n_samples: int,
    how: str,
) -> list[dict[int, float]]:
    """Aggregates token by token, as float32 of the float64 result."""
    rows = []
    for sample in range(n_samples):
        seen: dict[int, list[float]] = defaultdict(list)
        mine = np.flatnonzero(sample_of_token == sample)
        for token in mine:
            for act, latent in zip(acts[token].tolist(), indices[token].tolist(), strict=True):
                if act > 0:
                    seen[latent].append(act)
        row = {}
        for latent, values in seen.items():
            total = 0.0
            for value in values:
                total += value
            found = {"sum": total, "mean": total / len(mine), "max": max(values)}[how]
            row[latent] = float(np.float32(found))
        rows.append(row)
    return rows


def aggregated(
    acts: NDArray[np.float32],
    indices: NDArray[np.integer[Any]],
    lengths: Sequence[int],
    how: TokenAggregate,
) -> FloatRows:
    n_tokens = np.array(lengths, np.int64)
    return float_rows(aggregate_cpu(acts, indices, n_tokens, M), n_tokens, M, how)


def as_lists(rows: FloatRows) -> list[dict[int, float]]:
    spans = [slice(rows.indptr[i], rows.indptr[i + 1]) for i in range(len(rows))]
    for span in spans:
        assert (np.diff(rows.latents[span]) > 0).all()
    return [
        dict(zip(rows.latents[s].tolist(), rows.values[s].tolist(), strict=True)) for s in spans
    ]


@pytest.mark.parametrize("how", ["mean", "sum", "max"])
def test_aggregates_equal_their_definition_to_the_bit(how: TokenAggregate) -> None:
    lengths = [5, 0, 1, 90, 3, 0]
    acts, indices, sample = tokens(lengths)
    found = aggregated(acts, indices, lengths, how)
    assert as_lists(found) == slowly(acts, indices, sample, 6, how)
    assert (str(found.latents.dtype), str(found.values.dtype)) == ("int32", "float32")


@pytest.mark.parametrize("how", ["mean", "sum", "max"])
def test_a_sample_does_not_depend_on_its_neighbors(how: TokenAggregate) -> None:
    lengths = [7, 40, 2, 300, 11]
    acts, indices, _ = tokens(lengths, seed=1)
    together = as_lists(aggregated(acts, indices, lengths, how))
    first = 0
    for row, n in zip(together, lengths, strict=True):
        own = slice(first, first + n)
        alone = aggregated(acts[own], indices[own], [n], how)
        assert as_lists(alone) == [row]
        first += n


def test_the_device_gives_the_bits_of_the_cpu() -> None:
    lengths = [5, 0, 1, 90, 3, 0, 200]
    acts, indices, sample = tokens(lengths, seed=4)
    cpu = aggregate_cpu(acts, indices, np.array(lengths), M)
    there = cells_of(
        torch.from_numpy(acts),
        torch.from_numpy(indices).long(),
        torch.ones(len(acts)),
        torch.from_numpy(sample),
        7,
        M,
    )
    [(device, norms), _] = aggregate_device([there, there])
    assert norms.tolist() == [1.0] * len(acts)
    for name in cpu._fields:
        mine, other = getattr(cpu, name), getattr(device, name)
        assert mine.dtype == other.dtype
        assert mine.tobytes() == other.tobytes()


def test_the_order_of_latents_within_a_token_means_nothing() -> None:
    acts, indices, _ = tokens([50, 50], seed=2)
    order = np.random.default_rng(3).permuted(np.tile(np.arange(K), (100, 1)), axis=1)
    shuffled = np.take_along_axis(acts, order, 1), np.take_along_axis(indices, order, 1)
    expected = as_lists(aggregated(acts, indices, [50, 50], "mean"))
    assert as_lists(aggregated(*shuffled, [50, 50], "mean")) == expected


def test_samples_without_tokens_have_empty_rows() -> None:
    acts, indices, _ = tokens([])
    assert as_lists(aggregated(acts, indices, [0, 0, 0], "mean")) == [{}, {}, {}]
    assert len(aggregated(acts, indices, [], "mean")) == 0


def rows_of(rows: list[dict[int, float]]) -> FloatRows:
    flat = [pair for row in rows for pair in sorted(row.items())]
    return FloatRows(
        indptr_of([len(row) for row in rows]),
        np.array([latent for latent, _ in flat], np.int32),
        np.array([value for _, value in flat], np.float32),
        M,
    )


def test_the_largest_latents_are_kept_ties_go_to_the_smaller_one() -> None:
    rows = rows_of([{0: 1, 1: 3, 2: 2, 5: 3, 7: 3}, {}, {4: 0.5}, {1: 1, 2: 1, 3: 1}])
    kept, lost = keep_top(rows, 2)
    assert as_lists(kept) == [{1: 3, 5: 3}, {}, {4: 0.5}, {1: 1, 2: 1}]
    assert lost == 1 + 2 + 3 + 1
    assert keep_top(rows, 5) == (rows, 0.0)
    with pytest.raises(ValueError, match="k is 0"):
        keep_top(rows, 0)


def test_quantizing_rounds_half_to_even_and_counts_what_it_changes() -> None:
    unit = 0.5
    rows = rows_of([{0: 0.25, 1: 0.75, 2: 1.25, 3: 0.2}, {4: 0.25}, {6: 32767.5, 7: 40000.0}])
    found, report = quantize(rows, unit)
    # 0.5 -> 0, 1.5 -> 2, 2.5 -> 2, 0.4 -> 0; 65,535 fits, 80,000 does not.
    assert found.indptr.tolist() == [0, 2, 2, 4]
    assert found.latents.tolist() == [1, 2, 6, 7]
    assert found.values.tolist() == [2, 2, 65535, 65535]
    assert (report.n_zeroed, report.n_clipped) == (3, 1)
    expected = 0.25 + float(np.float32(0.2)) + 0.25 + (40000 - 65535 * unit)
    assert report.mass_changed == pytest.approx(expected)
    assert report.mass_changed_share == pytest.approx(expected / report.mass)


def test_quantizing_equals_exact_rounding() -> None:
    rng = np.random.default_rng(0)
    values = rng.lognormal(0, 3, 2000).astype(np.float32)
    unit = 0.0123
    found, _ = quantize(rows_of([{0: float(v)} for v in values]), unit)
    exact = [min(65535, round(Fraction(float(v)) / Fraction(unit))) for v in values]
    assert found.values.tolist() == [value for value in exact if value]


def test_an_unusable_unit_or_value_is_refused() -> None:
    for unit in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="expected a positive number"):
            quantize(rows_of([{0: 1}]), unit)
    with pytest.raises(ValueError, match="finite"):
        quantize(rows_of([{0: math.inf}]), 1.0)
    found, report = quantize(rows_of([{}, {}]), 1.0)
    assert (len(found), report.mass_changed_share) == (2, 0.0)


def test_the_unit_is_the_median_over_256_to_four_digits() -> None:
    rows = rows_of([{0: 1.0, 1: 2.0}, {0: 4.000001}])
    assert calibrate_unit(rows) == 0.007812  # 2 / 256 = 0.0078125, half to even
    with pytest.raises(ValueError, match="no latent fires"):
        calibrate_unit(rows_of([{}]))
