from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from storage.catalog.connection import Connection, connect_in_memory
from storage.catalog.schema import create_schema
from storage.wording.checks import Sentence, check_figures, check_sentences, in_lines

FOUND: dict[str, Any] = {
    "selection_id": "s",
    "target": "sums",
    "method": "jaccard",
    "n_exemplars": 8,
    "n_folds": 5,
    "n_rows": 12_000,
    "n_ranked": 12_000,
    "percentile": 98.4,
    "percentile_lo": 96.1,
    "percentile_hi": 99.52,
    "p_random": 1e-6,
    "n_close": 332.4,
    "n_close_lo": 118.0,
    "n_close_hi": 936.0,
    "effective": 1.2,
    "n_random": 128,
    "n_examined": 2048,
    "depth": 358,
    "depth_lo": 204,
    "depth_hi": 611,
    "n_picks": 500,
    "n_beyond": 142,
}


@pytest.fixture
def catalog() -> Iterator[Connection]:
    with connect_in_memory() as connection:
        create_schema(connection)
        insert(connection, "selection", selection_id="s", run_id="r", name="n", method="jaccard",
               role="main", n_eligible=12_000, n_selected=500)  # fmt: skip
        yield connection


def insert(connection: Connection, table: str, **values: Any) -> None:
    names = ", ".join(f'"{name}"' for name in values)
    marks = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(values.values()))


def said(connection: Connection, **changes: Any) -> dict[str, Sentence]:
    insert(connection, "held_out_check", **{**FOUND, **changes})
    return {each.topic: each for each in check_sentences(connection, "s")}


def test_the_three_questions_are_answered_with_numbers(catalog: Connection) -> None:
    controls = {"n_examined": None, "depth": None, "n_picks": None, "n_beyond": None}
    for method, percentile in (("bm25", 97.0), ("random", 48.0)):
        row = {**FOUND, **controls, "method": method, "percentile": percentile}
        insert(catalog, "held_out_check", **row)
    for i, (ours, theirs) in enumerate([(99.0, 97.0), (98.0, 98.5), (97.0, 97.0)]):
        for method, value in (("jaccard", ours), ("bm25", theirs)):
            insert(catalog, "held_out_exemplar", selection_id="s", target="sums", method=method,
                   exemplar_id=f"e{i}", fold=i, percentile=value)  # fmt: skip
    found = said(catalog)
    assert list(found) == ["contains", "enough", "beats_random"]
    assert found["contains"].text == (
        "About 330 samples of the pool are as close to the exemplars as these are to each other"
        " (95 % interval 120 to 940, from 8 exemplars)."
    )
    assert found["enough"].text == (
        "The ranking is better than random down to about rank 358 of 12,000 (80 % interval 200 to"
        " 610): below it, most samples are no closer to the exemplars than to random samples of the"
        " pool. The budget reaches beyond that: 142 of 500 picks (28 %) rank below it."
    )
    assert found["beats_random"].text == (
        "A held-out exemplar ranks above 98.4 % of the pool (median of 8; 95 % interval 96.1 to"
        " 99.5). By BM25 97.0 %, by random order 48 %. 1 of 3 exemplars rank higher than by BM25."
    )
    assert [each.is_warning for each in found.values()] == [False, True, False]


@pytest.mark.parametrize(
    ("changes", "topic", "part", "is_warning"),
    [
        ({"n_close": 0.4, "n_close_lo": 0, "n_close_hi": 22}, "contains",
         "seems not to hold this very task", True),
        ({"n_close": 0.4, "n_close_hi": 22}, "contains", "from 8 exemplars; up to 22 may be", True),
        ({"p_random": 0.31}, "contains", "Either the pool is full of this task", True),
        ({"p_random": 0.31}, "beats_random", "not clearly better than random", True),
        ({"p_random": 0.31}, "enough", "better than random cannot be told", True),
        ({"n_close": 6_720.0}, "enough", "better than random cannot be told", True),
        ({"n_close_lo": None}, "contains", "(8 exemplars are too few for an interval)", False),
        ({"percentile_lo": None}, "beats_random", "98.4 % of the pool (median of 8)", False),
        ({"depth_lo": None, "n_beyond": 0}, "enough", "about rank 358 of 12,000: below", False),
        ({"n_close": None}, "contains", "not measured for a random order", True),
        ({"percentile": 72.0, "n_close": 6720.0}, "contains", "That is 56 % of the pool", True),
        ({"percentile": None, "n_folds": None}, "contains", "Give at least 5", True),
        ({"depth": 0}, "enough", "no better than a random choice", True),
        ({"n_beyond": 0}, "enough", "All 500 picks are above that rank.", False),
        ({"depth": 2048}, "enough", "at least down to rank 2,048", True),
        ({"n_rows": 1000}, "beats_random", "among 1,000 samples drawn from 12,000", False),
    ],
)  # fmt: skip
def test_each_case_is_said(
    catalog: Connection, changes: dict[str, Any], topic: str, part: str, is_warning: bool
) -> None:
    found = said(catalog, **changes)[topic]
    assert part in found.text
    assert found.is_warning == is_warning


def test_figures_are_those_of_the_sentences(catalog: Connection) -> None:
    bm25 = {**FOUND, "method": "bm25", "percentile": 97.04, "depth": None, "n_examined": None}
    insert(catalog, "held_out_check", **bm25)
    insert(catalog, "held_out_check", **FOUND)
    figures, depth = check_figures(catalog, "s")
    assert [figure[:2] for figure in figures] == [
        ("In the pool", "about 330"),
        ("Held-out exemplars", "98.4 %"),
        ("Ranking depth", "358"),
    ]
    assert "(95 % interval 120 to 940)" in figures[0].words
    assert "(median of 8; 95 % interval 96.1 to 99.5); by BM25 97.0 %" in figures[1].words
    assert figures[2].words == "ranks are better than random (80 % interval 200 to 610)"
    assert depth == (358, 204, 611, False)


@pytest.mark.parametrize(
    ("changes", "names", "depth"),
    [
        ({"p_random": 0.31}, ["Held-out exemplars"], None),
        ({"n_close": 6_720.0}, ["In the pool", "Held-out exemplars"], None),
        ({"depth": 2048, "depth_lo": None}, None, (2048, None, 611, True)),
        ({"percentile": None, "n_close": None, "depth": None}, [], None),
    ],
)
def test_a_figure_that_the_check_calls_worthless_is_left_out(
    catalog: Connection, changes: dict[str, Any], names: list[str] | None, depth: object
) -> None:
    insert(catalog, "held_out_check", **{**FOUND, **changes})
    figures, found = check_figures(catalog, "s")
    assert found == depth
    if names is None:
        assert figures[-1].words == "ranks or more are better than random"
    else:
        assert [figure.name for figure in figures] == names


def test_several_targets_have_no_figures(catalog: Connection) -> None:
    insert(catalog, "held_out_check", **FOUND)
    insert(catalog, "held_out_check", **{**FOUND, "target": "other"})
    assert check_figures(catalog, "s") == ([], None)


@pytest.mark.parametrize(
    ("flag", "part"),
    [
        ("apart", "ranks above 31 % of the pool"),
        ("unmatched", "2.1 % of the picks are closer"),
        ("dominates", "nearest exemplar of 71 % of the picks"),
    ],
)
def test_a_flagged_exemplar_is_named_with_its_id_and_the_beginning_of_its_text(
    catalog: Connection, flag: str, part: str
) -> None:
    insert(catalog, "run", run_id="r", name="n", created_at=datetime.now(UTC))
    insert(catalog, "exemplar", run_id="r", exemplar_id="e" * 32, target="sums", own_id="row-7",
           text="What is\nthe sum of " + "x" * 80)  # fmt: skip
    insert(catalog, "held_out_exemplar", selection_id="s", target="sums", method="jaccard",
           flag=flag, exemplar_id="e" * 32, percentile=31.2,
           near_share=0.021, nearest_share=0.71)  # fmt: skip
    found = said(catalog)["exemplar"]
    assert found.text.startswith("Exemplar row-7, \u201cWhat is the sum of xxx")
    assert "…\u201d, " in found.text
    assert part in found.text


@pytest.mark.parametrize(
    ("percentile", "part"),
    [
        (94.2, "ranks above 94 % of the pool, the median exemplar above 98.4 %. Is it of this"),
        (31.2, "ranks above 31 % of the pool, no better than a random sample. Is it of this"),
    ],
)
def test_an_exemplar_unlike_the_others_is_named_beside_them(
    catalog: Connection, percentile: float, part: str
) -> None:
    insert(catalog, "held_out_exemplar", selection_id="s", target="sums", method="jaccard",
           flag="apart", exemplar_id="e" * 32, percentile=percentile)  # fmt: skip
    assert part in said(catalog)["exemplar"].text


def test_without_a_check_nothing_is_said(catalog: Connection) -> None:
    assert check_sentences(catalog, "s") == []


def test_lines_name_the_target_where_there_are_several() -> None:
    one, two = Sentence("enough", "sums", "Fine."), Sentence("enough", "french", "Look.", True)
    assert in_lines([one]) == ["Fine."]
    assert in_lines([one, two]) == ["sums: Fine.", "! french: Look."]
