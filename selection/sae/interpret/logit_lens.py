"""Logit lens: which tokens a latent's direction speaks for, read off the weights alone.

A decoder row goes through the final norm's weight and the unembedding; the mean over the
vocabulary is taken off. Weak evidence, weakest at early blocks, where most latents say nothing
about the next token: `kurtosis` tells the few that single out tokens from the many that do not.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from selection.core.errors import InputError

_HEADS = ("lm_head.weight", "embed_out.weight", "output.weight")
_EMBEDDINGS = (
    "model.embed_tokens.weight",
    "transformer.wte.weight",
    "wte.weight",
    "gpt_neox.embed_in.weight",
    "model.language_model.embed_tokens.weight",
    "language_model.model.embed_tokens.weight",
)
_NORMS = (
    "model.norm.weight",
    "transformer.ln_f.weight",
    "ln_f.weight",
    "gpt_neox.final_layer_norm.weight",
    "model.language_model.norm.weight",
    "language_model.model.norm.weight",
)
_ONE_PLUS = ("gemma",)  # the weight of these families' RMSNorm is 1 + w
_CHUNK_VALUES = 1 << 24  # logits at once: 64 MB


@dataclass(frozen=True, slots=True, eq=False)
class Lens:
    """Tokens by logit for M latents.

    top, bottom:               (M, n) int64 token ids, most promoted and most suppressed first.
    top_logits, bottom_logits: (M, n) float32, above or below the vocabulary's mean, for a latent
                               of value 1 (and a final norm that divides by 1).
    kurtosis:                  (M,) float32 excess kurtosis over the vocabulary; 0 for a normal
                               distribution, large where few tokens stand out.
    """

    top: Tensor
    bottom: Tensor
    top_logits: Tensor
    bottom_logits: Tensor
    kurtosis: Tensor


def logit_lens(decoder: Tensor, norm: Tensor | None, unembedding: Tensor, n: int = 8) -> Lens:
    """The lens of decoder rows (M, D) through a norm's weight (D,) and an unembedding (V, D).

    n: tokens at either end, at most V. Raises ValueError for widths that differ.
    """
    if decoder.shape[1] != unembedding.shape[1]:
        raise ValueError(f"widths differ: {decoder.shape[1]} and {unembedding.shape[1]}")
    words = unembedding.to(torch.float32)
    words = words - words.mean(dim=0)  # takes the vocabulary's mean off every row of logits
    rows = decoder.to(torch.float32)
    rows = rows if norm is None else rows * norm.to(torch.float32)
    n, parts = min(n, len(words)), []
    for chunk in rows.split(max(1, _CHUNK_VALUES // len(words))):
        logits = chunk @ words.T
        high, low = logits.topk(n, dim=1), logits.topk(n, dim=1, largest=False)
        variance = logits.square().mean(dim=1)
        fourth = logits.pow(4).mean(dim=1) / variance.square().clamp_min(1e-30)
        parts.append((high.indices, low.indices, high.values, low.values, fourth - 3))
    return Lens(*(torch.cat([part[i] for part in parts]) for i in range(5)))


def read_unembedding(folder: Path) -> tuple[Tensor | None, Tensor]:
    """Final norm's weight (D,) and unembedding (V, D) of a model's folder; others are not read.

    A tied model's unembedding is its embedding. Raises InputError where there is none, as in
    encoders and unknown architectures.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    where = _tensors(folder)
    head = next((name for name in (*_HEADS, *_EMBEDDINGS) if name in where), None)
    if head is None:
        raise InputError(
            "no unembedding is found in the weights",
            file=folder,
            remedy="The logit lens needs a causal model in safetensors files.",
        )
    norm_name = next((name for name in _NORMS if name in where), None)
    norm = _read(where, norm_name) if norm_name else None
    if norm is not None and str(config.get("model_type", "")).startswith(_ONE_PLUS):
        norm = norm + 1
    return norm, _read(where, head)


def _tensors(folder: Path) -> dict[str, Path]:
    """Name -> the safetensors file that holds it."""
    files: dict[str, Path] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            files |= dict.fromkeys(opened.keys(), file)
    return files


def _read(where: dict[str, Path], name: str) -> Tensor:
    with safe_open(where[name], framework="pt") as opened:
        tensor: Tensor = opened.get_tensor(name).to(torch.float32)
        return tensor
