"""Held-out rows, what leaves the pool with them, and what stays for every arm."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selection.core.errors import InputError
from selection.evaluation.labelled import (
    LabelledPool,
    LabelledTarget,
    read_labelled_pool,
    read_labelled_targets,
)
from selection.finetuning.split import Split, excluded_rows, keep_rows, own_rows, split_pool
from tests.finetune_pool import row, write_files

N = 12


def near_copies() -> list[dict[str, Any]]:
    """Of every arithmetic row: one in other case, with another answer; and one within a story."""
    rows = []
    for i in range(0, 240, 4):
        own = row(i)
        shouted = own["instruction"].upper().replace(" ", "  ")
        story = f"Here is what my sister asked me: {own['instruction']} I could not say."
        rows += [
            {**own, "id": f"case-{i}", "instruction": shouted, "output": "No idea at all."},
            {**own, "id": f"story-{i}", "instruction": story},
            {**own, "id": f"copy-{i}"},
        ]
    return [*rows, {**row(2), "id": "silent", "output": " "}]


@pytest.fixture(scope="module")
def pool_and_targets(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[LabelledPool, list[LabelledTarget]]:
    pool, targets = write_files(tmp_path_factory.mktemp("split"), near_copies())
    return read_labelled_pool(pool), read_labelled_targets(targets)


@pytest.fixture(scope="module")
def split(pool_and_targets: tuple[LabelledPool, list[LabelledTarget]]) -> Split:
    pool, targets = pool_and_targets
    return split_pool(pool, targets, np.zeros(len(pool), np.bool_), n_held_out=N, n_general=8)


def test_held_out_rows_are_of_the_targets_task_and_one_a_question(
    pool_and_targets: tuple[LabelledPool, list[LabelledTarget]], split: Split
) -> None:
    pool, targets = pool_and_targets
    assert list(split.held_out) == ["arithmetic", "mood"]
    tasks = np.array(pool.table["task"].to_pylist())
    questions = [" ".join(text.lower().split()) for text in pool.table["instruction"].to_pylist()]
    for target in targets:
        rows = split.held_out[target.name]
        assert len(rows) == N
        assert set(tasks[rows]) == {target.name}
        assert len({questions[row] for row in rows.tolist()}) == N
        assert (tasks == target.name).tolist() == own_rows(pool, target).tolist()
    assert set(tasks[split.general]) == {"translation", "code"}


def test_no_row_that_may_be_trained_on_repeats_a_held_out_one(
    pool_and_targets: tuple[LabelledPool, list[LabelledTarget]], split: Split
) -> None:
    pool, _ = pool_and_targets
    held_out = np.concatenate([*split.held_out.values(), split.general])
    assert not split.eligible[held_out].any()
    held_out_ids = pool.ids[split.held_out["arithmetic"]].tolist()
    assert sum(name.startswith("story") for name in held_out_ids) < 8
    kept = set(pool.ids[split.eligible].tolist())
    for own_id in held_out_ids:
        kind, number = own_id.split("-")[0], int(own_id.split("-")[1])
        # A row that says a part of a held-out one only is none of its copies.
        for name in ("story",) if kind == "story" else ("case", "story", "copy"):
            assert f"{name}-{number}" not in kept
    assert "silent" not in kept
    # Rows of the same wording with other numbers stay.
    assert sum(name.startswith("row-") for name in kept) > 240 - 2 * N - 8 - 40


def test_every_row_is_counted_once(
    pool_and_targets: tuple[LabelledPool, list[LabelledTarget]], split: Split
) -> None:
    pool, _ = pool_and_targets
    assert sum(split.removed.values()) + int(split.eligible.sum()) == len(pool)
    assert split.removed["without an answer"] == 1
    assert split.removed["exact copies"] == 60  # The first of equal rows stays.
    eligible = keep_rows(pool, split.eligible)
    assert eligible.ids.tolist() == pool.ids[split.eligible].tolist()
    assert eligible.sha256 != pool.sha256


def test_rows_that_the_trainee_has_seen_are_on_neither_side(
    pool_and_targets: tuple[LabelledPool, list[LabelledTarget]], tmp_path: Path
) -> None:
    pool, targets = pool_and_targets
    seen = tmp_path / "seen.txt"
    ids = [f"row-{i:03d}" for i in range(0, 120)]
    seen.write_text("\n".join([*ids, "of-another-pool"]))
    excluded = excluded_rows(pool, str(seen))
    assert pool.ids[excluded].tolist() == [i for i in pool.ids.tolist() if i in ids]
    split = split_pool(pool, targets, excluded, n_held_out=N, n_general=8)
    for rows in [*split.held_out.values(), split.general, np.flatnonzero(split.eligible)]:
        assert not excluded[rows].any()
    seen.write_text("elsewhere")
    with pytest.raises(InputError, match="names no row"):
        excluded_rows(pool, str(seen))


def test_questions_of_exemplars_are_on_neither_side(
    pool_and_targets: tuple[LabelledPool, list[LabelledTarget]],
) -> None:
    """A method that sees them would otherwise know what is measured."""
    pool, targets = pool_and_targets
    shown = row(8)  # arithmetic; its copies and the shouted one ask the same
    first = replace(targets[0], exemplars=(*targets[0].exemplars, shown))
    nothing = np.zeros(len(pool), np.bool_)
    split = split_pool(pool, [first, targets[1]], nothing, n_held_out=N, n_general=8)
    assert split.removed["question of an exemplar"] == 3
    used = np.concatenate([*split.held_out.values(), split.general, np.flatnonzero(split.eligible)])
    assert not {"row-008", "case-8", "copy-8"} & set(pool.ids[used].tolist())


def test_a_target_with_too_few_questions_is_not_measured(
    pool_and_targets: tuple[LabelledPool, list[LabelledTarget]], tmp_path: Path
) -> None:
    pool, targets = pool_and_targets
    nothing = np.zeros(len(pool), np.bool_)
    split = split_pool(pool, targets, nothing, n_held_out=31, n_general=8)
    assert list(split.held_out) == ["arithmetic"]  # mood has 60 questions
