"""The page of the benchmark by fine-tuning: numbers by hand, blocks that are replaced whole."""

from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.finetuning import _by_target, gains_of, plotted, replaced, svg
from storage.report.finetune import groups_of, means_of, placed, plot_of


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


def test_means_are_over_targets_that_every_arm_has_with_the_lead_of_best() -> None:
    def row(target: str, arm: str, gain: float, seed: int = 0, budget: int = 100) -> dict[str, Any]:
        return {
            "target": target, "arm": arm, "budget": budget, "seed": seed, "gain": gain,
            "exact": gain if target == "a" else None, "label_accuracy": None,
            "general_bits_per_byte": 1.5, "response_tokens": 10,
        }  # fmt: skip

    runs = [row("a", "zero", 0.0, budget=0), row("a", "best", 0.2), row("a", "best", 0.4, seed=1),
            row("b", "best", 0.1), row("a", "bm25", -0.1), row("b", "bm25", 0.1),
            row("only best", "best", 0.9)]  # fmt: skip
    best, bm25 = means_of(runs)
    assert (best.arm, best.n_targets, best.ahead) == ("best", 2, None)
    assert best.gain.mean == pytest.approx((0.3 + 0.1) / 2)
    # Of two targets a resample holds one twice in half of the draws: both ends are single targets.
    assert [best.gain.lo, best.gain.hi] == pytest.approx([0.1, 0.3])
    assert bm25.gain.mean == pytest.approx(0)
    assert bm25.ahead is not None
    assert [bm25.ahead.mean, bm25.ahead.lo] == pytest.approx([0.2, 0.0])
    assert bm25.others == {
        "exact": -0.1, "label_accuracy": None, "general_bits_per_byte": 1.5, "response_tokens": 10
    }  # fmt: skip
    halves = [run | {"is_seen": run["target"] == "b"} for run in runs]
    new, seen = groups_of(halves).values()
    assert [row.n_targets for row in (*new, *seen)] == [1, 1, 1, 1]
    assert new[0].gain.mean == pytest.approx(0.3)
    assert list(groups_of([run | {"is_seen": None} for run in runs])) == ["tasks"]
    rows, zero = placed([best, bm25])
    assert zero == pytest.approx(25)  # from -0.1 to 0.3
    assert [rows[0].gain.left, rows[0].gain.width] == pytest.approx([50, 50])
    assert rows[1].gain.at == pytest.approx(25)
