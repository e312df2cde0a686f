"""The page of the benchmark by fine-tuning: numbers by hand, blocks that are replaced whole."""

from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.finetuning import _by_target, gains_of, plotted, replaced, svg
from storage.report.finetune import plot_of


def run(target: str, arm: str, budget: int, seed: int, bits: list[float]) -> dict[str, Any]:
    return {
        "target": target, "arm": arm, "budget": budget, "seed": seed, "bits": bits,
        "n_bytes": [8, 8],
    }  # fmt: skip


OUTCOME: Any = SimpleNamespace(
    targets=[SimpleNamespace(name="sql"), SimpleNamespace(name="untested")],
    results=[
        run("sql", "zero", 0, 0, [10, 30]),
        run("sql", "random", 100, 0, [10, 26]),
        run("sql", "random", 100, 1, [10, 22]),
        run("sql", "best", 100, 0, [5, 15]),
        run("sql", "best", 100, 1, [5, 15]),
        run("sql", "oracle", 100, 0, [2, 8]),
    ],
)


def test_gains_are_shares_of_the_untrained_models_bits() -> None:
    gains = gains_of(OUTCOME, 100)
    # 36 and 32 of 40 bits are left with random rows, 20 with those of best, 10 with the task's own.
    assert gains == {
        ("sql", "random"): pytest.approx((0.1 + 0.2) / 2),
        ("sql", "best"): pytest.approx(0.5),
        ("sql", "oracle"): pytest.approx(0.75),
    }


def test_every_target_has_a_row_and_the_highest_arm_but_oracle_is_bold() -> None:
    lines = list(_by_target(OUTCOME, 100))
    assert lines[1:] == [
        "| target | best | random | oracle |",
        "| --- | ---: | ---: | ---: |",
        "| sql | **0.500** | 0.150 | 0.750 |",
    ]


def test_plots_are_xml_with_one_line_an_arm() -> None:
    runs = [run | {"bits_per_byte": sum(run["bits"]) / 16} for run in OUTCOME.results]
    runs.append(runs[0] | {"target": "untested"})
    root = ElementTree.fromstring(svg([plot_of(*each) for each in plotted(runs)]))
    titles = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert titles[0] == "sql"
    assert titles[-3:] == ["best", "oracle", "random"]
    assert "untested" not in titles


def test_a_block_is_replaced_whole_and_the_rest_stays() -> None:
    page = "above\n<!-- a -->\nold\nold\n<!-- end of a -->\nbelow\n"
    once = replaced(page, "a", "new")
    assert once == "above\n<!-- a -->\nnew\n<!-- end of a -->\nbelow\n"
    assert replaced(once, "a", "new") == once
    with pytest.raises(ValueError, match="no block b"):
        replaced(page, "b", "new")
