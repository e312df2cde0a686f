"""Dense readings of the activations that one pass makes: means of tokens, signs, gate neurons.

A baseline must not cost another pass over the same model: `represent_heads` shows its batches,
and the functions here make of them what baselines compare.

The last states are read as RDS and RDS+ are published: `hidden_states[-1]` of transformers, which
is after the final norm where a model has one, of all tokens of a sample, template included.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from selection.activations.batching import ActivationBatch
from selection.activations.model import ActivationModel
from selection.core.errors import InputError
from selection.core.sparse import indptr_of
from selection.models.hookpoints import Hookpoint
from selection.representation.aggregate import FloatRows


class OutputReader:
    """Reads the output of a part of a model while it runs; use it in a `with` block."""

    def __init__(self, part: torch.nn.Module) -> None:
        """Watch a module: a tensor, or the first of several."""
        self._part = part
        self._output: torch.Tensor | None = None

    def __enter__(self) -> "OutputReader":
        """Begin to watch."""
        self._handle = self._part.register_forward_hook(self._keep)
        return self

    def __exit__(self, *error: object) -> None:
        """Stop watching."""
        self._handle.remove()

    def _keep(self, module: torch.nn.Module, inputs: object, output: Any) -> None:
        self._output = output if isinstance(output, torch.Tensor) else output[0]

    def counted(self, batch: ActivationBatch) -> torch.Tensor:
        """Output at the tokens of the last batch, (n, d) float32."""
        if self._output is None:
            raise RuntimeError("the model has not run")
        index = torch.from_numpy(batch.row_positions[batch.index]).to(self._output.device)
        flat = self._output.reshape(-1, self._output.shape[-1])
        return flat.index_select(0, index).float()


class DenseTables:
    """Dense readings of n samples, gathered from the batches of a model; use it in a `with` block.

    by_name: (n, d) float32 each: `<reading>/mean` and `<reading>/position` of every reading; with
    `sae` also `split_relu`, and `gate` where gate neurons are read.
    """

    def __init__(
        self, n: int, model: ActivationModel, sae_block: int | None, gate_k: int | None
    ) -> None:
        """Start empty; the model must be read to its last block.

        sae_block: the block of the reading `sae`, beside `last`; None reads `last` alone.
        gate_k:    gate neurons kept per token at that block; None reads no gate.
        """
        self.by_name: dict[str, NDArray[np.float32]] = {}
        self._n, self._model, self._sae_block, self._gate_k = n, model, sae_block, gate_k
        self._final = OutputReader(model.module)
        self._gate = None
        if gate_k is not None and sae_block is not None:
            self._gate = OutputReader(gate_of(model.blocks[sae_block]))

    def __enter__(self) -> "DenseTables":
        """Begin to watch."""
        for reader in filter(None, (self._final, self._gate)):
            reader.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop watching."""
        for reader in filter(None, (self._final, self._gate)):
            reader.__exit__(*error)

    def add(self, batch: ActivationBatch, content: NDArray[np.bool_]) -> None:
        """Write what a batch of all tokens gives its samples; content: (n,) its content tokens."""
        self._write(batch, _by_token("last", self._final.counted(batch), batch))
        if self._sae_block is not None:
            self._write(batch, self._of_content(batch.only(content)))

    def _write(
        self, batch: ActivationBatch, means: Iterator[tuple[str, NDArray[np.float32]]]
    ) -> None:
        for name, values in means:
            table = self.by_name.setdefault(name, np.zeros((self._n, values.shape[1]), np.float32))
            table[batch.rows] = values

    def _of_content(self, batch: ActivationBatch) -> Iterator[tuple[str, NDArray[np.float32]]]:
        assert self._sae_block is not None
        hidden = batch.at(self._model.hookpoints.index(Hookpoint("resid", self._sae_block)))
        yield from _by_token("sae", hidden, batch)
        sizes = (batch.sample_of_token, len(batch.rows))
        yield "split_relu", token_means(split_by_sign(hidden), *sizes, by_position=False)
        if self._gate is not None and self._gate_k is not None:
            top = top_gates(self._gate.counted(batch), self._gate_k)
            yield "gate", token_means(top, *sizes, by_position=False)


def _by_token(
    name: str, hidden: torch.Tensor, batch: ActivationBatch
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    sizes = (batch.sample_of_token, len(batch.rows))
    yield f"{name}/mean", token_means(hidden, *sizes, by_position=False)
    yield f"{name}/position", token_means(hidden, *sizes, by_position=True)


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
    # A matrix product: adding row by row takes ten times as long.
    shares = np.zeros((n_samples, len(sample_of_token)), np.float32)
    shares[sample_of_token, np.arange(len(sample_of_token))] = weights / totals[sample_of_token]
    means = torch.from_numpy(shares).to(values.device) @ values
    return means.cpu().numpy()


def split_by_sign(hidden: torch.Tensor) -> torch.Tensor:
    """ReLU(h) and ReLU(-h) side by side, (n, 2 d): a non-negative reading of dense activations."""
    return torch.cat([hidden.clamp(min=0), (-hidden).clamp(min=0)], dim=1)


def top_gates(gate: torch.Tensor, k: int) -> torch.Tensor:
    """TopK(SiLU(gate)), negative values dropped, (n, d_mlp) dense with at most k per token."""
    acts = torch.nn.functional.silu(gate)
    top = acts.topk(min(k, acts.shape[1]), dim=1, sorted=False)
    return torch.zeros_like(acts).scatter_(1, top.indices, top.values.clamp(min=0))


def sparse_of(dense: NDArray[np.floating]) -> FloatRows:
    """Dense non-negative vectors as compressed rows, zeros left out."""
    row, latent = np.nonzero(dense)
    lengths = np.bincount(row, minlength=len(dense))
    values = dense[row, latent].astype(np.float32)
    return FloatRows(indptr_of(lengths), latent.astype(np.int32), values, dense.shape[1])
