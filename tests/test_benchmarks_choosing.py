"""The chooser by held-out exemplars: what it picks, gains and misses, counted by hand."""

import numpy as np
import pytest

from benchmarks.choosing import (
    GRIDS,
    REDUCTIONS,
    SPACES,
    Measured,
    Reduction,
    cell_of,
    choices,
    choose,
    halved,
    lead,
    report,
)
from selection.evaluation.label_free import check_held_out
from selection.similarity.queries import score
from tests.planted_duplicates import planted, planted_input

N = 400
SETTINGS = [f"{name}, {reduction}" for name in SPACES for reduction in REDUCTIONS] + ["BM25"]


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_cell_is_the_ranking_and_what_the_check_of_a_run_says(reduction: Reduction) -> None:
    ranking = planted_input(planted(N, 40, 7))
    everyone = np.arange(N)
    scores, shares = cell_of(ranking, ranking.joined(everyone), "t", reduction, 1)
    queries = ranking.queries("t", reduction)
    np.testing.assert_allclose(scores, score(ranking.joined(everyone), queries), atol=1e-11)
    ids = np.array([f"{i:032d}" for i in range(N)], "S32")
    texts = ["word"] * 7
    checked = check_held_out(
        ranking, reduction, everyone, ids, lambda rows: ["word"] * len(rows), {"t": texts}
    )
    np.testing.assert_array_equal(shares, checked["t"]["jaccard"].shares_above)


def test_a_lead_is_the_mean_of_paired_logarithms() -> None:
    mean, error = lead(np.array([0.3, 0.1, 0.0]), np.array([0.1, 0.1, 0.0]), 10)
    gains = [np.log(0.35 / 0.15), 0.0, 0.0]
    assert mean == pytest.approx(gains[0] / 3)
    assert error == pytest.approx(np.std(gains, ddof=1) / np.sqrt(3))
    assert lead(np.array([0.3]), np.array([0.1]), 10)[1] == np.inf


def test_another_setting_is_chosen_where_its_lead_is_sure() -> None:
    default = np.array([0.2, 0.2, 0.2, 0.2])
    unsure = np.array([0.001, 0.2, 0.3, 0.2])
    steady = np.array([0.15, 0.16, 0.14, 0.15])
    assert choose([default, unsure, steady], 1000, 0.0) == 1
    assert choose([default, unsure, steady], 1000, 2.0) == 2
    assert choose([default, unsure], 1000, 2.0) == 0
    assert choose([default, default.copy()], 1000, 0.0) == 0


def made(shares: list[float], ndcg: list[float]) -> Measured:
    """Two targets; BM25 alone differs from the default."""
    values, standing = np.full((len(SETTINGS), 2), 0.5), [[np.full(3, 0.2)] * 2 for _ in SETTINGS]
    values[-1], standing[-1] = ndcg, [np.array([x, x, 0.9 * x]) for x in shares]
    return Measured(SETTINGS, ["a", "b"], values, standing, 1000)


def test_gain_and_regret_are_those_of_the_chosen_settings() -> None:
    measured = made([0.1, 0.1], [0.7, 0.4])  # Chosen for both, better for one.
    part = measured.only(GRIDS["`best` or BM25"])
    assert part.settings == ["best, mean", "BM25"]
    assert choices(part, 2.0).tolist() == [1, 1]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in report(measured)]
    [cells] = [each for each in lines if each[0] == "`best` or BM25" and each[4] == "2"]
    assert cells[1:3] == ["2", "0.600"]
    assert cells[5] == "0.550"
    assert cells[6] == "+0.050 [-0.100, +0.200]"
    assert cells[7] == "0.050 [0.000, 0.100]"
    assert cells[8:] == ["2", "1", "1"]
    unchosen = report(made([0.3, 0.3], [0.7, 0.4]))
    assert sum(line.endswith("| 0 | 0 | 0 |") for line in unchosen) == 18


def test_grids_begin_with_the_default_and_hold_what_they_name() -> None:
    measured = made([0.1, 0.1], [0.7, 0.4])
    sizes = {grid: len(measured.only(wanted).settings) for grid, wanted in GRIDS.items()}
    assert sizes == {
        "idf or not": 2, "length": 2, "reduction": 3, "spaces, idf, length": 9, "`best` or BM25": 2,
        "all": 28,
    }  # fmt: skip


def test_a_target_has_no_say_in_the_rule_that_it_is_measured_by() -> None:
    gains = np.array([[0.0, 0.0, 0.0, 0.0], [0.9, -0.1, -0.1, -0.1]])
    # The second rule is picked by halves with the first target alone, which measure the others.
    np.testing.assert_allclose(halved(gains, 400)[0], 0.0)
    rest = halved(gains, 400)[1:]
    assert ((rest < 0.0) & (rest >= -0.1)).all()
    always = np.array([[0.0, 0.0, 0.0], [0.2, 0.1, 0.3]])
    np.testing.assert_allclose(halved(always, 50), always[1])
