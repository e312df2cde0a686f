import re
import shutil
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from selection.core.errors import InputError
from selection.records import DropReason
from storage.catalog.arrow_rows import to_arrow
from storage.catalog.commit import commit
from storage.export.export import export_selection
from storage.files.workspace import Workspace, open_workspace
from storage.queries.lookup import diff, find_selection, picks
from storage.report.page import SCRIPT, policy, write_report
from storage.report.picks import MOST_CHARACTERS, turns_of
from storage.wording.drops import DROPPED
from tests.catalog_fixture import made_workspace, make_tables
from tests.catalog_run import HOSTILE, tool_example

ATTRIBUTES = {
    "lang", "charset", "name", "content", "http-equiv", "href", "class", "id", "aria-label",
    "aria-hidden", "role", "style", "title", "type", "hidden", "data-rank", "data-level",
    "data-levels", "viewbox", "preserveaspectratio", "d", "x1", "x2", "y1", "y2", "autocomplete",
    "spellcheck", "placeholder",
}  # fmt: skip
VOID = {"meta", "br", "path", "line", "input"}


class Page(HTMLParser):
    """Text, tags and attributes of a page; complains about tags that do not match."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open_tags: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(source)
        assert self.open_tags == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open_tags[-1:] not in (["script"], ["style"]):
            self.texts.append(data)

    @property
    def text(self) -> str:
        """What is read on the page, with single spaces."""
        return " ".join(" ".join(self.texts).replace("\u202f", " ").split())

    def section(self, start: str, end: str) -> str:
        return self.text.split(start, 1)[1].split(end, 1)[0]


def report_of(workspace: Workspace, selection: str = "calm-otter") -> Page:
    return Page(write_report(workspace, selection).read_text(encoding="utf-8"))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return made_workspace(tmp_path)


def test_the_first_screen_says_what_was_asked_chosen_refused_and_what_next(
    workspace: Workspace,
) -> None:
    page = report_of(workspace)
    asked = page.section("Request", "Result")
    assert "Choose 120 samples for the target task gsm8k , shown by 8 exemplars" in asked
    assert "from data , where quality > 0.5 ." in asked
    chosen = page.section("Result", "Dropped")
    assert "120 of 320 eligible samples (38 %)" in chosen
    scores = [
        row.score or 0.0
        for row in picks(workspace, find_selection(workspace, "latest").selection_id)
    ]
    assert f"Scores fall from {max(scores):.4f} to {min(scores):.4f} at the cut" in chosen
    assert "come from grade-school-math , which holds 32 % of the pool" in chosen
    n_both = diff(workspace, "calm-otter", "calm-otter-bm25").n_both
    shared = page.section("Shared with BM25 ", "Request")
    assert shared.startswith(f"{n_both / 1.2:.0f} % of the picks are also picked by BM25")
    assert f"{n_both / 1.2:.0f} % also BM25" in shared
    assert "random control shares" in page.section("Checked", "Next")
    refused = page.section("Dropped", "Checked")
    assert "23 did not pass the filter, 14 had no text, 6 had images or audio" in refused
    assert "The other 200 eligible samples rank below" in refused
    following = page.section("Next", "Pool vs selection")
    assert f"saelect export calm-otter -w {workspace.root}" in following
    assert f"saelect report calm-otter calm-otter-bm25 -w {workspace.root}" in following


def test_after_an_export_the_next_step_is_training(workspace: Workspace) -> None:
    export_selection(workspace, "calm-otter")
    following = report_of(workspace).section("Next", "Pool vs selection")
    assert "Train on exports/calm-otter/train.jsonl" in following
    assert "saelect export" not in following


def test_the_report_needs_the_snapshot_only(workspace: Workspace) -> None:
    for entry in workspace.root.iterdir():
        if entry not in (workspace.snapshot, workspace.root / "workspace.json"):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    assert "120 of 320" in report_of(workspace).text
    assert (workspace.reports / "calm-otter.html").exists()


def test_nothing_from_the_data_becomes_markup(workspace: Workspace) -> None:
    source = write_report(workspace, "calm-otter").read_text(encoding="utf-8")
    page = Page(source)
    scripts = re.findall(r"<script[^>]*>", source)
    assert scripts[-1] == "<script>"
    assert all('type="application/json"' in script for script in scripts[:-1])
    assert len(scripts) == 3
    spelled = re.sub(r"[\[\]\s]", "", HOSTILE)  # tokens that are marked split the text
    assert spelled in re.sub(r"\s", "", page.text)  # to be read, as it is
    assert "{{ 7 * 7 }}" in page.text
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_hostile_names_and_config_values_are_escaped(tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path)
    tables = make_tables(n_selected=3)
    bad = '"><img src=x onerror=alert(1)>'
    for name, columns in {
        "run": ["name", "who", "host", "note", "model", "sae", "hookpoint", "git_sha"],
        "selection": ["target", "exemplar_reduction", "weights"],
        "occurrence": ["source", "file", "own_id", "licence"],
        "latent_description": ["description"],
        "run_source": ["source"],
        "run_drop": ["reason", "stage"],
        "artifact": ["artifact", "step"],
    }.items():
        rows = [{**row, **dict.fromkeys(columns, bad)} for row in tables[name].to_pylist()]
        tables[name] = to_arrow(name, rows)
    tables["run"] = to_arrow(
        "run", [{**tables["run"].to_pylist()[0], "config": {"where": bad, "pool": [{"path": bad}]}}]
    )
    tables["latent_description"] = tables["latent_description"].slice(0, 1)
    commit(workspace, tables)
    page = report_of(workspace)
    assert "img" not in page.tags
    assert bad in page.text
    assert {name for name, _ in page.attributes} <= ATTRIBUTES


def test_the_page_asks_the_network_for_nothing(workspace: Workspace) -> None:
    source = write_report(workspace, "calm-otter").read_text(encoding="utf-8")
    page = Page(source)
    links = [value for name, value in page.attributes if name in ("href", "src")]
    assert links
    assert all(value and value.startswith("#") for value in links)
    assert not re.search(r"@import|url\(|https?://|fetch\(|XMLHttp|import\(", source)
    assert ("content", policy(SCRIPT)) in page.attributes
    assert policy(SCRIPT).startswith("default-src 'none'; style-src 'unsafe-inline'; script-src")


def test_every_inner_link_leads_somewhere(workspace: Workspace) -> None:
    page = report_of(workspace)
    ids = {value for name, value in page.attributes if name == "id"}
    links = {str(value)[1:] for name, value in page.attributes if name == "href"}
    assert links <= ids


def test_picks_show_score_source_latents_and_exemplar(workspace: Workspace) -> None:
    page = report_of(workspace)
    first = picks(workspace, find_selection(workspace, "calm-otter").selection_id, 1)[0]
    shown = page.section("This file holds all 120 picks", "What comes right after")
    assert f"1 {first.score:.4f} grade-school-math {first.tokens} tokens mit" in shown
    assert "amounts of money and change" in shown
    assert "a latent" in shown  # one without a description
    assert "That exemplar" in shown
    assert f"data/grade-school-math.jsonl, row {first.row}" in shown
    assert "in 2 places" in shown


def test_each_reason_for_a_drop_has_words() -> None:
    assert {str(reason) for reason in DropReason} == set(DROPPED)


def test_two_reports_of_a_selection_differ_in_the_time_only(workspace: Workspace) -> None:
    from storage.catalog.snapshot import open_snapshot
    from storage.report.gather import report_facts
    from storage.report.page import command_in, render
    from storage.report.payload import pick_data

    at = datetime(2026, 11, 23, tzinfo=UTC)
    pages = []
    for _ in range(2):
        with open_snapshot(workspace) as connection:
            facts = report_facts(connection, find_selection(workspace, "calm-otter"))
        data = pick_data(facts.picks, facts.exemplars, {})
        pages.append(render(facts, data, at, command_in(workspace), {}))
    assert pages[0] == pages[1]


def test_the_demo_model_is_named_loudly(tmp_path: Path, workspace: Workspace) -> None:
    demo = made_workspace(tmp_path / "demo", is_demo=True)
    assert "The demonstration model represented these samples." in report_of(demo).text
    assert "demonstration model" not in report_of(workspace).text


@pytest.mark.parametrize("name", ["calm-otter-random", "calm-otter-bm25"])
def test_a_control_has_a_report_without_latents(workspace: Workspace, name: str) -> None:
    page = report_of(workspace, name)
    assert "saelect selection, a control" in page.text
    assert "That exemplar" not in page.text
    assert "What comes right after" in page.text
    assert f"saelect report calm-otter {name}" in page.text


def blank(table: pa.Table, keep: set[str]) -> list[dict[str, Any]]:
    return [{k: v if k in keep else None for k, v in row.items()} for row in table.to_pylist()]


def test_a_run_that_recorded_only_what_it_must_has_a_report(tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path)
    made = make_tables(n_selected=3)
    required = {
        "run": {"run_id", "name", "created_at"},
        "selection": {
            "selection_id", "run_id", "name", "method", "role", "n_eligible", "n_selected"
        },
        "pick": {"selection_id", "rank", "example_id"},
        "sample": {"example_id", "messages"},
        "occurrence": {"run_id", "example_id", "source", "file", "row"},
    }  # fmt: skip
    tables = {name: to_arrow(name, blank(made[name], keep)) for name, keep in required.items()}
    commit(workspace, tables)
    page = report_of(workspace)
    assert "Nothing was dropped before ranking." in page.text
    assert "None" not in page.text
    export_selection(workspace, "calm-otter")


def test_a_selection_without_picks_has_a_report(tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path)
    made = make_tables(n_selected=3)
    row = {**made["selection"].to_pylist()[0], "n_selected": 0, "cut_score": None, "n_tokens": 0}
    tables = {"run": made["run"], "selection": to_arrow("selection", [row])}
    commit(workspace, tables)
    page = report_of(workspace)
    assert "That is 3 fewer than asked for" in page.text


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ({"examples": 1}, "Choose 1 sample for"),
        ({"fraction": 0.05}, "Choose 5.0 % of the eligible samples for"),
        ({"tokens": 100000}, "Choose samples of 100,000 tokens in all for"),
    ],
)
def test_budgets_are_told_in_their_unit(
    tmp_path: Path, budget: dict[str, float], words: str
) -> None:
    workspace = open_workspace(tmp_path)
    tables = make_tables(n_selected=3)
    rows = [{**r, "budget": budget, "unused_tokens": 17} for r in tables["selection"].to_pylist()]
    commit(workspace, {**tables, "selection": to_arrow("selection", rows)})
    page = report_of(workspace)
    assert words in page.text
    assert "17 tokens of the budget are left" in page.text


def test_several_target_tasks_are_told_apart(tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path)
    tables = make_tables(n_selected=4)
    other = [{**row, "target": "humaneval"} for row in tables["exemplar"].to_pylist()[:3]]
    picks = [
        {**row, "target": "humaneval" if row["rank"] % 2 else "gsm8k"}
        for row in tables["pick"].to_pylist()
    ]
    selections = [{**row, "target": None} for row in tables["selection"].to_pylist()]
    exemplars = to_arrow("exemplar", [*tables["exemplar"].to_pylist(), *other])
    commit(
        workspace,
        {
            **tables,
            "exemplar": exemplars,
            "pick": to_arrow("pick", picks),
            "selection": to_arrow("selection", selections),
        },
    )
    page = report_of(workspace)
    assert "for 2 target tasks , shown by 11 exemplars" in page.text
    assert "Target tasks target task exemplars picks best score" in page.text
    assert "humaneval 3 2" in page.text


def test_tool_calls_and_reasoning_are_readable(tmp_path: Path) -> None:
    page = report_of(made_workspace(tmp_path, extra=(tool_example(),)))
    assert 'weather {"city":"Kraków"}' in page.text
    assert "rain is true" in page.text


def test_long_texts_are_cut_and_say_so() -> None:
    messages = '[{"role":"user","content":"%s"},{"role":"assistant","content":"ab"}]'
    turns = turns_of(messages % ("x" * (MOST_CHARACTERS + 5)))
    assert [len(turn.text) for turn in turns] == [MOST_CHARACTERS, 0]
    assert [turn.n_hidden for turn in turns] == [5, 2]
    assert [turn.n_hidden for turn in turns_of(messages % "x")] == [0, 0]


def test_the_report_goes_where_it_is_told(workspace: Workspace, tmp_path: Path) -> None:
    path = write_report(workspace, "latest", out=tmp_path / "deep" / "r.html")
    assert path == tmp_path / "deep" / "r.html"
    assert path.stat().st_size < 400_000
    with pytest.raises(InputError, match="no selection has this name"):
        write_report(workspace, "nothing")
