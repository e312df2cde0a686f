"""Why picks and near misses rank where they do: the tables why, why_exemplar, target_latent."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flows.stages.decide.decide import Decided
from flows.stages.record.material import Material, Row
from flows.stages.represent.spaces import JointTarget
from selection.records import Exemplars, SparseRows
from selection.similarity.explain import REST, exemplar_parts, explain_pairs, typical_latents

TARGET_LATENTS = 24  # kept per target task
BLOCK = 1024  # candidates whose scores against all exemplars are in memory at once


def explanations(material: Material, decided: Decided, top: pa.Table) -> dict[str, pa.Table]:
    """Table name -> its rows for the ranked examples `top`, each beside its own target's exemplars.

    top: columns example_id, example_row, target, in order of rank.
    """
    owners = np.array(top["target"].to_pylist())
    found: dict[str, list[pa.Table]] = {"why": [], "why_exemplar": []}
    for target, (_, exemplars) in material.targets.items():
        mine = np.flatnonzero(owners == target)
        for rows, ids in _blocks(material, top.take(pa.array(mine))):
            joint = material.race.targets[target]
            for name, table in _tables(material, joint, joint.joint.rows(rows)).items():
                found[name].append(_named(table, decided.selection_id, ids, exemplars))
    return {name: pa.concat_tables(parts) for name, parts in found.items() if parts}


def target_latent_rows(material: Material) -> list[Row]:
    """What the exemplars of each target task are made of: rows of target_latent."""
    rows: list[Row] = []
    for name, target in material.race.targets.items():
        found = typical_latents(target.rows, target.joint.weights, target.shares, TARGET_LATENTS)
        columns, shares, counts = found
        spaces, latents = target.joint.locate(columns)
        values = (spaces, latents, shares, counts, target.shares[columns])
        for place, (s, latent, share, n, pool_share) in enumerate(
            zip(*(v.tolist() for v in values), strict=True), start=1
        ):
            rows.append(
                {
                    "run_id": material.facts.run_id,
                    "target": name,
                    "place": place,
                    "space": target.joint.spaces[s].name,
                    "latent": latent,
                    "term": target.terms[s].get(latent),
                    "share": share,
                    "n_exemplars": n,
                    "pool_share": pool_share,
                }
            )
    return rows


def _blocks(
    material: Material, top: pa.Table
) -> Iterator[tuple[list[SparseRows], NDArray[np.str_]]]:
    """(vectors in every space, example ids) of at most BLOCK candidates at a time."""
    for first in range(0, top.num_rows, BLOCK):
        part = top.slice(first, BLOCK)
        rows = material.spaces.gather(part["example_row"].to_numpy())
        yield rows, np.array(part["example_id"].to_pylist())


def _tables(material: Material, target: JointTarget, rows: SparseRows) -> dict[str, pa.Table]:
    config, weights = material.config, target.joint.weights
    why = explain_pairs(
        rows,
        target.rows,
        weights,
        top=config.explain_top,
        n_nearest=config.explain_exemplars,
        pool_shares=target.shares,
        generic_share=config.explain_generic,
    )
    parts = exemplar_parts(rows, target.rows, weights, config.explain_exemplars)
    if config.ranking.exemplar_reduction != "mean":  # only a mean is a sum of parts
        empty = pa.nulls(parts.num_rows, pa.int64())
        parts = parts.set_column(parts.column_names.index("part"), "part", empty)
    return {"why": _in_spaces(why, target), "why_exemplar": parts}


def _in_spaces(why: pa.Table, target: JointTarget) -> pa.Table:
    """Columns of the whole as (space, latent, term); sums over several spaces have no space."""
    columns = why["latent"].to_numpy()
    is_sum = columns < 0
    spaces, latents = target.joint.locate(np.maximum(columns, 0))
    names = np.array([space.name for space in target.joint.spaces])[spaces]
    is_of_several = is_sum & (len(target.joint.spaces) > 1)
    pairs = zip(spaces.tolist(), latents.tolist(), is_sum.tolist(), strict=True)
    terms = [None if rest else target.terms[s].get(c) for s, c, rest in pairs]
    latent = pa.array(np.where(is_sum, columns, latents), pa.int64())
    why = why.drop_columns(["score"]).set_column(
        why.column_names.index("latent") - 1, "latent", latent
    )
    why = why.append_column("space", pa.array(names, pa.string(), mask=is_of_several))
    return why.append_column("term", pa.array(terms, pa.string()))


def _named(
    table: pa.Table, selection_id: str, ids: NDArray[np.str_], exemplars: Exemplars
) -> pa.Table:
    """Positions as ids, and the selection in front."""
    example = pa.array(ids[table["candidate"].to_numpy()], pa.string())
    at = table["exemplar"].to_numpy()
    exemplar = pa.array(exemplars.ids[np.maximum(at, 0)], pa.string(), mask=at == REST)
    selection = pa.repeat(pa.scalar(selection_id), table.num_rows)
    rest = table.drop_columns(["candidate", "exemplar"])
    names = ["selection_id", "example_id", "exemplar_id"]
    return pa.Table.from_arrays(
        [selection, example, exemplar, *rest.columns], [*names, *rest.column_names]
    )
