"""Rendered samples to stored vectors: activations, latents, aggregate, fixed point.

`represent` is the work of one unit. Same samples in the same order, same settings, same
environment: same bytes.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from selection.activations import ActivationBatch, ActivationModel, iter_activations
from selection.aggregate import (
    MASS_WARNING,
    FloatRows,
    TokenAggregate,
    aggregate_tokens,
    calibrate_unit,
    quantize,
)
from selection.aggregate import keep_top as keep_largest
from selection.errors import InputError
from selection.ids import content_id
from selection.records import Rendered, SparseRows
from selection.sae.encode import encode
from selection.sae.formats import SparseCoder
from selection.sparse import entries_of, indptr_of

log = logging.getLogger(__name__)

VERSION = 1
"""Of everything between tokens and stored values; raise it when any value would change."""


@dataclass(frozen=True, slots=True)
class UnitReport:
    """What went into one unit, in sums, so that reports of units can be added up.

    n_samples, n_tokens:   of the unit; tokens are counted ones.
    n_values, n_empty:     stored values, and samples without any.
    n_zeroed, n_clipped:   values that fixed point could not hold (see QuantizeReport).
    mass:                  L1 mass of the aggregated values before anything was left out.
    mass_cut:              part of it that `keep_top` left out.
    mass_changed:          part of it that zeroing and clipping took away.
    plan:                  "full", or "reduced" when a batch was halved for lack of memory; a
                           reduced unit need not be the same bytes in another run.
    """

    n_samples: int
    n_tokens: int
    n_values: int
    n_empty: int
    n_zeroed: int
    n_clipped: int
    mass: float
    mass_cut: float
    mass_changed: float
    plan: str

    def as_record(self) -> dict[str, object]:
        """For a shard's manifest."""
        return asdict(self)


def represent(
    samples: Sequence[Rendered],
    model: ActivationModel,
    coder: SparseCoder,
    *,
    token_aggregate: TokenAggregate,
    unit: float,
    keep_top: int | None,
    tokens_per_batch: int,
) -> tuple[SparseRows, UnitReport]:
    """Vectors of the samples, one row each in their order; a row may be empty.

    coder:    best on the model's device already, else it is copied there.
    unit:     value of one fixed-point step, from `calibrate`.
    keep_top: number of largest latents to keep per sample, None for all.
    Raises InputError when activations are not finite.
    """
    model.plan_reduced = False
    rows, n_tokens = _aggregate(samples, model, coder, token_aggregate, tokens_per_batch)
    kept, mass_cut = (rows, 0.0) if keep_top is None else keep_largest(rows, keep_top)
    vectors, found = quantize(kept, unit)
    if found.mass_changed_share > MASS_WARNING:
        log.warning(
            "rounding changed %.2f %% of the mass of %d samples: %d values became 0, %d clipped;"
            " the unit does not suit this pool",
            100 * found.mass_changed_share,
            len(samples),
            found.n_zeroed,
            found.n_clipped,
        )
    return vectors, UnitReport(
        n_samples=len(samples),
        n_tokens=n_tokens,
        n_values=len(vectors.values),
        n_empty=int((np.diff(vectors.indptr) == 0).sum()),
        n_zeroed=found.n_zeroed,
        n_clipped=found.n_clipped,
        mass=found.mass + mass_cut,
        mass_cut=mass_cut,
        mass_changed=found.mass_changed,
        plan="reduced" if model.plan_reduced else "full",
    )


def calibrate(
    samples: Sequence[Rendered],
    model: ActivationModel,
    coder: SparseCoder,
    *,
    token_aggregate: TokenAggregate,
    tokens_per_batch: int,
) -> float:
    """The fixed-point unit for a model, hookpoint, SAE and aggregate, from calibration samples.

    Raises InputError when no latent fires: the SAE then does not fit the model.
    """
    rows, n_tokens = _aggregate(samples, model, coder, token_aggregate, tokens_per_batch)
    if not len(rows.values):
        raise InputError(
            f"no latent fires on {n_tokens} tokens of the calibration texts",
            field="sae",
            value=coder.info.path or None,
            remedy="Use an SAE that was trained on this model at this hookpoint.",
        )
    return calibrate_unit(rows)


def representation_id(
    *,
    model_sha256: str,
    hookpoint: str,
    sae_id: str,
    token_aggregate: str,
    keep_top: int | None,
    unit: float,
    dtype: str,
) -> str:
    """16 hex digits that name everything that decides a vector besides the rendered tokens."""
    return content_id(
        {
            "model": model_sha256,
            "hookpoint": hookpoint,
            "sae": sae_id,
            "token_aggregate": token_aggregate,
            "keep_top": keep_top,
            "unit": unit,
            "dtype": dtype,
            "version": VERSION,
        }
    )


def _aggregate(
    samples: Sequence[Rendered],
    model: ActivationModel,
    coder: SparseCoder,
    how: TokenAggregate,
    tokens_per_batch: int,
) -> tuple[FloatRows, int]:
    """Float vectors in the order of the samples, and the number of counted tokens."""
    coder = coder.to(model.device)
    n_tokens, places, parts = 0, [], []
    for batch in iter_activations(model, samples, tokens_per_batch):
        parts.append(_aggregate_batch(batch, coder, how))
        places.append(batch.rows)
        n_tokens += len(batch.token_ids)
    return _in_order(parts, places, len(samples), len(coder.encoder_bias)), n_tokens


def _aggregate_batch(batch: ActivationBatch, coder: SparseCoder, how: TokenAggregate) -> FloatRows:
    found = encode(coder, batch.hidden)
    if not bool(torch.isfinite(found.top_acts).all()):
        raise InputError(
            "the model's activations are not finite",
            field="model.dtype",
            remedy="Use bfloat16 or float32; float16 overflows in many models.",
        )
    return aggregate_tokens(
        found.top_acts.cpu().numpy(),
        found.top_indices.to(torch.int32).cpu().numpy(),
        batch.sample_of_token,
        len(batch.rows),
        len(coder.encoder_bias),
        how,
    )


def _in_order(
    parts: Sequence[FloatRows],
    places: Sequence[NDArray[np.int64]],
    n_samples: int,
    n_latents: int,
) -> FloatRows:
    """Rows of all batches, moved to the places of their samples; rows without a batch are empty."""
    lengths = np.zeros(n_samples, np.int64)
    starts = np.zeros(n_samples, np.int64)
    first = 0
    for part, rows in zip(parts, places, strict=True):
        lengths[rows] = np.diff(part.indptr)
        starts[rows] = first + part.indptr[:-1]
        first += len(part.values)
    indptr = indptr_of(lengths)
    entries = entries_of(starts, indptr)
    latents = np.concatenate([np.zeros(0, np.int32), *(part.latents for part in parts)])
    values = np.concatenate([np.zeros(0, np.float32), *(part.values for part in parts)])
    return FloatRows(indptr, latents[entries], values[entries], n_latents)
