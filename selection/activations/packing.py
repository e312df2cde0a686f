"""Samples end to end in one row: no padding is computed, and no token sees another sample.

Everything in a transformer but attention works token by token. So the samples of a batch stand one
behind the other, positions begin again at 0 for each, and attention runs sample by sample: no mask
over the whole row is made, whose size would be the square of its length. Of a sample that begins as
the one before it, the row holds the rest alone; its keys and values are looked up.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

NAME = "saelect_packed"
"""Of the attention function, as the configs of transformers name it."""

PACKED_KINDS = frozenset(
    (
        *("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text"),
        *("olmo", "olmo2", "gpt_neox", "gpt2", "bert", "roberta"),
    )
)
"""Model types whose packed activations are tested to equal those of the whole model."""

_POSITION_OFFSET_KINDS = ("roberta",)


class _Row(NamedTuple):
    """Tokens of each sample in the row; positions of all its tokens if some are another's."""

    lengths: tuple[int, ...]
    positions: tuple[Tensor | None, ...]


_row: ContextVar[_Row] = ContextVar("the packed samples")


def register() -> None:
    """Make the attention function known to transformers; a second call changes nothing."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)


@contextmanager
def packed(
    lengths: Sequence[int], positions: Sequence[Tensor | None] | None = None
) -> Iterator[None]:
    """Inside, the row that a model runs consists of samples of these lengths.

    positions: for a sample that is run from where it differs from the one before it, where each of
    its tokens is in the row, (t,) int64 on the model's device; None for one that is there whole.
    """
    token = _row.set(_Row(tuple(lengths), tuple(positions or [None] * len(lengths))))
    try:
        yield
    finally:
        _row.reset(token)


def first_position(config: Any) -> int:
    """Position number of a sample's first token: RoBERTa counts from behind its padding id."""
    offset = config.model_type in _POSITION_OFFSET_KINDS
    return int(config.pad_token_id) + 1 if offset else 0


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    is_causal: bool | None = None,
    **ignored: object,
) -> tuple[Tensor, None]:
    """Attention (1, t, heads, width) of samples in one row, with the signature of transformers.

    query: (1, heads, t, width); key, value: (1, key heads, t, width).
    Raises ValueError when the lengths do not add up to t, or for a mask: nobody may look across.
    """
    lengths, positions = _row.get()
    if attention_mask is not None or sum(lengths) != query.shape[2]:
        raise ValueError(f"{sum(lengths)} packed tokens, {query.shape[2]} in the row, or a mask")
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    out = torch.empty(
        (1, query.shape[2], query.shape[1], value.shape[3]), dtype=query.dtype, device=query.device
    )
    parts = (tensor.split(lengths, dim=2) for tensor in (query, key, value))
    for looked_up, q, k, v, into in zip(positions, *parts, out.split(lengths, dim=1), strict=True):
        if not q.shape[2]:  # of a sample that is a prefix of another
            continue
        if looked_up is not None:
            k, v = key.index_select(2, looked_up), value.index_select(2, looked_up)
        if softcap is None:
            mask = _mask(q.shape[2], k.shape[2], sliding_window, q.device)
            attended = scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=mask,
                is_causal=causal and mask is None and q.shape[2] > 1,
                scale=scaling,
                enable_gqa=q.shape[1] != k.shape[1],
            )
        else:
            attended = _capped(q, k, v, scaling, sliding_window, softcap, causal)
        into.copy_(attended.transpose(1, 2))
    return out, None


def _mask(n: int, n_keys: int, window: int | None, device: torch.device) -> Tensor | None:
    """(n, n_keys) bool, True where one of the last n tokens looks; None where no mask is needed."""
    if (window is None or n_keys <= window) and n in (n_keys, 1):
        return None
    at = torch.arange(n_keys, device=device)
    behind = at[n_keys - n :, None] - at[None, :]
    if window is None:
        return behind >= 0
    return (behind >= 0) & (behind < window)


def _capped(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scaling: float | None,
    window: int | None,
    softcap: float,
    causal: bool,
) -> Tensor:
    """Attention whose scores are squeezed by tanh, as in Gemma 2; softmax in float32."""
    groups, n, n_keys = q.shape[1] // k.shape[1], q.shape[2], k.shape[2]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = q @ k.transpose(2, 3) * (q.shape[3] ** -0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / softcap) * softcap
    mask = _mask(n, n_keys, window, q.device)
    if mask is None and causal and n > 1:
        mask = torch.ones((n, n), dtype=torch.bool, device=q.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1, dtype=torch.float32).to(q.dtype) @ v
