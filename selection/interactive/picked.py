"""What a budget and the rules pick from a ranking, why, and as training files."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.data.messages.normalize import plain_text
from selection.data.samples import texts_of
from selection.data.training_rows import RowLayout, json_line, sample_weights, training_row
from selection.interactive.plots import as_figure, picks_chart
from selection.interactive.ranked import Ranked
from selection.picking.budget import wanted_examples
from selection.picking.pick import choose
from selection.picking.rules.diversity import Diversity
from selection.picking.rules.from_settings import NearDuplicates, picking_rules
from selection.picking.rules.quotas import Quota, check_quotas
from selection.picking.rules.replay import Replay, draw_order, split_budget
from selection.records import Budget, Picks
from selection.similarity.explain import explain_pairs, in_spaces

TrainingFormat = Literal["messages", "original", "ids"]
_SHOWN_CHARACTERS = 160


@dataclass(frozen=True, slots=True)
class PickRules:
    """What decides besides the score; names and defaults are those of the config.

    include: example ids or own ids that are always taken, first.
    replay_share, replay_tokens: part of the budget that is drawn at random, by `seed`.
    """

    include: Sequence[str] = ()
    min_score: float | None = None
    quotas: Sequence[Quota] = ()
    near_duplicates: NearDuplicates | None = None
    diversity: Diversity | None = None
    replay_share: float | None = None
    replay_tokens: int | None = None
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Selected:
    """The picks of one selection, in order."""

    ranked: Ranked
    picks: Picks

    def __len__(self) -> int:
        """Number of picks."""
        return len(self.picks.positions)

    def __repr__(self) -> str:
        """How many were picked for what."""
        return f"Selected({len(self)} of {self.ranked.promised:,} for {self.ranked.target!r})"

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """(p,) number of each pick among the samples."""
        return self.ranked.ranking.rows[self.picks.positions]

    @property
    def ids(self) -> list[str]:
        """Example ids of the picks."""
        return [str(name) for name in self.ranked.vectors.samples.ids[self.rows]]

    @cached_property
    def table(self) -> pl.DataFrame:
        """rank, example_id, own_id, source, score, reason and text of every pick."""
        samples = self.ranked.vectors.samples
        first = samples.first_occurrences(self.rows)
        conversations = [samples.conversation(int(row)) for row in self.rows]
        texts = [plain_text(messages, tools) for messages, tools in conversations]
        return pl.DataFrame(
            {
                "rank": np.arange(1, len(self) + 1),
                "example_id": self.ids,
                "own_id": first["own_id"].to_pylist(),
                "source": first["source"].to_pylist(),
                "score": self.ranked.ranking.scores[self.picks.positions],
                "reason": [str(reason) for reason in self.picks.reasons],
                "text": [" ".join(text.split())[:_SHOWN_CHARACTERS] for text in texts],
            }
        )

    def plot(self) -> Any:
        """A plotly figure: the picks among the scores, their tokens and sources beside the pool's.

        Raises InputError without plotly.
        """
        return as_figure(picks_chart(self))

    def explain(self, pick: int | str = 0, *, top: int = 12, exemplars: int = 1) -> pl.DataFrame:
        """What a pick shares with its nearest exemplars: space, latent or term, its contribution.

        pick: position in the selection from 0, or an example id.
        Contributions of a pair add up to the numerator of its similarity.
        """
        number = self.ids.index(pick) if isinstance(pick, str) else pick
        given, target = self.ranked.input.of(self.ranked.target), self.ranked.target
        parts = [part.gather(self.rows[[number]]) for part in given.vectors.parts]
        pairs = explain_pairs(
            given.spaces.rows(parts),
            given.exemplars[target].rows,
            given.spaces.weights,
            top=top,
            n_nearest=exemplars,
            pool_shares=given.shares,
        )
        terms = [self.ranked.exemplars.terms(number) for number in range(len(given.spaces.spaces))]
        table = in_spaces(pairs, given.spaces, terms).append_column("score", pairs["score"])
        is_rest = pl.col("latent") < 0
        return pl.DataFrame(table).select(
            "exemplar",
            "score",
            "contribution",
            "share",
            "pool_share",
            pl.when(~is_rest).then("space").alias("space"),
            "latent",
            pl.when(is_rest).then(pl.lit("others")).otherwise("term").alias("term"),
        )

    def write(self, path: str | Path, format: TrainingFormat = "messages", **layout: Any) -> int:
        """Write the picks as a JSONL training file, whole or not at all; returns the rows.

        layout: fields of `RowLayout`: columns, order, seed, temperature.
        """
        rows = self.training_rows(format, RowLayout(**layout))
        return write_rows(rows, Path(path).expanduser())

    def training_rows(
        self, format: TrainingFormat = "messages", layout: RowLayout | None = None
    ) -> Iterator[Any]:
        """One JSON value for every pick, as `saelect export` writes it."""
        samples, layout = self.ranked.vectors.samples, layout or RowLayout()
        order = self._in_order(layout)
        rows, ids = self.rows[order], [self.ids[position] for position in order]
        if format == "original":
            first = samples.first_occurrences(rows)
            yield from (json.loads(raw) for raw in first["raw"].to_pylist())
            return
        if format == "ids":
            yield from ({"id": name} for name in ids)
            return
        scores = self.ranked.ranking.scores[self.picks.positions].tolist()
        targets, reasons = [""] * len(self), [str(reason) for reason in self.picks.reasons]
        values: dict[str, Sequence[object]] = {
            "score": scores,
            "rank": range(1, len(self) + 1),
            "reason": reasons,
        }
        if "weight" in layout.columns:
            values["weight"] = sample_weights(scores, targets, reasons, layout.temperature)
        conversations = [samples.conversation(int(row)) for row in rows]
        has_tools = any(tools is not None for _, tools in conversations)
        for position, name, (messages, tools) in zip(order, ids, conversations, strict=True):
            row = training_row(name, messages, tools, has_tools=has_tools)
            yield row | {column: values[column][position] for column in layout.columns}

    def _in_order(self, layout: RowLayout) -> list[int]:
        """Positions of the picks in the order of a layout."""
        order = list(range(len(self)))
        if layout.order == "random":
            ids = self.ids
            order.sort(key=lambda position: layout.random_key(ids[position]))
        elif layout.order == "length":
            tokens = self.ranked.vectors.token_counts()[self.rows]
            order.sort(key=lambda position: int(tokens[position]))
        return order


def pick_samples(ranked: Ranked, budget: Budget, rules: PickRules) -> Selected:
    """Take samples by score and rules until the budget is spent. Raises InputError."""
    vectors, given = ranked.vectors, ranked.input
    samples = vectors.samples
    include, unknown = samples.numbers_of(rules.include)
    if unknown:
        raise InputError(
            f"{len(unknown)} ids are not among the samples",
            field="include",
            value=unknown[0],
            remedy="Give example ids, or ids of the column that `columns={'id': ...}` names.",
        )
    columns = [samples.values(quota.column, ranked.rules.where) for quota in rules.quotas]
    replay, bound = _replay_of(ranked, budget, rules)
    n = wanted_examples(bound, ranked.promised)
    check_quotas(rules.quotas, columns, ranked.eligibility.eligible, n)
    tokens = vectors.token_counts()
    picking = picking_rules(
        include=include,
        min_score=rules.min_score,
        quotas=rules.quotas,
        columns=columns,
        near_duplicates=rules.near_duplicates,
        diversity=rules.diversity,
        vectors=given.vectors.parts[given.own].gather,
        texts=lambda rows: texts_of(samples.table.take(rows)),
        weights=given.own_weights,
        replay=replay,
    )
    picks = choose(ranked.ranking, budget, ranked.promised, picking, lambda rows: tokens[rows])
    return Selected(ranked, picks)


def _replay_of(ranked: Ranked, budget: Budget, rules: PickRules) -> tuple[Replay | None, Budget]:
    """What is drawn at random, and the budget that is left to picks."""
    share, tokens = rules.replay_share, rules.replay_tokens
    if share is None and tokens is None:
        return None, budget
    if share is not None and tokens is not None:
        raise ValueError("give `replay_share` or `replay_tokens`, not both")
    own, _ = split_budget(budget, share, tokens, ranked.promised)
    rows, ids = ranked.eligibility.rows, ranked.vectors.samples.ids
    exemplars = ranked.exemplars.samples.ids.tolist()
    return Replay(share, tokens, draw_order(rows, ids[rows], exemplars, rules.seed)), own


def write_rows(rows: Iterator[Mapping[str, Any]], path: Path) -> int:
    """Write rows as JSONL, whole or not at all; returns how many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temp, n = path.with_name(f".tmp-{path.name}-{os.getpid()}"), 0
    try:
        with temp.open("w", encoding="utf-8") as file:
            for n, row in enumerate(rows, start=1):  # noqa: B007 - the last number is returned
                file.write(json_line(row))
            file.flush()
            os.fsync(file.fileno())
        temp.replace(path)
    finally:
        temp.unlink(missing_ok=True)
    return n
