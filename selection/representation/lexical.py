"""Lexical spaces: how often a sample has each token, or each word, as sparse rows of counts.

Both come from the counted tokens of rendered samples, so they share the keys of the samples' SAE
vectors and need no forward pass. Words are hashed into 2^20 columns: no vocabulary of the pool is
ever held, and the column of a word is the same in every pool. Two words may share a column, which
is rare (a pair of words does with probability 2^-20) and the same for all samples.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selection.core.sparse import indptr_of
from selection.core.words import word_spans, words
from selection.records import Rendered, SparseRows
from selection.rendering.offsets import TurnPositions
from selection.rendering.renderer import Renderer
from selection.representation.aggregate import VALUE_MAX
from selection.representation.represent import UnitReport

WORD_COLUMNS = 1 << 20
LexicalKind = Literal["words", "tokens"]

VERSION = 1
"""Of everything between a rendered sample and its counts; raise it when any count would change."""


def token_rows(samples: Sequence[Rendered], n_columns: int) -> SparseRows:
    """Counts of the counted token ids of each sample; counts above 65,535 stay there."""
    return count_rows([sample.tokens[sample.content_mask] for sample in samples], n_columns)


def word_rows(texts: Iterable[str]) -> SparseRows:
    """Counts of the words of each text, by column of the word."""
    columns = [np.array([word_column(word) for word in words(text)], np.int64) for text in texts]
    return count_rows(columns, WORD_COLUMNS)


@lru_cache(maxsize=1 << 18)
def word_column(word: str) -> int:
    """The column of a word: the first bits of its BLAKE2b hash."""
    digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % WORD_COLUMNS


def column_words(texts: Iterable[str]) -> Mapping[int, str]:
    """Column -> the word that some texts have there; several, most frequent first, with slashes."""
    words_by_column: dict[int, Counter[str]] = {}
    for text in texts:
        for word in words(text):
            words_by_column.setdefault(word_column(word), Counter())[word] += 1
    return {
        column: " / ".join(sorted(counts, key=lambda word: (-counts[word], word)))
        for column, counts in words_by_column.items()
    }


def lexical_rows(kind: LexicalKind, samples: Sequence[Rendered], renderer: Renderer) -> SparseRows:
    """Counts of the content tokens, or of the words of the content, of each sample."""
    if kind == "tokens":
        return token_rows(samples, renderer.n_token_ids)
    return word_rows(renderer.counted_text(sample) for sample in samples)


def lexical_terms(
    kind: LexicalKind, samples: Sequence[Rendered], renderer: Renderer
) -> Mapping[int, str]:
    """Column -> token or word, for the columns of some samples."""
    if kind == "words":
        return column_words(renderer.counted_text(sample) for sample in samples)
    tokens = np.unique(np.concatenate([each.tokens[each.content_mask] for each in samples]))
    return {int(token): renderer.token_text(int(token)) for token in tokens}


class TermSpan(NamedTuple):
    """Where a term stands in a sample: its column, the turn, first character and end there."""

    column: int
    turn: int
    first: int
    end: int


def term_spans(
    kind: LexicalKind, sample: Rendered, positions: TurnPositions, turns: Sequence[str]
) -> Iterator[TermSpan]:
    """Every content token that lies in a turn, or every word whose first character is content.

    positions: of the sample's content tokens. turns: texts of the sample's turns.
    """
    if kind == "tokens":
        tokens = sample.tokens[sample.content_mask]
        for token in np.flatnonzero(positions.turns >= 0).tolist():
            yield TermSpan(int(tokens[token]), *positions.of(token))
        return
    for number, text in enumerate(turns):
        is_content = np.zeros(len(text), np.bool_)
        for token in np.flatnonzero(positions.turns == number).tolist():
            is_content[positions.starts[token] : positions.ends[token]] = True
        for first, end, word in word_spans(text):
            if is_content[first]:
                yield TermSpan(word_column(word), number, first, end)


def lexical_report(rows: SparseRows) -> UnitReport:
    """What a unit of counts holds; nothing is cut or rounded."""
    mass = int(rows.values.sum(dtype=np.int64))
    return UnitReport(
        n_samples=len(rows),
        n_tokens=mass,
        n_values=len(rows.values),
        n_empty=int((np.diff(rows.indptr) == 0).sum()),
        n_zeroed=0,
        n_clipped=0,
        mass=float(mass),
        mass_cut=0.0,
        mass_changed=0.0,
        plan="full",
    )


def count_rows(columns: Sequence[NDArray[np.integer]], n_columns: int) -> SparseRows:
    """Rows of counts from the columns of every occurrence; counts above 65,535 stay there."""
    lengths = np.array([len(each) for each in columns], np.int64)
    flat = np.concatenate([np.zeros(0, np.int64), *(each.astype(np.int64) for each in columns)])
    entries = np.repeat(np.arange(len(columns), dtype=np.int64), lengths) * n_columns + flat
    unique, counts = np.unique(entries, return_counts=True)
    rows = np.bincount(unique // max(n_columns, 1), minlength=len(columns))
    return SparseRows(
        indptr_of(rows),
        (unique % max(n_columns, 1)).astype(np.int32),
        np.minimum(counts, VALUE_MAX).astype(np.uint16),
        n_columns,
    )
