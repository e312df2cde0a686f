"""What `why` says of samples that were not picked: a run with that one change does pick them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.config.jobs import SelectConfig
from flows.stages.record.material import RunFacts
from flows.stages.represent.representer import open_representer
from flows.stages.select_samples import decide_run, select_and_record
from selection.core.hashing import content_id
from storage.audit.explain import Explanation, explain
from storage.files.workspace import Workspace
from storage.queries.sql import run_sql
from tests.run_stages import run_job, tiny_config
from tests.tiny_model import tiny_row, write_jsonl

QUOTAS = [{"column": "source", "others": {"cap": 2}}]
LONG = "The old harbor town held its market every second Sunday under the lime trees by the river"


def near_copy(i: int) -> dict[str, Any]:
    """Almost row i: the same question, one more word in the answer."""
    row = tiny_row(i)
    *before, answer = row["messages"]
    answer = {**answer, "content": answer["content"] + " Yes."}
    return {**row, "id": f"near-{i}", "messages": [*before, answer]}


@pytest.fixture(scope="module")
def paths(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, tiny_sae_dir: Path
) -> tuple[Path, Path, Path, Path]:
    folder = tmp_path_factory.mktemp("refusals")
    copied = {**tiny_row(3), "id": "copied"}
    copied["messages"] = [{"role": "user", "content": LONG}, copied["messages"][1]]
    rows = [tiny_row(i) for i in range(28)] + [near_copy(i) for i in range(0, 28, 4)]
    rows += [copied, {**tiny_row(400), "id": "exemplar-copy"}]
    pool = write_jsonl(folder / "pool.jsonl", rows)
    exemplars = write_jsonl(folder / "exemplars.jsonl", [tiny_row(i) for i in (400, 404, 408)])
    write_jsonl(folder / "eval.jsonl", [{**tiny_row(5), "messages": copied["messages"]}])
    return pool, exemplars, tiny_model_dir, tiny_sae_dir


@dataclass(frozen=True)
class Selector:
    """Runs over one pool whose vectors were computed once."""

    paths: tuple[Path, Path, Path, Path]
    workspace: Workspace
    pool_id: str

    def config(self, more: dict[str, Any]) -> SelectConfig:
        return tiny_config(*self.paths, index=False, explain_exemplars=1, **more)

    def run(self, more: dict[str, Any]) -> str:
        """Id of the main selection of a recorded run."""
        config, now = self.config(more), datetime.now(UTC)
        facts = RunFacts(content_id([now.isoformat()]), f"run-{now.timestamp()}", now, "test")
        sae = str(self.paths[3])
        rows = select_and_record(config, self.workspace, self.pool_id, sae, facts)
        return str(rows[0]["selection_id"])

    def picks_with(self, more: dict[str, Any]) -> list[str]:
        """Picks of the main selection that a config leads to."""
        config, now = self.config(more), datetime.now(UTC)
        representer = open_representer(config, self.workspace, str(self.paths[3]))
        facts = RunFacts("again", "again", now, "test")
        scores = self.workspace.root / "again"
        found = decide_run(representer, self.pool_id, facts, scores)
        return [str(name) for name in found.top_of(found.decided[0])["example_id"].to_pylist()]


@pytest.fixture(scope="module")
def selector(
    paths: tuple[Path, Path, Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Selector:
    config = tiny_config(*paths, index=False)
    workspace, _ = run_job(config, tmp_path_factory.mktemp("refusals-workspace"))
    (pool,) = workspace.pools.iterdir()
    return Selector(paths, workspace, pool.name)


def picked(workspace: Workspace, selection: str) -> list[str]:
    query = f"SELECT example_id FROM pick WHERE selection_id = '{selection}' ORDER BY rank"
    return [str(row[0]) for row in run_sql(workspace, query).rows]


def left_out(workspace: Workspace, selection: str) -> list[Explanation]:
    """Some that were ranked and not picked: the first and last ones, and the first passed over."""
    query = (
        "SELECT example_id, selection_drop.n IS NULL FROM scores"
        " ANTI JOIN pick USING (selection_id, example_id)"
        " LEFT JOIN selection_drop USING (selection_id, example_id)"
        f" WHERE selection_id = '{selection}' ORDER BY rank"
    )
    rows = run_sql(workspace, query).rows
    behind = [str(name) for name, is_behind in rows if is_behind]
    passed_over = [str(name) for name, is_behind in rows if not is_behind]
    wanted = dict.fromkeys([*behind[:3], *behind[-1:], *passed_over[:1], *passed_over[-1:]])
    return [explain(workspace, selection, name) for name in wanted]


def with_change(more: dict[str, Any], found: Explanation) -> dict[str, Any]:
    """The config's keys with the one change that is claimed."""
    assert found.change is not None
    section, _, key = found.change.key.partition(".")
    return {**more, section: {key: found.change.value} if key else found.change.value}


DUPLICATES = {"similarity": 0.5, "text_overlap": 0.3}


@pytest.mark.parametrize(
    ("more", "rules", "keys"),
    [
        ({"budget": {"examples": 4}, "min_score": 0.3}, {"budget", "min_score"},
         {"budget.examples", "include"}),
        ({"budget": {"tokens": 4000}, "min_score": 0.36}, {"min_score"}, {"min_score"}),
        ({"budget": {"examples": 4}}, {"budget"}, {"budget.examples"}),
        ({"budget": {"tokens": 300}}, {"budget"}, {"budget.tokens"}),
        ({"budget": {"fraction": 0.2}, "include": ["row-1"]}, {"budget"}, {"budget.fraction"}),
        ({"budget": {"fraction": 0.2}, "quotas": QUOTAS}, {"budget", "quotas"},
         {"quotas", "include"}),
        ({"budget": {"examples": 12}, "near_duplicates": DUPLICATES},
         {"budget", "near_duplicates"}, {"near_duplicates", "include"}),
        ({"budget": {"examples": 6}, "diversity": {"trade": 0.3}}, {"budget", "diversity"},
         {"diversity", "include"}),
        ({"budget": {"examples": 8}, "quotas": QUOTAS, "include": ["row-2"],
          "near_duplicates": DUPLICATES}, {"budget", "quotas", "near_duplicates"}, {"include"}),
        ({"budget": {"tokens": 300}, "diversity": {"trade": 1.0}}, {"budget"}, set()),
    ],
    ids=["min-score", "min-score-tokens", "examples", "tokens", "include", "quotas",
         "near-duplicates", "diversity", "several", "diversity-tokens"],
)  # fmt: skip
def test_the_change_that_is_claimed_admits_the_sample(
    selector: Selector, more: dict[str, Any], rules: set[str], keys: set[str]
) -> None:
    """Where a rule is on, no budget is claimed, even if the rule did not bite at this one."""
    told = left_out(selector.workspace, selector.run(more))
    assert {found.refusal.rule for found in told if found.refusal} == rules
    claims = {(found.refusal.rule, found.change.key): found  # the last of each kind
              for found in told if found.change and found.refusal}  # fmt: skip
    assert {key for _, key in claims} == keys
    for found in claims.values():
        picks = selector.picks_with(with_change(more, found))
        assert found.example_id in picks, (found.refusal, found.change)
        if found.change and found.change.key.startswith("budget"):
            assert picks[-1] == found.example_id  # and nothing less would do


def test_a_control_is_claimed_for_only_where_its_main_selection_has_no_rules(
    selector: Selector,
) -> None:
    for more, claims in (({}, True), ({"quotas": QUOTAS}, False)):
        selection = selector.run({"budget": {"examples": 4}, "controls": ["random"], **more})
        told = left_out(selector.workspace, f"{selection[:-1]}2")
        assert {found.change is not None for found in told} == {claims}


def test_samples_that_were_never_ranked_are_told_which_rule_took_them_out(
    selector: Selector,
) -> None:
    evaluation = str(selector.paths[0].parent / "eval.jsonl")
    query = "SELECT median(tokens)::BIGINT FROM near_miss"  # of the run that made the vectors
    ((middle,),) = run_sql(selector.workspace, query).rows
    selection = selector.run(
        {
            "where": "source <> 'translation'",
            "exclude": ["row-4"],
            "length": {"max_tokens": middle},
            "decontamination": {"files": [evaluation]},
        }
    )
    expected = {
        "row-1": "where",
        "exemplar-copy": "drop_exemplar_copies",
        "row-4": "exclude",
        "copied": "decontamination",
        "0" * 32: "pool",
    }
    for name, rule in expected.items():
        found = explain(selector.workspace, selection, name)
        assert (found.standing, found.change) == ("not ranked", None)
        assert found.refusal is not None
        assert found.refusal.rule == rule
    query = f"SELECT example_id FROM scores WHERE selection_id = '{selection}'"
    ranked = {str(row[0]) for row in run_sql(selector.workspace, query).rows}
    told = [explain(selector.workspace, selection, f"row-{i}") for i in (0, 2, 3, 6)]
    dropped = [found for found in told if found.example_id not in ranked]
    assert dropped
    assert all("too_long" in found.refusal.words for found in dropped if found.refusal)


def test_a_pick_says_what_brought_it_in(selector: Selector) -> None:
    floor = [{"column": "source", "values": {"translation": {"floor": 2}}}]
    selection = selector.run({"budget": {"examples": 4}, "include": ["row-2"], "quotas": floor})
    names = picked(selector.workspace, selection)
    told = [explain(selector.workspace, selection, name) for name in names]
    assert told[0].reason == "included"
    assert {(found.reason, found.detail) for found in told} == {
        ("included", None),
        ("floor", "source=translation has a floor of 2"),
        ("score", None),
    }
    assert all(found.refusal is None and found.change is None for found in told)
