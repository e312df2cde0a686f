"""Replay beside a slow definition, and targets that share tokens."""

from fractions import Fraction

import numpy as np
import pytest

from selection.core.errors import InputError
from selection.picking.pick import choose
from selection.picking.ranking import combine_targets, rank
from selection.picking.rules.from_settings import Rules
from selection.picking.rules.quotas import Bounds, Quota, limits_of
from selection.picking.rules.replay import Replay
from selection.picking.selections import select
from selection.records import Budget, Picks, Ranking

N = 60
EVERYONE = np.ones(N, np.bool_)
TOKENS = np.random.default_rng(9).integers(1, 40, N)


def count(rows: np.ndarray) -> np.ndarray:
    return TOKENS[rows]


def rows_of(picks: Picks, ranking: Ranking, *, replay: bool) -> list[int]:
    chosen = zip(ranking.rows[picks.positions].tolist(), picks.reasons, strict=True)
    return [row for row, reason in chosen if (reason == "replay") == replay]


def prefix(rows: list[int], tokens: int) -> list[int]:
    taken: list[int] = []
    for row in rows:
        if sum(TOKENS[r] for r in [*taken, row]) > tokens:
            break
        taken.append(row)
    return taken


def case(seed: int) -> tuple[Ranking, Replay]:
    rng = np.random.default_rng(seed)
    eligible = rng.random(N) < 0.8
    drawn = rng.permutation(np.flatnonzero(eligible))
    return rank(rng.random(N), eligible), Replay([0.1, 0.29, 0.5][seed % 3], None, drawn)


@pytest.mark.parametrize("seed", range(9))
def test_examples_are_split_and_no_row_is_both(seed: int) -> None:
    ranking, replay = case(seed)
    share = Fraction(repr(replay.share))
    for budget, n in ((Budget(examples=20), 20), (Budget(fraction=0.5), N // 2)):
        picks = choose(ranking, budget, N, Rules(replay=replay), count)
        n_replay = int(share * n)
        own = ranking.rows[: n - n_replay].tolist()
        free = [row for row in replay.rows.tolist() if row not in own]
        assert rows_of(picks, ranking, replay=False) == own
        assert rows_of(picks, ranking, replay=True) == free[:n_replay]
        assert picks.n_tokens == TOKENS[[*own, *free[:n_replay]]].sum()
        assert len(picks.reasons) == len(picks.details) == n
        assert not picks.shortfall


@pytest.mark.parametrize("seed", range(9))
def test_tokens_are_split_and_none_is_spent_twice(seed: int) -> None:
    ranking, by_share = case(seed)
    for replay, part in (
        (by_share, int(Fraction(repr(by_share.share)) * 600)),
        (Replay(None, 111, by_share.rows), 111),
    ):
        picks = choose(ranking, Budget(tokens=600), N, Rules(replay=replay), count)
        own = prefix(ranking.rows.tolist(), 600 - part)
        drawn = prefix([row for row in replay.rows.tolist() if row not in own], part)
        assert rows_of(picks, ranking, replay=False) == own
        assert rows_of(picks, ranking, replay=True) == drawn
        assert part - 40 < TOKENS[drawn].sum() <= part
        n_tokens = int(TOKENS[[*own, *drawn]].sum())
        assert (picks.n_tokens, picks.unused_tokens) == (n_tokens, 600 - n_tokens)


def test_what_a_rule_passed_over_is_not_drawn_and_low_scores_are() -> None:
    ranking = Ranking(np.arange(10), np.linspace(1, 0.1, 10))
    kinds = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1], np.int32)
    quota = Quota("kind", {"code": Bounds(cap=1)})
    rules = Rules(
        min_score=0.35,
        limits=lambda n: [limits_of(quota, ["code", "math"], kinds, n)],
        replay=Replay(0.5, None, np.arange(10)[::-1]),
    )
    picks = choose(ranking, Budget(examples=6), 10, rules)
    assert rows_of(picks, ranking, replay=False) == [0, 4, 5]
    assert [each.position for each in picks.passed_over] == [1, 2, 3]
    assert rows_of(picks, ranking, replay=True) == [9, 8, 7]
    assert picks.n_below_min == 0  # the three were drawn
    with_all = choose(ranking, Budget(examples=10), 10, rules)
    assert rows_of(with_all, ranking, replay=True) == [9, 8, 7]
    assert "5 examples of replay were asked for, and 3 of 3 rows fit" in with_all.shortfall


def test_a_share_that_is_nothing_or_of_another_unit_is_refused() -> None:
    ranking = Ranking(np.arange(10), np.linspace(1, 0.1, 10))
    for replay, budget, message in (
        (Replay(0.1, None, np.arange(10)), Budget(examples=9), "0 for replay and 9 for picks"),
        (Replay(None, 9, np.arange(10)), Budget(examples=9), "counts no tokens"),
        (Replay(None, 90, np.arange(10)), Budget(tokens=90), "90 for replay and 0 for picks"),
    ):
        with pytest.raises(InputError, match=message):
            choose(ranking, budget, 10, Rules(replay=replay), count)


def test_controls_by_a_ranking_have_replay_and_random_ones_need_none() -> None:
    rng = np.random.default_rng(0)
    scores = {name: rng.random(N) for name in ("jaccard", "bm25", "random", "length_matched")}
    rules = Rules(replay=Replay(0.25, None, rng.permutation(N)))
    main, bm25, random, matched = select(
        ("id", "run"),
        tuple(scores),
        lambda method: {"t": rank(scores[method], EVERYONE)},
        Budget(examples=12),
        N,
        EVERYONE,
        count,
        rules=rules,
    )
    assert [int(each.is_replay.sum()) for each in (main, bm25, random, matched)] == [3, 3, 0, 0]
    picked, drawn = (each.ranking.rows[each.picks.positions] for each in (main, matched))
    assert sorted(TOKENS[picked]) == pytest.approx(sorted(TOKENS[drawn]), abs=6)
    rows, is_pick = main.of_target("t")
    assert rows[is_pick].tolist() == main.ranking.rows[:9].tolist()
    assert main.least_scores() == {"t": float(main.ranking.scores[8])}


@pytest.mark.parametrize("weights", [[1, 1, 1], [3, 1, 2]])
def test_targets_share_tokens_up_to_one_candidate(weights: list[int]) -> None:
    rng = np.random.default_rng(1)
    rankings = [rank(rng.random(N), rng.random(N) < 0.9) for _ in weights]
    found = combine_targets(rankings, weights, count)
    pairs = list(zip(found.rows.tolist(), found.targets.tolist(), strict=True))
    spent, taken = [0, 0, 0], list[int]()
    for row, target in pairs:
        heads = [next((r for r in x.rows.tolist() if r not in taken), None) for x in rankings]
        turns = [
            (Fraction(int(spent[t] + TOKENS[head])) / weights[t], t)
            for t, head in enumerate(heads)
            if head is not None
        ]
        assert (row, target) == (heads[min(turns)[1]], min(turns)[1])
        taken.append(row)
        spent[target] += int(TOKENS[row])
        if len(turns) == 3 and len(taken) < 40:
            shares = [spent[t] / weights[t] for t in range(3)]
            assert max(shares) - min(shares) <= 2 * TOKENS.max()
    ones = combine_targets(rankings, weights, lambda rows: np.ones(len(rows), np.int64))
    assert ones.rows.tolist() == combine_targets(rankings, weights).rows.tolist()
