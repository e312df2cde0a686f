"""Samples end to end in one row: no padding is computed, and no token sees another sample.

Everything in a transformer but attention works token by token. So the samples of a batch stand one
behind the other, positions begin again at 0 for each, and attention runs sample by sample. No
attention mask is made, whose size would be the square of the row's length.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

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

_lengths: ContextVar[tuple[int, ...]] = ContextVar("lengths of the packed samples")


def register() -> None:
    """Make the attention function known to transformers; a second call changes nothing."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)


@contextmanager
def packed(lengths: Sequence[int]) -> Iterator[None]:
    """Inside, the row that a model runs consists of samples of these lengths."""
    token = _lengths.set(tuple(lengths))
    try:
        yield
    finally:
        _lengths.reset(token)


def first_position(config: Any) -> int:  # noqa: ANN401 - a config of transformers
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
    lengths = _lengths.get()
    if attention_mask is not None or sum(lengths) != query.shape[2]:
        raise ValueError(f"{sum(lengths)} packed tokens, {query.shape[2]} in the row, or a mask")
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    out = torch.empty(
        (1, query.shape[2], query.shape[1], value.shape[3]), dtype=query.dtype, device=query.device
    )
    parts = (tensor.split(lengths, dim=2) for tensor in (query, key, value))
    for q, k, v, into in zip(*parts, out.split(lengths, dim=1), strict=True):
        if softcap is None:
            mask = _window_mask(q.shape[2], sliding_window, causal, q.device)
            found = scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=mask,
                is_causal=causal and mask is None and q.shape[2] > 1,
                scale=scaling,
                enable_gqa=q.shape[1] != k.shape[1],
            )
        else:
            found = _capped(q, k, v, scaling, sliding_window, softcap, causal)
        into.copy_(found.transpose(1, 2))
    return out, None


def _window_mask(n: int, window: int | None, causal: bool, device: torch.device) -> Tensor | None:
    """(n, n) bool, True where a token looks; None where the window holds the whole sample."""
    if window is None or n <= window:
        return None
    at = torch.arange(n, device=device)
    behind = at[:, None] - at[None, :]
    return (behind >= 0) & (behind < window) if causal else behind.abs() <= window // 2


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
    groups, n = q.shape[1] // k.shape[1], q.shape[2]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = q @ k.transpose(2, 3) * (q.shape[3] ** -0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / softcap) * softcap
    mask = _window_mask(n, window, causal, q.device)
    if mask is None and causal:
        mask = torch.ones((n, n), dtype=torch.bool, device=q.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1, dtype=torch.float32).to(q.dtype) @ v
