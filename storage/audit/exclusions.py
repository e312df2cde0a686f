"""What kept an example out of a selection, and the one change of the config that lets it in.

A change is claimed only where it follows from what is recorded: a rerun that differs in that one
key picks the example. A ranking does not depend on the budget, and without quotas, near-duplicates
and diversity the picks are a prefix of it (included examples first), so a place in the ranking is
enough. With one of these rules on, a larger budget may meet it anywhere: then no budget is claimed.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from selection.core.errors import InputError
from storage.catalog.connection import Connection
from storage.files.atomic import is_complete
from storage.files.scores import count_scores, scores_file
from storage.files.workspace import Workspace
from storage.queries.lookup import SelectionRow

RULES = ("quotas", "near_duplicates", "diversity", "replay")
"""Config keys of the rules under which picks are not a prefix of the ranking."""

_RULE_OF = {"quota": "quotas", "near_duplicate": "near_duplicates", "diversity": "diversity"}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an example is not among the picks.

    rule:  the config key that decides it; `budget` where nothing but the budget's end does.
    words: what it did, as a clause about the example ("it nearly repeats ...").
    """

    rule: str
    words: str


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one config key that would have picked the sample; values as in a config."""

    key: str
    value: object
    old: object


@dataclass(frozen=True, slots=True)
class RankedExample:
    """Where an example stands in a ranking. rank: in the order of the scores file."""

    example_id: str
    rank: int
    score: float | None
    score_rank: int | None


def config_of(connection: Connection, run_id: str) -> Mapping[str, object]:
    """The stored config of a run; empty for runs that kept none."""
    ((text,),) = connection.execute("SELECT config FROM run WHERE run_id = ?", [run_id]).fetchall()
    config = json.loads(text) if text else {}
    return config if isinstance(config, dict) else {}


def refusal_of(
    connection: Connection, workspace: Workspace, chosen: SelectionRow, ranked: RankedExample
) -> tuple[Refusal, Change | None]:
    """What kept a ranked example out, and what is proven to let it in."""
    case = _Case(connection, workspace, chosen, ranked, config_of(connection, chosen.run_id))
    passed = connection.execute(
        "SELECT reason, detail, other_id FROM selection_drop"
        " WHERE selection_id = ? AND example_id = ? AND stage = 'select'",
        [chosen.selection_id, ranked.example_id],
    ).fetchall()
    if passed:
        rule = _RULE_OF.get(passed[0][0], str(passed[0][0]))
        return Refusal(rule, _words(*passed[0])), case.without(rule) or case.included()
    least = case.min_score
    if least is not None and ranked.score is not None and ranked.score < least:
        words = f"it scores {ranked.score:.6g}, less than {least:.6g}"
        return Refusal("min_score", words), case.lower_min_score() or case.included()
    if list(case.rules) == ["replay"]:
        change = case.without("replay") or case.included()
        return Refusal("budget", "the budget of the picks ended before its turn"), change
    if case.rules:
        words = f"the budget ended before its turn; what a larger one picks, {case.named} decide"
        return Refusal("budget", words), case.included()
    return Refusal("budget", "the budget ended before its turn"), case.larger_budget()


@dataclass(frozen=True, slots=True)
class _Case:
    """One example that was ranked and not picked, and the config that decided it."""

    connection: Connection
    workspace: Workspace
    chosen: SelectionRow
    ranked: RankedExample
    config: Mapping[str, object]

    @property
    def is_main(self) -> bool:
        return self.chosen.role == "main"

    @property
    def rules(self) -> Sequence[str]:
        """Rules of this selection that take candidates out; controls have none."""
        return [rule for rule in RULES if self.config.get(rule)] if self.is_main else []

    @property
    def named(self) -> str:
        return " and ".join(self.rules)

    @property
    def min_score(self) -> float | None:
        least = self.config.get("min_score") if self.is_main else None
        return float(least) if isinstance(least, int | float) else None

    @property
    def budget(self) -> Mapping[str, int | float]:
        """The one kind of budget that was asked for, and how much."""
        ((text,),) = self.connection.execute(
            "SELECT budget FROM selection WHERE selection_id = ?", [self.chosen.selection_id]
        ).fetchall()
        budget = json.loads(text) if text else {}
        return {
            kind: budget[kind] for kind in ("examples", "fraction", "tokens") if budget.get(kind)
        }

    def wanted(self) -> int | None:
        """Examples that the budget asks for; None where it counts tokens."""
        budget = self.budget
        if "fraction" in budget:
            return int(Fraction(repr(budget["fraction"])) * self.chosen.n_eligible)
        return int(budget["examples"]) if "examples" in budget else None

    def larger_budget(self) -> Change | None:
        """The smallest budget that reaches the example, no rule being in the way.

        A control gets no more than its main selection, and one that is drawn to fit the picks
        changes with them; of tokens no more is known than the near misses have.
        """
        if not self.is_main and (
            self.chosen.method == "length_matched"
            or self.config.get("min_score") is not None
            or any(self.config.get(rule) for rule in RULES)
        ):
            return None
        prefix, budget = self.position(self.min_score), self.budget
        if prefix is None:
            return None
        rank, tokens = prefix
        if "examples" in budget:
            return Change("budget.examples", rank, budget["examples"])
        if "fraction" in budget:
            value = _fraction(rank, self.chosen.n_eligible)
            return Change("budget.fraction", value, budget["fraction"])
        if "tokens" in budget and tokens is not None:
            return Change("budget.tokens", tokens, budget["tokens"])
        return None

    def lower_min_score(self) -> Change | None:
        """The example's own score as the least one, where the budget has room down to it."""
        prefix, wanted = self.position(self.ranked.score), self.wanted()
        if self.rules or prefix is None:
            return None
        rank, tokens = prefix
        if wanted is None:
            most = self.budget.get("tokens", 0)
            fits = tokens is not None and tokens <= most
        else:
            fits = rank <= wanted
        return Change("min_score", self.ranked.score, self.min_score) if fits else None

    def without(self, rule: str) -> Change | None:
        """The rule off, where it is the only one and the budget reaches the example by score."""
        wanted, by_score = self.wanted(), self.ranked.score_rank
        if list(self.rules) != [rule] or wanted is None or by_score is None:
            return None
        (((n_before),),) = self.connection.execute(
            "SELECT count(*) FROM pick"
            " WHERE selection_id = ? AND reason = 'included' AND score_rank > ?",
            [self.chosen.selection_id, by_score],
        ).fetchall()
        if by_score + n_before > wanted:
            return None
        return Change(rule, [] if rule == "quotas" else None, self.config[rule])

    def included(self) -> Change | None:
        """The example on the list of those always taken, which come before every rule."""
        wanted, listed = self.wanted(), self.config.get("include") or []
        if not self.is_main or wanted is None or not isinstance(listed, list):
            return None
        ((n_included, n_replay),) = self.connection.execute(
            "SELECT count(*) FILTER (reason = 'included'), count(*) FILTER (reason = 'replay')"
            " FROM pick WHERE selection_id = ?",
            [self.chosen.selection_id],
        ).fetchall()
        if n_included >= wanted - n_replay:
            return None
        return Change("include", [*listed, self.ranked.example_id], listed)

    def position(self, least: float | None) -> tuple[int, int | None] | None:
        """(examples, tokens) of a prefix that ends with the example, scores below `least` out.

        None where the ranking is gone that would tell.
        """
        chosen, floor = self.chosen, -math.inf if least is None else least
        key = [chosen.selection_id, chosen.n_selected, self.ranked.rank, floor]
        n, n_good, tokens = self.connection.execute(
            "SELECT count(*), count(*) FILTER (score >= $4), sum(tokens) FILTER (score >= $4)"
            " FROM near_miss WHERE selection_id = $1 AND rank > $2 AND rank <= $3",
            key,
        ).fetchall()[0]
        if n == self.ranked.rank - chosen.n_selected:
            known = None if chosen.n_tokens is None or tokens is None else chosen.n_tokens + tokens
            return chosen.n_selected + n_good, None if known is None else int(known)
        if least is None:
            return self.ranked.rank, None
        file = scores_file(self.workspace.scores, chosen.selection_id)
        if not file.exists():
            return None
        n_good = count_scores(file, chosen.n_selected, self.ranked.rank, least)
        return chosen.n_selected + n_good, None


def _words(reason: str, detail: str | None, other_id: str | None) -> str:
    if reason == "near_duplicate":
        return f"it nearly repeats {other_id}, which ranks better ({detail})"
    if reason == "quota":
        return detail or "its place was at a cap, or kept for a floor"
    if reason == "diversity":
        return "it is too much like what was chosen before its turn"
    return f"{reason} ({detail})" if detail else reason


def _fraction(rank: int, n_eligible: int) -> float:
    """The smallest decimal that, as written, is at least `rank` of `n_eligible`."""
    value = rank / n_eligible
    while int(Fraction(repr(value)) * n_eligible) < rank:
        value = math.nextafter(value, 1.0)
    return value


_DECIDED = ("where", "is_exemplar", "excluded", "contaminated")
"""Reasons that can be told for a single example; of others only the counts are known."""


def drop_of(
    connection: Connection, workspace: Workspace, chosen: SelectionRow, example_id: str
) -> Refusal:
    """The first rule that keeps an example out of the ranking, in the order of a run."""
    config = config_of(connection, chosen.run_id)
    own_ids = _own_ids(connection, workspace, chosen, example_id)
    if own_ids is None:
        return Refusal("pool", "it is not in the pool of this run")
    if not own_ids[1]:
        return Refusal("where", f"no row that holds it passes `{config.get('where')}`")
    key = [chosen.run_id, example_id]
    if config.get("drop_exemplar_copies", True):
        copied = connection.execute(
            "SELECT target FROM exemplar WHERE run_id = ? AND exemplar_id = ?", key
        ).fetchall()
        if copied:
            words = f"it is an exact copy of an exemplar of `{copied[0][0]}`"
            return Refusal("drop_exemplar_copies", words)
    listed = config.get("exclude") or []
    if isinstance(listed, list) and {example_id, *own_ids[0]} & set(listed):
        return Refusal("exclude", "it stands on the list of examples never to take")
    held = connection.execute(
        "SELECT file, item, matched, counted FROM contamination"
        " WHERE run_id = ? AND example_id = ? AND dropped",
        key,
    ).fetchall()
    if held:
        file, item, matched, counted = held[0]
        words = f"it holds {matched} of {counted} runs of words of the item {item} of {file}"
        return Refusal("decontamination", words)
    return Refusal("before ranking", _counted(connection, chosen, config))


def row_in_pool(
    connection: Connection, workspace: Workspace, chosen: SelectionRow, reference: str
) -> str | None:
    """Example id of a whole id or an own id in the pool of a run, where the pool is still there.

    Raises InputError for an own id that several examples have.
    """
    pool = _pool_folder(connection, workspace, chosen)
    if pool is None:
        return None
    from storage.pools.pool import open_pool  # numpy and polars; most questions need neither

    opened = open_pool(pool)
    rows, _ = opened.rows_of_ids([reference])
    names = opened.examples_at(rows)["example_id"].to_pylist()
    if len(names) > 1:
        raise InputError(
            f"means {len(names)} examples of the pool",
            field="example",
            value=reference,
            remedy=f"Name one of them: {', '.join(names[:8])}.",
        )
    return str(names[0]) if names else None


def _own_ids(
    connection: Connection, workspace: Workspace, chosen: SelectionRow, example_id: str
) -> tuple[Sequence[str], bool] | None:
    """(own ids, whether `where` lets it pass) of an example; None where the pool lacks it.

    Without the pool, what the catalog knows, and that it passes.
    """
    folder = _pool_folder(connection, workspace, chosen)
    if folder is None:
        known = connection.execute(
            "SELECT DISTINCT own_id FROM occurrence WHERE example_id = ? AND own_id IS NOT NULL",
            [example_id],
        ).fetchall()
        return [row[0] for row in known], True
    from storage.pools.pool import open_pool

    pool = open_pool(folder)
    rows, unknown = pool.rows_of_ids([example_id])
    if unknown:
        return None
    where = config_of(connection, chosen.run_id).get("where")
    all_rows = pool.occurrences_at(rows)
    passing = pool.passing_occurrences(rows, where if isinstance(where, str) else None)
    return [name for name in all_rows["own_id"].to_pylist() if name], passing.num_rows > 0


def _pool_folder(connection: Connection, workspace: Workspace, chosen: SelectionRow) -> Path | None:
    ((pool_id,),) = connection.execute(
        "SELECT pool_id FROM run WHERE run_id = ?", [chosen.run_id]
    ).fetchall()
    folder = workspace.pools / str(pool_id)
    return folder if pool_id and is_complete(folder) else None


def _counted(connection: Connection, chosen: SelectionRow, config: Mapping[str, object]) -> str:
    """What else may have taken it out, with counts."""
    listed_in_file = isinstance(config.get("exclude"), str) and config.get("exclude")
    open_reasons = [
        (reason, n)
        for reason, n in connection.execute(
            "SELECT reason, sum(n)::BIGINT FROM run_drop WHERE run_id = ? AND stage = 'filter'"
            " GROUP BY ALL ORDER BY 2 DESC, 1",
            [chosen.run_id],
        ).fetchall()
        if reason not in _DECIDED or (reason == "excluded" and listed_in_file)
    ]
    if not open_reasons:
        return "it was not ranked, and no reason is recorded"
    named = ", ".join(f"{n:,} {reason}" for reason, n in open_reasons)
    return f"it was dropped with others before ranking ({named})"
