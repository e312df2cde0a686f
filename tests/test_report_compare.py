"""The page about two selections: every number against a slow count of the picks."""

import random
from pathlib import Path

import numpy as np
import pytest

from selection.core.errors import InputError
from storage.catalog.commit import commit
from storage.catalog.snapshot import open_snapshot
from storage.files.workspace import Workspace
from storage.queries.lookup import diff, find_selection, picks
from storage.report.compare import compare, rank_correlation, write_comparison
from tests.catalog_fixture import made_workspace, make_tables
from tests.test_report_page import Page


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = made_workspace(tmp_path_factory.mktemp("made"))
    commit(made, make_tables("brisk-heron", n_selected=90))
    return made


@pytest.mark.parametrize("second", ["calm-otter-bm25", "calm-otter-random", "brisk-heron"])
def test_numbers_equal_a_slow_count(workspace: Workspace, second: str) -> None:
    one, two = find_selection(workspace, "calm-otter"), find_selection(workspace, second)
    mine = [p.example_id for p in picks(workspace, one.selection_id)]
    theirs = [p.example_id for p in picks(workspace, two.selection_id)]
    with open_snapshot(workspace) as connection:
        found = compare(connection, one, two)
    both = set(mine) & set(theirs)
    assert found.n_both == len(both)
    assert found.jaccard == len(both) / len({*mine, *theirs})
    assert [p.example_id for p in found.first.only] == [e for e in mine if e not in both][:8]
    assert [p.example_id for p in found.second.only] == [e for e in theirs if e not in both][:8]
    assert (found.first.n_only, found.second.n_only) == (
        len(mine) - len(both),
        len(theirs) - len(both),
    )
    assert found.depths
    assert bool(found.moved) == any(mine.index(e) != theirs.index(e) for e in both)
    for k, n in found.depths:
        assert n == len(set(mine[:k]) & set(theirs[:k]))
    gaps = [abs(m.first_rank - m.second_rank) for m in found.moved]
    assert gaps == sorted(gaps, reverse=True)
    for moved in found.moved:
        assert mine.index(moved.pick.example_id) + 1 == moved.first_rank
        assert theirs.index(moved.pick.example_id) + 1 == moved.second_rank
    keys = {key for key, _, _ in found.settings}
    assert ("config budget.examples" in keys) == (second == "brisk-heron")
    assert ("method" in keys) == (second != "brisk-heron")


def test_rank_correlation_is_that_of_the_ranks_among_the_shared() -> None:
    rng = random.Random(0)
    for n in (2, 3, 10, 50):
        first, second = rng.sample(range(1, 500), n), rng.sample(range(1, 500), n)
        places = np.stack([np.argsort(np.argsort(side)) for side in (first, second)])
        expected = float(np.asarray(np.corrcoef(places))[0, 1])
        assert rank_correlation(list(zip(first, second, strict=True))) == pytest.approx(expected)
    assert rank_correlation([(1, 4), (2, 9)]) == 1
    assert rank_correlation([(1, 9), (2, 4)]) == -1
    assert rank_correlation([(3, 3)]) is None


def test_the_page_says_it_in_words(workspace: Workspace) -> None:
    path = write_comparison(workspace, "calm-otter", "calm-otter-bm25")
    assert path == workspace.reports / "calm-otter-vs-calm-otter-bm25.html"
    source = path.read_text(encoding="utf-8")
    page = Page(source)
    assert "<script" not in source
    n = diff(workspace, "calm-otter", "calm-otter-bm25").n_both
    share = f"{n / 1.2:.0f} % of the 120 of the"
    assert f"{n} samples : {share} first, {share} second." in page.text
    assert "the method too (jaccard, bm25), so scores cannot be compared" in page.text
    assert f"{120 - n} of its 120 picks are not in calm-otter-bm25; the best 8." in page.text
    ids = {value for name, value in page.attributes if name == "id"}
    assert {str(value)[1:] for name, value in page.attributes if name == "href"} <= ids


def test_one_selection_is_not_compared_with_itself(workspace: Workspace) -> None:
    with pytest.raises(InputError, match="both are the same selection"):
        write_comparison(workspace, "calm-otter", "calm-otter")
    with pytest.raises(InputError, match="no selection has this name"):
        write_comparison(workspace, "calm-otter", "nothing")


def test_forgetting_writes_a_comparison_again_without_the_text(tmp_path: Path) -> None:
    from storage.audit.forget import forget

    made = made_workspace(tmp_path)
    path = write_comparison(made, "calm-otter", "calm-otter-random")
    chosen = find_selection(made, "calm-otter")
    other = {
        pick.example_id
        for pick in picks(made, find_selection(made, "calm-otter-random").selection_id)
    }
    gone = next(p for p in picks(made, chosen.selection_id)[1:] if p.example_id not in other)
    text = str(gone.text).split("\n")[0]
    text = "".join(text.split())  # marked tokens split words
    assert text in "".join(Page(path.read_text(encoding="utf-8")).text.split())
    forget(made, [gone.example_id], "asked")
    again = path.read_text(encoding="utf-8")
    assert text not in "".join(Page(again).text.split())
    assert "The text was removed from the workspace." in again
