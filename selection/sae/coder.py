"""The one canonical sparse autoencoder that every format is loaded into."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from selection.core.errors import InputError
from selection.models.hookpoints import hookpoint_of
from selection.sae.metadata import ACTIVATIONS, NORMS, SaeInfo


@dataclass(frozen=True, slots=True, eq=False)
class SparseCoder:
    """A sparse autoencoder: optional norm of a token, affine map, selection.

    pre = (norm(x) - decoder_bias) W^T + encoder_bias, without the subtraction unless
    `info.centers`; `info.activation` says which of them are latents, and with what value:

    topk, groupmax  relu(pre), the k largest, or the largest in each of k groups
    relu            relu(pre)
    jumprelu        relu(pre) where pre > threshold
    gated           relu(magnitude_scale * (pre - encoder_bias) + magnitude_bias) where pre > 0

    A semi-NMF has one matrix W = encoder_weight = decoder_weight, no biases, and no affine map:

    seminmf         argmin over y >= 0 of |norm(x) - y W|^2, the k largest y_j |W_j|, and these fit
                    again alone; both by a fixed number of passes, see `nonnegative.sparse_codes`

    Matching pursuit has one dictionary W = encoder_weight = decoder_weight and no encoder_bias, and
    takes one latent a step from the residual r = norm(x) - decoder_bias, see `encode.pursue`:

    matching_pursuit    k times: j = argmax(W r), v = relu(W_j r), value_j += v, r -= v W_j

    A codebook (arXiv 2310.17230) has codes = decoder_weight, at norm 1 encoder_weight, and no
    encoder_bias; with `info.groups` a code is 0 outside its group's part of the activation:

    codebook        1 for the k / groups largest pre of each group, of either sign: the nearest
                    codes by cosine

    encoder_weight:  (M, D) float32 tensor, M latents over activations of width D.
    encoder_bias:    (M,) float32.
    decoder_weight:  (M, D) float32; the reconstruction is latents @ decoder_weight + decoder_bias,
                     in the units of norm(x).
    decoder_bias:    (D,) float32.
    k:               active latents per token, 0 where the number varies; of matching pursuit at
                     most.
    info:            where it comes from; `info.sha256` is set.
    threshold:       (M,) float32, for jumprelu.
    magnitude_scale, magnitude_bias: (M,) float32, for gated.
    act_scale:       (M,) float32 > 0, or None: factor on values after the selection. The decoder
                     is for the scaled values.
    inputs:          to which precision the encoder's product rounds x and encoder_weight, one of
                     INPUTS; its sums are float32 always. See `rounded`.
    """

    encoder_weight: Tensor
    encoder_bias: Tensor
    decoder_weight: Tensor
    decoder_bias: Tensor
    k: int
    info: SaeInfo
    threshold: Tensor | None = None
    magnitude_scale: Tensor | None = None
    magnitude_bias: Tensor | None = None
    act_scale: Tensor | None = None
    inputs: str = "float32"

    def rounded(self, inputs: str) -> "SparseCoder":
        """The same coder with the encoder's product in another precision of its inputs.

        With bfloat16 the weights are kept in it, in half the memory. Raises InputError for a
        semi-NMF, whose codes come from many products.
        """
        if self.info.activation == "seminmf" and inputs != "float32":
            raise InputError(
                "a semi-NMF is encoded in float32",
                field="representation.encoder_inputs",
                value=inputs,
                remedy="Leave the key out.",
            )
        weight = self.encoder_weight
        if inputs == "bfloat16":
            weight = weight.to(torch.bfloat16)
        return replace(self, encoder_weight=weight, inputs=inputs)

    def to(self, device: torch.device | str) -> "SparseCoder":
        """The same coder with its weights on another device."""
        tensors = {name: getattr(self, name) for name in (*_MAIN, *_EXTRA)}
        return replace(self, **{n: t.to(device) for n, t in tensors.items() if t is not None})

    def trained_on(self, model_name: str, model_sha256: str, hookpoint: str) -> "SparseCoder":
        """The same coder with a record of the model and hookpoint whose activations it is for."""
        info = replace(
            self.info, model_name=model_name, model_sha256=model_sha256, hookpoint=hookpoint
        )
        return replace(self, info=info)


INPUTS = ("float32", "tf32", "bfloat16")
"""24, 11 and 8 bits of the inputs of the encoder's product; the last two for tensor cores."""
_MAIN = ("encoder_weight", "encoder_bias", "decoder_weight", "decoder_bias")
_EXTRA = ("threshold", "magnitude_scale", "magnitude_bias", "act_scale")
_NEEDED = {"jumprelu": ("threshold",), "gated": ("magnitude_scale", "magnitude_bias")}


def make_coder(
    encoder_weight: Tensor,
    encoder_bias: Tensor,
    decoder_weight: Tensor,
    decoder_bias: Tensor,
    *,
    info: SaeInfo,
    **extra: Tensor | None,
) -> SparseCoder:
    """A coder of tensors of any float dtype, as float32, with its content hash filled in.

    extra: threshold, magnitude_scale, magnitude_bias, act_scale, each (M,).
    Shapes as in SparseCoder; sizes, k and conventions come from `info`. Raises ValueError when a
    tensor's shape contradicts it, a value is not finite, or a tensor that the activation needs is
    missing.
    """
    if info.activation not in ACTIVATIONS or info.input_norm not in NORMS:
        raise ValueError(f"no such convention: {info.activation}, {info.input_norm}")
    given = dict(
        zip(_MAIN, (encoder_weight, encoder_bias, decoder_weight, decoder_bias), strict=True)
    ) | {n: t for n, t in extra.items() if t is not None}
    needed = _NEEDED.get(info.activation, ())
    if {*given} - {*_MAIN, "act_scale"} != {*needed}:
        raise ValueError(f"{info.activation} has the tensors {sorted(given)}, needs also {needed}")
    tensors: dict[str, Any] = {
        n: t.detach().to(torch.float32).contiguous() for n, t in given.items()
    }
    matrix = (info.num_latents, info.d_in)
    shapes = dict(zip(_MAIN, (matrix, matrix[:1], matrix, matrix[1:]), strict=True))
    for name, tensor in tensors.items():
        expected = shapes.get(name, matrix[:1])
        if tuple(tensor.shape) != expected:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {expected}")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} has values that are not finite")
    sha256 = _content_sha256(tensors, info)
    return SparseCoder(**tensors, k=info.k, info=replace(info, sha256=sha256))


def scaled_by_decoder_norm(coder: SparseCoder) -> SparseCoder:
    """The same latents with values times the norm of their decoder row.

    What is active does not change, nor does the reconstruction; published magnitudes are often
    these. A decoder row of norm 0 keeps its scale. The content hash, and so the id, is another.
    """
    norms = coder.decoder_weight.norm(dim=1)
    norms = torch.where(norms > 0, norms, torch.ones_like(norms))
    scale = norms if coder.act_scale is None else coder.act_scale * norms
    return make_coder(
        coder.encoder_weight,
        coder.encoder_bias,
        coder.decoder_weight / norms[:, None],
        coder.decoder_bias,
        info=coder.info,
        threshold=coder.threshold,
        magnitude_scale=coder.magnitude_scale,
        magnitude_bias=coder.magnitude_bias,
        act_scale=scale,
    )


def card(coder: SparseCoder) -> list[tuple[str, str]]:
    """The conventions that decide what this SAE's latents are, as (name, value) for people."""
    info = coder.info
    norms = coder.decoder_weight.norm(dim=1)
    low, high = float(norms.min()), float(norms.max())
    norm = {"layer_norm": "each token to mean 0, deviation 1", "sqrt_d": "each token to sqrt(D)"}
    spelled = str(hookpoint_of(info.hookpoint) or info.hookpoint)
    at = info.hookpoint if spelled == info.hookpoint else f"{info.hookpoint} ({spelled})"
    dtype = info.dtype or "float32"
    scale = "" if info.input_scale == 1 else f"times {info.input_scale:.4g}, in the weights"
    kind = "transcoder, read for its latents" if info.is_transcoder else "autoencoder"
    l0 = "not declared" if info.expected_l0 is None else f"{info.expected_l0:g} per token"
    rows = [
        ("format", info.family),
        ("model", info.model_name or "not recorded"),
        ("hookpoint", at or "not recorded"),
        ("kind", str(info.record.get("kind", kind))),
        ("positions", info.positions or "not recorded"),
        ("size", f"{info.num_latents:,} latents over width {info.d_in:,}, {dtype}"),
        ("input", ", ".join(filter(None, (norm.get(info.input_norm), scale))) or "as it comes"),
        ("decoder bias", "subtracted before the encoder" if info.centers else "not subtracted"),
        ("selection", _selection(coder)),
        ("active latents", l0),
        (
            "decoder rows",
            "of norm 1"
            if max(abs(low - 1), abs(high - 1)) < 1e-3
            else f"of norm {low:.3g} to {high:.3g}",
        ),
    ]
    if _halves_are_opposite(coder):
        half = info.num_latents // 2
        rows.append(("signed", f"in two halves: latent {half:,} + j is the negative side of j"))
    rows += [("values", "times a factor per latent")] if coder.act_scale is not None else []
    return [*rows, ("licence", info.licence or "not recorded")]


def _halves_are_opposite(coder: SparseCoder) -> bool:
    """Whether the second half of the latents is the first one's negative side (abstopk)."""
    half = coder.info.num_latents // 2
    if coder.info.num_latents % 2 or coder.info.activation != "topk":
        return False
    split = (
        (t[:half], t[half:])
        for t in (
            coder.encoder_bias,
            coder.encoder_weight[:, 0],
            coder.encoder_weight,
            coder.decoder_weight,
        )
    )
    return all(torch.equal(first, -second) for first, second in split)


def _selection(coder: SparseCoder) -> str:
    """The selection rule in words."""
    words = {
        "topk": f"the {coder.k} largest",
        "groupmax": f"the largest in each of {coder.k} groups",
        "relu": "all above 0",
        "gated": "where the gate is open",
        "seminmf": f"non-negative codes that fit best, the {coder.k} largest",
        "matching_pursuit": f"matching pursuit, at most {coder.k} steps",
        "codebook": f"the {coder.k} nearest codes by cosine, of value 1",
    }
    if coder.info.groups > 1:
        each = coder.k // coder.info.groups
        return f"{words[coder.info.activation]}, {each} in each of {coder.info.groups} parts"
    if coder.info.residual_threshold:
        return f"{words[coder.info.activation]}, to a rest of {coder.info.residual_threshold:.4g}"
    if coder.threshold is None:
        return words[coder.info.activation]
    low, high = float(coder.threshold.min()), float(coder.threshold.max())
    return f"above {low:.4g}" if low == high else f"above a threshold of {low:.4g} to {high:.4g}"


def _content_sha256(tensors: dict[str, Tensor], info: SaeInfo) -> str:
    head: dict[str, object] = {
        "k": info.k,
        "activation": info.activation,
        "shape": [info.num_latents, info.d_in],
    }
    # Only what differs from a plain TopK SAE, so that the ids of those never change.
    head |= {} if info.centers else {"centers": False}
    head |= {} if info.input_norm == "none" else {"input_norm": info.input_norm}
    rest = info.residual_threshold
    head |= {"residual_threshold": rest} if rest else {}
    head |= {} if info.groups == 1 else {"groups": info.groups}
    extra = [name for name in _EXTRA if name in tensors]
    head |= {"extra": extra} if extra else {}
    digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    for name in (*_MAIN, *extra):
        digest.update(tensors[name].cpu().numpy().data)
    return digest.hexdigest()


def stacked(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """`torch.cat`, without a copy where there is one tensor only."""
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors), dim)
