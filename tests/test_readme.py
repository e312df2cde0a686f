"""README stays short and readable: lines, cells, sentences."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")
SUBORDINATE = (
    r"\b(?:that|which|who|whose|because|if|unless|although|while|whether|since|so that|before|after"
    r"|until|when|where)\b"
)


def sentences(text: str) -> list[str]:
    """Sentences of the prose: no code, no tables, no headings."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    text = re.sub(r"(?m)^(?:    |\||#|<!--|!\[).*$", "\n", text)
    text = re.sub(r"`[^`]*`|\]\([^)]*\)", "", text)
    blocks = re.split(r"\n\s*\n", re.sub(r"(?m)^- ", "\n\n", text))
    return [s for b in blocks for s in re.split(r"(?<=[.:;?])\s", " ".join(b.split())) if s]


def cells(text: str) -> list[str]:
    """Cells of its tables."""
    rows = re.findall(r"^\|(.+)\|$", text, re.M)
    return [cell.strip() for row in rows for cell in row.split("|")]


def test_it_has_at_most_140_lines() -> None:
    assert len(TEXT.splitlines()) <= 140


def test_no_cell_is_longer_than_60_characters() -> None:
    assert [cell for cell in cells(TEXT) if len(cell) > 60] == []
    assert len(cells(TEXT)) > 100


@pytest.mark.parametrize("sentence", sentences(TEXT))
def test_no_sentence_has_more_than_one_subordinate_clause(sentence: str) -> None:
    assert len(re.findall(SUBORDINATE, sentence, re.I)) <= 1


def test_sentences_are_those_of_the_prose() -> None:
    text = "# A\n\nOne `x` that [is](y.md). Two\nlines.\n\n    code that\n\n| a | b |\n\n- Three.\n"
    assert sentences(text) == ["One that [is.", "Two lines.", "Three."]


def test_pictures_are_small() -> None:
    images = list((README.parent / "docs/images").iterdir())
    assert len(images) >= 3
    assert all(image.stat().st_size < 200_000 for image in images)
