"""Gains, resamples, sign test and Holm against slow, obvious versions."""

from itertools import product
from math import log2

import numpy as np
import pytest

from selection.evaluation.metrics import Interval
from selection.finetuning.statistics import (
    FEWEST,
    contrasts_of,
    flip_test,
    gains_of,
    gap_closed,
    holm,
    resampled_gains,
    sign_test,
    targets_to_tell,
    verdict,
)
from selection.finetuning.summary import as_json, summarize

RNG = np.random.default_rng(0)
BITS = RNG.uniform(1, 9, (3, 4, 2, 6))  # arms, targets, seeds, rows
BEFORE = RNG.uniform(5, 9, (4, 6))


def test_a_gain_is_the_share_of_the_bits_before_that_training_saved() -> None:
    gains = gains_of(BITS, BEFORE)
    for arm, target, seed in product(range(3), range(4), range(2)):
        expected = 1 - sum(BITS[arm, target, seed]) / sum(BEFORE[target])
        assert gains[arm, target, seed] == pytest.approx(expected)


def naive_resample(rng: np.random.Generator) -> list[float]:
    """One resample with loops, drawing as the fast one does."""
    targets = [int(t) for t in rng.integers(0, 4, 4)]
    seeds = rng.integers(0, 2, (4, 2)).tolist()
    rows = rng.integers(0, 6, (4, 6)).tolist()
    means = []
    for arm in range(3):
        of_slots = []
        for slot, target in enumerate(targets):
            before = sum(BEFORE[target, row] for row in rows[slot])
            for seed in seeds[slot]:
                of_slots.append(
                    1 - sum(BITS[arm, target, seed, row] for row in rows[slot]) / before
                )
        means.append(sum(of_slots) / len(of_slots))
    return means


def test_resampled_gains_equal_loops_over_targets_seeds_and_rows() -> None:
    rng = np.random.default_rng(7)
    expected = [naive_resample(rng) for _ in range(50)]
    np.testing.assert_allclose(resampled_gains(BITS, BEFORE, 50, seed=7), expected)


def test_resamples_spread_as_targets_seeds_and_rows_do() -> None:
    """One level varies at a time: the spread is that of a mean over what varies there."""
    base = np.full((1, 30, 2, 20), 1.0)
    of_targets = base + RNG.normal(0, 0.2, (1, 30, 1, 1))
    before = np.full((30, 20), 2.0)
    drawn = resampled_gains(of_targets, before, 1000)
    by_target = 1 - of_targets[0, :, 0, 0] / 2
    assert drawn.std() == pytest.approx(by_target.std() / np.sqrt(30), rel=0.1)
    assert resampled_gains(base, before, 20).std() == pytest.approx(0, abs=1e-12)


def test_the_sign_test_counts_all_outcomes_of_fair_coins() -> None:
    for wins, losses in ((0, 0), (3, 3), (5, 1), (0, 6), (9, 2)):
        n = wins + losses
        uneven = abs(wins - losses)
        outcomes = [abs(2 * bin(k).count("1") - n) >= uneven for k in range(2**n)]
        assert sign_test(wins, losses) == pytest.approx(sum(outcomes) / 2**n)


def test_flipped_signs_are_counted_one_by_one() -> None:
    for n in (1, 2, 5, 8):
        values = RNG.normal(0.3, 1, n)
        flipped = [abs(sum(np.array(f) * values)) for f in product((1, -1), repeat=n)]
        expected = np.mean([f >= abs(values.sum()) - 1e-12 for f in flipped])
        assert flip_test(values) == pytest.approx(expected)
    assert flip_test(np.full(2, 0.3)) == 0.5
    assert flip_test(np.full(30, 0.1)) < 0.001
    assert flip_test(np.zeros(3)) == 1.0


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # The example of Holm's correction in most textbooks, and ties.
        (
            {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005},
            {"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06},
        ),
        ({"a": 0.5, "b": 0.9}, {"a": 1.0, "b": 1.0}),
        ({"a": 0.02}, {"a": 0.02}),
    ],
)  # fmt: skip
def test_holm_is_as_in_the_table(given: dict[str, float], expected: dict[str, float]) -> None:
    assert holm(given) == pytest.approx(expected)


def test_verdicts_and_the_number_of_targets_that_would_tell() -> None:
    assert verdict(Interval(0.02, 0.01, 0.03), 0.01, 8) == "ahead"
    assert verdict(Interval(-0.02, -0.03, -0.01), 0.01, 8) == "behind"
    assert verdict(Interval(0.001, -0.004, 0.006), 0.4, FEWEST) == "equivalent"
    assert verdict(Interval(0.001, -0.004, 0.006), 0.4, FEWEST - 1) == "not distinguishable"
    assert verdict(Interval(0.02, -0.01, 0.05), 0.2, 8) == "not distinguishable"
    assert flip_test(np.ones(FEWEST)) < 0.05 < flip_test(np.ones(FEWEST - 1))
    assert targets_to_tell(np.array([0.1, 0.1001])) == FEWEST
    assert targets_to_tell(np.array([0.0, 0.2])) == 16  # effect 1 / sqrt(2): 2 * 2.802^2
    assert targets_to_tell(np.array([0.1, -0.1])) is None


def test_the_gap_goes_from_random_to_oracle() -> None:
    gains = np.array([0.1, 0.3, 0.5])
    np.testing.assert_allclose(gap_closed(gains, gains[:1], gains[2:]), [0, 0.5, 1])
    assert np.isnan(gap_closed(gains, gains[2:], gains[:1])).all()


def test_contrasts_are_of_best_against_those_named_in_advance() -> None:
    arms = ["tokens", "best", "bm25"]
    gains = gains_of(BITS, BEFORE)
    (contrast,) = contrasts_of(arms, gains, resampled_gains(BITS, BEFORE, 200))
    assert contrast.against == "bm25"
    each = gains[1].mean(axis=1) - gains[2].mean(axis=1)
    assert contrast.difference.mean == pytest.approx(each.mean())
    assert (contrast.wins, contrast.losses) == ((each > 0).sum(), (each < 0).sum())
    assert contrasts_of(["tokens", "bm25"], gains[:2], np.zeros((5, 2))) == []


def run(target: str, arm: str, seed: int, factor: float) -> dict[str, object]:
    """Two rows of 8 bits before training."""
    budget = 0 if arm == "zero" else 100
    return {
        "target": target, "arm": arm, "budget": budget, "seed": seed, "bits": [8 * factor] * 2,
        "general": 2.0 + log2(1 / factor), "exact": [1, 0] if target == "a" else None,
        "right": None, "response_tokens": 40,
    }  # fmt: skip


def test_a_summary_has_whole_targets_alone_and_every_group() -> None:
    factors = {"random": 0.75, "best": 0.5, "oracle": 0.25}
    results = [run(t, arm, s, f) for t in "ab" for arm, f in factors.items() for s in (0, 1)]
    results += [run(t, "zero", 0, 1.0) for t in "abc"] + [run("c", "best", 0, 0.5)]
    arms = ["zero", "random", "best", "oracle"]
    summaries = summarize(results, arms, {"all": ["a", "b", "c"], "new": ["b"]})
    assert [(s.budget, s.group, s.targets) for s in summaries] == [
        (100, "all", ["a", "b"]),
        (100, "new", ["b"]),
    ]
    rows = {row.arm: row for row in summaries[0].arms}
    assert [row.arm for row in summaries[0].arms] == ["oracle", "best", "random"]
    for arm, factor in factors.items():
        assert rows[arm].gain.mean == pytest.approx(1 - factor)
        gap = rows[arm].gap
        assert gap is not None
        assert gap.mean == pytest.approx((0.75 - factor) / 0.5)
        assert rows[arm].forgotten == pytest.approx(-log2(factor))
        assert (rows[arm].exact, rows[arm].right) == (0.5, None)
    assert [c.verdict for c in summaries[0].contrasts] == ["not distinguishable"]  # of 2 targets
    line = as_json(summaries, {"n_targets": 2})
    assert line["n_targets"] == 2
    assert line["budget"]["100"]["all"]["arms"]["best"]["gap_closed"] == 0.5  # type: ignore[index]
