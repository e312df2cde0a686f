"""Rows that are held out to measure with, and the rows that every arm may train on alike."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from selection.core.errors import InputError
from selection.core.hashing import content_id
from selection.evaluation.labelled import (
    LabelledPool,
    LabelledTarget,
    Mask,
    Rows,
    Setting,
    as_text,
    read_ids,
)
from selection.picking.controls import random_scores, seed_of
from selection.picking.decontamination import find_contaminated
from selection.picking.item_runs import item_runs


@dataclass(frozen=True)
class Split:
    """Rows of a labelled pool, by number.

    held_out: target -> rows that measure it; only targets that have enough of their own.
    general:  a fixed mix of tasks that no target names: what is forgotten shows there.
    eligible: (n,) rows that may be trained on.
    removed:  reason -> how many rows it took from the pool.
    """

    held_out: dict[str, Rows]
    general: Rows
    eligible: Mask
    removed: dict[str, int]


def split_pool(
    pool: LabelledPool,
    targets: Sequence[LabelledTarget],
    excluded: Mask,
    *,
    n_held_out: int,
    n_general: int,
    setting: Setting = "full",
) -> Split:
    """Hold rows out by group, and take whatever nearly repeats them from the pool.

    excluded: (n,) rows that the trainee may have seen; neither held out nor trained on. The same
              goes for rows that ask what an exemplar asks.
    A group is all rows of one normalized question. One row of a group is held out, the others
    leave the pool, and so does every row that holds enough runs of words of a held-out row.
    A target is measured if its task has groups for twice `n_held_out`.
    """
    questions = [_normalized(question) for question, _ in pool.turns("instance")]
    groups = np.unique(np.array(questions, dtype=object), return_inverse=True)[1].astype(np.int64)
    shown = {_normalized(question) for each in targets for question, _ in each.turns("instance")}
    is_exemplar = np.array([question in shown for question in questions])
    turns = pool.turns("full")
    unusable = np.array([not answer.strip() for _, answer in turns])
    repeated = _repeats(turns)
    free = ~(excluded | is_exemplar | unusable | repeated)
    taken: set[int] = set()
    held_out: dict[str, Rows] = {}
    is_own = np.zeros(len(pool), np.bool_)
    for target in targets:
        own = own_rows(pool, target)
        is_own |= own
        rows = _one_a_group(pool, np.flatnonzero(own & free), groups, taken, target.name)
        if len(rows) < 2 * n_held_out:
            continue
        held_out[target.name] = np.sort(rows[:n_held_out])
        taken |= set(groups[rows[:n_held_out]].tolist())
    rest = _one_a_group(pool, np.flatnonzero(free & ~is_own), groups, taken, "")
    general = np.sort(rest[:n_general])
    taken |= set(groups[general].tolist())
    same_group = np.isin(groups, sorted(taken))
    near = _near_duplicates(pool, [*held_out.values(), general], setting)
    reasons = {
        "excluded": excluded,
        "question of an exemplar": is_exemplar,
        "without an answer": unusable,
        "exact copies": repeated,
        "group of a held-out row": same_group,
        "nearly a held-out row": near,
    }
    eligible, removed = np.ones(len(pool), np.bool_), {}
    for reason, is_out in reasons.items():
        removed[reason] = int((is_out & eligible).sum())
        eligible &= ~is_out
    return Split(held_out, general, eligible, removed)


def own_rows(pool: LabelledPool, target: LabelledTarget) -> Mask:
    """(n,) rows with the highest grade: same task, or the nearest there is of the category."""
    grades = pool.grades(target)
    return grades == max(int(grades.max(initial=0)), 1)


def keep_rows(pool: LabelledPool, kept: Mask) -> LabelledPool:
    """The pool with some of its rows alone."""
    sha256 = content_id([pool.sha256, pool.ids[kept].tolist()], n_hex=64)
    return LabelledPool(pool.path, sha256, pool.table.filter(pa.array(kept)).combine_chunks())


def excluded_rows(pool: LabelledPool, file: str) -> Mask:
    """(n,) rows of a file of ids; ids of other pools may be among them. Raises InputError."""
    mask = np.isin(pool.ids, np.array(read_ids(Path(file), "exclude"), dtype=np.str_))
    if not mask.any() or mask.all():
        raise InputError(
            "names every row of the pool" if mask.any() else "names no row of the pool",
            file=file,
            field="exclude",
            remedy="Give one id a line: the rows that the trainee has seen.",
        )
    return mask


def _normalized(question: str) -> str:
    """A question without case and spacing."""
    return " ".join(question.lower().split())


def _repeats(turns: Sequence[tuple[str, str]]) -> Mask:
    """(n,) whether an earlier row says exactly the same."""
    seen: set[bytes] = set()
    repeated = np.zeros(len(turns), np.bool_)
    for row, pair in enumerate(turns):
        digest = hashlib.sha256("\0".join(pair).encode()).digest()
        repeated[row] = digest in seen
        seen.add(digest)
    return repeated


def _one_a_group(pool: LabelledPool, rows: Rows, groups: Rows, taken: set[int], name: str) -> Rows:
    """One row of each group that is not taken, in a random order that ids alone decide."""
    rows = rows[~np.isin(groups[rows], sorted(taken))]
    rows = rows[np.argsort(random_scores(pool.ids[rows].tolist(), seed_of(0, "held out", name)))]
    _, first = np.unique(groups[rows], return_index=True)
    return rows[np.sort(first)]


def _near_duplicates(pool: LabelledPool, held_out: Sequence[Rows], setting: Setting) -> Mask:
    """(n,) rows that hold a held-out row; each part of them has wording of its own."""
    items, files = list[tuple[str, str]](), list[int]()
    for number, rows in enumerate(held_out):
        items += pool.turns_at(setting, rows)
        files += [number] * len(rows)
    texts = (as_text(turns) for turns in pool.turns("full"))
    near = np.zeros(len(pool), np.bool_)
    near[find_contaminated(texts, item_runs(items, files), len(pool)).rows] = True
    return near
