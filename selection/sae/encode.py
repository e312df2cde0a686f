"""Activations to latents: norm, one affine map, and the selection that the SAE's family asks for.

Exact, in float32, and chunked over tokens and latents, so that neither many tokens nor a million
latents need more memory than one chunk beyond the weights.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from selection.sae.coder import SparseCoder, stacked
from selection.sae.nonnegative import sparse_codes

_CHUNK_VALUES = {"cpu": 1 << 20, "cuda": 1 << 28}  # pre-activations at once; 1 << 20 fit a cache
_MIN_CHUNK_ROWS = 256  # fewer rows make the matrix product inefficient
_SLICE_LATENTS = 1 << 17  # latents at once; 256 rows of them are 128 MB
_EPSILON = 1e-5  # of the per-token layer norm, beside the standard deviation


class TopActs(NamedTuple):
    """The active latents of n tokens.

    top_acts:    (n, w) float32, not negative, in no particular order within a row. w is k where
                 that is fixed, else the largest number of latents of a token. A token with
                 fewer than w latents has zeros, whose indices mean nothing.
    top_indices: (n, w) int64; distinct within a row where acts are above zero.
    """

    top_acts: Tensor
    top_indices: Tensor


def encode(coder: SparseCoder, x: Tensor) -> TopActs:
    """Latents of activations x (n, D), any float dtype, on the coder's device.

    Computed in float32 in chunks of rows and latents; the chunks depend on the number of latents
    and the kind of device alone, so equal input gives equal output. Values that are not finite
    stay so. Raises ValueError for another width.
    """
    n_latents, d_in = coder.encoder_weight.shape
    if x.ndim != 2 or x.shape[1] != d_in:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (n, {d_in})")
    latents = list(chunks(n_latents, _slice_size(coder)))
    n_rows = min(chunk_rows(n_latents, x.device), max(1, len(x)))
    buffer = torch.empty(n_rows * (latents[0].stop - latents[0].start), device=x.device)
    with torch.no_grad():
        parts = [
            _encode_rows(coder, prepared(coder, x[rows]), latents, buffer)
            for rows in chunks(len(x), n_rows)
        ]
    if not parts:
        parts = [
            TopActs(
                x.new_zeros((0, max(1, coder.k)), dtype=torch.float32),
                _no_indices(x, 0, max(1, coder.k)),
            )
        ]
    width = max(part.top_acts.shape[1] for part in parts)
    parts = [_widened(part, width) for part in parts]
    return TopActs(stacked([p.top_acts for p in parts]), stacked([p.top_indices for p in parts]))


def decode(coder: SparseCoder, latents: TopActs) -> Tensor:
    """Reconstructions (n, D) float32 of n tokens, without ever making dense latents.

    In the units of the coder's input: see `reconstruct` for SAEs with a per-token norm.
    """
    sums = torch.nn.functional.embedding_bag(
        latents.top_indices,
        coder.decoder_weight,
        per_sample_weights=latents.top_acts,
        mode="sum",
    )
    return sums + coder.decoder_bias


def reconstruct(coder: SparseCoder, latents: TopActs, x: Tensor) -> Tensor:
    """Reconstructions (n, D) float32 of the activations x (n, D) that gave the latents.

    A per-token norm is undone with the norm (or deviation and mean) of each token, as the SAEs'
    own libraries do: that much of x is handed through.
    """
    recon, x = decode(coder, latents), x.to(torch.float32)
    if coder.info.input_norm == "layer_norm":
        return recon * x.std(dim=1, keepdim=True) + x.mean(dim=1, keepdim=True)
    if coder.info.input_norm == "sqrt_d":
        return recon * (x.norm(dim=1, keepdim=True) / x.shape[1] ** 0.5)
    return recon


def prepared(coder: SparseCoder, x: Tensor) -> Tensor:
    """What the encoder's matrix is multiplied with, (n, D) float32: x normed and centered."""
    x = normed(coder.info.input_norm, x.to(torch.float32))
    return x - coder.decoder_bias if coder.info.centers else x


def normed(input_norm: str, x: Tensor) -> Tensor:
    """Every token of x (n, D) float32 after one of `metadata.NORMS`."""
    if input_norm == "layer_norm":
        x = x - x.mean(dim=1, keepdim=True)
        return x / (x.std(dim=1, keepdim=True) + _EPSILON)
    if input_norm == "sqrt_d":
        return x * (x.shape[1] ** 0.5 / x.norm(dim=1, keepdim=True))
    return x


def choose(pre_acts: Tensor, k: int, activation: str) -> TopActs:
    """Active latents of pre-activations (n, M) that went through relu.

    activation: "topk", the k largest of a row; or "groupmax", the largest in each of k equal
    groups of neighbouring latents.
    """
    if activation == "topk":
        acts, indices = pre_acts.topk(k, dim=-1, sorted=False)
        return TopActs(acts, indices)
    acts, indices = pre_acts.unflatten(-1, (k, -1)).max(dim=-1)
    width = pre_acts.shape[1] // k
    return TopActs(acts, indices + torch.arange(k, device=indices.device) * width)


def nearest(products: Tensor, k: int, groups: int = 1) -> TopActs:
    """The k largest, of either sign, in each of `groups` equal parts of products (n, M)."""
    width = products.shape[1] // groups
    acts, indices = products.unflatten(1, (groups, width)).topk(min(k, width), sorted=False)
    starts = torch.arange(groups, device=indices.device)[:, None] * width
    return TopActs(acts.flatten(1), (indices + starts).flatten(1))


class Pursuit(NamedTuple):
    """Matching pursuit of n tokens, step by step.

    values, chosen: (n, s) float32 and int64, what each step added to which latent; values are 0
                    after a token's last step, which alone may choose a latent a second time.
    residual:       (n, D) what is left over.
    """

    values: Tensor
    chosen: Tensor
    residual: Tensor

    def latents(self) -> TopActs:
        """With the values of a latent that was chosen twice summed."""
        values, chosen, _ = self
        last = (values != 0).sum(dim=1, keepdim=True).sub(1).clamp_min(0)
        step = torch.arange(values.shape[1], device=values.device)
        first = (chosen == chosen.gather(1, last)) & (step < last)
        acts = values + values.gather(1, last).masked_fill(~first, 0.0)
        is_second = (step == last) & first.any(dim=1, keepdim=True)
        return TopActs(acts.masked_fill(is_second, 0.0), chosen)


def pursue(
    x: Tensor,
    dictionary: Tensor,
    k: int,
    threshold: float,
    largest: Callable[[Tensor], tuple[Tensor, Tensor]],
) -> Pursuit:
    """Matching pursuit of tokens x (n, D) as an encoder (arXiv 2506.03093).

    A step takes the latent whose row of the dictionary (M, D) has the largest product with the
    residual, with that product as value, and subtracts value times row. Negative products are
    none: relu, as in the authors' code and SAELens. A token ends after k steps, where no product is
    above 0, where its residual's norm is below `threshold`, or with the first latent that comes
    again, whose value is still added, as it does there.

    largest: the largest product of each residual (n, D), and its latent.
    """
    values, chosen = x.new_zeros((len(x), 0)), _no_indices(x, len(x), 0)
    going = torch.ones(len(x), dtype=torch.bool, device=x.device)
    residual = x
    for _ in range(k):
        value, latent = largest(residual)
        value = value.relu().masked_fill(~going, 0.0)
        again = ((chosen == latent[:, None]) & (values != 0)).any(dim=1)
        going = (value != 0) & ~again
        values = torch.cat([values, value[:, None]], dim=1)
        chosen = torch.cat([chosen, latent[:, None]], dim=1)
        residual = torch.addcmul(residual, dictionary[latent], value[:, None], value=-1)
        if threshold:
            going &= ~(residual.norm(dim=1) < threshold)
        if not bool(going.any()):
            break
    return Pursuit(values, chosen, residual)


def chunk_rows(n_latents: int, device: torch.device) -> int:
    """Rows whose pre-activations are made at once: a function of width and device kind alone."""
    values = _CHUNK_VALUES.get(device.type, _CHUNK_VALUES["cpu"])
    return max(_MIN_CHUNK_ROWS, values // min(n_latents, _SLICE_LATENTS))


def chunks(n: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover range(n) in order."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _encode_rows(coder: SparseCoder, x: Tensor, slices: list[slice], buffer: Tensor) -> TopActs:
    """Latents of one chunk of prepared rows, slice by slice of the latents."""
    if coder.info.activation == "seminmf":
        acts, indices = sparse_codes(x, coder.encoder_weight, coder.k)
        return TopActs(
            acts if coder.act_scale is None else acts * coder.act_scale[indices], indices
        )
    if coder.info.activation == "matching_pursuit":
        return _pursued(coder, x, slices, buffer)
    parts = []
    for latents in slices:
        pre = buffer[: len(x) * (latents.stop - latents.start)].view(len(x), -1)
        acts, indices = _select(coder, x, latents, pre)
        parts.append(TopActs(acts, indices + latents.start if latents.start else indices))
        ranked = "codebook" if coder.info.groups == 1 else ""
        if coder.info.activation in ("topk", ranked) and len(parts) == 2:
            parts = [_best(parts, coder.k)]
    acts, indices = (stacked([part[i] for part in parts], dim=1) for i in (0, 1))
    if coder.info.activation == "codebook":
        acts = acts * 0.0 + 1.0  # what is not finite stays so
    if coder.act_scale is not None:
        acts = acts * coder.act_scale[indices]
    if not coder.k and len(parts) > 1:  # each slice had its own widest token
        return _best([TopActs(acts, indices)], _widest(acts))
    return TopActs(acts, indices)


def _select(coder: SparseCoder, x: Tensor, latents: slice, pre: Tensor) -> TopActs:
    """Active latents among a slice; indices count from the slice's start. `pre` is scratch."""
    activation, bias = coder.info.activation, coder.encoder_bias[latents]
    _product(
        coder, x, coder.encoder_weight[latents].T, None if activation == "gated" else bias, pre
    )
    if activation == "codebook":
        groups = coder.info.groups
        of_slice = max(1, pre.shape[1] * groups // coder.info.num_latents)
        return nearest(pre, coder.k // groups, of_slice)
    if activation == "gated":
        pre = _magnitudes(coder, pre, latents)
    else:
        if coder.threshold is not None:
            pre.masked_fill_(pre <= coder.threshold[latents], 0.0)
        pre.relu_()
    if activation == "topk":
        return choose(pre, min(coder.k, pre.shape[1]), "topk")
    if activation == "groupmax":
        width = coder.info.num_latents // coder.k
        return choose(pre, pre.shape[1] // width, "groupmax")
    return choose(pre, _widest(pre), "topk")


def _pursued(coder: SparseCoder, x: Tensor, slices: list[slice], buffer: Tensor) -> TopActs:
    """Latents of matching pursuit."""
    dictionary, scale = coder.decoder_weight, coder.act_scale
    if scale is not None:
        dictionary = dictionary * scale[:, None]

    def largest(residual: Tensor) -> tuple[Tensor, Tensor]:
        parts = []
        for latents in slices:
            pre = buffer[: len(x) * (latents.stop - latents.start)].view(len(x), -1)
            _product(coder, residual, coder.encoder_weight[latents].T, None, pre)
            value, latent = pre.max(dim=1)
            parts.append((value, latent + latents.start))
        values, indices = (torch.stack(each, dim=1) for each in zip(*parts, strict=True))
        best, which = values.max(dim=1)
        return best, indices.gather(1, which[:, None])[:, 0]

    threshold = coder.info.residual_threshold
    acts, indices = pursue(x, dictionary, coder.k, threshold, largest).latents()
    return TopActs(acts if scale is None else acts * scale[indices], indices)


def _product(
    coder: SparseCoder, x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor
) -> None:
    """Put x @ weight + bias into `out`: sums in float32 of inputs in the coder's precision.

    A CPU has no such product: there the inputs are rounded, and the rest is the same.
    """
    if coder.inputs == "float32":
        torch.mm(x, weight, out=out) if bias is None else torch.addmm(bias, x, weight, out=out)
        return
    if x.device.type != "cuda":
        torch.mm(rounded(x, coder.inputs), rounded(weight.float(), coder.inputs), out=out)
    elif coder.inputs == "bfloat16":
        torch.mm(x.to(torch.bfloat16), weight, out_dtype=torch.float32, out=out)
    else:
        before = torch.backends.cuda.matmul.fp32_precision
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        try:
            torch.mm(x, weight, out=out)
        finally:
            torch.backends.cuda.matmul.fp32_precision = before
    if bias is not None:
        out.add_(bias)


def rounded(x: Tensor, inputs: str) -> Tensor:
    """float32 values that bfloat16 or TF32 can hold, the nearest ones, ties to even."""
    if inputs == "bfloat16":
        return x.to(torch.bfloat16).float()
    bits = x.contiguous().view(torch.int32)
    bits = bits + 0xFFF + ((bits >> 13) & 1)
    return (bits & ~0x1FFF).view(torch.float32)


def _magnitudes(coder: SparseCoder, pre: Tensor, latents: slice) -> Tensor:
    """Values of gated latents, 0 where the gate is shut."""
    if coder.magnitude_scale is None or coder.magnitude_bias is None:
        raise ValueError("a gated SAE needs magnitudes")
    shut = pre + coder.encoder_bias[latents] <= 0
    pre.mul_(coder.magnitude_scale[latents]).add_(coder.magnitude_bias[latents]).relu_()
    return pre.masked_fill_(shut, 0.0)


def _widest(acts: Tensor) -> int:
    """The largest number of latents of a row, at least 1."""
    return max(1, int((acts != 0).sum(dim=1).max()))


def _best(parts: list[TopActs], k: int) -> TopActs:
    """The k largest of several results for the same rows."""
    acts = torch.cat([part.top_acts for part in parts], dim=1)
    kept, order = acts.topk(min(k, acts.shape[1]), dim=1, sorted=False)
    return TopActs(kept, torch.cat([p.top_indices for p in parts], dim=1).gather(1, order))


def _widened(part: TopActs, width: int) -> TopActs:
    """The same latents in rows of `width`."""
    missing = width - part.top_acts.shape[1]
    if not missing:
        return part
    acts = torch.nn.functional.pad(part.top_acts, (0, missing))
    return TopActs(acts, torch.nn.functional.pad(part.top_indices, (0, missing)))


def _slice_size(coder: SparseCoder) -> int:
    """Latents at once; groups are not torn apart."""
    groups = coder.k if coder.info.activation == "groupmax" else coder.info.groups
    if groups == 1:
        return _SLICE_LATENTS
    width = coder.info.num_latents // groups
    return max(1, _SLICE_LATENTS // width) * width


def _no_indices(x: Tensor, n: int, k: int) -> Tensor:
    return torch.zeros((n, k), dtype=torch.int64, device=x.device)
