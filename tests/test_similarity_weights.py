import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selection.similarity import weights
from selection.similarity.weights import (
    WEIGHT_ONE,
    idf_weights,
    latent_weights,
    unit_weights,
)
from tests.oracles import idf_weight


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


def test_common_latents_are_excluded() -> None:
    frequency = np.array([10, 9, 3, 0])
    cut = latent_weights("idf", frequency, 10, max_document_frequency=0.85)
    assert cut.tolist() == [0, 0, *idf_weights(frequency, 10)[2:].tolist()]
    assert latent_weights("none", frequency, 10).tolist() == [WEIGHT_ONE] * 4
