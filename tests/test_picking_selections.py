"""The selections of a run: names, budgets of controls, order of scores, and the file of them."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from selection.core.errors import InputError
from selection.picking.eligibility import Eligibility
from selection.picking.ranking import rank
from selection.picking.rules.from_settings import Rules
from selection.picking.selections import JOINT, Selection, rankings_of, refuse_zeros, select
from selection.records import Budget, DropReason, Ranking
from storage.files.scores import read_ids, scores_table, write_scores

N = 12
EVERYONE = np.ones(N, np.bool_)
IDS = np.array([f"{i:032d}" for i in range(N)], "S32")


def rankings(method: str) -> dict[str, Ranking]:
    seeds = {"jaccard": 0, "random": 1, "length_matched": 2}
    rng = np.random.default_rng(seeds[method])
    return rankings_of({"a": rng.random(N), "b": rng.random(N)}, EVERYONE)


def tokens(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows) % 4 + 1


def selections(**options: object) -> list[Selection]:
    methods = ("jaccard", "random", "length_matched")
    given = {"rules": Rules(), **options}
    return list(
        select(("id", "run"), methods, rankings, Budget(3), N, EVERYONE, tokens, **given)  # type: ignore[arg-type]
    )


def test_every_target_has_a_selection_by_the_method_and_by_each_control() -> None:
    names = [each.name for each in selections()]
    assert names == [
        "run-a",
        "run-b",
        "run-a-random",
        "run-b-random",
        "run-a-length_matched",
        "run-b-length_matched",
    ]
    assert [each.selection_id for each in selections()] == [f"id-{i + 1}" for i in range(6)]
    main, matched = selections()[0], selections()[4]
    picked, drawn = (each.ranking.rows[each.picks.positions] for each in (main, matched))
    assert sorted(tokens(picked)) == sorted(tokens(drawn))


def test_targets_that_share_a_budget_take_turns_by_their_weights() -> None:
    joint = selections(joint=True, target_weights={"a": 2})
    assert [(each.name, each.target) for each in joint] == [
        ("run", JOINT),
        ("run-random", JOINT),
        ("run-length_matched", JOINT),
    ]
    main, matched = joint[0], joint[2]
    assert main.owner_names == ("a", "b")
    assert main.owners[main.picks.positions].tolist() == [0, 0, 1]
    assert matched.owner_names == (JOINT,)
    rows, is_pick = main.of_target("b")
    assert is_pick.sum() == 1
    assert set(rows.tolist()).isdisjoint(main.of_target("a")[0].tolist())


def test_a_control_of_a_selection_that_fell_short_has_its_size() -> None:
    best = rank(np.linspace(0, 1, N), EVERYONE)
    one = select(
        ("id", "run"),
        ("jaccard", "random"),
        lambda _: {"t": best},
        Budget(6),
        N,
        EVERYONE,
        tokens,
        rules=Rules(min_score=0.8),
    )
    main, control = one
    assert len(main.picks.positions) == len(control.picks.positions) == 3
    assert main.picks.shortfall
    assert main.least_scores() == {"t": float(best.scores[2])}


def test_the_file_of_scores_is_the_table_in_memory(tmp_path: Path) -> None:
    main = selections(joint=True)[0]
    file = tmp_path / "id-1.parquet"
    write_scores(main, file, IDS)
    table = scores_table(main, IDS)
    assert pq.read_table(file).equals(table)
    assert table["rank"].to_pylist() == list(range(1, N + 1))
    assert table["example_row"].to_pylist() == main.ranking.rows[main.order].tolist()
    assert table["score_rank"].to_pylist() == (main.order + 1).tolist()
    assert table["example_id"].slice(0, 3).to_pylist() == read_ids(file, n=3)
    by_score = read_ids(file, by_score=True)
    assert by_score == IDS[main.ranking.rows].astype(str).tolist()
    part = scores_table(main, IDS, 4, 9)
    assert part["rank"].to_pylist() == [5, 6, 7, 8, 9]


def test_an_example_counts_for_its_first_reason() -> None:
    before = Eligibility(np.array([True, True, True, False]), {DropReason.WHERE: 1})
    after = before.without(
        {
            DropReason.TOO_SHORT: np.array([True, False, False, True]),
            DropReason.TOO_LONG: np.array([True, True, False, False]),
            DropReason.EMPTY_VECTOR: np.zeros(4, np.bool_),
        }
    )
    assert after.eligible.tolist() == [False, False, True, False]
    assert after.n == 1
    assert after.drops == {
        DropReason.WHERE: 1,
        DropReason.TOO_SHORT: 1,
        DropReason.TOO_LONG: 1,
    }
    assert before.n == 3


def test_a_ranking_of_zeros_is_refused_and_one_score_is_enough() -> None:
    eligible = np.array([True, True, False])
    for nothing in (np.zeros(3), np.zeros((3, 2)), np.array([0.0, 0.0, 0.7])):
        with pytest.raises(InputError, match="`alone`: every score is 0"):
            refuse_zeros(rankings_of({"like": np.ones(3), "alone": nothing}, eligible))
    refuse_zeros(rankings_of({"like": np.array([0.0, 0.1, 0.0])}, eligible))
    refuse_zeros(rankings_of({"nobody": np.zeros(3)}, np.zeros(3, np.bool_)))
