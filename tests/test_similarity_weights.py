from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selection.core.sparse import from_lists
from selection.similarity import weights
from selection.similarity.weights import (
    WEIGHT_ONE,
    contrast_weights,
    idf_weights,
    latent_weights,
    multiply,
    unit_weights,
)
from tests.oracles import contrast_weight, idf_weight


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=20), st.integers(0, 10**3))
def test_idf_is_the_rounded_logarithm(frequencies: list[int], more: int) -> None:
    n = max(frequencies) + more
    found = idf_weights(np.array(frequencies), n)
    assert found.tolist() == [idf_weight(df, n) for df in frequencies]


def test_decimal_arithmetic_for_doubtful_roundings_agrees_with_the_plain_path() -> None:
    frequencies = np.arange(5_000)
    plain = idf_weights(frequencies, 5_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "_DOUBTFUL", 1.0)  # Everything is in doubt.
        np.testing.assert_array_equal(idf_weights(frequencies, 5_000), plain)


def test_idf_never_reaches_zero_and_falls_with_frequency() -> None:
    found = idf_weights(np.arange(1_001), 1_000)
    assert found[-1] == 1  # Every document has it.
    assert (np.diff(found) <= 0).all()
    assert found.dtype == np.int64


def test_frequencies_that_cannot_be_are_refused() -> None:
    for frequency in (-1, 11):
        with pytest.raises(ValueError, match=r"\[0, 10\]"):
            idf_weights(np.array([3, frequency]), 10)


def test_unit_weights_all_stand_for_one() -> None:
    assert unit_weights(3).tolist() == [WEIGHT_ONE] * 3


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 5)), min_size=1, max_size=9),
    st.integers(0, 100),
    st.integers(1, 3),
)
def test_contrast_is_the_rounded_logarithm_of_the_lift(
    columns: list[tuple[int, int]], more: int, smoothing: int
) -> None:
    n = max(df for df, _ in columns) + more
    exemplars = from_lists(
        [{c: 1 for c, (_, k) in enumerate(columns) if i < k} for i in range(5)], len(columns)
    )
    frequency = np.array([df for df, _ in columns])
    found = contrast_weights(frequency, n, exemplars, smoothing)
    assert found.tolist() == [contrast_weight(df, n, k, 5, smoothing) for df, k in columns]


@given(st.lists(st.tuples(st.integers(0, 1 << 24), st.integers(0, 1 << 24)), min_size=1))
def test_products_are_rounded_half_to_even_and_never_to_zero(pairs: list[tuple[int, int]]) -> None:
    found = multiply(np.array([a for a, _ in pairs]), np.array([b for _, b in pairs]))
    exact = [Fraction(a * b, WEIGHT_ONE) for a, b in pairs]
    assert found.tolist() == [max(1, round(p)) if p else 0 for p in exact]


def test_common_latents_are_excluded_and_weights_multiply() -> None:
    frequency, exemplars = np.array([10, 9, 3, 0]), from_lists([{0: 1, 2: 1}], 4)
    idf, contrast = idf_weights(frequency, 10), contrast_weights(frequency, 10, exemplars)
    assert contrast[[0, 1, 3]].tolist() == [WEIGHT_ONE] * 3
    assert contrast[2] > WEIGHT_ONE
    both = latent_weights("idf*contrast", frequency, 10, exemplars)
    assert both.tolist() == multiply(idf, contrast).tolist()
    cut = latent_weights("idf", frequency, 10, exemplars, max_document_frequency=0.85)
    assert cut.tolist() == [0, 0, *idf[2:].tolist()]
    assert latent_weights("none", frequency, 10, exemplars).tolist() == [WEIGHT_ONE] * 4
    with pytest.raises(ValueError, match="smoothing"):
        contrast_weights(frequency, 10, exemplars, 0)
    with pytest.raises(ValueError, match="frequencies for"):
        contrast_weights(frequency[:2], 10, exemplars)
