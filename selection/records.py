"""Shared records: one frozen dataclass or schema per step of the data. No I/O, no torch, no SQL."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


class DropReason(StrEnum):
    """Why a row or an example cannot be selected. The names end up in people's data."""

    BROKEN_ROW = "broken_row"  # not readable as a row (only where the config allows broken rows)
    NOT_RECOGNIZED = "not_recognized"  # readable, but in none of the shapes
    UNKNOWN_ROLE = "unknown_role"  # a turn's role is none of the known names
    NOT_TEXT = "not_text"  # a number, an object or a list stands where a text must stand
    MISSING_VALUE = "missing_value"  # prompt or answer is a literal nan or None of a table
    IN_CONVERSATION = "in_conversation"  # one turn of a conversation that another row stands for
    REJECTED_ANSWER = "rejected_answer"  # the row marks its answer as a bad one
    NO_TEXT = "no_text"  # no message has any text
    IMAGE_OR_AUDIO = "image_or_audio"  # a message has a part that is not text
    NO_RESPONSE = "no_response"  # no assistant turn says anything, and responses count
    WHERE = "where"  # no occurrence passes the `where` filter
    NO_COUNTED_TOKENS = "no_counted_tokens"  # no content tokens are left, e.g. no response
    RESPONSE_TRUNCATED = "response_truncated"  # the response was cut away whole
    EMPTY_VECTOR = "empty_vector"  # no latent is active, or every value rounded to zero
    IS_EXEMPLAR = "is_exemplar"  # an exact copy of an exemplar
    EXCLUDED = "excluded"  # on the list `exclude`
    TOO_SHORT = "too_short"  # fewer tokens than `length.min_tokens`
    TOO_LONG = "too_long"  # more tokens than `length.max_tokens`
    CONTAMINATED = "contaminated"  # holds an evaluation item or an exemplar
    BELOW_MIN_SCORE = "below_min_score"  # ranked, but scored lower than `min_score`
    NOT_RETRIEVED = "not_retrieved"  # FAISS did not retrieve it (`ranking.search: faiss`)
    NEAR_DUPLICATE = "near_duplicate"  # nearly the same as a better one that was kept
    QUOTA = "quota"  # its value is at a cap, or the last picks are reserved for a floor
    DIVERSITY = "diversity"  # good enough by score, but too similar to the picks


POOL_SCHEMA = pa.schema(
    [
        ("example_id", pa.string()),  # 32 hex digits, selection.core.hashing.example_id
        ("messages", pa.string()),  # canonical JSON, list of {role, content, ...}
        ("tools", pa.string()),  # canonical JSON, or null
        ("own_id", pa.string()),  # the data's own id, or null
        ("source", pa.string()),  # mapped column, else the pool's name; never null
        ("file", pa.string()),  # as given by the user, never null
        ("row", pa.int64()),  # 1-based line (JSONL) or row number in the file
        ("licence", pa.string()),
        ("language", pa.string()),
        ("group", pa.string()),
        ("target", pa.string()),  # exemplars only, else null
        ("subtask", pa.string()),  # exemplars only, else null
        ("raw", pa.string()),  # the original row as JSON, unchanged, unknown columns included
    ]
)
"""One row per readable row of a pool or exemplar file, in file order."""

DROP_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("row", pa.int64()),
        ("reason", pa.string()),  # a DropReason
        ("detail", pa.string()),  # for people; may be empty
    ]
)
"""One row per row that was dropped while reading."""


@dataclass(frozen=True, slots=True)
class PoolSource:
    """Where candidates or exemplars come from, and how their columns are to be read.

    path:     file, folder, glob, URL, or the name of a Hugging Face dataset.
    name:     what `source` says where no column is mapped to it; default: the file's stem.
    shape:    auto, or one of `selection.data.shapes.read_row.SHAPES`.
    columns:  role -> column name. Roles: id, licence, language, source, group, target, subtask,
              system, reasoning, and for shape "mapping" also prompt, response, rejected (which may
              join several columns with "+", e.g. "instruction+input").
    turns:    where turns stand and what their keys are called: column, role, content.
    roles:    name of a role in the data -> system, developer, user, assistant or tool.
    answers:  of a list of reference answers, "first" takes the first, "refuse" drops the row.
    delimiter, quoting, encoding: of CSV and TSV files (encoding: of any text file); None or "auto"
              finds out. quoting: "standard", "backslash" or "none".
    subset, split, revision: for Hugging Face datasets; `split` also for folders.
    broken_rows: "refuse" raises at the first unreadable row, "drop" counts it.
    """

    path: str
    name: str | None = None
    shape: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    turns: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)
    answers: str = "refuse"
    delimiter: str | None = None
    quoting: str = "auto"
    encoding: str | None = None
    subset: str | None = None
    split: str | None = None
    revision: str | None = None
    broken_rows: str = "refuse"


@dataclass(frozen=True, slots=True)
class Rendered:
    """One example as the model reads it.

    tokens:        (t,) uint32 token ids after truncation, template and BOS included.
    content_mask:  (t,) bool, True for content tokens, which enter the aggregate; never for BOS or
                   template.
    n_full:        number of tokens before truncation; estimated for a text many times too long.
    truncated:     whether truncation removed anything.
    response_lost: the example has a response, and truncation removed all of it.
    """

    tokens: NDArray[np.uint32]
    content_mask: NDArray[np.bool_]
    n_full: int
    truncated: bool
    response_lost: bool


@dataclass(frozen=True, slots=True)
class SparseRows:
    """n sparse non-negative vectors in compressed rows (CSR).

    indptr:    (n + 1,) int64, row i is entries indptr[i]:indptr[i + 1].
    latents:   (nnz,) int32 column ids, strictly increasing within a row.
    values:    (nnz,) uint16 in multiples of the representation's unit, never 0; uint32 where
               spaces were joined, which is never stored.
    n_latents: number of columns.
    An empty row is a vector without a direction; ranking drops it with a reason.
    """

    indptr: NDArray[np.int64]
    latents: NDArray[np.int32]
    values: NDArray[np.unsignedinteger[Any]]
    n_latents: int

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.indptr) - 1


@dataclass(frozen=True, slots=True)
class Exemplars:
    """The exemplars of one target task, in file order.

    target: name of the target task.
    ids:    (m,) str example ids.
    rows:   their vectors, m rows.
    """

    target: str
    ids: NDArray[np.str_]
    rows: SparseRows


@dataclass(frozen=True, slots=True)
class Ranking:
    """Candidates in order, best first.

    rows:    (r,) int64 row of the candidate in the prepared pool.
    scores:  (r,) float64, non-increasing; equal scores are in order of example id.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Budget:
    """How much to select; exactly one of the three is set.

    examples: number of unique examples.
    fraction: of the eligible unique examples, floored; 0 < fraction <= 1.
    tokens:   trainee tokens after the training max_length.
    """

    examples: int | None = None
    fraction: float | None = None
    tokens: int | None = None

    @property
    def amount(self) -> float:
        """What is set, without its unit; 0 where nothing is."""
        return float(self.examples or self.fraction or self.tokens or 0)


class PickReason(StrEnum):
    """What brought a pick in. The names end up in people's data."""

    SCORE = "score"  # its rank alone
    INCLUDED = "included"  # on the list of examples always to take
    FLOOR = "floor"  # a place kept for a floor
    DIVERSITY = "diversity"  # unlike what was chosen before; its score alone would not do
    REPLAY = "replay"  # general data, drawn at random and not for its score


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A candidate that was not taken though its turn came.

    position: in the ranking. other: the pool row that it nearly repeats, or -1.
    """

    position: int
    reason: DropReason
    detail: str = ""
    other: int = -1


@dataclass(frozen=True, slots=True)
class Picks:
    """A selection.

    positions:     (p,) int64 positions in the ranking, in the order of the selection.
    reasons:       why each was taken; details: more of it, e.g. the floor.
    passed_over:   candidates that the rules took out, in order of their turn.
    n_below_min:   ranked candidates below the least score.
    n_tokens, unused_tokens, shortfall: as in `budget.Cut`.
    """

    positions: NDArray[np.int64]
    reasons: Sequence[PickReason]
    details: Sequence[str]
    passed_over: Sequence[PassedOver]
    n_below_min: int
    n_tokens: int | None
    unused_tokens: int | None
    shortfall: str
