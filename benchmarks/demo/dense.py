"""Hidden states at content tokens, for training the demo SAE."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from benchmarks.demo.batches import pad_batch


def block_output(output: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Hidden states (n, t, d_model) from what a block returns in any transformers version."""
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def reading(model: PreTrainedModel, blocks: Iterable[int]) -> Iterator[dict[int, torch.Tensor]]:
    """While open, every forward pass leaves these blocks' outputs (n, t, d_model) in the dict."""
    seen: dict[int, torch.Tensor] = {}

    def keep(block: int) -> Callable[..., None]:
        def hook(_module: object, _inputs: object, output: torch.Tensor) -> None:
            seen[block] = block_output(output)

        return hook

    layers = model.model.layers
    handles = [layers[block].register_forward_hook(keep(block)) for block in blocks]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def content_states(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    ids: list[np.ndarray],
    batches: Iterable[np.ndarray],
    block: int,
) -> Iterator[torch.Tensor]:
    """Outputs of one block at content tokens (n_tokens, d_model), fp32, batch after batch.

    Blocks above the one that is read are not computed: the model is cut in place.
    """
    special = torch.tensor(sorted(tokenizer.all_special_ids))
    model.model.layers = model.model.layers[: block + 1]
    with reading(model, [block]) as seen:
        for rows in batches:
            inputs, _ = pad_batch(ids, rows, tokenizer.pad_token_id)
            model.model(inputs, use_cache=False)
            yield seen[block][~torch.isin(inputs, special)]
