import math

import pytest

from storage.report.charts import length_bins, nice_ticks, score_curve, short_count, source_bars
from storage.wording.checks import Depth


def test_the_cut_lies_on_the_curve_at_its_rank_and_score() -> None:
    curve = score_curve([1, 10, 100, 1000, 10000], [1.0, 0.8, 0.6, 0.4, 0.2], 100, 0.6)
    assert curve is not None
    assert curve.cut_x == pytest.approx(50)  # log10(100) of log10(10000)
    assert curve.cut_y == pytest.approx(60)
    assert curve.line.startswith("M0.00 0.00 L25.00 20.00 L50.00 40.00")
    assert curve.chosen == "M0.00 100 L0.00 0.00 L25.00 20.00 L50.00 40.00 L50.00 100 Z"
    assert curve.rest.startswith("M50.00 100 L50.00 40.00")
    assert [tick.label for tick in curve.x_ticks] == ["1", "10", "100", "1k", "10k"]
    assert [tick.at for tick in curve.x_ticks] == pytest.approx([0, 25, 50, 75, 100])


def test_depth_and_overlap_with_bm25_stand_at_their_ranks() -> None:
    ranks, scores = [1.0, 10, 100, 1000, 10000], [1.0, 0.8, 0.6, 0.4, 0.2]
    depth = Depth(1000, 100, 100_000, is_deepest=True)
    curve = score_curve(ranks, scores, 4, 0.7, depth, [2, 3, 4])
    assert curve is not None
    assert curve.depth is not None
    assert curve.depth.at == pytest.approx(75)
    assert curve.depth.label == "depth 1,000 or more"
    assert curve.depth_band is not None
    assert list(curve.depth_band) == pytest.approx([50, 100])  # never beyond the axis
    # of the first 1, 2, 3, 4 picks: 0, 1/2, 2/3, 3/4
    at = [100 * math.log10(k) / 4 for k in (1, 2, 3, 4)]
    heights = [100.0, 50.0, 100 / 3, 25.0]
    line = " L".join(f"{x:.2f} {y:.2f}" for x, y in zip(at, heights, strict=True))
    assert curve.overlap == f"M0.00 100 L{line} L{at[-1]:.2f} 100 Z"
    assert curve.overlap_last == 0.75
    plain = score_curve(ranks, scores, 4, 0.7)
    assert plain is not None
    assert (plain.depth, plain.depth_band, plain.overlap) == (None, None, "")


def test_a_short_axis_has_more_marks() -> None:
    curve = score_curve([1, 60], [1.0, 0.0], 7, 0.5)
    assert curve is not None
    assert [tick.label for tick in curve.x_ticks] == ["1", "2", "5", "10", "20", "50"]
    assert all(0 <= tick.at <= 100 for tick in curve.x_ticks)


def test_a_cut_between_two_points_of_the_curve_is_added_to_it() -> None:
    curve = score_curve([1, 100], [1.0, 0.0], 10, 0.7)
    assert curve is not None
    assert curve.line == "M0.00 0.00 L50.00 30.00 L100.00 100.00"


def test_a_selection_of_the_whole_pool_has_a_curve() -> None:
    curve = score_curve([1, 5], [0.9, 0.3], 5, 0.3)
    assert curve is not None
    assert curve.cut_x == 100


@pytest.mark.parametrize(
    ("ranks", "scores", "n_selected", "cut"),
    [([], [], 5, 0.1), ([1], [0.5], 1, 0.5), ([1, 2], [0.5, 0.4], 0, None)],
)
def test_too_little_for_a_curve_gives_none(
    ranks: list[float], scores: list[float], n_selected: int, cut: float | None
) -> None:
    assert score_curve(ranks, scores, n_selected, cut) is None


def test_equal_scores_still_have_an_axis() -> None:
    curve = score_curve([1, 2, 3], [0.0, 0.0, 0.0], 2, 0.0)
    assert curve is not None
    assert curve.y_ticks[0].at == 0
    assert curve.y_ticks[-1].at == 100


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (0, 0.62, [0, 0.2, 0.4, 0.6, 0.8]),
        (0, 0.031, [0, 0.01, 0.02, 0.03, 0.04]),
        (0, 37, [0, 10, 20, 30, 40]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (0, 0, [0, 1]),
    ],
)
def test_ticks_are_round_and_cover_the_values(low: float, high: float, ticks: list[float]) -> None:
    found = nice_ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert len(found) <= 7
    if (low, high) != (0, 0):
        assert found == pytest.approx(ticks)


def test_length_shares_are_of_their_own_total() -> None:
    bins = length_bins([0, 32, 1024, 2048], [10, 30, 0], [0, 1, 3])
    assert [b.label for b in bins] == ["0", "32", "1k"]
    assert [b.share_pool for b in bins] == [0.25, 0.75, 0]
    assert [b.share_selected for b in bins] == [0, 0.25, 0.75]
    assert max(b.height_pool for b in bins) == max(b.height_selected for b in bins) == 100
    assert length_bins([0, 1], [0], [0]) == []


def test_sources_are_in_order_of_picks_with_their_factor() -> None:
    bars = source_bars([("a", 80, 10), ("b", 20, 30), ("new", 0, 0)])
    assert [bar.source for bar in bars] == ["b", "a", "new"]
    assert bars[0].factor == pytest.approx((30 / 40) / (20 / 100))
    assert bars[2].factor is None
    assert bars[1].width_pool == 100  # the largest share of all


def test_small_sources_are_joined_without_losing_a_sample() -> None:
    bars = source_bars([(f"s{i:02}", 100 - i, 50 - i) for i in range(40)])
    assert len(bars) == 12
    assert bars[-1].source == "29 others"
    assert sum(bar.n_pool for bar in bars) == sum(100 - i for i in range(40))
    assert sum(bar.share_selected for bar in bars) == pytest.approx(1)


@pytest.mark.parametrize(
    ("n", "text"), [(1, "1"), (512, "512"), (1024, "1k"), (16384, "16k"), (2_000_000, "2M")]
)
def test_counts_on_axes_are_short(n: int, text: str) -> None:
    assert short_count(n) == text
