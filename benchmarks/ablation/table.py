"""Results of the ablation as a page: every cell against `best`, paired by target."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.ablation.cells import BEST, CELLS
from selection.evaluation.metrics import bootstrap_mean, nested_mean

RESULTS = Path(__file__).parent / "results.json"
EXEMPLARS = ("number of exemplars", "noisy exemplars")
INTRO = """# What `best` is made of: an ablation

One factor at a time around the preset `best`, everything else equal: mean nDCG@1000 over
{n_targets} target tasks of a labelled pool ({n_rows:,} rows, setting `{setting}`), on the demo
model. *Change* is the cell minus `best`, paired by target, with a 95 % bootstrap interval over
targets ({resamples:,} resamples); *ahead* is the share of targets where the cell is ahead of
`best`. SAEs other than the shipped one are trained with its recipe but for what the cell names.
Cells of drawn exemplars are means of three draws. Representations are compared without joined
words, at the mean over exemplars. Responses alone are not counted in any cell: in the instance
setting some exemplars have none.

{tried} settings of this page were tried on these targets (cells of other exemplars are none). The
best of them has {plain:.3f}; where half of the targets choose and the other half measures,
{nested:.3f}: choosing flatters by {optimism:.3f}. `best`, which is not that one, has {best:.3f}.

    python -m benchmarks.ablation --pool POOL --targets TARGETS --subpool IDS --workspace DIR

| Factor | Cell | nDCG@1000 | T1 | T2 | Change | Ahead |
|---|---|---:|---:|---:|---|---:|
"""


def page(results: Mapping[str, Mapping[str, float]], kinds: Sequence[str], facts: dict) -> str:  # type: ignore[type-arg]
    """Markdown of all cells that are measured.

    results: cell name -> target -> nDCG. kinds: of the targets, in the order of `best`'s results.
    """
    best = np.array(list(results[BEST.name].values()))
    names, starts = list(results[BEST.name]), np.array([kind[:2] for kind in kinds])
    lines = []
    for cell in CELLS:
        if cell.name not in results:
            continue
        values = np.array([results[cell.name][name] for name in names])
        means = [values.mean(), *(values[starts == kind].mean() for kind in ("T1", "T2"))]
        change, ahead = "", ""
        if cell is not BEST:
            gap = bootstrap_mean(values - best)
            change = f"{gap.mean:+.3f} [{gap.lo:+.3f}, {gap.hi:+.3f}]"
            ahead = f"{(values > best).mean():.0%}"
        cells = " | ".join(f"{mean:.3f}" for mean in means)
        lines.append(f"| {cell.factor} | {cell.level} | {cells} | {change} | {ahead} |\n")
    return INTRO.format(**facts, **optimism(results)) + "".join(lines)


def optimism(results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Number of settings tried, their best mean, the nested estimate, what lies between, `best`.

    Changed exemplars are no settings.
    """
    names = list(results[BEST.name])
    tried = [name for name in results if not name.startswith(EXEMPLARS)]
    values = np.array([[results[name][target] for target in names] for name in tried])
    plain, nested = float(values.mean(axis=1).max()), nested_mean(values)
    best = float(np.mean(list(results[BEST.name].values())))
    facts = {"tried": len(tried), "plain": plain, "nested": nested, "best": best}
    return {**facts, "optimism": plain - nested}
