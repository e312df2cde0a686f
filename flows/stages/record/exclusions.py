"""Who was not taken, and why: rows of the tables selection_drop and contamination."""

import pyarrow.compute as pc

from flows.stages.record.material import Material, Row
from selection.picking.selections import Selection
from selection.records import DropReason


def drop_rows_of(material: Material, decided: Selection) -> list[Row]:
    """Candidates that a rule took out, one by one; those below the least score as one number.

    So is what an approximate search did not retrieve.
    """
    picks, base = decided.picks, {"selection_id": decided.selection_id, "stage": "select"}
    rows: list[Row] = []
    if picks.n_below_min:
        reason = str(DropReason.BELOW_MIN_SCORE)
        rows.append({**base, "reason": reason, "n": picks.n_below_min})
    retrieved, eligible = material.given.retrieved, material.given.eligibility.eligible
    if retrieved is not None and decided.method == "jaccard":
        n_missing = int((eligible & ~retrieved.rows).sum())
        rows.append({**base, "reason": str(DropReason.NOT_RETRIEVED), "n": n_missing})
    if not picks.passed_over:
        return rows
    ids = material.example_ids
    for each in picks.passed_over:
        other = str(ids[each.other].astype(str)) if each.other >= 0 else None
        rows.append(
            {
                **base,
                "reason": str(each.reason),
                "n": 1,
                "example_id": str(ids[decided.ranking.rows[each.position]].astype(str)),
                "score_rank": each.position + 1,
                "detail": each.detail or None,
                "other_id": other,
            }
        )
    return rows


def contamination_rows(material: Material) -> list[Row]:
    """Examples that hold an item, and picks that similarity alone makes suspicious."""
    contaminated, rule = material.given.contamination, material.config.decontamination
    if rule is None or contaminated is None:
        return []
    run = {"run_id": material.facts.run_id}
    ids = material.example_ids[contaminated.rows].astype(str).tolist()
    items = [material.given.items[item] for item in contaminated.items.tolist()]
    files, names = [file for file, _ in items], [name for _, name in items]
    values = zip(
        ids, files, names, contaminated.matched.tolist(), contaminated.counted.tolist(), strict=True
    )
    columns = ("example_id", "file", "item", "matched", "counted")
    rows: list[Row] = [
        {**run, **dict(zip(columns, each, strict=True)), "dropped": True} for each in values
    ]
    return rows + (_flagged(material, rule.flag_similarity) if rule.exemplars else [])


def _flagged(material: Material, least: float) -> list[Row]:
    """Picks of the main selections that are this similar to an exemplar of their target."""
    rows: dict[tuple[str, str, str], Row] = {}
    for decided in material.decided:
        if decided.role != "main":
            continue
        top = material.top_of(decided)
        for target, (_, exemplars) in material.targets.items():
            picks = top.filter(pc.equal(top["target"], target))
            ids, picked = picks["example_id"].to_pylist(), picks["example_row"].to_numpy()
            near = material.given.ranking.near_exemplars(target, picked, least)
            for position, nearest, similarity in near:
                key = (ids[position], target, str(exemplars.ids[nearest]))
                rows[key] = {
                    "run_id": material.facts.run_id,
                    "example_id": key[0],
                    "file": target,
                    "item": key[2],
                    "similarity": similarity,
                    "dropped": False,
                }
    return list(rows.values())
