"""Which candidates hold an evaluation item: by rare runs of words, never by similarity.

An item is searched by its runs of 8 to 13 words: 13 where the items of its file are long, fewer
where they are short. Runs that many candidates have (an instruction's wording) and runs that
several items of one file share (its template) say nothing about copying and do not count. A
candidate is contaminated when it holds a large enough share of what is left of an item.
The pool is streamed; memory is what the items need, and at most `limit` hits per run.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selection.core.shingles import joined, ngram_hashes, word_hashes

_BATCH = 1024  # Texts that are searched at once.
_COMPACT = 1 << 20  # Hits after which those of frequent runs are thrown away.


@dataclass(frozen=True, slots=True)
class ItemRuns:
    """Evaluation items as runs of words.

    runs:     (g,) uint64 hashes, sorted, each once.
    lengths:  (g,) int8 words of each run.
    items:    (p,) int64 item of each (item, run) pair, ascending.
    run_of:   (p,) int64 position in `runs` of each pair.
    n_items:  number of items.
    unsearched: (u,) items too short for the shortest run, or without a run of their own.
    """

    runs: NDArray[np.uint64]
    lengths: NDArray[np.int8]
    items: NDArray[np.int64]
    run_of: NDArray[np.int64]
    n_items: int
    unsearched: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Contaminated:
    """Candidates that hold an evaluation item, in order of row, each with its clearest item.

    rows:    (r,) int64, position in the stream of texts.
    items:   (r,) int64 item with the largest share, the first of equal ones.
    matched: (r,) int64 runs of the item that the candidate holds.
    counted: (r,) int64 runs of the item that count.
    """

    rows: NDArray[np.int64]
    items: NDArray[np.int64]
    matched: NDArray[np.int64]
    counted: NDArray[np.int64]


def item_runs(
    texts: Sequence[str],
    files: Sequence[int],
    *,
    shortest: int = 8,
    longest: int = 13,
    template_share: float = 0.01,
) -> ItemRuns:
    """Cut items into runs of words and leave out what several items of one file share.

    files: which file (or target task) each item is of. Runs of a file have as many words as its
    5th percentile of item lengths, between `shortest` and `longest`; a shorter item has runs of its
    own length, and one below `shortest` is not searched.
    template_share: runs in more than one item and in more than this share of a file's different
    items are the file's template.
    """
    hashes = [word_hashes(text) for text in texts]
    counts = np.array([len(words) for words in hashes], np.int64)
    of_file = np.asarray(files, np.int64)
    items: list[NDArray[np.int64]] = []
    runs: list[NDArray[np.uint64]] = []
    lengths: list[NDArray[np.int8]] = []
    for file in np.unique(of_file):
        in_file = np.flatnonzero(of_file == file)
        n = int(np.clip(np.percentile(counts[in_file], 5), shortest, longest))
        of_items = [
            np.unique(ngram_hashes(hashes[i], min(n, max(int(counts[i]), shortest))))
            for i in in_file
        ]
        owner = np.repeat(in_file, [len(each) for each in of_items])
        words = np.minimum(counts[owner], n).astype(np.int8)
        together = np.concatenate([*of_items, np.zeros(0, np.uint64)])
        own = _of_few_items(together, owner, texts, max(1.0, template_share * len(in_file)))
        items.append(owner[own])
        runs.append(together[own])
        lengths.append(words[own])
    item = np.concatenate([*items, np.zeros(0, np.int64)])
    order = np.argsort(item, kind="stable")
    unique, first, position = np.unique(
        np.concatenate([*runs, np.zeros(0, np.uint64)])[order],
        return_index=True,
        return_inverse=True,
    )
    words = np.concatenate([*lengths, np.zeros(0, np.int8)])[order]
    searched = np.unique(item)
    return ItemRuns(
        unique,
        words[first],
        item[order],
        position.astype(np.int64),
        len(texts),
        np.setdiff1d(np.arange(len(texts)), searched),
    )


def _of_few_items(
    runs: NDArray[np.uint64], owner: NDArray[np.int64], texts: Sequence[str], most: float
) -> NDArray[np.bool_]:
    """Which runs are in at most `most` different items; equal texts are one item."""
    first: dict[str, int] = {}
    same_as = np.array([first.setdefault(text, i) for i, text in enumerate(texts)], np.int64)
    _, code = np.unique(runs, return_inverse=True)
    # One entry per (run, different item): a repeated item does not make a template.
    pairs = np.unique(np.column_stack([code, same_as[owner]]), axis=0)
    n_items = np.bincount(pairs[:, 0], minlength=int(code.max(initial=-1)) + 1)
    few: NDArray[np.bool_] = n_items[code] <= most
    return few


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
              these) texts do not count.
    item_share: share of an item's counting runs that makes a text contaminated.
    """
    limit = max(pool_rows, int(pool_share * n_texts))
    in_texts = np.zeros(len(items.runs), np.int64)
    hits: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    n_hits, start, batch = 0, 0, list[str]()
    for text in texts:
        batch.append(text)
        if len(batch) == _BATCH:
            hits.append(_search(batch, start, items, in_texts))
            n_hits, start = n_hits + len(hits[-1][0]), start + len(batch)
            batch = []
            if n_hits > _COMPACT:
                hits = [_of_rare_runs(hits, in_texts, limit)]
                n_hits = len(hits[0][0]) // 2  # What is left may stay; wait for as many again.
    hits.append(_search(batch, start, items, in_texts))
    rows, runs = _of_rare_runs(hits, in_texts, limit)
    return _clearest(rows, runs, items, in_texts <= limit, item_share)


def _search(
    batch: Sequence[str], start: int, items: ItemRuns, in_texts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
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


def _of_rare_runs(
    hits: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    in_texts: NDArray[np.int64],
    limit: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All hits of runs that are not too frequent so far."""
    rows, runs = (np.concatenate([hit[i] for hit in hits]) for i in (0, 1))
    rare = in_texts[runs] <= limit
    return rows[rare], runs[rare]


def _clearest(
    rows: NDArray[np.int64],
    runs: NDArray[np.int64],
    items: ItemRuns,
    counts: NDArray[np.bool_],
    item_share: float,
) -> Contaminated:
    """The item with the largest share in each row, where that share is large enough.

    rows, runs: (h,) hits of counting runs, ascending by row.
    """
    counted = np.bincount(items.items[counts[items.run_of]], minlength=items.n_items)
    # A run may be of several items: pairs (row, item) by joining on the run.
    order = np.argsort(items.run_of, kind="stable")
    first = np.searchsorted(items.run_of[order], runs)
    times = np.searchsorted(items.run_of[order], runs, side="right") - first
    within = np.arange(int(times.sum())) - np.repeat(np.cumsum(times) - times, times)
    item = items.items[order[np.repeat(first, times) + within]]
    pairs, matched = np.unique(
        np.column_stack([np.repeat(rows, times), item]), axis=0, return_counts=True
    )
    share = matched / np.maximum(counted[pairs[:, 1]], 1)
    enough = share >= item_share
    pairs, matched, share = pairs[enough], matched[enough], share[enough]
    best = np.lexsort((pairs[:, 1], -share, pairs[:, 0]))
    _, first_of_row = np.unique(pairs[best, 0], return_index=True)
    chosen = best[first_of_row]
    item = pairs[chosen, 1]
    return Contaminated(pairs[chosen, 0], item, matched[chosen].astype(np.int64), counted[item])
