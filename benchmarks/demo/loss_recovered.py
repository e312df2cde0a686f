"""How much of a language model's loss survives when activations are replaced by an SAE's.

Loss recovered (ce_loss_score) = (CE ablated - CE with the SAE) / (CE ablated - CE original): 1 when
the reconstructions serve the model as well as its own activations, 0 when they serve it no better
than zeros. Ablated means zeros. Only counted tokens are replaced (not BOS, not the template), and
the loss is that of predicting the token after a counted one.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from selection.core.errors import InputError
from selection.sae.coder import SparseCoder
from selection.sae.encode import encode, reconstruct


class TokenBatch(NamedTuple):
    """Samples padded on the right.

    ids:     (n, t) int64 token ids, anything where `real` is False.
    real:    (n, t) bool, False for padding.
    counted: (n, t) bool, tokens that the SAE is for.
    """

    ids: Tensor
    real: Tensor
    counted: Tensor


@dataclass(frozen=True, slots=True)
class SplicedLoss:
    """Mean next-token cross-entropy in nats over n_predictions, and the loss recovered."""

    ce_original: float
    ce_sae: float
    ce_ablated: float
    ce_loss_score: float
    n_predictions: int

    def as_record(self) -> dict[str, float]:
        """For `saelect.json` and cards."""
        return asdict(self)


@torch.no_grad()
def spliced_loss(
    model: nn.Module,
    part: nn.Module,
    coder: SparseCoder,
    batches: Iterable[TokenBatch],
    *,
    of_input: bool = False,
) -> SplicedLoss:
    """Measure on batches of text.

    model:    a causal language model of transformers: called with ids, it returns `logits`.
    part:     the part of it whose output the SAE reads, a block for one.
    of_input: whether the SAE reads the input of the part instead.
    Raises InputError when nothing is predicted, or zeros harm the model no more than its own
    activations: there is then nothing to recover.
    """
    sums, n_predictions = torch.zeros(3, dtype=torch.float64), 0
    for batch in batches:
        variants = (None, coder, "zeros")
        for i, variant in enumerate(variants):
            with _replaced(part, of_input, batch.counted, variant):
                logits = model(batch.ids).logits
            predicts = batch.counted[:, :-1] & batch.real[:, 1:]
            sums[i] += nn.functional.cross_entropy(
                logits[:, :-1][predicts].float(), batch.ids[:, 1:][predicts], reduction="sum"
            ).double()
        n_predictions += int(predicts.sum())
    original, spliced, ablated = (sums / max(1, n_predictions)).tolist()
    if n_predictions == 0 or ablated <= original:
        raise InputError(
            "the loss recovered is not defined on this text",
            field="ce_ablated",
            value=ablated,
            remedy="Measure on more text, with the model that the SAE was trained on.",
        )
    score = (ablated - spliced) / (ablated - original)
    return SplicedLoss(original, spliced, ablated, score, n_predictions)


@contextmanager
def _replaced(
    part: nn.Module, of_input: bool, counted: Tensor, variant: SparseCoder | str | None
) -> Iterator[None]:
    """While open, the part's activations at counted tokens are their reconstruction, or zero."""

    def replace(module: nn.Module, inputs: Any, output: Any = None) -> Any:
        output = inputs if of_input else output
        states = output if isinstance(output, Tensor) else output[0]
        states = states.clone()
        read = states[counted]
        states[counted] = (
            reconstruct(variant, encode(variant, read), read.float()).to(states.dtype)
            if isinstance(variant, SparseCoder)
            else torch.zeros_like(read)
        )
        return states if isinstance(output, Tensor) else (states, *output[1:])

    watch = part.register_forward_pre_hook if of_input else part.register_forward_hook
    handle = None if variant is None else watch(replace)
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()
