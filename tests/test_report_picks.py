"""Marks, pieces and data of the picks, against their definitions."""

import json
import math
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from selection.core.numbers import spelled
from storage.report.payload import inline_json, pick_data
from storage.report.picks import ActiveToken, marks_of, turns_of
from storage.report.records import Latent, Piece, ShownPick, Turn
from storage.wording.reasons import Kind, Label

LATENTS = [
    Latent("sums", "resid@2", 7, True, 40, 0.4, Label("sums", Kind.READABLE)),
    Latent("latent 9", "words", 9, False, 10, 0.1, Label("latent 9", Kind.READABLE)),
]


def test_heat_is_how_much_of_the_similarity_goes_through_a_token() -> None:
    fired = [
        ActiveToken("resid@2", 7, 0, 0, 3, 2.0),
        ActiveToken("resid@2", 7, 0, 3, 6, 8.0),
        ActiveToken("words", 9, 0, 3, 6, 5.0),
        ActiveToken("words", 9, 1, 0, 2, 5.0),
        ActiveToken("resid@2", 9, 1, 0, 2, 99.0),  # another space's latent of that number
    ]
    # Worth: 0.4 x 2/8 = 0.1; 0.4 + 0.1 = 0.5; 0.1. Heat: in quarters of 0.5, rounded up.
    assert marks_of(fired, LATENTS) == {
        0: [(0, 3, math.ceil(4 * 0.1 / 0.5), "30"), (3, 6, 4, "99")],
        1: [(0, 2, math.ceil(4 * 0.1 / 0.5), "09")],
    }
    assert marks_of([], LATENTS) == {}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([("resid@2", 7), ("words", 9)]),
            st.integers(0, 12),
            st.integers(1, 6),
            st.integers(1, 9),
        ),
        max_size=6,
    )
)
def test_where_marks_overlap_the_hottest_counts_for_every_character(
    spans: list[tuple[tuple[str, int], int, int, int]],
) -> None:
    fired = [ActiveToken(*name, 0, at, at + n, float(s)) for name, at, n, s in spans]
    alone = {(f.first, f.end) for f in fired}
    found = marks_of(fired, LATENTS).get(0, [])
    assert all(one[1] <= two[0] for one, two in pairwise(found))
    top = {name: max((f.strength for f in fired if f[:2] == name), default=1.0)
           for name in (("resid@2", 7), ("words", 9))}  # fmt: skip
    shares = {("resid@2", 7): 0.4, ("words", 9): 0.1}

    def worth(span: tuple[int, int]) -> float:
        here = [f for f in fired if (f.first, f.end) == span]
        best = {name: max((f.strength for f in here if f[:2] == name), default=0.0)
                for name in top}  # fmt: skip
        return sum(shares[name] * best[name] / top[name] for name in top)

    hottest = max(map(worth, alone), default=0.0)
    for i in range(20):
        over = [span for span in alone if span[0] <= i < span[1]]
        heats = [heat for first, end, heat, _ in found if first <= i < end]
        expected = (
            [max(max(1, math.ceil(4 * worth(s) / hottest - 1e-9)) for s in over)] if over else []
        )
        assert heats == expected


@settings(max_examples=60, deadline=None)
@given(
    st.text(max_size=30),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8)), max_size=6),
    st.integers(0, 40),
)
def test_pieces_are_the_text_cut_at_its_marks(
    text: str, spans: list[tuple[int, int]], most: int
) -> None:
    marks = {0: sorted((first, first + n, 2, "5") for first, n in spans)}
    messages = json.dumps([{"role": "user", "content": text}])
    [turn] = turns_of(messages, most, marks)
    assert turn.text == text[:most]
    assert turn.n_hidden == max(0, len(text) - most)
    marked = {i for first, end, *_ in marks[0] for i in range(first, min(end, most, len(text)))}
    at = 0
    for piece in turn.pieces:
        assert piece.text
        assert {i in marked for i in range(at, at + len(piece.text))} == {bool(piece.heat)}
        at += len(piece.text)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40))
def test_inline_json_says_the_same_and_cannot_leave_its_element(text: str) -> None:
    made = inline_json([text + "</script><!--"])
    assert json.loads(made) == [text + "</script><!--"]
    assert not set(made) & set("<>&\u2028\u2029")


def test_controls_of_direction_are_spelled_out() -> None:
    assert spelled("a\u202eb\u2066") == "a⟨U+202E⟩b⟨U+2066⟩"
    assert spelled("é 日本 \u200d") == "é 日本 \u200d"


def test_data_holds_every_pick_once_in_parts() -> None:
    turn = Turn("user", [Piece("a "), Piece("b\u202e", 3, "90")], 5)
    picks = [
        ShownPick(n, 0.5, f"id-{n}", "t", None, "s", "f", n, None, 7, 1, [turn], LATENTS, 0.5, "e")
        for n in range(1, 2502)
    ]
    data = pick_data(picks, {"e": [turn]}, {"n": len(picks)})
    parts = [json.loads(part) for part in data.parts]
    assert [len(part) for part in parts] == [1000, 1000, 501]
    rows = [row for part in parts for row in part]
    assert [row[0] for row in rows] == list(range(1, 2502))
    head: dict[str, Any] = json.loads(data.head)
    assert head["words"][rows[0][4]] == "s"
    assert (
        rows[0][11]
        == head["exemplars"][0:1][0]
        == [[head["words"].index("user"), ["a ", ["b⟨U+202E⟩", 3, "90"]], 5]]
    )
    assert rows[0][12][0][-1] == "40\u202f%"
    assert [[head["words"][words], *rest] for words, *rest in rows[0][16]] == [
        ["sums", "0"],
        ["latent 9", "1"],
    ]


def test_chips_stand_for_their_latents_and_signs_for_all_of_theirs() -> None:
    def token(number: int, term: str, kind: Kind, share: float) -> Latent:
        return Latent(term, "tokens", number, True, 1, share, Label(term, kind))

    latents = [
        token(1, "(", Kind.SIGN, 0.2),
        token(2, "FROM", Kind.READABLE, 0.1),
        token(3, "=", Kind.SIGN, 0.05),
        token(4, "BY", Kind.READABLE, 0.04),
        token(5, ";", Kind.SIGN, 0.03),
    ]
    pick = ShownPick(
        1, 0.5, "id", "t", None, "s", "f", 1, None, 7, 1, [], latents, 0.58, None
    )  # fmt: skip
    said = [(chip.words, round(chip.share, 9), list(chip.places)) for chip in pick.reasons()]
    assert said == [
        ("FROM", 0.1, [1]), ("BY", 0.04, [3]), ("3 punctuation marks", 0.28, [0, 2, 4])
    ]  # fmt: skip
    first = [(chip.words, list(chip.places)) for chip in pick.reasons(1)]
    assert first == [("FROM", [1]), ("1 punctuation mark", [0])]
