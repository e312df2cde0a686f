"""The loop that most people write: batches of 8, padded, latents as one dense table."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from selection.activations.loading import find_blocks
from selection.core.sparse import indptr_of
from selection.records import Rendered, SparseRows
from selection.representation.aggregate import FloatRows, quantize
from selection.representation.heads import Head

BATCH = 8


class DenseLoop:
    """Vectors by a model of transformers and a dense TopK encode, as in SAELens' TopK class."""

    def __init__(self, module: torch.nn.Module, block: int, head: Head) -> None:
        """Watch the output of a block."""
        self._module, self._head = module.eval(), head
        self._output = torch.zeros(0)
        config: Any = module.config
        blocks = find_blocks(module, config.num_hidden_layers)
        self._handle = blocks[block].register_forward_hook(self._keep)

    def _keep(self, module: object, inputs: object, output: Any) -> None:
        self._output = output if isinstance(output, torch.Tensor) else output[0]

    def _encode(self, x: torch.Tensor) -> torch.Tensor:
        """(b, t, M): everything but the k largest of a token is zero, pads included."""
        coder = self._head.coder
        pre = (x - coder.decoder_bias) @ coder.encoder_weight.T + coder.encoder_bias
        top = torch.topk(pre, k=coder.k, dim=-1)
        dense = torch.zeros_like(pre)
        dense.scatter_(-1, top.indices, top.values.relu())
        return dense

    @torch.inference_mode()
    def vectors(self, samples: Sequence[Rendered], order: NDArray[np.int64]) -> SparseRows:
        """Mean latents of the counted tokens, as fixed point, in the order of the samples."""
        means_of = [np.zeros(0, np.float32)] * len(samples)
        for first in range(0, len(order), BATCH):
            rows = order[first : first + BATCH]
            longest = max(len(samples[row].tokens) for row in rows)
            ids = torch.zeros((len(rows), longest), dtype=torch.int64)
            real, counted = torch.zeros_like(ids), torch.zeros_like(ids)
            for position, row in enumerate(rows):
                n = len(samples[row].tokens)
                ids[position, :n] = torch.from_numpy(samples[row].tokens.astype(np.int64))
                real[position, :n] = 1
                counted[position, :n] = torch.from_numpy(samples[row].content_mask.astype(np.int64))
            self._module(input_ids=ids, attention_mask=real, use_cache=False)
            latents = self._encode(self._output.float()) * counted[:, :, None]
            means = latents.sum(1) / counted.sum(1, keepdim=True)
            for position, row in enumerate(rows):
                means_of[row] = means[position].numpy()
        self._handle.remove()
        dense = np.stack(means_of)
        row, latent = np.nonzero(dense)
        indptr = indptr_of(np.bincount(row, minlength=len(dense)))
        width = dense.shape[1]
        floats = FloatRows(indptr, latent.astype(np.int32), dense[row, latent], width)
        return quantize(floats, self._head.unit)[0]
