"""Geometry of the report's charts, in percent of the plot area; the templates draw it.

Percent instead of pixels: the page stretches plots to any screen while text keeps its size.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from storage.wording.checks import Depth

_MOST_SOURCES = 12


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis: position in percent from left or bottom, and its label."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class ScoreCurve:
    """Score over rank (logarithmic), with the part that was chosen.

    line, chosen, rest: SVG paths in a box of 100 x 100, y downwards.
    cut:                position of the cut in percent from left and from bottom.
    depth, depth_band:  what is drawn of the depth, and its interval from and to, in percent.
    overlap:            path of the share of the first k picks that BM25's first k hold, over k;
                        empty without BM25. overlap_last: that share of all picks.
    """

    line: str
    chosen: str
    rest: str
    cut_x: float
    cut_y: float
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    depth: Tick | None
    depth_band: tuple[float, float] | None
    overlap: str
    overlap_last: float


@dataclass(frozen=True, slots=True)
class LengthBin:
    """One bin of the length histogram; shares are of all eligible examples or of all picks."""

    label: str
    share_pool: float
    share_selected: float
    height_pool: float
    height_selected: float


@dataclass(frozen=True, slots=True)
class SourceBar:
    """One source before and after; widths are in percent of the largest share.

    factor: share among the picks over share in the pool; None where the pool has none.
    """

    source: str
    n_pool: int
    n_selected: int
    share_pool: float
    share_selected: float
    width_pool: float
    width_selected: float
    factor: float | None


def score_curve(
    ranks: Sequence[float],
    scores: Sequence[float],
    n_selected: int,
    cut_score: float | None,
    depth: Depth | None = None,
    shared: Sequence[int] | None = None,
) -> ScoreCurve | None:
    """Lay out the curve; None with fewer than two points or nothing chosen.

    shared: ascending ranks by which BM25 has picked a pick too; None without BM25.
    """
    points = [(r, s) for r, s in zip(ranks, scores, strict=True) if r >= 1 and math.isfinite(s)]
    if len(points) < 2 or not n_selected or cut_score is None:
        return None
    points = sorted({*points, (float(n_selected), cut_score)}, key=lambda p: (p[0], -p[1]))
    last = math.log10(points[-1][0]) or 1.0
    values = [score for _, score in points]
    y_values = nice_ticks(min(0.0, *values), max(values))
    low, high = y_values[0], y_values[-1]

    def position(rank: float, score: float) -> tuple[float, float]:
        return 100 * math.log10(rank) / last, 100 * (score - low) / (high - low)

    def across(rank: float) -> float:
        return min(100.0, 100 * math.log10(max(rank, 1)) / last)

    placed = [position(*point) for point in points]
    cut_x, cut_y = position(n_selected, cut_score)
    band = None
    if depth is not None and depth.low is not None and depth.high is not None:
        band = depth.low, depth.high
    return ScoreCurve(
        line=_path(placed),
        chosen=_area([p for p in placed if p[0] <= cut_x]),
        rest=_area([p for p in placed if p[0] >= cut_x]),
        cut_x=cut_x,
        cut_y=cut_y,
        x_ticks=_rank_ticks(last),
        y_ticks=[Tick(100 * (v - low) / (high - low), f"{v:g}") for v in y_values],
        depth=None if depth is None else Tick(across(depth.rank), _depth_label(depth)),
        depth_band=None if band is None else (across(band[0]), across(band[1])),
        overlap="" if shared is None else _overlap(shared, n_selected, across),
        overlap_last=len(shared or ()) / n_selected,
    )


def _depth_label(depth: Depth) -> str:
    return f"depth {depth.rank:,}{' or more' if depth.is_deepest else ''}"


def _overlap(shared: Sequence[int], n_selected: int, across: Callable[[float], float]) -> str:
    """Area under share(k) = shared ranks up to k / k, at about a hundred values of k."""
    steps = {round(n_selected ** (i / 100)) for i in range(101)}
    return _area([(across(k), 100 * bisect_right(shared, k) / k) for k in sorted(steps)])


def length_bins(
    edges: Sequence[int], pool: Sequence[int], selected: Sequence[int]
) -> list[LengthBin]:
    """Lay out the histogram; empty when the pool is."""
    n_pool, n_selected = sum(pool), sum(selected)
    if not n_pool or not n_selected:
        return []
    shares = [(a / n_pool, b / n_selected) for a, b in zip(pool, selected, strict=True)]
    top = max(max(pair) for pair in shares)
    return [
        LengthBin(short_count(edges[i]), a, b, 100 * a / top, 100 * b / top)
        for i, (a, b) in enumerate(shares)
    ]


def source_bars(rows: Sequence[tuple[str, int, int]]) -> list[SourceBar]:
    """Lay out (source, n_pool, n_selected), most picked first; small sources are joined."""
    ordered = sorted(rows, key=lambda row: (-row[2], -row[1], row[0]))
    if len(ordered) > _MOST_SOURCES:
        rest = ordered[_MOST_SOURCES - 1 :]
        joined = (f"{len(rest)} others", sum(r[1] for r in rest), sum(r[2] for r in rest))
        ordered = [*ordered[: _MOST_SOURCES - 1], joined]
    n_pool = sum(row[1] for row in ordered) or 1
    n_selected = sum(row[2] for row in ordered) or 1
    shares = [(row[1] / n_pool, row[2] / n_selected) for row in ordered]
    top = max((max(pair) for pair in shares), default=0.0) or 1.0
    return [
        SourceBar(name, pool, chosen, a, b, 100 * a / top, 100 * b / top, (b / a) if pool else None)
        for (name, pool, chosen), (a, b) in zip(ordered, shares, strict=True)
    ]


def nice_ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers that cover low to high, about `about` steps apart."""
    span = (high - low) or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / about))
    step = next(k * power for k in (1, 2, 2.5, 5, 10) if k * power * about >= span * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * k, 12) for k in range(first, max(last, first + 1) + 1)]


def short_count(n: float) -> str:
    """A count for an axis: 512, 1k, 16k, 2M. Powers of two lose their remainder: 1024 is 1k."""
    for size, letter in ((1_000_000, "M"), (1000, "k")):
        if n >= size:
            return f"{n / size:.1f}".removesuffix(".0").split(".")[0] + letter
    return f"{n:g}"


def _rank_ticks(last: float) -> list[Tick]:
    """Powers of ten up to 10**last; on a short axis their double and fivefold too."""
    factors = (1, 2, 5) if last < 2.5 else (1,)
    ranks = [factor * 10**k for k in range(int(last) + 1) for factor in factors]
    return [
        Tick(100 * math.log10(rank) / last, short_count(rank))
        for rank in ranks
        if math.log10(rank) <= last
    ]


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + " L".join(f"{x:.2f} {100 - y:.2f}" for x, y in points)


def _area(points: Sequence[tuple[float, float]]) -> str:
    """A closed path down to the axis."""
    return f"M{points[0][0]:.2f} 100 L{_path(points)[1:]} L{points[-1][0]:.2f} 100 Z"


@dataclass(frozen=True, slots=True)
class TrainingCurve:
    """FVU over steps.

    line:        SVG path in a box of 100 x 100, y downwards; FVU above `top` is cut.
    first, last: FVU of the first and of the last point; dead: share of dead latents at the end;
    l0:          active latents per token at the end; all for people.
    """

    line: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    first: str
    last: str
    dead: str
    l0: str
    n_steps: int


def training_curve(counts: object) -> TrainingCurve | None:
    """From a run's counts, `sae_training.curve` of [step, fvu, l0, dead share, k]; else None."""
    training = counts.get("sae_training") if isinstance(counts, Mapping) else None
    points = training.get("curve") if isinstance(training, Mapping) else None
    if not points or len(points) < 2:
        return None
    steps, fvu = [float(p[0]) for p in points], [float(p[1]) for p in points]
    top = min(1.0, max(fvu)) or 1.0
    places = [
        (100 * step / steps[-1], 100 * (1 - min(value, top) / top))
        for step, value in zip(steps, fvu, strict=True)
    ]
    line = "M" + " L".join(f"{x:.2f},{y:.2f}" for x, y in places)
    _, _, l0, dead, _ = points[-1]
    return TrainingCurve(
        line,
        [Tick(100 * at / steps[-1], short_count(at)) for at in nice_ticks(0.0, steps[-1])],
        [Tick(100 * at / top, f"{at:g}") for at in nice_ticks(0.0, top)],
        first=f"{fvu[0]:.2f}",
        last=f"{fvu[-1]:.3f}",
        dead=f"{dead:.1%}",
        l0=f"{l0:.1f}",
        n_steps=int(steps[-1]),
    )
