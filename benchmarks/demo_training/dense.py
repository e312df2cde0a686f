"""Hidden states of chats at content tokens, per block, computed in batches of similar length."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from benchmarks.demo_training.batches import length_batches, pad_batch
from benchmarks.demo_training.corpus import Message

BATCH_TOKENS = 4096


def block_output(output: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Hidden states (n, t, d_model) from what a block returns in any transformers version."""
    return output[0] if isinstance(output, tuple) else output


def token_ids(
    tokenizer: PreTrainedTokenizerFast, chats: list[list[Message]], max_tokens: int
) -> list[np.ndarray]:
    """Token ids of every chat through the chat template, cut at `max_tokens`, BOS included."""
    texts = tokenizer.apply_chat_template(chats, tokenize=False)
    encoded = tokenizer(texts, add_special_tokens=False, truncation=True, max_length=max_tokens)
    return [np.asarray(ids, dtype=np.int32) for ids in encoded["input_ids"]]


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


@torch.inference_mode()
def mean_hidden_states(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    chats: list[list[Message]],
    *,
    max_tokens: int,
) -> np.ndarray:
    """Mean over content tokens of every block's output: (n_layers, n, d_model), fp32.

    Content tokens are all but special ones (BOS, roles, end); a chat without any gives zeros.
    """
    ids = token_ids(tokenizer, chats, max_tokens)
    special = torch.tensor(sorted(tokenizer.all_special_ids))
    n_layers, d_model = model.config.num_hidden_layers, model.config.hidden_size
    means = np.zeros((n_layers, len(ids), d_model), dtype=np.float32)
    lengths = np.asarray([len(row) for row in ids])
    with reading(model, range(n_layers)) as seen:
        for rows in length_batches(lengths, np.arange(len(ids)), BATCH_TOKENS):
            inputs, _ = pad_batch(ids, rows, tokenizer.pad_token_id)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                model.model(inputs, use_cache=False)
            content = (~torch.isin(inputs, special)).float()
            weights = content / content.sum(1, keepdim=True).clamp(min=1.0)
            for block, states in seen.items():
                means[block, rows] = torch.einsum("nt,ntd->nd", weights, states.float()).numpy()
    return means


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
