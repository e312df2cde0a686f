"""Every figure of README's result tables and of the page of measurements is that of a JSON."""

import re

import pytest

from benchmarks.results.__main__ import TAKEN
from benchmarks.results.figure import FILE, gains
from benchmarks.results.tables import PAGES, ROOT, load_results, tables, with_tables
from benchmarks.results.taken import finetune_figures

RESULTS = load_results()
RENEW = "run: python -m benchmarks.results"


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_names_command_machine_date_and_commit(name: str) -> None:
    result = RESULTS[name]
    assert set(result) - {"taken_from"} == {
        "what", "command", "machine", "date", "commit", "figures"
    }  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", result["date"])
    assert re.fullmatch(r"[0-9a-f]{12}", result["commit"])
    assert result["figures"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_of_a_page_are_those_of_the_results(page: object) -> None:
    text = (ROOT / str(page)).read_text(encoding="utf-8")
    assert text.count("<!-- figures: ") == text.count("<!-- /figures -->") >= 3
    assert with_tables(text, tables(RESULTS)) == text, RENEW


@pytest.mark.parametrize("name", TAKEN)
def test_a_result_is_what_its_page_says(name: str) -> None:
    page = (ROOT / f"docs/benchmarks/{name}.md").read_text(encoding="utf-8")
    assert TAKEN[name](page) == RESULTS[name]["figures"], RENEW


def test_the_picture_of_gains_is_that_of_the_results() -> None:
    assert FILE.read_text() == gains(RESULTS["finetune"]["figures"]["main"]), RENEW


def test_the_output_of_the_demonstration_is_that_of_the_results() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    share = RESULTS["demonstration"]["figures"]["share"]
    for number, target in enumerate(RESULTS["demonstration"]["figures"]["targets"]):
        row = re.search(rf"^ +{target} +(\S+) +(\S+) +(\S+) ", readme, re.M)
        assert row is not None
        assert [float(value) for value in row.groups()] == [
            share[method][number] for method in ("saelect", "bm25", "random")
        ]


def test_figures_in_prose_stand_on_a_page_of_benchmarks() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    prose = re.sub(r"(?m)^(?:    |\|).*$", "", readme)
    pages = "".join(page.read_text() for page in (ROOT / "docs/benchmarks").glob("*.md"))
    figures = re.findall(r"\b0\.\d{3}\b", prose)
    assert len(figures) >= 3
    assert [figure for figure in figures if figure not in pages] == []


def test_a_changed_figure_is_seen() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        start = text.index("<!-- figures: ")
        digit = re.compile(r"\d(?= \|)").search(text, start)
        assert digit is not None
        changed = f"{text[: digit.start()]}{(int(digit[0]) + 1) % 10}{text[digit.end() :]}"
        assert with_tables(changed, tables(RESULTS)) == text != changed


FINETUNED = """
<!-- main -->
**4,000 tokens, new: 8 targets**

| arm | gain | exact |
| --- | --- | ---: |
| bm25 | 0.194 [0.047, 0.373] | 0.168 |
| **best** | 0.190 [-0.044, 0.369] | 0.138 |

- best - bm25: -0.0036 [-0.0292, +0.0212], p 1.000 (Holm), 5 of 8 targets.

| target | best |
| --- | ---: |
| gsm8k | 0.1 |
<!-- end of main -->
"""


def test_numbers_of_a_page_go_to_their_arm() -> None:
    assert finetune_figures(FINETUNED) == {
        "main": {
            "4,000 tokens, new": {
                "targets": 8,
                "arms": {
                    "bm25": {
                        "gain": {"mean": 0.194, "lo": 0.047, "hi": 0.373},
                        "ahead": {"mean": -0.0036, "lo": -0.0292, "hi": 0.0212},
                    },
                    "best": {"gain": {"mean": 0.19, "lo": -0.044, "hi": 0.369}},
                },
            }
        }
    }


def test_bm25_stands_as_it_was_measured_again() -> None:
    page = (ROOT / "docs/benchmarks/retrieval.md").read_text(encoding="utf-8")
    again = re.findall(r"^\| 115,087, packaged \| (\w+) \| (\S+) \| (\S+) ", page, re.M)
    assert len(again) == 2
    for setting, mean, ahead in again:
        row = RESULTS["retrieval"]["figures"][setting]["bm25"]
        assert (row["ndcg"], row["ahead"]["mean"]) == (float(mean), float(ahead))
