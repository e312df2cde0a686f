"""Why picks rank where they do: rows of explanation, explanation_exemplar, target_latent."""

import pyarrow as pa
import pyarrow.compute as pc

from flows.stages.record.material import Material, Row
from selection.picking.selections import Selection
from selection.records import Exemplars, SparseRows
from selection.similarity.explain import (
    REST,
    exemplar_parts,
    explain_pairs,
    in_spaces,
    typical_latents,
)

TARGET_LATENTS = 24  # kept per target task
BLOCK = 1024  # candidates whose scores against all exemplars are in memory at once


def explanations(material: Material, decided: Selection, top: pa.Table) -> dict[str, pa.Table]:
    """Table name -> its rows for the ranked examples `top`, each beside its own target's exemplars.

    top: columns example_id, example_row, target, in order of rank.
    """
    tables: dict[str, list[pa.Table]] = {"explanation": [], "explanation_exemplar": []}
    for target, (_, exemplars) in material.targets.items():
        of_target = top.filter(pc.equal(top["target"], target))
        for first in range(0, of_target.num_rows, BLOCK):
            part = of_target.slice(first, BLOCK)
            rows = material.spaces.gather(part["example_row"].to_numpy())
            for name, table in _tables(material, target, rows).items():
                named = _named(table, decided.selection_id, part["example_id"], exemplars)
                tables[name].append(named)
    return {name: pa.concat_tables(parts) for name, parts in tables.items() if parts}


def target_latent_rows(material: Material) -> list[Row]:
    """What the exemplars of each target task are made of: rows of target_latent."""
    rows: list[Row] = []
    for name in material.given.ranking.exemplars:
        ranking = material.given.ranking.of(name)
        columns, shares, counts = typical_latents(
            ranking.exemplars[name].rows, ranking.spaces.weights, ranking.shares, TARGET_LATENTS
        )
        spaces, latents = ranking.spaces.locate(columns)
        values = (spaces, latents, shares, counts, ranking.shares[columns])
        for position, (s, latent, share, n, pool_share) in enumerate(
            zip(*(v.tolist() for v in values), strict=True), start=1
        ):
            rows.append(
                {
                    "run_id": material.facts.run_id,
                    "target": name,
                    "position": position,
                    "space": ranking.spaces.spaces[s].name,
                    "latent": latent,
                    "term": material.given.terms[name][s].get(latent),
                    "share": share,
                    "n_exemplars": n,
                    "pool_share": pool_share,
                }
            )
    return rows


def _tables(material: Material, target: str, vectors: list[SparseRows]) -> dict[str, pa.Table]:
    config, ranking = material.config, material.given.ranking.of(target)
    rows, exemplars = ranking.spaces.rows(vectors), ranking.exemplars[target].rows
    weights = ranking.spaces.weights
    why = explain_pairs(
        rows,
        exemplars,
        weights,
        top=config.explain_top,
        n_nearest=config.explain_exemplars,
        pool_shares=ranking.shares,
        generic_share=config.explain_generic,
    )
    parts = exemplar_parts(rows, exemplars, weights, config.explain_exemplars)
    if config.ranking.exemplar_reduction != "mean":  # only a mean is a sum of parts
        empty = pa.nulls(parts.num_rows, pa.int64())
        parts = parts.set_column(parts.column_names.index("part"), "part", empty)
    return {
        "explanation": in_spaces(why, ranking.spaces, material.given.terms[target]),
        "explanation_exemplar": parts,
    }


def _named(
    table: pa.Table, selection_id: str, ids: pa.ChunkedArray, exemplars: Exemplars
) -> pa.Table:
    """Positions as ids, and the selection in front. ids: of the candidates."""
    is_rest = pc.equal(table["exemplar"], REST)
    position = pc.if_else(is_rest, pa.scalar(None, pa.int32()), table["exemplar"])
    selection = pa.repeat(pa.scalar(selection_id), table.num_rows)
    of_exemplar = pa.array(exemplars.ids, pa.string()).take(position)
    rest = table.drop_columns(["candidate", "exemplar"])
    names = ["selection_id", "example_id", "exemplar_id"]
    return pa.Table.from_arrays(
        [selection, ids.take(table["candidate"]), of_exemplar, *rest.columns],
        [*names, *rest.column_names],
    )
