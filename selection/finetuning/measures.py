"""What a model reached on held-out rows, row by row; everything from one pass over them.

bits:  of the response, -log2 of its probability; over its bytes they compare within one target.
exact: whether greedy decoding would write the very response: every token of it is the likeliest
       one behind those before, which needs no decoding to see.
right: whether the row's own answer is the likeliest of the answers of its task, where these are
       few.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from selection.activations.batching import batch_plan
from selection.evaluation.labelled import Rows
from selection.finetuning.trainee import Trainee, TraineeTexts
from selection.records import Rendered

MOST_LABELS = 8
SHORT = 16  # Response tokens, median, up to which whole answers can be expected.
_TOKENS = 4096  # Padded tokens of one forward pass.


@dataclass(frozen=True)
class Questions:
    """Everything that one target is measured by, rendered once.

    samples: the held-out rows; then, row by row, each with every label; then the general mix.
    n_bytes: (n,) bytes of the response of each held-out row and of the general mix.
    own:     (r,) number of each row's own label; empty without labels.
    """

    samples: list[Rendered]
    n_rows: int
    n_labels: int
    n_bytes: NDArray[np.int64]
    own: Rows


@dataclass(frozen=True)
class Measured:
    """Of one model on one target: (r,) values by row, and bits a byte of the general mix.

    general: None where the pool has no other tasks to mix.
    """

    bits: NDArray[np.float64]
    exact: NDArray[np.bool_] | None
    right: NDArray[np.bool_] | None
    general: float | None


def labels_of(answers: Sequence[str]) -> list[str]:
    """The answers of a task where they are few, most frequent first; else none."""
    known, counts = np.unique([answer.strip() for answer in answers], return_counts=True)
    if not 2 <= len(known) <= MOST_LABELS:
        return []
    return [str(known[i]) for i in np.argsort(-counts, kind="stable")]


def questions_of(
    texts: TraineeTexts, rows: Rows, labels: Sequence[str], general: Rows
) -> Questions:
    """Held-out rows, their labels and the general mix as samples of one pass."""
    answers = [answer.strip() for _, answer in texts.pool.turns_at(texts.setting, rows)]
    own = np.array([labels.index(answer) for answer in answers if labels], np.int64)
    held_out, mix = texts.samples(rows), texts.samples(general)
    others = [texts.answered(row, label) for row in rows.tolist() for label in labels]
    n_bytes = [len(texts.renderer.counted_text(each).encode()) for each in [*held_out, *mix]]
    return Questions(
        [*held_out, *others, *mix], len(rows), len(labels), np.array(n_bytes, np.int64), own
    )


def measure_model(trainee: Trainee, questions: Questions) -> Measured:
    """One pass over all questions."""
    bits, exact = response_bits(trainee, questions.samples)
    n, n_labels = questions.n_rows, questions.n_labels
    n_others = n * n_labels
    of_labels = bits[n : n + n_others].reshape(n, n_labels)
    lengths = [int(sample.content_mask.sum()) for sample in questions.samples[:n]]
    mix_bits, mix_bytes = bits[n + n_others :].sum(), questions.n_bytes[n:].sum()
    return Measured(
        bits[:n],
        exact[:n] if np.median(lengths) <= SHORT else None,
        of_labels.argmin(axis=1) == questions.own if n_labels else None,
        float(mix_bits / mix_bytes) if mix_bytes else None,
    )


def response_bits(
    trainee: Trainee, samples: Sequence[Rendered]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Bits of each response, and whether each of its tokens is the likeliest one."""
    bits, exact = np.zeros(len(samples)), np.zeros(len(samples), np.bool_)
    trainee.model.eval()
    with torch.inference_mode():
        for batch in batch_plan(np.array([len(each.tokens) for each in samples]), _TOKENS):
            logits, wanted, counts = trainee.logits([samples[i] for i in batch])
            row = counts.nonzero()[:, 0].cpu().numpy()
            chosen, right = logits[counts].float(), wanted[counts]
            nats = torch.nn.functional.cross_entropy(chosen, right, reduction="none")
            wrong = (chosen.argmax(dim=-1) != right).cpu().numpy()
            bits[batch] = np.bincount(row, nats.double().cpu().numpy(), len(batch)) / np.log(2)
            exact[batch] = np.bincount(row, wrong, len(batch)) == 0
    return bits, exact
