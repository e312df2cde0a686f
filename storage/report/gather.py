"""What the report says about a selection, gathered from the snapshot."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from selection.core.numbers import percent
from selection.data.messages.normalize import turn_texts
from storage.catalog.connection import Connection
from storage.export.facts import SelectionFacts, json_object, json_rows, selection_facts
from storage.queries.lookup import SelectionRow, described
from storage.report.charts import SourceBar, length_bins, score_curve, source_bars
from storage.report.picks import shown_picks, turns_of
from storage.report.records import (
    Context,
    Drop,
    ReportFacts,
    ShownPick,
    TargetLatent,
    Turn,
)
from storage.wording.checks import Figure, check_figures, check_sentences
from storage.wording.drops import dropped_words
from storage.wording.reasons import Span, full_words, reason_words, visible

PAGE_PICKS = 20
NEAR_MISSES = 10
MOST_EXEMPLARS = 40
PASSED_OVER = 30
MOST_VALUES = 12  # of a column, beside the budgets of a sweep


def report_facts(connection: Connection, chosen: SelectionRow) -> ReportFacts:
    """Gather everything the report shows about one selection."""
    key = [chosen.selection_id]
    facts = selection_facts(connection, chosen)
    selection = facts.selection
    curve, lengths = json_object(selection["curve"]), json_object(selection["lengths"])
    picks = shown_picks(connection, chosen, "pick", 1, PAGE_PICKS)
    near = shown_picks(connection, chosen, "near_miss", 1, chosen.n_selected + NEAR_MISSES)
    exemplars = exemplars_of(connection, chosen, [*picks, *near])
    figures, depth = check_figures(connection, chosen.selection_id)
    shared = _shared_with_bm25(connection, chosen)
    if shared is not None and chosen.n_selected:
        words = "of the picks are also picked by BM25, a search by words"
        share = percent(len(shared) / chosen.n_selected)
        figures.append(Figure("Shared with BM25", share, words))
    return ReportFacts(
        facts=facts,
        licences=_licences(facts),
        target_latents=target_latents(connection, chosen),
        passed_over=json_rows(connection, _PASSED_OVER, key),
        stages=json_rows(connection, _STAGES, [chosen.run_id]),
        picks=picks,
        near_misses=near,
        exemplars=exemplars,
        n_exemplars_hidden=sum(facts.targets.values()) - len(exemplars),
        curve=score_curve(
            curve.get("ranks", []),
            curve.get("scores", []),
            chosen.n_selected,
            chosen.cut_score,
            depth,
            shared,
        ),
        lengths=length_bins(
            lengths.get("edges", []), lengths.get("pool", []), lengths.get("selected", [])
        ),
        sources=source_bars(
            _all(
                connection,
                "SELECT source, n_pool, n_selected FROM v_source_mix WHERE selection_id = ?",
                key,
            )
        ),
        drops=[
            Drop(stage, reason, dropped_words(reason), int(n))
            for stage, reason, n in _all(
                connection,
                "SELECT stage, reason, sum(n) FROM v_drops WHERE selection_id = ?"
                " GROUP BY ALL HAVING sum(n) > 0 ORDER BY 3 DESC, 1, 2",
                key,
            )
        ],
        beside=json_rows(connection, _BESIDE, [*key, chosen.run_id, *key]),
        per_target=_all(connection, _PER_TARGET, [*key, chosen.run_id]),
        exports=_all(
            connection,
            "SELECT format, path FROM export WHERE selection_id = ? GROUP BY ALL"
            " ORDER BY max(created_at) DESC, path LIMIT 8",
            key,
        ),
        lineage=_all(connection, _LINEAGE, [chosen.run_id]),
        check=check_sentences(connection, chosen.selection_id),
        figures=figures,
        best_score=picks[0].score if picks else None,
        budgets=json_rows(connection, _BUDGETS, key),
        mix_by_budget=_mix_by_budget(connection, chosen),
    )


_SHARED = """
SELECT list(greatest(a.rank, b.rank) ORDER BY greatest(a.rank, b.rank))
    FILTER (a.rank IS NOT NULL)
FROM selection s JOIN pick b USING (selection_id)
LEFT JOIN pick a ON a.selection_id = $1 AND a.example_id = b.example_id
WHERE s.run_id = $2 AND s.method = 'bm25' AND s.role = 'control' AND s.target = $3
    AND s.selection_id <> $1
GROUP BY s.selection_id"""


def _shared_with_bm25(connection: Connection, chosen: SelectionRow) -> list[int] | None:
    """For each pick that BM25 has too, the rank by which both have it, ascending; else None."""
    key = [chosen.selection_id, chosen.run_id, chosen.target]
    rows = _all(connection, _SHARED, key)
    return list(rows[0][0] or []) if rows and chosen.role == "main" else None


_BUDGETS = "FROM v_budgets WHERE selection_id = ? ORDER BY budget"

_MIX = """
SELECT coalesce(o.{column}, ''), b.budget, count(*) / any_value(b.n_selected)
FROM v_budgets b JOIN pick p ON p.selection_id = b.selection_id AND p.budget <= b.budget
JOIN selection s ON s.selection_id = b.selection_id
LEFT JOIN v_first_occurrence o ON o.run_id = s.run_id AND o.example_id = p.example_id
WHERE b.selection_id = ? GROUP BY ALL ORDER BY b.budget, 3 DESC, 1"""


def _mix_by_budget(
    connection: Connection, chosen: SelectionRow
) -> list[tuple[str, str, Sequence[float]]]:
    """(column, value, share in each budget of a sweep), of columns with several values."""
    rows: list[tuple[str, str, Sequence[float]]] = []
    for column in ("source", "language", "licence"):
        mix = _all(connection, _MIX.format(column=column), [chosen.selection_id])
        budgets = sorted({budget for _, budget, _ in mix})
        shares = {(value, budget): share for value, budget, share in mix}
        values = list(dict.fromkeys(value for value, _, _ in mix))[:MOST_VALUES]
        if len(values) > 1:
            rows += [(column, v, [shares.get((v, b), 0.0) for b in budgets]) for v in values]
    return rows


_BESIDE = """
SELECT s.name, s.method, s."role", s.target, s.n_selected, s.n_tokens,
    (SELECT count(*) FROM pick a JOIN pick b USING (example_id)
     WHERE a.selection_id = s.selection_id AND b.selection_id = ?) AS n_shared
FROM selection s WHERE s.run_id = ? AND s.selection_id <> ?
ORDER BY s."role" DESC, s.name"""

_PER_TARGET = """
SELECT coalesce(p.target, s.target, '') AS target,
    any_value((SELECT count(*) FROM exemplar e
               WHERE e.run_id = s.run_id AND e.target = coalesce(p.target, s.target))),
    count(*), max(p.score)
FROM pick p JOIN selection s USING (selection_id)
WHERE p.selection_id = ? AND s.run_id = ? AND p.reason IS DISTINCT FROM 'replay'
GROUP BY 1 ORDER BY 3 DESC, 1"""

_LINEAGE = """
SELECT step, artifact, coalesce(sha256, ''), coalesce(parent, '') FROM artifact
WHERE run_id = ? ORDER BY rowid LIMIT 40"""

_STAGES = """
SELECT stage AS name, coalesce(detail, '') AS detail, seconds FROM run_stage
WHERE run_id = ? ORDER BY number"""

_PASSED_OVER = f"""
SELECT reason, score_rank, example_id, detail, other_id FROM selection_drop
WHERE selection_id = ? AND example_id IS NOT NULL AND stage = 'select'
ORDER BY score_rank, example_id LIMIT {PASSED_OVER}"""


def _licences(facts: SelectionFacts) -> list[SourceBar]:
    """Licences of the ranked pool beside those of the picks; none where the pool names none."""
    pool = json_object(facts.run["data_licences"])
    chosen: dict[str, int] = {}
    for share in facts.sources:
        chosen[share.licence] = chosen.get(share.licence, 0) + share.n
    names = dict.fromkeys([*pool, *chosen])
    rows = [(name or "not named", int(pool.get(name, 0)), chosen.get(name, 0)) for name in names]
    return source_bars(rows) if any(names) else []


def exemplars_of(
    connection: Connection, chosen: SelectionRow, picks: Sequence[ShownPick]
) -> dict[str, Sequence[Turn]]:
    """Exemplars by id: those that the shown picks cite, then others in file order."""
    cited = [pick.exemplar_id for pick in picks if pick.exemplar_id]
    rows = _all(
        connection,
        "SELECT exemplar_id, coalesce(messages, '[]') FROM exemplar WHERE run_id = ?"
        " ORDER BY list_contains(?::VARCHAR[], exemplar_id) DESC, rowid LIMIT ?",
        [chosen.run_id, cited, MOST_EXEMPLARS],
    )
    return {exemplar_id: turns_of(messages) for exemplar_id, messages in rows}


def _all(connection: Connection, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
    return connection.execute(query, list(values)).fetchall()


SHOWN = 12  # per target task
EXAMPLES = 2  # per latent, of different samples
BEFORE, AFTER = 44, 28  # characters around an example's token

_LATENTS = f"""
SELECT t.target, coalesce(t.term, d.description), t.latent, t.space, t.share, t.n_exemplars,
    t.pool_share, coalesce(c.carried, 0)
FROM target_latent t JOIN run r USING (run_id)
{described("t")}
LEFT JOIN (
    SELECT p.target, w.space, w.latent, sum(w.share) / any_value(n.n) AS carried
    FROM explanation w
    JOIN (SELECT x.selection_id, x.example_id, coalesce(x.target, s.target) AS target
        FROM pick x JOIN selection s USING (selection_id)) p USING (selection_id, example_id)
    JOIN (SELECT coalesce(x.target, s.target) AS target, count(*) AS n
        FROM pick x JOIN selection s USING (selection_id)
        WHERE x.selection_id = $1 GROUP BY 1) n ON n.target = p.target
    WHERE w.selection_id = $1 AND coalesce(w.exemplar_rank, 1) = 1 AND w.latent >= 0
    GROUP BY ALL) c ON c.target = t.target AND c.space = t.space AND c.latent = t.latent
WHERE t.run_id = $2 AND t.pool_share IS DISTINCT FROM 0 AND t.target IN (
    SELECT coalesce(x.target, s.target) FROM pick x JOIN selection s USING (selection_id)
    WHERE x.selection_id = $1)
QUALIFY row_number() OVER (PARTITION BY t.target ORDER BY t.position) <= $3
ORDER BY t.target, t.position"""

_EXAMPLES = """
SELECT f.space, f.latent, p.rank, f.turn, f.first_char, f.end_char, x.messages
FROM (FROM token_activations WHERE selection_id = $1 AND turn IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY space, latent, example_id
        ORDER BY activation DESC, turn, first_char) = 1) f
JOIN pick p ON p.selection_id = f.selection_id AND p.example_id = f.example_id
JOIN sample x ON x.example_id = f.example_id
QUALIFY row_number() OVER (PARTITION BY f.space, f.latent
    ORDER BY f.activation DESC, p.rank) <= $2
ORDER BY f.space, f.latent, f.activation DESC, p.rank"""


def target_latents(connection: Connection, chosen: SelectionRow) -> list[TargetLatent]:
    """What the exemplars of a selection's target tasks are made of, in order of target and place.

    What no sample of the pool has cannot bring a pick in, and is left out. Empty for methods
    without latents, and for runs of older versions.
    """
    if chosen.method != "jaccard":
        return []
    key = chosen.selection_id
    rows = connection.execute(_LATENTS, [key, chosen.run_id, SHOWN]).fetchall()
    examples: dict[tuple[str, int], list[Context]] = {}
    active: dict[tuple[str, int], list[_ActiveToken]] = {}
    activations = connection.execute(_EXAMPLES, [key, EXAMPLES]).fetchall() if rows else []
    for space, latent, rank, turn, first, end, messages in activations:
        texts = turn_texts(json.loads(messages))
        if turn < len(texts):
            one = _ActiveToken(rank, texts[turn], first, end)
            examples.setdefault((space, latent), []).append(_context(one))
            active.setdefault((space, latent), []).append(one)
    latents = []
    for target, text, latent, space, share, n_exemplars, pool_share, carried in rows:
        here = active.get((space, latent), ())
        spans = [Span(n, one.first, one.end) for n, one in enumerate(here)]
        label = reason_words(space, latent, text, [one.text for one in here], spans)
        latents.append(
            TargetLatent(
                target,
                full_words(space, text, label) if text else f"latent {latent}",
                latent,
                space,
                bool(text),
                share,
                n_exemplars,
                pool_share,
                carried,
                examples.get((space, latent), []),
            )
        )
    return latents


class _ActiveToken(NamedTuple):
    """A token of a pick on which a latent is active, in its turn's text."""

    rank: int
    text: str
    first: int
    end: int


def _context(active: _ActiveToken) -> Context:
    """The token with the text around it on one line."""
    rank, text, first, end = active
    before, after = text[max(0, first - BEFORE) : first], text[end : end + AFTER]
    return Context(rank, visible(before), visible(text[first:end]), visible(after))
