"""What the report says about a selection, gathered from the snapshot."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from storage.charts import length_bins, score_curve, source_bars
from storage.check_words import check_sentences
from storage.database import Connection
from storage.export_facts import selection_facts
from storage.report_records import Beside, Drop, Latent, ReportFacts, ShownPick, Turn
from storage.rows import SelectionRow

TOP_PICKS = 25
NEAR_MISSES = 6
TOP_LATENTS = 4
MOST_EXEMPLARS = 40
MOST_CHARACTERS = 4000

# Follows a number: "231 did not pass the filter". The keys are the names that stand in the data.
REASONS = {
    "broken_row": "could not be read",
    "not_recognized": "matched none of the known shapes",
    "no_text": "had no text",
    "no_response": "had no response to train on",
    "image_or_audio": "had images or audio",
    "where": "did not pass the filter",
    "no_counted_tokens": "had nothing that counts, for instance no response",
    "response_truncated": "lost the whole response to truncation",
    "empty_vector": "made no latent fire",
    "is_exemplar": "equalled an exemplar",
    "excluded": "stood on the list of examples never to take",
    "too_short": "were shorter than the smallest length asked for",
    "too_long": "were longer than the largest length asked for",
    "contaminated": "held an evaluation item or an exemplar",
    "below_min_score": "scored lower than the smallest score asked for",
    "not_a_candidate": "were not brought up by the approximate search that was asked for",
    "near_duplicate": "were nearly the same as a better one that was kept",
    "quota": "met a full quota, or made room for a floor",
    "diversity": "were too much like what was chosen",
}


def report_facts(connection: Connection, chosen: SelectionRow) -> ReportFacts:
    """Gather everything the report shows about one selection."""
    key = [chosen.selection_id]
    facts = selection_facts(connection, chosen)
    selection = facts.selection
    curve, lengths = _mapping(selection["curve"]), _mapping(selection["lengths"])
    picks = _picks(connection, chosen, "pick", TOP_PICKS)
    exemplars = _exemplars(connection, chosen, picks)
    return ReportFacts(
        facts=facts,
        picks=picks,
        near_misses=_picks(connection, chosen, "near_miss", NEAR_MISSES),
        exemplars=exemplars,
        n_exemplars_hidden=sum(facts.targets.values()) - len(exemplars),
        curve=score_curve(
            curve.get("ranks", []), curve.get("scores", []), chosen.n_selected, chosen.cut_score
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
            Drop(stage, reason, REASONS.get(reason, reason.replace("_", " ")), int(n))
            for stage, reason, n in _all(
                connection,
                "SELECT stage, reason, sum(n) FROM v_drops WHERE selection_id = ?"
                " GROUP BY ALL HAVING sum(n) > 0 ORDER BY 3 DESC, 1, 2",
                key,
            )
        ],
        beside=[Beside(*row) for row in _all(connection, _BESIDE, [*key, chosen.run_id, *key])],
        per_target=_all(connection, _PER_TARGET, [*key, chosen.run_id]),
        exports=_all(
            connection,
            "SELECT format, path FROM export WHERE selection_id = ? GROUP BY ALL"
            " ORDER BY max(created_at) DESC, path LIMIT 8",
            key,
        ),
        lineage=_all(connection, _LINEAGE, [chosen.run_id]),
        check=check_sentences(connection, chosen.selection_id),
        best_score=picks[0].score if picks else None,
    )


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
WHERE p.selection_id = ? AND s.run_id = ? GROUP BY 1 ORDER BY 3 DESC, 1"""

_LINEAGE = """
SELECT step, artifact, coalesce(sha256, ''), coalesce(parent, '') FROM artifact
WHERE run_id = ? ORDER BY rowid LIMIT 40"""

_PICKS = """
SELECT p.rank, p.score, p.example_id, coalesce(p.target, s.target), o.own_id, o.source, o.file,
    o."row", o.licence, p.tokens,
    (SELECT count(*) FROM occurrence c
     WHERE c.run_id = s.run_id AND c.example_id = p.example_id),
    x.messages
FROM {table} p JOIN selection s USING (selection_id) JOIN sample x USING (example_id)
LEFT JOIN v_first_occurrence o ON o.run_id = s.run_id AND o.example_id = p.example_id
WHERE p.selection_id = ? ORDER BY p.rank LIMIT ?"""

_WHY = """
SELECT w.exemplar_id, w.latent, d.description, w.contribution, coalesce(w.share, 0)
FROM why w JOIN selection s USING (selection_id) JOIN run r USING (run_id)
LEFT JOIN latent_description d ON d.sae = r.sae_sha256 AND d.latent = w.latent
WHERE w.selection_id = ? AND w.example_id = ? AND coalesce(w.nearness, 1) = 1
ORDER BY w.place, w.contribution DESC, w.latent"""


def _picks(connection: Connection, chosen: SelectionRow, table: str, limit: int) -> list[ShownPick]:
    found = _all(connection, _PICKS.format(table=table), [chosen.selection_id, limit])
    return [_shown(connection, chosen, row) for row in found]


def _shown(connection: Connection, chosen: SelectionRow, row: tuple[Any, ...]) -> ShownPick:
    """A row of `_PICKS` with the latents that explain it."""
    reasons = _all(connection, _WHY, [chosen.selection_id, row[2]])
    latents = [
        Latent(text or f"latent {number}", number, bool(text), part, share)
        for _, number, text, part, share in reasons
        if number >= 0
    ][:TOP_LATENTS]
    rest_share = 1 - sum(latent.share for latent in latents)
    exemplar_id = reasons[0][0] if reasons else None
    return ShownPick(*[*row[:-1], turns_of(row[-1]), latents, rest_share, exemplar_id])


def _exemplars(
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


def turns_of(messages: str) -> list[Turn]:
    """Messages (JSON) as turns to read; text is cut after `MOST_CHARACTERS` in all."""
    turns, left = [], MOST_CHARACTERS
    for message in json.loads(messages):
        text = _text(message)
        turns.append(Turn(str(message.get("role", "")), text[:left], max(0, len(text) - left)))
        left = max(0, left - len(text))
    return turns


def _text(message: Mapping[str, object]) -> str:
    """A message's reasoning, content and tool calls, one after the other."""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(
            str(p.get("text", "")) if isinstance(p, dict) else str(p) for p in content
        )
    parts = [message.get("reasoning_content"), content]
    calls = message.get("tool_calls")
    if calls:
        parts.append(json.dumps(calls, ensure_ascii=False))
    return "\n".join(str(part) for part in parts if part)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _all(connection: Connection, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
    return connection.execute(query, list(values)).fetchall()
