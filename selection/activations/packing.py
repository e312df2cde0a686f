"""Samples end to end in one row: no padding is computed, and no token sees another sample.

Everything in a transformer but attention works token by token. So the samples of a batch stand one
behind the other, positions begin again at 0 for each, and attention runs sample by sample: no mask
over the whole row is made, whose size would be the square of its length. Of a sample that begins as
the one before it, the row holds the rest alone; its keys and values are looked up. On a GPU many
small kernels are slow: there torch's flex attention can run the row as a whole, and skips the
blocks of it in which nobody sees anything.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

NAME = "saelect_packed"
"""Of the attention function, as the configs of transformers name it."""
FLEX = "saelect_flex"
"""Of the one that runs a row as a whole."""

PACKED_KINDS = frozenset(
    (
        *("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text"),
        *("olmo", "olmo2", "gpt_neox", "gpt2", "bert", "roberta"),
    )
)
"""Model types whose packed activations are tested to equal those of the whole model."""

_POSITION_OFFSET_KINDS = ("roberta",)


class Visibility(NamedTuple):
    """Who in a row sees whom, (r,) int32 each.

    sample: that runs a token. end: the first sample behind it that does not begin with it.
    position: of the token in its sample.
    """

    sample: Tensor
    end: Tensor
    position: Tensor


def visibility_of(
    positions: Sequence[NDArray[np.int64]], shared: NDArray[np.int64]
) -> tuple[NDArray[np.int32], ...]:
    """The arrays of `Visibility`, from where each sample's tokens are in the row.

    shared: tokens (n,) that each sample begins with as the one before it.
    """
    n_row = 1 + max((int(each[-1]) for each in positions if len(each)), default=-1)
    sample, position = np.empty(n_row, np.int32), np.empty(n_row, np.int32)
    end = np.full(n_row, len(positions), np.int32)
    for number, (own, n) in enumerate(zip(positions, shared.tolist(), strict=True)):
        sample[own[n:]], position[own[n:]] = number, np.arange(n, len(own))
        if number:
            end[positions[number - 1][n:]] = number
    return sample, end, position


class _Row(NamedTuple):
    """Tokens of each sample in the row; positions of all its tokens if some are another's."""

    lengths: tuple[int, ...]
    positions: tuple[Tensor | None, ...]
    visibility: Visibility | None = None


_row: ContextVar[_Row] = ContextVar("the packed samples")


def register() -> None:
    """Make the attention functions known to transformers; a second call changes nothing."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)
    AttentionInterface.register(FLEX, whole_row_attention)


@contextmanager
def packed(
    lengths: Sequence[int],
    positions: Sequence[Tensor | None] | None = None,
    visibility: Visibility | None = None,
) -> Iterator[None]:
    """Inside, the row that a model runs consists of samples of these lengths.

    positions: for a sample that is run from where it differs from the one before it, where each of
    its tokens is in the row, (t,) int64 on the model's device; None for one that is there whole.
    visibility: on the model's device, for `whole_row_attention`.
    """
    row = _Row(tuple(lengths), tuple(positions or [None] * len(lengths)), visibility)
    token = _row.set(row)
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
    lengths, positions, _ = _row.get()
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


def whole_row_attention(
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
    """As `packed_attention`, by one call of flex attention, which needs `visibility`."""
    visibility = _row.get().visibility
    if attention_mask is not None or visibility is None:
        raise ValueError("a mask, or a row of which nobody knows who sees whom")
    if len(visibility.sample) != query.shape[2]:
        raise ValueError(f"{len(visibility.sample)} packed tokens, {query.shape[2]} in the row")
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    sees = _sees(visibility, causal, sliding_window)
    out = attend(query, key, value, sees, softcap, scaling)
    return out.transpose(1, 2).contiguous(), None


Sees = Callable[[object, object, Tensor, Tensor], Tensor]
"""Whether a token of the row looks at another one: batch, head, their places -> bool."""


def _sees(visibility: Visibility, causal: bool, window: int | None) -> Sees:
    sample, end, position = visibility

    def sees(_: object, __: object, at: Tensor, other: Tensor) -> Tensor:
        visible = (sample[other] <= sample[at]) & (sample[at] < end[other])
        if causal:
            visible = visible & (position[other] <= position[at])
        if window is not None:
            visible = visible & (position[at] - position[other] < window)
        return visible

    return sees


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sees: Sees,
    softcap: float | None,
    scaling: float | None,
) -> Tensor:
    """(1, heads, r, width) by flex attention; compiled on CUDA."""
    from torch.nn.attention.flex_attention import create_block_mask

    def capped(score: Tensor, *_: object, most: float = softcap or 1.0) -> Tensor:
        return torch.tanh(score / most) * most

    on_cuda, n = query.device.type == "cuda", query.shape[2]
    # Uncompiled, the mask would be made in full: the square of the row's length.
    mask = create_block_mask(sees, None, None, n, n, device=query.device, _compile=on_cuda)
    out: Tensor = _flex(on_cuda)(
        query,
        key,
        value,
        score_mod=None if softcap is None else capped,
        block_mask=mask,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out


@cache
def _flex(compiled: bool) -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    run: Callable[..., Any] = flex_attention
    return torch.compile(run, dynamic=True) if compiled else run


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
