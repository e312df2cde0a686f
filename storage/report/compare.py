"""One HTML file about two selections: what both hold, what only one has, and what was set apart."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from selection.core.errors import InputError
from selection.core.numbers import NONE
from storage.catalog.commit import commit_if_writable
from storage.catalog.connection import Connection
from storage.catalog.recorded import reported
from storage.catalog.snapshot import open_snapshot
from storage.export.facts import SelectionFacts, json_object, selection_facts
from storage.files.atomic import write_bytes
from storage.files.in_use import in_use
from storage.files.workspace import Workspace, file_name, refuse_link
from storage.queries.lookup import SelectionRow, find_selection
from storage.report.charts import (
    LengthBin,
    ScoreCurve,
    SourceBar,
    length_bins,
    score_curve,
    source_bars,
)
from storage.report.page import command_in, policy
from storage.report.picks import picks_at
from storage.report.records import ShownPick
from storage.report.templates import page_environment
from storage.wording.glossary import TERMS

log = logging.getLogger(__name__)

VERSUS = "-vs-"  # between two names in the name of a page
SHOWN = 8  # picks of each selection that the other has not
MOVED = 8  # shared picks whose ranks differ most
_DEPTHS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two. only: picks that the other has not, best first; n_only: how many."""

    row: SelectionRow
    facts: SelectionFacts
    curve: ScoreCurve | None
    n_only: int
    only: Sequence[ShownPick]


@dataclass(frozen=True, slots=True)
class Moved:
    """A pick of both, with its rank in each."""

    pick: ShownPick
    first_rank: int
    second_rank: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything on the page.

    jaccard:     shared over all samples of either.
    correlation: Spearman's, of the shared samples' orders; None below two of them.
    depths:      (k, samples that are among the first k of both).
    settings:    (config key, value in the first, value in the second) where these differ.
    """

    first: Side
    second: Side
    n_both: int
    jaccard: float
    correlation: float | None
    depths: Sequence[tuple[int, int]]
    moved: Sequence[Moved]
    sources: Sequence[SourceBar]
    lengths: Sequence[LengthBin]
    settings: Sequence[tuple[str, str, str]]


def write_comparison(workspace: Workspace, first: str, second: str) -> Path:
    """Write `reports/<first>-vs-<second>.html`; returns its path.

    first, second: names, ids, or beginnings of them.
    Raises InputError for unknown selections, or the same one twice, and when the disk is full.
    """
    one, two = find_selection(workspace, first), find_selection(workspace, second)
    if one.selection_id == two.selection_id:
        raise InputError(
            "both are the same selection",
            field="report",
            value=second,
            remedy="Name two; `saelect ls` lists them.",
        )
    with in_use(workspace):
        with open_snapshot(workspace) as connection:
            comparison = compare(connection, one, two)
        path = _write_page(workspace, comparison, one, two)
        ids = [one.selection_id, two.selection_id]
        commit_if_writable(workspace, reported(workspace, path, ids))
    log.info("wrote the comparison of %s and %s to %s", one.name, two.name, path)
    return path


def _write_page(
    workspace: Workspace, comparison: Comparison, one: SelectionRow, two: SelectionRow
) -> Path:
    path = workspace.reports / f"{file_name(one.name)}{VERSUS}{file_name(two.name)}.html"
    refuse_link(workspace, workspace.reports)
    page = page_environment().get_template("compare.html.j2")
    text = page.render(
        comparison=comparison,
        one=comparison.first,
        two=comparison.second,
        command=command_in(workspace),
        policy=policy(),
        terms=TERMS,
        written_at=datetime.now(UTC),
    )
    write_bytes(path, text.encode("utf-8", "replace"))
    return path


def compare(connection: Connection, one: SelectionRow, two: SelectionRow) -> Comparison:
    """Gather what the page says."""
    ranks, other_ranks = _ranks(connection, one), _ranks(connection, two)
    both = [example for example in ranks if example in other_ranks]
    facts = selection_facts(connection, one), selection_facts(connection, two)
    n_all = len(ranks) + len(other_ranks) - len(both)
    apart = sorted(both, key=lambda e: (-abs(ranks[e] - other_ranks[e]), ranks[e]))[:MOVED]
    apart = [example for example in apart if ranks[example] != other_ranks[example]]
    moved = picks_at(connection, one, [ranks[example] for example in apart])
    return Comparison(
        first=_side(connection, one, facts[0], ranks, other_ranks),
        second=_side(connection, two, facts[1], other_ranks, ranks),
        n_both=len(both),
        jaccard=len(both) / n_all if n_all else 0.0,
        correlation=rank_correlation([(ranks[e], other_ranks[e]) for e in both]),
        depths=_depths(ranks, other_ranks),
        moved=[Moved(moved[ranks[e]], ranks[e], other_ranks[e]) for e in apart],
        sources=_sources(facts),
        lengths=_lengths(facts),
        settings=_settings(facts),
    )


def _ranks(connection: Connection, chosen: SelectionRow) -> dict[str, int]:
    """Example id -> rank, in order of rank."""
    return dict(
        connection.execute(
            "SELECT example_id, rank FROM pick WHERE selection_id = ? ORDER BY rank",
            [chosen.selection_id],
        ).fetchall()
    )


def _side(
    connection: Connection,
    chosen: SelectionRow,
    facts: SelectionFacts,
    ranks: Mapping[str, int],
    other_ranks: Mapping[str, int],
) -> Side:
    only = [rank for example, rank in ranks.items() if example not in other_ranks]
    shown = list(picks_at(connection, chosen, only[:SHOWN]).values())
    curve = json_object(facts.selection["curve"])
    drawn = score_curve(
        curve.get("ranks", []), curve.get("scores", []), chosen.n_selected, chosen.cut_score
    )
    return Side(chosen, facts, drawn, len(only), shown)


def rank_correlation(pairs: Sequence[tuple[int, int]]) -> float | None:
    """Spearman's rank correlation of distinct ranks: 1 - 6 sum(d^2) / (n (n^2 - 1))."""
    n = len(pairs)
    if n < 2:
        return None
    order = [
        {rank: position for position, rank in enumerate(sorted(side))}
        for side in zip(*pairs, strict=True)
    ]
    gaps = sum((order[0][a] - order[1][b]) ** 2 for a, b in pairs)
    return 1 - 6 * gaps / (n * (n * n - 1))


def _depths(ranks: Mapping[str, int], other_ranks: Mapping[str, int]) -> list[tuple[int, int]]:
    """(k, shared among the first k of both) for round k up to the smaller selection."""
    last = min(len(ranks), len(other_ranks))
    worst = sorted(max(rank, other_ranks[e]) for e, rank in ranks.items() if e in other_ranks)
    depths = [k for k in _DEPTHS if k < last] + ([last] if last else [])
    return [(k, sum(rank <= k for rank in worst)) for k in depths]


def _sources(facts: tuple[SelectionFacts, SelectionFacts]) -> list[SourceBar]:
    """Sources of the first (in the place of the pool) and of the second."""
    counts: dict[str, list[int]] = {}
    for side, each in enumerate(facts):
        for share in each.sources:
            counts.setdefault(share.source or "not named", [0, 0])[side] += share.n
    return source_bars([(name, a, b) for name, (a, b) in counts.items()])


def _lengths(facts: tuple[SelectionFacts, SelectionFacts]) -> list[LengthBin]:
    """Histograms of both, where they have the same edges."""
    known = [json_object(each.selection["lengths"]) for each in facts]
    edges = max((list(each.get("edges", [])) for each in known), key=len)
    counts = [list(each.get("selected", [])) for each in known]
    if not edges or any(e.get("edges", []) != edges[: len(e.get("edges", []))] for e in known):
        return []
    a, b = ([*each, *[0] * (len(edges) - 1 - len(each))] for each in counts)
    return length_bins(edges, a, b)


def _settings(facts: tuple[SelectionFacts, SelectionFacts]) -> list[tuple[str, str, str]]:
    """What was set differently: method, target, versions of model and SAE, config keys."""
    named = ("target", "method", "exemplar_reduction", "weights")
    of_run = ("model", "model_sha256", "sae_sha256", "hookpoint", "pool_id", "git_sha")
    flat = []
    for each in facts:
        values = {name: each.selection[name] for name in named}
        values |= {name: each.run[name] for name in of_run}
        values |= {f"config {k}": v for k, v in _flat(each.run["config"]).items()}
        values |= {f"version {k}": v for k, v in json_object(each.run["versions"]).items()}
        flat.append(
            {key: NONE if value in (None, "") else str(value) for key, value in values.items()}
        )
    keys = dict.fromkeys([*flat[0], *flat[1]])
    pairs = [(key, flat[0].get(key, NONE), flat[1].get(key, NONE)) for key in keys]
    return [pair for pair in pairs if pair[1] != pair[2]]


def _flat(value: object, prefix: str = "") -> dict[str, object]:
    """A config's leaves by dotted key."""
    if isinstance(value, dict) and value:
        leaves: dict[str, object] = {}
        for key, inner in value.items():
            leaves |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
        return leaves
    return {prefix: value} if prefix else {}
