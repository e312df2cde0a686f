"""Words that are not used, because each had a meaning of its own here or several at once."""

import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("flows", "storage", "selection")

NAMES = {
    "told": "noun of the thing: progress, rows",
    "said": "noun of the thing: text, message",
    "mine": "ours, own ids by what they are of",
    "asked": "wanted, requested, the thing's noun",
    "Race": "RankingInput, eligible",
    "race": "ranking input",
    "field_of": "eligible_examples",
    "n_promised": "n_eligible_at_check",
    "enter_race": "build_ranking_input",
    "hold_to_its_word": "check_declared_quality",
    "fired": "token_activations",
    "fired_rows": "token_activation_rows",
    "Reach": "RankingDepth",
    "reach": "ranking_depth",
    "look_down": "measure_depth",
    "rivals": "baselines",
    "rival": "baseline",
    "gone": "deleted, dropped, missing, redacted",
    "GONE": "REDACTED",
    "Worded": "Label",
    "folded": "merge_labels",
    "FOR_EVER": "UNLIMITED_RETRIES",
    "RESUME_ME": "EX_TEMPFAIL",
    "TimeIsUp": "TimeLimitExceeded",
    "most_weight": "max_total_weight",
    "weighs": "weights",
    "place": "rank, hookpoint, span, path, position, workspace",
    "found": "noun of the thing",
    "readings": "activations, content masks",
}
"""Identifier -> what to write instead."""

PHRASES = {
    r"\bmade[ -]up\b": "synthetic",
    r"\brivals?\b": "baseline",
    r"\bare brought up\b|\bbrings up\b|\bwas not brought up\b": "retrieved",
    r"\breach:": "ranking depth:",
    r"\bloosers?\b|\bwho loses\b": "where another method is better",
    r"what the model says\b": "what the model computes",
    r"\bhold(s|ing)? .{0,20}to its word": "check the declared quality",
}
"""Pattern in comments, docstrings, messages and pages -> what to write instead."""

BARE_FRACTION = r"(?<![\w/.])\.\d{1,3}\b(?![\w/.-])"
"""A number without its leading zero, in prose or in a table."""


@cache
def sources() -> list[Path]:
    return sorted(file for top in PRODUCT for file in (ROOT / top).rglob("*.py"))


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def names_of(file: Path) -> Iterator[tuple[int, str]]:
    """Identifiers of a module with their lines."""
    for token in tokenize.generate_tokens(io.StringIO(file.read_text()).readline):
        if token.type == tokenize.NAME:
            yield token.start[0], token.string


@cache
def lines_by_name() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for file in sources():
        for line, name in names_of(file):
            if name in NAMES:
                found.setdefault(name, []).append(f"{file.relative_to(ROOT)}:{line}")
    return found


def bare_fractions(page: Path) -> list[str]:
    """Numbers without their leading zero, outside of code."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.S)
    return re.findall(BARE_FRACTION, re.sub(r"(?m)^    .*$", "", text))


@pytest.mark.parametrize("name", NAMES)
def test_no_identifier_is_a_word_of_several_meanings(name: str) -> None:
    assert lines_by_name().get(name, []) == [], NAMES[name]


@pytest.mark.parametrize("phrase", PHRASES)
def test_no_text_uses_a_private_phrase(phrase: str) -> None:
    files = [*sources(), *pages()]
    templates = [f for f in (ROOT / "storage").rglob("*") if f.suffix in (".j2", ".sql", ".js")]
    uses = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in [*files, *templates]
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(phrase, line)
    ]
    assert uses == [], PHRASES[phrase]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_numbers_have_their_leading_zero(page: Path) -> None:
    assert bare_fractions(page) == []
