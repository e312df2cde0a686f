"""Why picks rank where they do: rows of explanation, explanation_exemplar, target_latent."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flows.stages.record.material import Material, Row
from selection.picking.selections import Selection
from selection.records import Exemplars, SparseRows
from selection.similarity.explain import REST, exemplar_parts, explain_pairs, typical_latents
from selection.similarity.spaces import JoinedSpaces

TARGET_LATENTS = 24  # kept per target task
BLOCK = 1024  # candidates whose scores against all exemplars are in memory at once


def explanations(material: Material, decided: Selection, top: pa.Table) -> dict[str, pa.Table]:
    """Table name -> its rows for the ranked examples `top`, each beside its own target's exemplars.

    top: columns example_id, example_row, target, in order of rank.
    """
    owners = np.array(top["target"].to_pylist())
    found: dict[str, list[pa.Table]] = {"explanation": [], "explanation_exemplar": []}
    for target, (_, exemplars) in material.targets.items():
        mine = np.flatnonzero(owners == target)
        for rows, ids in _blocks(material, top.take(pa.array(mine))):
            for name, table in _tables(material, target, rows).items():
                found[name].append(_named(table, decided.selection_id, ids, exemplars))
    return {name: pa.concat_tables(parts) for name, parts in found.items() if parts}


def target_latent_rows(material: Material) -> list[Row]:
    """What the exemplars of each target task are made of: rows of target_latent."""
    rows: list[Row] = []
    ranking = material.given.ranking
    for name, exemplars in ranking.exemplars.items():
        found = typical_latents(
            exemplars.rows, ranking.spaces.weights, ranking.shares, TARGET_LATENTS
        )
        columns, shares, counts = found
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


def _blocks(
    material: Material, top: pa.Table
) -> Iterator[tuple[list[SparseRows], NDArray[np.str_]]]:
    """(vectors in every space, example ids) of at most BLOCK candidates at a time."""
    for first in range(0, top.num_rows, BLOCK):
        part = top.slice(first, BLOCK)
        rows = material.spaces.gather(part["example_row"].to_numpy())
        yield rows, np.array(part["example_id"].to_pylist())


def _tables(material: Material, target: str, vectors: list[SparseRows]) -> dict[str, pa.Table]:
    config, ranking = material.config, material.given.ranking
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
        "explanation": _in_spaces(why, ranking.spaces, material.given.terms[target]),
        "explanation_exemplar": parts,
    }


def _in_spaces(
    why: pa.Table, joined: JoinedSpaces, terms_of: Sequence[Mapping[int, str]]
) -> pa.Table:
    """Columns of the whole as (space, latent, term); sums over several spaces have no space."""
    columns = why["latent"].to_numpy()
    is_sum = columns < 0
    spaces, latents = joined.locate(np.maximum(columns, 0))
    names = np.array([space.name for space in joined.spaces])[spaces]
    is_of_several = is_sum & (len(joined.spaces) > 1)
    pairs = zip(spaces.tolist(), latents.tolist(), is_sum.tolist(), strict=True)
    terms = [None if rest else terms_of[s].get(c) for s, c, rest in pairs]
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
