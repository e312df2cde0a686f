"""Which candidates hold an evaluation item: by runs of its own words, never by similarity.

Question and answer of an item are searched apart (`selection.picking.item_runs`), so a question
with another answer is found. A candidate is contaminated
* when it holds every run of a part, however many candidates do; or
* when it holds a large enough share of a part's runs that few candidates have. Runs that many have
  (an instruction's wording that the items do not show) say nothing about copying.
A question of fewer than `shortest` own words counts only while few candidates hold it; beyond that
it is named as too frequent. The pool is streamed; memory is what the items need, what is
contaminated, and at most `limit` hits per run.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selection.core.shingles import joined, ngram_hashes, word_hashes
from selection.picking.item_runs import ItemRuns

_BATCH = 1024  # Texts that are searched at once.
_COMPACT = 1 << 20  # Hits after which those of frequent runs are thrown away.

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]
"""(row, run) or (row, part), each pair once, in order."""


@dataclass(frozen=True, slots=True)
class Contaminated:
    """Candidates that hold an evaluation item, in order of row, each with its clearest item.

    rows:    (r,) int64, position in the stream of texts.
    items:   (r,) int64 item of the part with the largest share, the first of equal ones.
    matched: (r,) int64 runs of the part that the candidate holds.
    counted: (r,) int64 runs of the part that count.
    too_frequent: (u,) int64 items that so many candidates hold that they were not told apart.
    """

    rows: NDArray[np.int64]
    items: NDArray[np.int64]
    matched: NDArray[np.int64]
    counted: NDArray[np.int64]
    too_frequent: NDArray[np.int64]


def find_contaminated(
    texts: Iterable[str],
    items: ItemRuns,
    n_texts: int,
    *,
    pool_rows: int = 10,
    pool_share: float = 0.001,
    item_share: float = 0.4,
) -> Contaminated:
    """Search every text for the items.

    n_texts:  number of texts, known beforehand: runs in more than max(pool_rows, pool_share of
              these) texts count only for a text that holds the whole part.
    item_share: share of a part's counting runs that makes a text contaminated.
    """
    limit = max(pool_rows, int(pool_share * n_texts))
    in_texts = np.zeros(len(items.runs), np.int64)
    totals = np.bincount(items.parts, minlength=items.n_parts)
    by_run = np.argsort(items.run_of, kind="stable")
    run_of, part_of = items.run_of[by_run], items.parts[by_run]

    def parts_of(hits: Pairs) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Rows, parts, and how many runs of the part the row holds."""
        rows, runs = hits
        first = np.searchsorted(run_of, runs)
        times = np.searchsorted(run_of, runs, side="right") - first
        within = np.arange(int(times.sum())) - np.repeat(np.cumsum(times) - times, times)
        part = part_of[np.repeat(first, times) + within]
        pairs, matched = np.unique(
            np.repeat(rows, times) * max(items.n_parts, 1) + part, return_counts=True
        )
        return *np.divmod(pairs, max(items.n_parts, 1)), matched

    hits: list[Pairs] = []
    whole: list[Pairs] = []
    n_hits, start = 0, 0
    for batch in _batches(texts):
        of_batch = _search(batch, start, items, in_texts)
        rows, parts, matched = parts_of(of_batch)
        all_of_it = items.is_long[parts] & (matched == totals[parts])
        whole.append((rows[all_of_it], parts[all_of_it]))
        hits.append(of_batch)
        n_hits, start = n_hits + len(of_batch[0]), start + len(batch)
        if n_hits > _COMPACT:
            hits = [_of_rare_runs(hits, in_texts, limit)]
            n_hits = len(hits[0][0]) // 2  # What is left may stay; wait for as many again.
    is_rare = in_texts <= limit
    rows, parts, matched = parts_of(_of_rare_runs(hits, in_texts, limit))
    counted = np.bincount(items.parts[is_rare[items.run_of]], minlength=items.n_parts)
    enough = matched >= item_share * counted[parts]
    whole_rows, whole_parts = _together(whole)
    too_frequent = np.setdiff1d(
        items.item_of[(counted == 0) & ~items.is_long], items.item_of[(counted > 0) | items.is_long]
    )
    return _clearest(
        np.concatenate([rows[enough], whole_rows]),
        np.concatenate([parts[enough], whole_parts]),
        np.concatenate([matched[enough], totals[whole_parts]]),
        np.concatenate([counted[parts[enough]], totals[whole_parts]]),
        items,
        too_frequent,
    )


def _batches(texts: Iterable[str]) -> Iterable[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _search(
    batch: Sequence[str], start: int, items: ItemRuns, in_texts: NDArray[np.int64]
) -> Pairs:
    """(row, run) hits of a batch, each pair once; counts them in `in_texts`."""
    hashes, owner = joined([word_hashes(text) for text in batch])
    pairs_of_batches = [np.zeros(0, np.int64)]
    for n in np.unique(items.lengths):
        runs = ngram_hashes(hashes, int(n))
        whole = owner[: len(runs)] == owner[len(owner) - len(runs) :]  # Within one text.
        position = np.searchsorted(items.runs, runs)
        position[position == len(items.runs)] = 0
        hit = whole & (items.runs[position] == runs)
        pairs_of_batches.append(owner[: len(runs)][hit] * len(items.runs) + position[hit])
    pairs = np.unique(np.concatenate(pairs_of_batches))
    rows, runs_hit = np.divmod(pairs, max(len(items.runs), 1))
    in_texts += np.bincount(runs_hit, minlength=len(in_texts))
    return rows + start, runs_hit


def _together(pairs: Sequence[Pairs]) -> Pairs:
    none = np.zeros(0, np.int64)
    return np.concatenate([none, *(each[0] for each in pairs)]), np.concatenate(
        [none, *(each[1] for each in pairs)]
    )


def _of_rare_runs(hits: Sequence[Pairs], in_texts: NDArray[np.int64], limit: int) -> Pairs:
    """All hits of runs that are not too frequent so far."""
    rows, runs = _together(hits)
    rare = in_texts[runs] <= limit
    return rows[rare], runs[rare]


def _clearest(
    rows: NDArray[np.int64],
    parts: NDArray[np.int64],
    matched: NDArray[np.int64],
    counted: NDArray[np.int64],
    items: ItemRuns,
    too_frequent: NDArray[np.int64],
) -> Contaminated:
    """The part with the largest share in each row; of equal ones the longer, then the first."""
    order = np.lexsort((parts, -counted, -matched / np.maximum(counted, 1), rows))
    _, first = np.unique(rows[order], return_index=True)
    best = order[first]
    return Contaminated(
        rows[best], items.item_of[parts[best]], matched[best], counted[best], too_frequent
    )
