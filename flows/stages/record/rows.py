"""What a run decided, as rows of the catalog: who asked, what was chosen, why, and from what.

Everything is gathered first and committed in one transaction.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from flows.orchestration.progress import StageRecord
from flows.stages.record.exclusions import contamination_rows, drop_rows_of
from flows.stages.record.explanations import explanations, target_latent_rows
from flows.stages.record.held_out import label_free_rows
from flows.stages.record.material import Material, Row, RunFacts
from flows.stages.record.provenance import (
    artifact_rows,
    description_rows,
    drop_rows,
    file_rows,
    run_row,
    source_rows,
)
from selection.core.hashing import file_sha256
from selection.core.redaction import without_secrets
from selection.data.messages.normalize import plain_text
from selection.picking.budget import token_histogram, used_histogram
from selection.picking.selections import Selection
from selection.similarity.sources import VectorNumbers
from storage.catalog.arrow_rows import to_arrow

NEAR_MISSES = 50


def catalog_rows(material: Material) -> dict[str, pa.Table]:
    """Catalog table -> rows of this run."""
    rows: dict[str, list[Row]] = {
        "run": [run_row(material)],
        "run_drop": drop_rows(material),
        "run_source": source_rows(material),
        "exemplar": _exemplars(material),
        "target_latent": target_latent_rows(material),
        "selection": [],
        "pick": [],
        "near_miss": [],
        "selection_drop": [],
        "contamination": contamination_rows(material),
        "latent_description": description_rows(material),
        "artifact": [],
        "event": [_selected(material)],
    }
    tops = [material.top_of(decided, NEAR_MISSES) for decided in material.decided]
    examples = pc.unique(pa.concat_tables(tops)["example_row"]).sort().to_numpy()
    samples = material.pool.examples_at(examples).to_pylist()
    texts = dict(zip(examples.tolist(), map(_text, samples), strict=True))
    sweep = [each.amount for each in material.config.budget.sweep_budgets()]
    sweep += [material.config.budget.as_budget().amount] if sweep else []
    pool_tokens = token_histogram(material.given.eligibility.rows, material.token_count)
    why: dict[str, list[pa.Table]] = {"explanation": [], "explanation_exemplar": []}
    for decided, top in zip(material.decided, tops, strict=True):
        tokens = material.token_count(top["example_row"].to_numpy()).tolist()
        picks = _picks(top, tokens, texts)
        rows["pick"] += _with_reasons(picks, decided, sweep)
        rows["selection_drop"] += drop_rows_of(material, decided)
        rows["near_miss"] += picks[decided.cut.n_selected :]
        picked = top["example_row"].to_numpy()[: decided.cut.n_selected]
        lengths = used_histogram(pool_tokens, token_histogram(picked, material.token_count))
        n_tokens = sum(tokens[: decided.cut.n_selected])
        rows["selection"].append(_selection(material, decided, n_tokens, lengths))
        if decided.method == "jaccard":
            for name, table in explanations(material, decided, top).items():
                why[name].append(table)
    names = ("example_id", "messages", "tools")
    rows["sample"] = [{name: row[name] for name in names} for row in samples]
    rows["occurrence"] = _occurrences(material, examples)
    rows["artifact"] = artifact_rows(material)
    rows["recorded_file"] = file_rows(material)
    rows |= label_free_rows(material)
    tables = {name: to_arrow(name, values) for name, values in rows.items() if values}
    return tables | {name: pa.concat_tables(parts) for name, parts in why.items() if parts}


def _selected(material: Material) -> Row:
    """The event of the decision, with the hash of every ranking's file."""
    scores = {
        each.selection_id: file_sha256(material.scores_file(each)) for each in material.decided
    }
    return {
        "at": datetime.now(UTC),
        "run_id": material.facts.run_id,
        "action": "selected",
        "detail": {"scores": scores},
    }


def stage_rows(facts: RunFacts, stages: Sequence[StageRecord]) -> dict[str, pa.Table]:
    """The table `run_stage`: the stages before this one's, then these."""
    rows = [
        {
            "run_id": facts.run_id,
            "number": number,
            "stage": each.name,
            "detail": without_secrets(each.detail),
            "seconds": each.seconds,
        }
        for number, each in enumerate([*facts.stages, *stages], start=1)
    ]
    return {"run_stage": to_arrow("run_stage", rows)} if rows else {}


def _exemplars(material: Material) -> list[Row]:
    rows = []
    for name, (table, _) in material.targets.items():
        for row in table.to_pylist():
            rows.append(
                {
                    "run_id": material.facts.run_id,
                    "exemplar_id": row["example_id"],
                    "target": name,
                    "subtask": row["subtask"],
                    "own_id": row["own_id"],
                    "source": row["source"],
                    "file": without_secrets(row["file"]),
                    "row": row["row"],
                    "messages": row["messages"],
                    "tools": row["tools"],
                    "text": _text(row),
                }
            )
    return rows


def _text(row: Mapping[str, str]) -> str:
    tools = json.loads(row["tools"]) if row["tools"] else None
    return plain_text(json.loads(row["messages"]), tools)


def _picks(top: pa.Table, tokens: Sequence[int], texts: Mapping[int, str]) -> list[Row]:
    names = ["selection_id", "rank", "target", "example_id", "score", "score_rank"]
    examples = (texts[example] for example in top["example_row"].to_pylist())
    rows = zip(top.select(names).to_pylist(), tokens, examples, strict=True)
    return [{**row, "tokens": n, "text": text} for row, n, text in rows]


def _with_reasons(picks: list[Row], decided: Selection, sweep: Sequence[float]) -> list[Row]:
    """sweep: all budgets of a sweep, smallest first; empty without one."""
    values = zip(
        decided.picks.reasons, decided.picks.details, decided.smallest.tolist(), strict=True
    )
    return [
        {
            **row,
            "reason": str(reason),
            "detail": detail or None,
            "budget": sweep[number] if sweep else None,
        }
        for row, (reason, detail, number) in zip(picks, values, strict=False)
    ]


def _selection(
    material: Material, decided: Selection, n_tokens: int, lengths: Mapping[str, list[int]]
) -> Row:
    """n_tokens: of the picks. lengths: histograms of tokens of the eligible pool and the picks."""
    config, cut = material.config, decided.cut
    is_ours = decided.method == "jaccard"
    picked = decided.ranking.scores[decided.picks.positions[~decided.is_replay]]
    return {
        "selection_id": decided.selection_id,
        "run_id": material.facts.run_id,
        "name": decided.name,
        "target": decided.target,
        "method": decided.method,
        "role": decided.role,
        "exemplar_reduction": config.ranking.exemplar_reduction if is_ours else None,
        "weights": config.ranking.weights if is_ours else None,
        "budget": config.budget.model_dump(exclude_none=True),
        "n_eligible": decided.n_eligible,
        "n_selected": cut.n_selected,
        "n_replay": int(decided.is_replay.sum()),
        "n_tokens": n_tokens,
        "unused_tokens": cut.unused_tokens,
        "cut_score": float(picked.min()) if len(picked) else None,
        "curve": decided.curve,
        "lengths": lengths,
    }


def _occurrences(material: Material, rows: VectorNumbers) -> list[Row]:
    """Every row of the data that says a shown example and that passes `where`."""
    table = material.pool.passing_occurrences(rows, material.config.where)
    names = ("example_id", "own_id", "source", "file", "row", "licence", "language", "group", "raw")
    run_id = material.facts.run_id
    return [
        {
            "run_id": run_id,
            **{name: row[name] for name in names},
            "file": without_secrets(row["file"]),
        }
        for row in table.to_pylist()
    ]
