"""Results of the label-free check, as rows of the tables held_out_check and held_out_exemplar."""

from flows.stages.decide.check import TargetCheck
from flows.stages.record.material import Material, Row
from selection.evaluation.held_out import (
    apart,
    chance_to_rank_so_high,
    median_interval,
    samples_alike,
)
from selection.evaluation.label_free import different
from selection.evaluation.random_draws import LEVEL

FEWEST_TO_DOMINATE = 3  # One of two exemplars is nearest to half of everything.


def label_free_rows(material: Material) -> dict[str, list[Row]]:
    """Catalog table -> rows."""
    rows: dict[str, list[Row]] = {"held_out_check": [], "held_out_exemplar": []}
    for check in material.checks:
        own = material.config.ranking.method
        for method in check.held_out or [own]:
            rows["held_out_check"].append(_of_method(check, method, is_own=method == own))
            rows["held_out_exemplar"] += _of_exemplars(
                material, check, method, is_own=method == own
            )
    return rows


def _of_method(check: TargetCheck, method: str, *, is_own: bool) -> Row:
    row = {
        **_key(check, method),
        "n_exemplars": len(different(check.exemplars.ids)),
        "n_rows": check.n_rows,
        "n_ranked": check.n_ranked,
    }
    held_out = check.held_out.get(method)
    if held_out is not None:
        percentile = median_interval(100 * (1 - held_out.shares_above))
        row |= {"n_folds": int(held_out.folds.max()) + 1, "percentile": percentile.median}
        row |= {"percentile_lo": percentile.lo, "percentile_hi": percentile.hi}
        row |= {"p_random": chance_to_rank_so_high(held_out.shares_above)}
    if held_out is not None and method != "random":
        alike = samples_alike(held_out.shares_above, check.n_rows, check.n_ranked)
        row |= {"n_close": alike.median, "n_close_lo": alike.lo, "n_close_hi": alike.hi}
    depth = check.depth if is_own else None
    if depth is not None:
        row |= {
            "effective": depth.effective,
            "n_random": depth.n_drawn,
            "n_examined": depth.n_examined,
        }
        row |= {"depth": depth.depth, "depth_lo": depth.depth_lo, "depth_hi": depth.depth_hi}
        row |= {"n_picks": depth.n_picks}
        row |= {"n_beyond": depth.n_beyond}
    return row


def _of_exemplars(
    material: Material, check: TargetCheck, method: str, *, is_own: bool
) -> list[Row]:
    """One row per different exemplar."""
    held_out, depth = check.held_out.get(method), check.depth if is_own else None
    positions = different(check.exemplars.ids)
    is_apart = None if held_out is None else apart(held_out.shares_above)
    rows = []
    for i, position in enumerate(positions):
        row: Row = {**_key(check, method), "exemplar_id": str(check.exemplars.ids[position])}
        if held_out is not None:
            row |= {"fold": int(held_out.folds[i])}
            row |= {"percentile": 100 * (1 - float(held_out.shares_above[i]))}
        if depth is not None:
            row |= {"near_share": float(depth.near[position])}
            row |= {"nearest_share": float(depth.nearest[position])}
        if is_own:
            is_odd = is_apart is not None and bool(is_apart[i])
            row |= {"flag": "apart" if is_odd else _flag(material, row, len(positions))}
        rows.append(row)
    return rows


def _flag(material: Material, row: Row, n_exemplars: int) -> str | None:
    """Why an exemplar that is not apart is worth a look.

    unmatched: no more picks are near it than near random samples. dominates: most picks are
    nearest to it.
    """
    near, nearest = row.get("near_share"), row.get("nearest_share")
    if isinstance(near, float) and near <= 1 - LEVEL:
        return "unmatched"
    rule = material.config.check
    if n_exemplars >= FEWEST_TO_DOMINATE and isinstance(nearest, float) and rule is not None:
        return "dominates" if nearest > rule.dominates else None
    return None


def _key(check: TargetCheck, method: str) -> Row:
    return {"selection_id": check.selection_id, "target": check.target, "method": method}
