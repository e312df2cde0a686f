"""Rendered samples to stored vectors: activations, latents, aggregate, fixed point.

`represent_heads` is the work of one unit. Same samples in the same order, same settings, same
environment: same bytes. Several vectors of a sample, at several hookpoints or by several
aggregates, are made of one forward pass, and one encoding per SAE.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selection.activations.batching import ActivationBatch
from selection.activations.model import ActivationModel
from selection.core.errors import InputError
from selection.core.hashing import content_id
from selection.records import Rendered, SparseRows
from selection.representation.aggregate import (
    MASS_WARNING,
    FloatRows,
    calibrate_unit,
    quantize,
)
from selection.representation.aggregate import keep_top as keep_largest
from selection.representation.heads import Head, aggregate_heads

log = logging.getLogger(__name__)

VERSION = 2
"""Of everything between tokens and stored values; raise it when any value would change."""

CALIBRATION_TEXTS = Path(__file__).with_name("calibration_texts.jsonl")
CALIBRATION_MAX_LENGTH = 512
_EVER_PRESENT = 0.9  # of a unit's samples; reported, and excluded only by calibration or weights


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the calibration texts say about a head; frozen with the representation.

    unit:         value of one fixed-point step.
    median_norm:  median norm of the content tokens' activations, to four significant digits.
    ever_present: latents in more than a given share of the texts.
    """

    unit: float
    median_norm: float
    ever_present: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class UnitReport:
    """What went into one unit, in sums, so that reports of units can be added up.

    n_samples, n_tokens:   of the unit; tokens are content tokens.
    n_values, n_empty:     stored values, and samples without any.
    n_zeroed, n_clipped:   values that fixed point could not hold (see QuantizeReport).
    mass:                  L1 mass of the aggregated values before anything was left out.
    mass_cut:              part of it that `keep_top` left out.
    mass_changed:          part of it that zeroing and clipping took away.
    plan:                  "full", or "reduced" when a batch was halved for lack of memory; a
                           reduced unit need not be the same bytes in another run.
    n_uncounted:           tokens of templates, BOS and the like, which are run at most.
    n_outliers:            content tokens that were left out for the norm of their activations.
    n_ever_present:        latents in more than 90 % of the unit's samples, which begin alike where
                           the pool does: what one task is about is among them.
    mass_ever_present:     their part of the mass.
    mass_excluded:         L1 mass of the latents that the head leaves out.
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
    n_uncounted: int = 0
    n_outliers: int = 0
    n_ever_present: int = 0
    mass_ever_present: float = 0.0
    mass_excluded: float = 0.0

    def as_record(self) -> dict[str, object]:
        """For a shard's manifest."""
        return asdict(self)


def represent_heads(
    samples: Sequence[Rendered],
    model: ActivationModel,
    heads: Sequence[Head],
    tokens_per_batch: int | None = None,
    on_batch: Callable[[ActivationBatch], None] | None = None,
    samples_by_head: Sequence[Sequence[Rendered]] = (),
) -> list[tuple[SparseRows, UnitReport]]:
    """Vectors of the samples for each head, one row each in their order; a row may be empty.

    One forward pass serves all heads.
    on_batch:        is given every batch, with the content tokens of `samples`; a batch that did
                     not fit into memory after that is given again, in halves.
    samples_by_head: for each head the samples with its content mask, where that is not the one of
                     `samples`; the tokens are the same.
    Raises InputError when activations are not finite.
    """
    model.plan_reduced = False
    samples_by_head = samples_by_head or [samples] * len(heads)
    by_head = aggregate_heads(samples, model, heads, tokens_per_batch, on_batch, samples_by_head)
    plan = "reduced" if model.plan_reduced else "full"
    return [
        _stored(variant, head, rows, n_outliers, plan)
        for variant, head, (rows, n_outliers, _) in zip(
            samples_by_head, heads, by_head, strict=True
        )
    ]


def calibration_conversations() -> list[tuple[Any, None]]:
    """The shipped texts as messages, without tools; no SAE was trained on them here."""
    lines = CALIBRATION_TEXTS.read_text(encoding="utf-8").splitlines()
    return [(json.loads(line)["messages"], None) for line in lines]


def calibrate_head(
    samples: Sequence[Rendered],
    model: ActivationModel,
    head: Head,
    *,
    tokens_per_batch: int | None = None,
    max_norm_ratio: float | None = None,
    ever_present_share: float | None = None,
) -> Calibration:
    """What calibration samples say about a head, whose unit and limits are not used.

    max_norm_ratio:     tokens with more than this many times the median norm do not enter the unit.
    ever_present_share: latents that are on in more than this share of the samples are named.
    Raises InputError when no latent fires: the SAE then does not fit the model.
    """
    plain = replace(head, max_norm=None, excluded=None)
    [(rows, _, norms)] = aggregate_heads(samples, model, [plain], tokens_per_batch)
    if not len(rows.values):
        raise InputError(
            f"no latent fires on {len(norms)} tokens of the calibration texts",
            field="sae",
            value=head.coder.info.path or None,
            remedy="Use an SAE that was trained on this model at this hookpoint.",
        )
    median = float(f"{np.median(norms):.3e}")
    if max_norm_ratio is not None and norms.max() > max_norm_ratio * median:
        limited = replace(plain, max_norm=max_norm_ratio * median)
        [(rows, _, _)] = aggregate_heads(samples, model, [limited], tokens_per_batch)
    share = 1.0 if ever_present_share is None else ever_present_share
    constant = _ever_present(rows, share)
    if len(constant):
        rows, _ = _without(rows, constant)
    return Calibration(calibrate_unit(rows), median, tuple(constant.tolist()))


def representation_id(
    *,
    model_sha256: str,
    hookpoint: str,
    sae_id: str,
    token_aggregate: str,
    keep_top: int | None,
    unit: float,
    dtype: str,
    limits: Mapping[str, object] | None = None,
) -> str:
    """16 hex digits that name everything that decides a vector besides the rendered tokens.

    limits: on tokens and latents, by name, as far as there are any.
    """
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
            **(limits or {}),
        }
    )


def _stored(
    samples: Sequence[Rendered], head: Head, rows: FloatRows, n_outliers: int, plan: str
) -> tuple[SparseRows, UnitReport]:
    """Fixed point, and what it and everything else that was left out cost."""
    ever_present = _ever_present(rows, _EVER_PRESENT)
    is_ever_present = np.isin(rows.latents, ever_present)
    mass_ever_present = float(rows.values[is_ever_present].sum(dtype=np.float64))
    mass_excluded = 0.0
    if head.excluded is not None and len(head.excluded):
        rows, mass_excluded = _without(rows, head.excluded)
    kept, mass_cut = (rows, 0.0) if head.keep_top is None else keep_largest(rows, head.keep_top)
    vectors, rounding = quantize(kept, head.unit)
    if rounding.mass_changed_share > MASS_WARNING:
        log.warning(
            "rounding changed %.2f %% of the mass of %d samples: %d values became 0, %d clipped;"
            " the unit does not suit this pool",
            100 * rounding.mass_changed_share,
            len(samples),
            rounding.n_zeroed,
            rounding.n_clipped,
        )
    n_tokens = sum(int(sample.content_mask.sum()) for sample in samples)
    return vectors, UnitReport(
        n_samples=len(samples),
        n_tokens=n_tokens,
        n_uncounted=sum(len(sample.tokens) for sample in samples) - n_tokens,
        n_outliers=n_outliers,
        n_ever_present=len(ever_present),
        mass_ever_present=mass_ever_present,
        mass_excluded=mass_excluded,
        n_values=len(vectors.values),
        n_empty=int((np.diff(vectors.indptr) == 0).sum()),
        n_zeroed=rounding.n_zeroed,
        n_clipped=rounding.n_clipped,
        mass=rounding.mass + mass_cut + mass_excluded,
        mass_cut=mass_cut,
        mass_changed=rounding.mass_changed,
        plan=plan,
    )


def _ever_present(rows: FloatRows, share: float) -> NDArray[np.int32]:
    """Latents that are in more than this share of the rows, ascending."""
    frequency = np.bincount(rows.latents, minlength=rows.n_latents)
    return np.flatnonzero(frequency > share * len(rows)).astype(np.int32)


def _without(rows: FloatRows, excluded: NDArray[np.int32]) -> tuple[FloatRows, float]:
    """Rows without some latents, and the L1 mass that went with them."""
    dropped = np.isin(rows.latents, excluded)
    ends = np.concatenate([[0], np.cumsum(~dropped)])[rows.indptr].astype(np.int64)
    kept = FloatRows(ends, rows.latents[~dropped], rows.values[~dropped], rows.n_latents)
    return kept, float(rows.values[dropped].sum(dtype=np.float64))
