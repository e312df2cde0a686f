"""Methods of the retrieval benchmark by name, variant and file; cells of the ablation are such."""

from collections.abc import Mapping
from typing import Any

import pytest

from benchmarks.ablation.cells import BEST, CELLS, Exemplars
from flows.benchmark.methods import _ranking, find_methods
from flows.config.data import UnderTest
from selection.core.errors import InputError


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["bm26"], "no such method"),
        (["bm25:median"], "no such variant"),
        (["best", "best"], "two methods have the same name"),
        (["nowhere.yaml"], "cannot be read"),
    ],
)
def test_wrong_methods_are_refused(names: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        find_methods(names, UnderTest())


def test_every_cell_of_the_ablation_is_a_method_and_none_is_best_again() -> None:
    assert len({cell.name for cell in CELLS}) == len(CELLS)
    best = resolved({})
    for cell in CELLS:
        if cell.baseline:
            find_methods([cell.baseline], UnderTest())
        elif cell is not BEST and cell.sae is None and cell.draws == (Exemplars(),):
            assert resolved(cell.config or {}) != best, cell.name


def resolved(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings of a method, defaults filled in."""
    return _ranking("cell", {"preset": "best", **config}, UnderTest(), "cell").settings
