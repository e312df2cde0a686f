"""Token batches in an order that is a pure function of the seed and the epoch.

Samples are not packed: a batch holds whole chats of similar length, padded on the right, so that
under causal attention no sample sees another one and no mask is needed. That is also how the model
is read later.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from benchmarks.demo.corpus import Row, chat, shows_instruction

IGNORED = -100
WINDOW_BATCHES = 48


@dataclass(frozen=True)
class Encoded:
    """Token ids of every row, with its instruction and bare, cut at the context length (int32)."""

    with_instruction: list[np.ndarray]
    bare: list[np.ndarray]
    shown_first: np.ndarray

    def epoch_ids(self, epoch: int) -> list[np.ndarray]:
        """The variant of every row that is shown in this epoch."""
        flip = bool(epoch % 2)
        return [
            full if bool(first) != flip else bare
            for full, bare, first in zip(
                self.with_instruction, self.bare, self.shown_first, strict=True
            )
        ]


def encode_rows(rows: list[Row], tokenizer: PreTrainedTokenizerFast, context: int) -> Encoded:
    """Render and tokenize both variants of every row."""
    variants: list[list[np.ndarray]] = []
    for with_instruction in (True, False):
        chats = [chat(row, with_instruction=with_instruction) for row in rows]
        texts = tokenizer.apply_chat_template(chats, tokenize=False)
        ids = tokenizer(texts, add_special_tokens=False, truncation=True, max_length=context)[
            "input_ids"
        ]
        variants.append([np.asarray(row_ids, dtype=np.int32) for row_ids in ids])
    first = np.asarray([shows_instruction(row, 0) for row in rows])
    return Encoded(variants[0], variants[1], first)


def length_batches(lengths: np.ndarray, order: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Group `order` (row numbers) into batches of at most `batch_tokens` padded tokens.

    Similar lengths go together: sorting happens within windows of about `WINDOW_BATCHES` batches,
    so that an epoch stays well mixed.
    """
    mean_length = max(float(lengths.mean()), 1.0)
    window = max(int(WINDOW_BATCHES * batch_tokens / mean_length), 1)
    batches: list[np.ndarray] = []
    for start in range(0, len(order), window):
        part = order[start : start + window]
        part = part[np.argsort(lengths[part], kind="stable")]
        current: list[int] = []
        for row in part:
            if current and (len(current) + 1) * lengths[row] > batch_tokens:
                batches.append(np.asarray(current))
                current = []
            current.append(int(row))
        if current:
            batches.append(np.asarray(current))
    return batches


def epoch_batches(
    ids: list[np.ndarray], epoch: int, seed: int, batch_tokens: int
) -> list[np.ndarray]:
    """Row numbers of every batch of one epoch, in order."""
    rng = np.random.default_rng([seed, epoch])
    lengths = np.asarray([len(row) for row in ids])
    batches = length_batches(lengths, rng.permutation(len(ids)), batch_tokens)
    return [batches[i] for i in rng.permutation(len(batches))]


def pad_batch(
    ids: list[np.ndarray], rows: np.ndarray, pad_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Input ids (n, t) padded on the right, and next-token labels (n, t).

    Labels are `IGNORED` where nothing is predicted: at the last token and at padding.
    """
    longest = max(len(ids[row]) for row in rows)
    inputs = torch.full((len(rows), longest), pad_id, dtype=torch.long)
    labels = torch.full((len(rows), longest), IGNORED, dtype=torch.long)
    for i, row in enumerate(rows):
        tokens = torch.from_numpy(ids[row].astype(np.int64))
        inputs[i, : len(tokens)] = tokens
        labels[i, : len(tokens) - 1] = tokens[1:]
    return inputs, labels


def batch_stream(
    encoded: Encoded, seed: int, batch_tokens: int, pad_id: int, start: tuple[int, int]
) -> Iterator[tuple[tuple[int, int], torch.Tensor, torch.Tensor]]:
    """Endless batches from position `start` on, each with the position (epoch, batch) after it."""
    epoch, first = start
    while True:
        ids = encoded.epoch_ids(epoch)
        batches = epoch_batches(ids, epoch, seed, batch_tokens)
        for number in range(first, len(batches)):
            inputs, labels = pad_batch(ids, batches[number], pad_id)
            yield (epoch, number + 1), inputs, labels
        epoch, first = epoch + 1, 0
