import json

import polars as pl
import pytest

from selection.core.errors import InputError
from selection.data.shapes.columns import ColumnKinds
from selection.data.where import BoundWhere, _not_by_row, compile_where

RAW: list[dict[str, object]] = [
    {"quality": 5, "score": "4.5", "mixed": 1, "flag": True, "n": 1.5, "code": "010", "lang": "en"},
    {"quality": 2, "score": "3", "mixed": "x", "flag": False, "n": 2, "code": "7", "lang": "de"},
    {"quality": None, "score": "", "mixed": [1], "flag": None, "a b": "x'y", "lang": "en"},
    {"quality": 3, "score": "10", "mixed": None, "n": -1, "source": "hidden", "canary": None},
]
OCCURRENCES = pl.DataFrame(
    {
        "own_id": ["1", "2", None, "4"],
        "source": ["s1", "s1", "s2", "s2"],
        "file": ["f"] * 4,
        "row": [1, 2, 3, 4],
        "licence": ["MIT", "Apache-2.0", None, "MIT"],
        "language": ["en", None, None, "fr"],
        "group": ["g", "h", None, "g"],
        "n_chars": [10, 20, 30, 40],
        "raw": [json.dumps(row) for row in RAW],
    }
)


def bound(text: str) -> BoundWhere:
    kinds = ColumnKinds()
    for row in RAW:
        kinds.add(row)
    return compile_where(text).bind(kinds.to_dict())


def passing(text: str) -> list[int]:
    """Rows that pass, counted from 1; each batching must give the same answer."""
    where = bound(text)
    whole = where.passes(OCCURRENCES.select(where.columns or ["row"]))
    assert whole.dtype == pl.Boolean
    assert whole.null_count() == 0
    single = [where.passes(OCCURRENCES[n])[0] for n in range(4)]
    assert whole.to_list() == single
    return [n for n, passes in enumerate(single, 1) if passes]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("licence = 'MIT'", [1, 4]),
        ("licence <> 'MIT'", [2]),
        ("licence IS NULL OR language = 'fr'", [3, 4]),
        ("\"group\" IN ('g') AND n_chars < 40", [1]),
        ('"row" BETWEEN 2 AND 3', [2, 3]),
        ("source = 's2'", [3, 4]),
        ("quality > 2", [1, 4]),
        ("quality >= 2 AND NOT quality = 3", [1, 2]),
        ("quality IN (2, 3)", [2, 4]),
        ("quality IS NULL", [3]),
        ("flag", [1]),
        ("NOT flag", [2]),
        ("flag IS NULL", [3, 4]),
        ("n > 1.4", [1, 2]),
        ("score > 3", [1, 4]),
        ("score = '3'", [2]),
        ("score > 3 AND score <> '10'", None),
        ("mixed = 'x'", [2]),
        ("mixed = '1'", [1]),
        ("mixed IS NOT NULL", [1, 2, 3]),
        ("code = '010'", [1]),
        ("TRY_CAST(code AS DOUBLE) > 8", [1]),
        ("\"a b\" = 'x''y'", [3]),
        ("lang LIKE 'e%' AND LENGTH(lang) = 2", [1, 3]),
        ("canary IS NULL", [1, 2, 3, 4]),
        ("canary > 3", []),
        ("CASE WHEN quality > 2 THEN lang = 'en' ELSE FALSE END", [1]),
        ("COALESCE(licence, 'none') = 'none'", [3]),
        ("1 = 1", [1, 2, 3, 4]),
        ("1 = 2", []),
        ("NULL", []),
        ("quality % 2 = 1 AND ABS(n) < 2", [1, 4]),
    ],
)
def test_a_condition_passes_exactly_its_rows(text: str, rows: list[int] | None) -> None:
    if rows is None:  # one column cannot be read as numbers and as text at once
        with pytest.raises(InputError, match="TRY_CAST"):
            bound(text)
    else:
        assert passing(text) == rows


@pytest.mark.parametrize(
    "text", ["licence =", "licence = 'MIT'; DROP", "a = 1 b", "", "SELECT 1", "a LIKE 3"]
)
def test_what_is_no_expression_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match="not an SQL expression") as caught:
        compile_where(text)
    assert caught.value.field == "where"
    assert caught.value.value == text
    assert "double quotes" in caught.value.remedy


def test_a_word_of_sql_in_double_quotes_is_a_column() -> None:
    assert compile_where("\"group\" = 'x'").names == ("group",)


@pytest.mark.parametrize(
    "text",
    ["COUNT(*) > 1", "MAX(n_chars) > 3", "SUM(quality) > 3 AND flag", "first(licence) = 'MIT'",
     "ROW_NUMBER() OVER (ORDER BY licence) < 3", "MAX(n_chars) OVER () > 3",
     "LAG(n_chars) OVER (ORDER BY licence) > 1", "EXISTS (SELECT 1)", "licence = (SELECT 'MIT')",
     "STRING_AGG(licence, ',') = 'x'", "CORR(n_chars, n) > 0",
     "n_chars IN (1, 2) AND MIN(n_chars) = 1"],
)  # fmt: skip
def test_what_looks_at_several_rows_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"single rows|not an SQL expression"):
        compile_where(text)


@pytest.mark.parametrize(
    "function",
    ["Shift", {"Boolean": {"Any": {}}}, {"StringExpr": {"ConcatVertical": {}}}, {"Boolean": "All"}],
)
def test_functions_over_rows_are_known_whatever_sql_leads_to_them(function: object) -> None:
    column = {"Column": "flag"}
    assert _not_by_row({"Function": {"input": [column], "function": function}})
    assert not _not_by_row({"Function": {"input": [column], "function": {"Boolean": "IsNull"}}})


def test_an_unknown_column_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="the pool has no column `MIT`") as caught:
        bound('licence = "MIT"')
    known = "own_id, source, file, row, licence, language, group, n_chars, a b, canary, code, flag"
    assert known in caught.value.remedy
    assert "single quotes" in caught.value.remedy


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("licence > 3", "licence holds text"),
        ("quality = 'high'", "quality holds integer"),
        ("lang > 3", "lang holds text"),
        ("mixed > 3", "mixed holds integer and nested and text"),
        ("quality", "not true or false"),
        ("licence", "not true or false"),
        ("'yes'", "not true or false"),
        ("lang ~ '['", "regex"),
    ],
)
def test_types_that_do_not_fit_are_refused_before_any_row_is_read(text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        bound(text)
    assert words in str(caught.value)
    assert text in str(caught.value)


def test_a_cast_that_fails_on_a_value_is_refused() -> None:
    with pytest.raises(InputError, match="fails on the pool's values"):
        bound("CAST(lang AS DOUBLE) > 3").passes(OCCURRENCES)


def test_only_the_columns_that_are_needed_are_asked_for() -> None:
    assert bound("licence = 'MIT' AND n_chars > 3").columns == ["licence", "n_chars"]
    assert bound("licence = 'MIT' AND quality > 3").columns == ["licence", "raw"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("LPAD(lang, 2000000000, 'x') = 'a'", "padding|unsupported function"),
        ("RPAD(lang, 2000000000, 'x') = 'a'", "padding|unsupported function"),
        ("REPLACE(" * 9 + "lang" + ", 'a', 'aaaaaaaaa')" * 9 + " = 'a'", "more than 8 REPLACE"),
        (" AND ".join(["n_chars > 3"] * 400), "longer than 4,000 characters"),
        ("(" * 1500 + "1 = 1" + ")" * 1500, "not an SQL expression"),
    ],
)
def test_what_asks_for_too_much_is_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        bound(text)
