import random
from collections import Counter

import numpy as np
import pytest

from selection.core import words as words_module
from selection.core.words import text_pieces, words
from selection.records import Rendered
from selection.representation.lexical import (
    WORD_COLUMNS,
    column_words,
    token_rows,
    word_column,
    word_rows,
)

TEXTS = ["The cat saw the dog.", "", "Größe größe 猫が好き ٣ कीमत", "the the the"]


def as_counts(rows: object, i: int) -> dict[int, int]:
    span = slice(rows.indptr[i], rows.indptr[i + 1])  # type: ignore[attr-defined]
    found = zip(rows.latents[span], rows.values[span], strict=True)  # type: ignore[attr-defined]
    return {int(column): int(count) for column, count in found}


def test_word_rows_count_the_words_of_any_language() -> None:
    rows = word_rows(TEXTS)
    assert len(rows) == len(TEXTS)
    assert rows.n_latents == WORD_COLUMNS
    for i, text in enumerate(TEXTS):
        expected: Counter[int] = Counter(word_column(word) for word in words(text))
        assert as_counts(rows, i) == expected
        assert (np.diff(rows.latents[rows.indptr[i] : rows.indptr[i + 1]]) > 0).all()


def test_the_words_of_pieces_are_those_of_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words_module, "_PIECE", 3)
    rng, signs = random.Random(0), [*"aZ9_é猫ずς\u0301\u0308\u0345ﬁ½\n.", *"    "]
    for length in range(300):
        text = "".join(rng.choices(signs, k=length))
        assert [word for piece in text_pieces(text) for word in words(piece)] == words(text)
    assert list(text_pieces("")) == []


def test_columns_are_named_by_the_words_that_were_met() -> None:
    named = column_words(TEXTS)
    assert named[word_column("the")] == "the"
    assert set(named) == {word_column(word) for text in TEXTS for word in words(text)}


def test_a_word_keeps_its_column_for_ever() -> None:
    assert [word_column(word) for word in ("the", "größe", "猫")] == [776798, 129268, 206136]


def test_token_rows_count_what_counts() -> None:
    tokens = np.array([5, 1, 1, 7, 1], np.uint32)
    counted = np.array([False, True, True, True, False])
    sample = Rendered(tokens, counted, 5, False, False)
    nothing = Rendered(tokens, np.zeros(5, bool), 5, False, False)
    rows = token_rows([sample, nothing, sample], 9)
    assert [as_counts(rows, i) for i in range(3)] == [{1: 2, 7: 1}, {}, {1: 2, 7: 1}]
    assert rows.n_latents == 9
    assert len(token_rows([], 9)) == 0
    many = Rendered(np.ones(70_000, np.uint32), np.ones(70_000, bool), 70_000, False, False)
    assert as_counts(token_rows([many], 9), 0) == {1: 65_535}
