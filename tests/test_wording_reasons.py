"""Reasons in words, by value: scripts, pieces of words, bytes, signs, descriptions."""

import re
from pathlib import Path

import pytest

from flows.cli.reading.catalog import print_why
from storage.audit.explain import explain
from storage.catalog.arrow_rows import to_arrow
from storage.catalog.commit import commit
from storage.files.workspace import Workspace, open_workspace
from storage.queries.lookup import list_selections
from storage.report.page import write_report
from storage.report.picks import first_reasons
from storage.wording.reasons import (
    Kind,
    Label,
    Span,
    full_words,
    kind_of,
    merge_labels,
    reason_words,
    visible,
)
from tests.catalog_fixture import make_tables
from tests.catalog_run import SPACE

SQL = "SELECT pupil_id\nFROM pupils WHERE x > 15 ORDER BY y"


def token(term: str, *turns: str, spans: tuple[Span, ...] = ()) -> str:
    return reason_words("tokens", 1, term, turns, spans).words


def token_in(term: str, text: str) -> str:
    """The token with the span of its first occurrence."""
    at = text.index(term)
    return token(term, text, spans=(Span(0, at, at + len(term)),))


@pytest.mark.parametrize(
    ("term", "kind"),
    [
        ("FROM", Kind.READABLE),
        (" la", Kind.READABLE),
        ("7", Kind.READABLE),
        ("用户", Kind.READABLE),
        ("что", Kind.READABLE),
        ("हि", Kind.READABLE),
        ("'t", Kind.READABLE),
        (" 😀", Kind.READABLE),
        ("ी", Kind.READABLE),
        (" ी", Kind.READABLE),
        ("\u0301", Kind.READABLE),
        ("∑", Kind.READABLE),
        (" →", Kind.READABLE),
        ("€", Kind.READABLE),
        ("$", Kind.SIGN),
        (" +=", Kind.SIGN),
        ("\ufe0f", Kind.SIGN),  # asks for an emoji in color, and cannot be seen
        ("(", Kind.SIGN),
        (" =", Kind.SIGN),
        ("```", Kind.SIGN),
        ("_", Kind.SIGN),
        ("。", Kind.SIGN),
        ("\n    ", Kind.BLANK),
        ("\u3000", Kind.BLANK),
        ("\ufffd", Kind.BYTES),
        (" \ufffd", Kind.BYTES),
        ("<0xE4>", Kind.BYTES),
    ],
)
def test_what_a_reader_gets_from_a_term(term: str, kind: Kind) -> None:
    assert kind_of(term) is kind


def test_a_token_stands_in_the_word_in_which_it_fired() -> None:
    at = SQL.index("il_id")
    assert token("il", SQL, spans=(Span(0, at, at + 2),)) == "“pup[il]”"
    at = SQL.index("ROM")
    assert token("ROM", SQL, spans=(Span(0, at, at + 3),)) == "“F[ROM]”"
    # The space before a token is no part of the word; a whole word needs no brackets.
    at = SQL.index(" ORDER")
    assert token(" OR", SQL, spans=(Span(0, at, at + 3),)) == "“[OR]DER”"
    at = SQL.index(" BY")
    assert token(" BY", SQL, spans=(Span(0, at, at + 3),)) == "“BY”"
    # Of several places the most frequent word is named.
    text = "till pupil pupil"
    places = tuple(Span(0, i, i + 2) for i in range(len(text)) if text[i : i + 2] == "il")
    assert token("il", text, spans=places) == "“pup[il]”"
    # A span in a turn that is not there counts as none.
    assert token("il", spans=(Span(0, 3, 5),)) == "“il”"


def test_without_a_span_a_token_stands_as_it_is() -> None:
    assert token("ROM", SQL) == "“ROM”"
    assert token(" BY", SQL) == "“BY”"
    assert token("\u2581phot", "photo") == "“phot”"
    assert token("##il", "The Pupil") == "“##il”"
    assert token("(", SQL) == "“(”"


def test_a_place_beyond_its_text_is_none() -> None:
    for place in (Span(0, 9, 11), Span(0, 3, 6), Span(1, 0, 2)):
        assert token("il", "pupil", spans=(place,)) == "“il”"
        words = reason_words("resid@2", 9, None, ["pupil"], [place]).words
        assert words == "latent 9"
    # Others of the same token still count.
    places = (Span(0, 9, 11), Span(0, 1, 3))
    assert token("il", "till pupil", spans=places) == "“t[il]l”"


def test_other_scripts() -> None:
    assert token_in("用户", "查询所有用户的名字") == "“用户”"  # no spaces, so no word around it
    assert token_in("るこ", "食べること") == "“るこ”"
    assert token_in("ив", "привет") == "“пр[ив]ет”"
    assert token_in("न", "हिन्दी") == "“हि[न]्दी”"
    assert token_in("ी", "हिन्दी") == "“हिन्द[ी]”"
    assert token_in("요", "안녕하세요") == "“안녕하세[요]”"
    assert token_in(" 😀", "good 😀 day") == "“😀”"


def test_bytes_are_shown_as_the_character_they_are_part_of() -> None:
    text = "la bibliothèque"
    at = text.index("è")
    found = reason_words("tokens", 1, "\ufffd", [text], [Span(0, at, at + 1)])
    assert found == Label("“biblioth[è]que”", Kind.READABLE)
    assert full_words("tokens", "\ufffd", found) == "“\ufffd” in “biblioth[è]que”"
    found = reason_words("tokens", 1, "<0xF0>", ["so 😀"], [Span(0, 3, 4)])
    assert found == Label("“😀”", Kind.READABLE)
    assert reason_words("tokens", 1, "\ufffd", [text]).kind is Kind.BYTES
    assert reason_words("tokens", 1, "<0xE4>", ["ä"]).kind is Kind.BYTES


def test_long_words_are_cut_around_the_piece() -> None:
    text = "x" * 100 + "il" + "y" * 100
    assert token("il", text, spans=(Span(0, 100, 102),)) == (
        "“…" + "x" * 15 + "[il]" + "y" * 15 + "…”"
    )


@pytest.mark.parametrize("n", [0, 15, 16, 17, 100])
def test_of_the_rest_of_a_word_sixteen_characters_are_shown(n: int) -> None:
    before = "x" * n if n <= 16 else "…" + "x" * 15
    after = "y" * n if n <= 16 else "y" * 15 + "…"
    shown = f"“{before}[il]{after}”" if n else "“il”"
    assert token_in("il", "x" * n + "il" + "y" * n) == shown


def test_characters_far_from_a_piece_are_not_looked_at() -> None:
    class Text(str):
        """Notes which of its characters are read."""

        __slots__ = ("read",)
        read: set[int]

        def __getitem__(self, at: object) -> str:
            if isinstance(at, int):
                self.read.add(at)
            return super().__getitem__(at)  # type: ignore[index]

    text = Text("x" * 1000 + "il" + "y" * 1000)
    text.read = set()
    token("il", text, spans=(Span(0, 1000, 1002),))
    assert text.read == set(range(1000 - 17, 1000)) | set(range(1002, 1002 + 17))


def test_both_brackets_are_around_a_long_piece() -> None:
    piece = "p" * 22
    text = "x" * 16 + piece + "y" * 16
    place = Span(0, 16, 38)
    words = "x" * 16 + f"[{piece}]" + "y" * 16
    assert token(piece, text, spans=(place,)) == f"“{words}”"
    assert reason_words("resid@2", 9, None, [text], [place]).words == f"a latent on “{words}”"
    # A piece that is longer than what is shown of a term is cut within its brackets.
    piece = "p" * 50
    assert token_in(piece, f"x{piece}y") == "“x[" + "p" * 39 + "…]y”"
    assert token(piece) == "“" + "p" * 39 + "…”"


def test_words_of_the_lexical_space_are_whole() -> None:
    assert reason_words("words", 1, "il", ["pupil"]) == Label("“il”", Kind.READABLE)


HINT = "“_” “(” “⏎”, as in …id GROUP BY p.pupil[_]id ORDER BY …"


def test_a_latent_is_named_by_where_it_is_active_or_by_its_tokens() -> None:
    at = SQL.index("_id")
    place = Span(0, at, at + 1)
    assert reason_words("resid@2", 9, HINT, [SQL], [place]).words == "a latent on “pupil[_]id”"
    assert reason_words("resid@2", 9, None, [SQL], [place]).words == "a latent on “pupil[_]id”"
    assert reason_words("resid@2", 9, HINT, ["x"]).words == "a latent on “_” “(” “⏎”"
    assert reason_words("resid@2", 9, None, ["x"]).words == "latent 9"
    # What somebody wrote is better than any span.
    assert reason_words("resid@2", 9, "units of money", [SQL], [place]).words == "units of money"


def test_where_everything_is_listed_terms_stay_exact_on_one_line() -> None:
    def full(term: str, text: str = "") -> str:
        at = text.find(core := term.strip("\u2581 "))
        spans = [Span(0, at, at + len(core))] if text else []
        return full_words("tokens", term, reason_words("tokens", 1, term, [text], spans))

    assert full("\n   ") == "“⏎   ”"
    assert full(" BY", SQL) == "“ BY”"
    assert full("ROM", SQL) == "“ROM” in “F[ROM]”"
    assert full(" pup") == "“ pup”"
    assert full("(") == "“(”"
    assert full("\x1b") == "“␛”"
    assert full(" [a", "x = [a]") == "“ [a”"  # brackets of its own are none around a piece
    assert full("\u2581[a", "x = [a]") == "“\u2581[a”"
    assert full("[a", "[ab]") == "“[a” in “[[a]b”"
    assert full(" " + "p" * 50, "p" * 50) == "“ " + "p" * 38 + "…”"
    assert full_words("resid@2", HINT, reason_words("resid@2", 9, HINT)) == HINT
    assert full_words("resid@2", None, reason_words("resid@2", 9, None)) == ""


def test_no_control_is_left_in_what_is_shown() -> None:
    assert visible("a\n\tb\x00\x7f") == "a⏎⇥b␀␡"
    assert visible("a\x80\x85\x9fb\xa0") == "a⟨U+0080⟩⟨U+0085⟩⟨U+009F⟩b\xa0"
    assert visible("a\u2028b\u2029c") == "a⟨U+2028⟩b⟨U+2029⟩c"
    assert visible("gnp\u202egnp.exe\u202c \u2066x\u2069\u200f") == (
        "gnp⟨U+202E⟩gnp.exe⟨U+202C⟩ ⟨U+2066⟩x⟨U+2069⟩⟨U+200F⟩"
    )
    assert visible("é 日本 \u200d") == "é 日本 \u200d"
    left = {code for code in range(0x110000) if len(f"a{visible(chr(code))}b".splitlines()) > 1}
    assert left == set()


def test_short_lists_count_what_stands_between_the_readable_ones() -> None:
    def merged(*terms: str, most: int | None = None) -> list[tuple[str, list[int]]]:
        return merge_labels([Label(term, kind_of(term)) for term in terms], most)

    assert merged("(", "FROM", " =", "BY", ";") == [
        ("FROM", [1]), ("BY", [3]), ("3 punctuation marks", [0, 2, 4])
    ]  # fmt: skip
    assert merged("(", "FROM", " =", "BY", ";", most=1) == [
        ("FROM", [1]), ("1 punctuation mark", [0])
    ]  # fmt: skip
    assert merged("FROM", "(", most=1) == [("FROM", [0])]
    assert merged("\n", "a") == [("a", [1]), ("1 space or line break", [0])]
    assert merged("\n", " ", "(") == [("3 punctuation marks and spaces", [0, 1, 2])]
    assert merged("(", "\ufffd") == [("1 punctuation mark and 1 part of a character", [0, 1])]
    assert merged("\ufffd", " \ufffd") == [("2 parts of characters", [0, 1])]
    assert merged("a", "b", "a", most=3) == [("a", [0, 2]), ("b", [1])]
    on, example = "a latent on “BY”", "a latent on “OR”"
    assert merged(on, "BY", example, on, example, on) == [
        ("3 latents on “BY”", [0, 3, 5]), ("BY", [1]), ("2 latents on “OR”", [2, 4])
    ]  # fmt: skip
    assert merged(on) == [(on, [0])]
    assert merged("units", "units") == [("units", [0, 1])]  # as somebody described both
    assert merged() == []


TERMS = ["(", " BY", "ROM", "\n", "il", " pup", "15", ")"]
TEXT = [{"role": "user", "content": SQL}]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Three picks of one text and the same reasons; two of them are known to fire in the first."""
    tables = make_tables(n_selected=3)
    [first, *_] = tables["pick"].to_pylist()
    key = {"selection_id": first["selection_id"], "example_id": first["example_id"]}
    nearest = {
        (row["selection_id"], row["example_id"]): row["exemplar_id"]
        for row in tables["explanation"].to_pylist()
        if row["exemplar_rank"] == 1
    }
    reasons = [*(("tokens", number, term) for number, term in enumerate(TERMS)), (SPACE, 999, None)]
    rows = [
        {"selection_id": selection, "example_id": example, "exemplar_id": exemplar,
         "space": space, "latent": latent, "position": place + 1, "term": term,
         "contribution": 100 - place, "numerator": 1000, "share": (100 - place) / 1000}
        for (selection, example), exemplar in sorted(nearest.items())
        for place, (space, latent, term) in enumerate(reasons)
    ]  # fmt: skip
    tables["explanation"] = to_arrow("explanation", rows)
    fired = [
        {**key, "space": space, "latent": latent, "turn": 0, "first_char": SQL.index(text),
         "end_char": SQL.index(text) + 2, "activation": strength}
        for space, latent, text, strength in (
            ("tokens", 4, "ils ", 1.0), (SPACE, 999, "SE", 2.0), (SPACE, 999, "15", 3.0)
        )
    ]  # fmt: skip
    tables["token_activations"] = to_arrow("token_activations", fired)
    texts = [{**row, "messages": TEXT} for row in tables["sample"].to_pylist()]
    tables["sample"] = to_arrow("sample", texts)
    workspace = open_workspace(tmp_path)
    commit(workspace, tables)
    return workspace


def test_show_report_and_why_say_the_same_and_why_lists_all(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = list_selections(workspace, "main")[0]
    reasons = first_reasons(workspace, chosen, 2, most=3)
    assert reasons[1] == ["“BY”", "“ROM”", "“pup[il]s”", "2 punctuation marks and spaces"]
    assert reasons[2] == ["“BY”", "“ROM”", "“il”", "2 punctuation marks and spaces"]
    page = write_report(workspace, chosen.name).read_text(encoding="utf-8")
    chips = re.findall('<span class="chip[^>]*><b>([^<]*)</b> ([^<]*)</span>', page)
    assert chips[:6] == [
        ("9.9\u202f%", "“BY”"), ("9.8\u202f%", "“ROM”"), ("9.6\u202f%", "“pup[il]s”"),
        ("9.5\u202f%", "“pup”"),
        ("9.2\u202f%", "a latent on “15”"), ("20\u202f%", "2 punctuation marks and spaces"),
    ]  # fmt: skip
    with_places = re.findall('data-level="([^"]*)"', page)
    assert with_places[:6] == ["1", "2", "4", "5", "6", "0 3"]
    example = explain(workspace, chosen.name, _first(workspace))
    assert [row.description for row in example.latents] == [*TERMS, None]
    print_why(example, 1)
    told = capsys.readouterr().out
    for words in ("“(”", "“ BY”", "“ROM”", "“⏎”", "“il” in “pup[il]s”",
                  "“ pup”", "“15”", "“)”"):  # fmt: skip
        assert f"  {words}\n" in told


def _first(workspace: Workspace) -> str:
    from storage.queries.lookup import picks

    return picks(workspace, list_selections(workspace, "main")[0].selection_id, 1)[0].example_id
