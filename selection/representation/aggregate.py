"""Token latents to one vector per sample, and from floats to the fixed point that is stored.

Every number of a sample is computed from that sample's own tokens, in token order and in float64,
so it does not depend on what else is in the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from selection.core.sparse import entries_of, indptr_of
from selection.records import SparseRows
from selection.representation.aggregate_kernels import Aggregates

TokenAggregate = Literal["mean", "sum", "max"]

VALUE_MAX = 0xFFFF
MASS_WARNING = 0.005  # share of L1 mass that rounding to zero and clipping may change unmentioned
_STEPS_PER_MEDIAN = 256


@dataclass(frozen=True, slots=True)
class FloatRows:
    """n sparse non-negative vectors in compressed rows, before quantization.

    indptr: (n + 1,) int64; latents: (nnz,) int32, strictly increasing within a row; values: (nnz,)
    float32, above zero; n_latents: number of columns.
    """

    indptr: NDArray[np.int64]
    latents: NDArray[np.int32]
    values: NDArray[np.float32]
    n_latents: int

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.indptr) - 1


@dataclass(frozen=True, slots=True)
class QuantizeReport:
    """What fixed point cost, in values and in L1 mass (sums of the float values).

    n_zeroed, n_clipped: values below half a unit, and above 65,535 units.
    mass:                of all values before; mass_changed: what zeroing and clipping took away.
    """

    n_zeroed: int
    n_clipped: int
    mass: float
    mass_changed: float

    @property
    def mass_changed_share(self) -> float:
        """0 for no mass at all."""
        return self.mass_changed / self.mass if self.mass else 0.0


def float_rows(
    aggregates: Aggregates,
    n_tokens: NDArray[np.int64],
    n_latents: int,
    token_aggregate: TokenAggregate,
) -> FloatRows:
    """One aggregate as float32; n_tokens: (n,) of each sample. What rounds to zero is left out."""
    exact = aggregates.maxima if token_aggregate == "max" else aggregates.sums
    if token_aggregate == "mean":
        exact = exact / np.repeat(n_tokens, np.diff(aggregates.indptr))
    values = exact.astype(np.float32)
    if values.all():
        return FloatRows(aggregates.indptr, aggregates.latents, values, n_latents)
    kept = values != 0
    ends = np.concatenate([[0], np.cumsum(kept)])[aggregates.indptr].astype(np.int64)
    return FloatRows(ends, aggregates.latents[kept], values[kept], n_latents)


def in_sample_order(
    parts: Sequence[FloatRows],
    rows_of_part: Sequence[NDArray[np.int64]],
    n_samples: int,
    n_latents: int,
) -> FloatRows:
    """Rows of all batches in the order of the samples; samples without a batch have empty rows."""
    lengths = np.zeros(n_samples, np.int64)
    starts = np.zeros(n_samples, np.int64)
    first = 0
    for part, rows in zip(parts, rows_of_part, strict=True):
        lengths[rows] = np.diff(part.indptr)
        starts[rows] = first + part.indptr[:-1]
        first += len(part.values)
    indptr = indptr_of(lengths)
    entries = entries_of(starts, indptr)
    latents = np.concatenate([np.zeros(0, np.int32), *(part.latents for part in parts)])
    values = np.concatenate([np.zeros(0, np.float32), *(part.values for part in parts)])
    return FloatRows(indptr, latents[entries], values[entries], n_latents)


def keep_top(rows: FloatRows, k: int) -> tuple[FloatRows, float]:
    """The k largest values of each row, ties to the smaller latent; and the L1 mass that is lost.

    Raises ValueError when k is not positive.
    """
    if k < 1:
        raise ValueError(f"k is {k}, expected 1 or more")
    lengths = np.diff(rows.indptr)
    if lengths.max(initial=0) <= k:
        return rows, 0.0
    row = np.repeat(np.arange(len(rows)), lengths)
    order = np.lexsort((rows.latents, -rows.values, row))  # rows stay where they are
    rank = np.arange(len(order)) - rows.indptr[row]
    kept = np.sort(order[rank < k])
    lost = float(rows.values.sum(dtype=np.float64) - rows.values[kept].sum(dtype=np.float64))
    indptr = indptr_of(np.minimum(lengths, k))
    return FloatRows(indptr, rows.latents[kept], rows.values[kept], rows.n_latents), lost


def quantize(rows: FloatRows, unit: float) -> tuple[SparseRows, QuantizeReport]:
    """Values in multiples of `unit`, rounded half to even, at most 65,535; zeros are left out.

    Raises ValueError for a unit that is not positive and finite, or values that are not finite or
    are negative.
    """
    if not (np.isfinite(unit) and unit > 0):
        raise ValueError(f"the unit is {unit}, expected a positive number")
    values = rows.values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("values must be finite")
    if values.min(initial=0) < 0:
        raise ValueError(f"values must not be negative: {values.min()}")
    steps = np.rint(values / unit)  # numpy rounds half to even
    clipped, zeroed = steps > VALUE_MAX, steps == 0
    report = QuantizeReport(
        n_zeroed=int(zeroed.sum()),
        n_clipped=int(clipped.sum()),
        mass=float(values.sum()),
        mass_changed=float(values[zeroed].sum() + (values[clipped] - VALUE_MAX * unit).sum()),
    )
    kept = ~zeroed
    n_kept = np.concatenate([[0], np.cumsum(kept)])
    return (
        SparseRows(
            n_kept[rows.indptr].astype(np.int64),
            rows.latents[kept],
            np.minimum(steps[kept], VALUE_MAX).astype(np.uint16),
            rows.n_latents,
        ),
        report,
    )


def calibrate_unit(rows: FloatRows) -> float:
    """The fixed-point unit: median positive value / 256, to four significant digits.

    The rounding keeps the last bits of another machine's floats out of the unit, and so out of
    the representation's id. Raises ValueError when there is no positive value.
    """
    if not len(rows.values):
        raise ValueError("no latent fires on the calibration texts")
    return float(f"{np.median(rows.values.astype(np.float64)) / _STEPS_PER_MEDIAN:.3e}")
