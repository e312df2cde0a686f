"""The curve of an SAE's training, as geometry for the report; see `charts`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from storage.charts import Tick, nice_ticks, short_count


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
