"""Evaluation items as runs of words: question, answer and the whole, wording of the file left out.

Runs of five words that several items of a file share are its template (the instruction). What is
left of a question, and of an answer, is cut into runs of 8 to 13 own words: 13 where the texts of a
file are long, fewer where they are short; a shorter question is one run of all its own words. The
whole text is cut too, into runs that hold at least one own word, so that a copy without its end is
seen; and so is a question with hardly a word of its own.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selection.core.shingles import joined, ngram_hashes, word_hashes
from selection.data.messages.normalize import plain_text, turn_texts

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

    files: which file (or target task) each item is of. Runs of a file's questions, or answers, have
    a third of the words of the 5th percentile of their longest stretches of own words, those of its
    whole texts as many as the 5th percentile, both between `shortest` and `longest`. Searched are
    questions of SHORTEST_QUESTION own words in a row, answers and whole texts of `shortest`.
    template_share: words in more than one item and in more than this share of a file's different
    items are the file's template.
    """
    of_file = np.asarray(files, np.int64)
    cut: list[_Part] = []
    for file in np.unique(of_file):
        in_file = np.flatnonzero(of_file == file).tolist()
        of_items = [items[i] for i in in_file]
        questions, answers = zip(*of_items, strict=True)
        whole = ["\n".join(item) for item in of_items]
        parts: list[_Part] = []
        for texts in (questions, answers, whole):
            hashes = [word_hashes(text) for text in texts]
            shared = _in_template(hashes, of_items, template_share)
            alone: list[_Part] = []
            if texts is not whole:
                fewest = min(SHORTEST_QUESTION, shortest) if texts is questions else shortest
                alone = _without_template(hashes, shared, fewest, shortest, longest)
            parts += alone
            if texts is not answers:
                rest = set(range(len(texts))) - {part.item for part in alone}
                parts += _with_template(hashes, shared, rest, shortest, longest)
        cut += [part._replace(item=in_file[part.item]) for part in parts]
    cut.sort(key=lambda part: part.item)
    counts = [len(part.runs) for part in cut]
    unique, first, position = np.unique(
        np.concatenate([np.zeros(0, np.uint64), *(part.runs for part in cut)]),
        return_index=True,
        return_inverse=True,
    )
    words = np.array([part.n_words for part in cut], np.int8)
    item_of = np.array([part.item for part in cut], np.int64)
    return ItemRuns(
        unique,
        np.repeat(words, counts)[first],
        np.repeat(np.arange(len(cut)), counts),
        position.astype(np.int64),
        item_of,
        np.array([part.is_long for part in cut], np.bool_),
        len(items),
        np.setdiff1d(np.arange(len(items)), item_of),
    )


class _Part(NamedTuple):
    """Runs of n_words of one part of an item."""

    item: int
    n_words: int
    is_long: bool
    runs: NDArray[np.uint64]


def _without_template(
    hashes: Sequence[Words],
    shared: Sequence[NDArray[np.bool_]],
    fewest: int,
    shortest: int,
    longest: int,
) -> list[_Part]:
    """Runs of own words alone, of texts that have `fewest` in a row."""
    stretches = [_stretches(*each) for each in zip(hashes, shared, strict=True)]
    sizes = [max(map(len, each), default=0) for each in stretches]
    searched = [i for i, size in enumerate(sizes) if size >= fewest]
    usual = int(np.percentile([sizes[i] for i in searched], 5)) if searched else 0
    parts = []
    for i in searched:
        n = min(max(usual // 3, shortest), longest, sizes[i])
        runs = np.concatenate([ngram_hashes(each, n) for each in stretches[i]])
        parts.append(_Part(i, n, n >= shortest, np.unique(runs)))
    return parts


def _with_template(
    hashes: Sequence[Words],
    shared: Sequence[NDArray[np.bool_]],
    wanted: Collection[int],
    shortest: int,
    longest: int,
) -> Iterator[_Part]:
    """Runs that hold an own word, of the wanted texts that have `shortest` words."""
    usual = int(np.percentile([len(words) for words in hashes], 5))
    for i, (words, in_template) in enumerate(zip(hashes, shared, strict=True)):
        n = min(max(usual, shortest), longest, len(words))
        if i in wanted and n >= shortest and not in_template.all():
            runs = ngram_hashes(words, n)[_holds_any(~in_template, n)]
            yield _Part(i, n, False, np.unique(runs))


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
