"""Rows a shipped model may learn from, as chats.

The pool is a Parquet file with the columns `id instruction input output license canary`. A row is
used if its licence is permissive, it carries no benchmark canary and it lies in half A. The other
half of the permissive rows is never shown to the demo model, so that results on it are results on
unseen text.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import polars as pl

PERMISSIVE_LICENSES = ("MIT", "Apache-2.0", "CC BY 4.0")
PERMISSIVE_PREFIX = "Apache-2.0 code / ODC-By"
VALIDATION_MODULUS = 75
COLUMNS = ["id", "instruction", "input", "output", "license", "canary"]

Message = dict[str, str]


@dataclass(frozen=True)
class Row:
    """One instruction sample; `input` may be empty, `license` is counted in the model card."""

    row_id: str
    instruction: str
    input: str
    output: str
    license: str


@dataclass(frozen=True)
class Corpus:
    """Training and held-out rows, both ordered by row id, and what the selection rule left out."""

    train: list[Row]
    validation: list[Row]
    license_counts: dict[str, int]
    n_pool: int
    n_permissive: int


def question_digest(instruction: str, input_text: str) -> bytes:
    """SHA-256 of the lower-cased, whitespace-collapsed question.

    The question is the input, or the instruction where the input is empty.
    """
    question = input_text if input_text.strip() else instruction
    return hashlib.sha256(" ".join(question.lower().split()).encode()).digest()


def in_half_a(digest: bytes) -> bool:
    """Whether the question belongs to the half of the pool that models may be trained on."""
    return digest[0] % 2 == 0


def in_validation(digest: bytes) -> bool:
    """Whether the question is held out; equal questions always fall on the same side."""
    return int.from_bytes(digest[1:5], "big") % VALIDATION_MODULUS == 0


def permissive() -> pl.Expr:
    """Rows whose licence allows shipping a model trained on them, without benchmark canaries."""
    license_ok = pl.col("license").is_in(PERMISSIVE_LICENSES) | pl.col("license").str.starts_with(
        PERMISSIVE_PREFIX
    )
    return license_ok & ~pl.col("canary").fill_null(False)


def read_corpus(pool: Path) -> Corpus:
    """Read the permissive rows of half A and split off the held-out ones."""
    frame = pl.read_parquet(pool, columns=COLUMNS)
    safe = frame.filter(permissive()).sort("id")
    train: list[Row] = []
    validation: list[Row] = []
    counts: dict[str, int] = {}
    for values in safe.iter_rows(named=True):
        digest = question_digest(values["instruction"] or "", values["input"] or "")
        if not in_half_a(digest):
            continue
        row = Row(
            row_id=values["id"],
            instruction=values["instruction"] or "",
            input=values["input"] or "",
            output=values["output"] or "",
            license=values["license"],
        )
        (validation if in_validation(digest) else train).append(row)
        counts[row.license] = counts.get(row.license, 0) + 1
    return Corpus(train, validation, dict(sorted(counts.items())), len(frame), len(safe))


def chat(row: Row, *, with_instruction: bool) -> list[Message]:
    """The row as a user and an assistant turn; the user turn may be the bare question."""
    has_input = bool(row.input.strip())
    if with_instruction:
        user = f"{row.instruction}\n{row.input}" if has_input else row.instruction
    else:
        user = row.input if has_input else row.instruction
    return [{"role": "user", "content": user}, {"role": "assistant", "content": row.output}]


def shows_instruction(row: Row, epoch: int) -> bool:
    """Whether the row shows its instruction: half of the rows in even epochs, the others in odd."""
    return (hashlib.sha256(row.row_id.encode()).digest()[0] + epoch) % 2 == 0
