"""One forward pass, many readings: several blocks, sparse and dense, of the same tokens.

A rival that reads the same model must not cost another pass. The model is run once per batch;
every reading takes what it needs from the blocks' outputs or from the gate of one block's MLP.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from selection.activations import (
    ActivationBatch,
    ActivationModel,
    batch_plan,
    needed_lengths,
)
from selection.aggregate import FloatRows
from selection.errors import InputError
from selection.model_loading import find_blocks
from selection.records import Rendered
from selection.sparse import indptr_of


@dataclass(frozen=True, slots=True)
class TappedBatch:
    """Counted tokens of some samples, read at several places.

    blocks: block number -> activations of its output, as an ActivationBatch.
    gate:   (n, d_mlp) float32 inputs of the gate's nonlinearity at the gate block, or None.
    """

    blocks: dict[int, ActivationBatch]
    gate: torch.Tensor | None


def iter_tapped(
    model: ActivationModel,
    samples: Sequence[Rendered],
    blocks: Sequence[int],
    gate_block: int | None,
    tokens_per_batch: int,
) -> Iterator[TappedBatch]:
    """Run the samples once and read every asked block's output; samples without tokens are in none.

    model: loaded at least up to the last block that is read.
    Raises InputError when the gate is asked for and the model's MLP has none.
    """
    lengths = needed_lengths(samples, model.is_causal)
    stack = find_blocks(model._module, model.hookpoint.block + 1)
    kept: dict[object, torch.Tensor] = {}
    handles = [stack[block].register_forward_hook(_keeper(kept, block)) for block in blocks]
    if gate_block is not None:
        handles.append(gate_of(stack[gate_block]).register_forward_hook(_keeper(kept, "gate")))
    try:
        for rows in batch_plan(lengths, tokens_per_batch):
            tokens = [samples[row].tokens[: lengths[row]] for row in rows]
            model.hidden(tokens)
            yield _read(kept, samples, rows, lengths[rows])
            kept.clear()
    finally:
        for handle in handles:
            handle.remove()


def gate_of(block: torch.nn.Module) -> torch.nn.Module:
    """The projection whose SiLU gates the MLP. Raises InputError for an MLP without one."""
    gate: Any = getattr(getattr(block, "mlp", None), "gate_proj", None)
    if gate is None:
        raise InputError(
            "the model's MLP has no gate, so there are no gate neurons to compare with",
            field="methods",
            value="gate",
            remedy="Leave the method `gate` out for this model.",
        )
    return gate


def _keeper(kept: dict[object, torch.Tensor], name: object) -> Any:  # noqa: ANN401 - torch's hook
    def keep(module: torch.nn.Module, inputs: object, output: Any) -> None:  # noqa: ANN401
        kept[name] = output if isinstance(output, torch.Tensor) else output[0]

    return keep


def _read(
    kept: dict[object, torch.Tensor],
    samples: Sequence[Rendered],
    rows: NDArray[np.int64],
    lengths: NDArray[np.int64],
) -> TappedBatch:
    """The counted tokens of everything that was kept."""
    width = int(lengths.max())
    flat = np.concatenate(
        [
            i * width + np.flatnonzero(samples[row].counted[:n])
            for i, (row, n) in enumerate(zip(rows, lengths, strict=True))
        ]
    )
    ids = np.concatenate([samples[row].tokens[samples[row].counted] for row in rows])
    picked = torch.from_numpy(flat)

    def counted(name: object) -> torch.Tensor:
        hidden = kept[name]
        where = picked.to(hidden.device)
        return hidden.reshape(-1, hidden.shape[-1]).index_select(0, where).float()

    blocks = {
        name: ActivationBatch(rows, counted(name), flat // width, ids.astype(np.int64))
        for name in kept
        if isinstance(name, int)
    }
    return TappedBatch(blocks, counted("gate") if "gate" in kept else None)


def token_means(
    values: torch.Tensor, sample_of_token: NDArray[np.int64], n_samples: int, *, by_position: bool
) -> NDArray[np.float32]:
    """Mean over each sample's tokens, (n_samples, d) float32.

    by_position: token t of a sample, counted from 1, weighs t (RDS+); else all weigh the same.
    """
    n_tokens = np.bincount(sample_of_token, minlength=n_samples)
    first = indptr_of(n_tokens)[:-1]
    weights: NDArray[np.floating] = np.ones(len(sample_of_token))
    if by_position:
        weights = np.arange(len(sample_of_token)) - first[sample_of_token] + 1.0
    totals = np.bincount(sample_of_token, weights, n_samples)
    shares = torch.from_numpy((weights / totals[sample_of_token]).astype(np.float32))
    where = torch.from_numpy(sample_of_token).to(values.device)
    means = torch.zeros((n_samples, values.shape[1]), device=values.device)
    means.index_add_(0, where, values * shares.to(values.device)[:, None])
    return means.cpu().numpy()


def split_by_sign(hidden: torch.Tensor) -> torch.Tensor:
    """ReLU(h) and ReLU(-h) side by side, (n, 2 d): a non-negative reading of dense activations."""
    return torch.cat([hidden.clamp(min=0), (-hidden).clamp(min=0)], dim=1)


def top_gates(gate: torch.Tensor, k: int) -> torch.Tensor:
    """TopK(SiLU(gate)), negative values dropped, (n, d_mlp) dense with at most k per token."""
    acts = torch.nn.functional.silu(gate)
    top = acts.topk(min(k, acts.shape[1]), dim=1)
    return torch.zeros_like(acts).scatter_(1, top.indices, top.values.clamp(min=0))


def sparse_of(dense: NDArray[np.floating]) -> FloatRows:
    """Dense non-negative vectors as compressed rows, zeros left out."""
    row, latent = np.nonzero(dense)
    lengths = np.bincount(row, minlength=len(dense))
    values = dense[row, latent].astype(np.float32)
    return FloatRows(indptr_of(lengths), latent.astype(np.int32), values, dense.shape[1])
