"""Evaluation items as runs of words of their own: question and answer apart, templates left out.

A part's own words are what is left once runs of five words that several items of its file share
(the instruction) are taken out. They are cut into runs of 8 to 13 words: 13 where the parts of a
file are long, fewer where they are short. A shorter question is one run of all its own words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selection.core.shingles import joined, ngram_hashes, word_hashes
from selection.data.messages import plain_text, turn_texts

TEMPLATE_WORDS = 5  # So many words in a row that several items share are wording, not content.
SHORTEST_QUESTION = 5  # Fewer words of its own say too little to be searched.


@dataclass(frozen=True, slots=True)
class ItemRuns:
    """Parts of evaluation items as runs of words.

    runs:     (g,) uint64 hashes, sorted, each once.
    lengths:  (g,) int8 words of each run.
    parts:    (p,) int64 part of each (part, run) pair, ascending.
    run_of:   (p,) int64 position in `runs` of each pair.
    item_of:  (q,) int64 item of each part.
    is_long:  (q,) bool, whether runs are of own words alone, `shortest` of them or more.
    n_items:  number of items.
    unsearched: (u,) items of which no part has enough words of its own.
    """

    runs: NDArray[np.uint64]
    lengths: NDArray[np.int8]
    parts: NDArray[np.int64]
    run_of: NDArray[np.int64]
    item_of: NDArray[np.int64]
    is_long: NDArray[np.bool_]
    n_items: int
    unsearched: NDArray[np.int64]

    @property
    def n_parts(self) -> int:
        """Number of parts that are searched."""
        return len(self.item_of)


Item = tuple[str, str]
"""Question and answer."""

Words = NDArray[np.uint64]
"""One hash a word, in order."""


def as_item(messages: Sequence[Mapping[str, Any]]) -> Item:
    """Question and answer of a conversation: all turns before the last answer, and that answer.

    Without an answer everything is the question.
    """
    if messages and messages[-1]["role"] == "assistant":
        return plain_text(messages[:-1]), "\n".join(turn_texts(messages[-1:]))
    return plain_text(messages), ""


def item_runs(
    items: Sequence[Item],
    files: Sequence[int],
    *,
    shortest: int = 8,
    longest: int = 13,
    template_share: float = 0.01,
) -> ItemRuns:
    """Cut items into runs of words and leave out what several items of one file share.

    files: which file (or target task) each item is of. Runs of a file have a third of the words of
    the 5th percentile of its parts' longest stretches of own words, between `shortest` and
    `longest`, so that a part without its end is still seen; a shorter part has runs of its own
    length. A question has at least SHORTEST_QUESTION words of its own, an answer `shortest`; a text
    with fewer, but with `shortest` words in all, is searched by its runs that hold an own word.
    template_share: words in more than one item and in more than this share of a file's different
    items are the file's template.
    """
    of_file = np.asarray(files, np.int64)
    cut: list[tuple[int, int, bool, Words]] = []  # item, words of a run, is long, runs
    for file in np.unique(of_file):
        in_file = np.flatnonzero(of_file == file)
        for side, least in ((0, min(SHORTEST_QUESTION, shortest)), (1, shortest)):
            hashes = [word_hashes(items[int(i)][side]) for i in in_file]
            shared = _in_template(hashes, [items[int(i)] for i in in_file], template_share)
            stretches = [
                _stretches(words, of_template)
                for words, of_template in zip(hashes, shared, strict=True)
            ]
            sizes = [max(map(len, each), default=0) for each in stretches]
            long = [size for size in sizes if size >= least]
            usual = int(np.percentile(long, 5)) if long else 0
            n_words = min(max(usual // 3, shortest), longest)
            for i, item in enumerate(in_file.tolist()):
                if sizes[i] >= least:
                    n, searched = min(n_words, sizes[i]), stretches[i]
                    runs = np.concatenate([ngram_hashes(each, n) for each in searched])
                    cut.append((item, n, n >= shortest, np.unique(runs)))
                elif sizes[i] and len(hashes[i]) >= shortest:
                    n = min(longest, len(hashes[i]))
                    runs = ngram_hashes(hashes[i], n)[_holds_any(~shared[i], n)]
                    cut.append((item, n, False, np.unique(runs)))
    cut.sort(key=lambda part: part[0])
    counts = [len(runs) for *_, runs in cut]
    unique, first, position = np.unique(
        np.concatenate([np.zeros(0, np.uint64), *(runs for *_, runs in cut)]),
        return_index=True,
        return_inverse=True,
    )
    words = np.array([n for _, n, _, _ in cut], np.int8)
    item_of = np.array([item for item, *_ in cut], np.int64)
    return ItemRuns(
        unique,
        np.repeat(words, counts)[first],
        np.repeat(np.arange(len(cut)), counts),
        position.astype(np.int64),
        item_of,
        np.array([long for _, _, long, _ in cut], np.bool_),
        len(items),
        np.setdiff1d(np.arange(len(items)), item_of),
    )


def _in_template(
    hashes: Sequence[Words], items: Sequence[Item], template_share: float
) -> list[NDArray[np.bool_]]:
    """For every word of each text whether it is in a run that several items share."""
    first: dict[Item, int] = {}
    same_as = np.array([first.setdefault(item, i) for i, item in enumerate(items)], np.int64)
    grams, owner = joined([ngram_hashes(words, TEMPLATE_WORDS) for words in hashes])
    _, code = np.unique(grams, return_inverse=True)
    # One entry per (run, different item): a repeated item does not make a template.
    pairs = np.unique(np.column_stack([code, same_as[owner]]), axis=0)
    n_items = np.bincount(pairs[:, 0], minlength=int(code.max(initial=-1)) + 1)
    is_shared = n_items[code] > max(1.0, template_share * len(items))
    ends = np.searchsorted(owner, np.arange(1, len(items)))
    in_template = []
    for words, shared in zip(hashes, np.split(is_shared, ends), strict=True):
        covered = np.zeros(len(words), np.bool_)
        for offset in range(TEMPLATE_WORDS if len(shared) else 0):
            covered[offset : offset + len(shared)] |= shared
        in_template.append(covered)
    return in_template


def _stretches(words: Words, in_template: NDArray[np.bool_]) -> list[Words]:
    """The words outside of the template, as the pieces that it leaves."""
    edges = np.flatnonzero(np.diff(in_template)) + 1
    pieces = np.split(np.arange(len(words)), edges)
    return [words[piece] for piece in pieces if len(piece) and not in_template[piece[0]]]


def _holds_any(wanted: NDArray[np.bool_], n: int) -> NDArray[np.bool_]:
    """For every run of n words whether one of them is wanted."""
    before = np.concatenate([[0], np.cumsum(wanted)])
    return np.asarray(before[n:] > before[:-n])
