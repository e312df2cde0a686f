"""The command line as a user meets it: in processes of its own where timing or exit codes count."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from flows.cli.run import demo_lines
from storage.export.csv_lines import csv_lines
from storage.files.workspace import Workspace
from storage.queries.sql import run_sql
from tests.catalog_fixture import made_workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return made_workspace(tmp_path_factory.mktemp("cli"))


def saelect(*arguments: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "flows.cli.main", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )


def test_help_names_every_command() -> None:
    done = saelect("--help")
    assert done.returncode == 0
    for command in ("demo", "init", "run", "neighbors", "sql", "export", "report", "show", "ls"):
        assert command in done.stdout


def test_a_mistake_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    done = saelect("run", "nowhere.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "nowhere.yaml" in done.stderr
    assert "Traceback" not in done.stderr


def test_set_without_a_value_says_how(tmp_path: Path) -> None:
    done = saelect("run", "demo", "--set", "budget.examples", cwd=tmp_path)
    assert done.returncode == 2
    assert "--set budget.examples=500" in done.stderr


def test_the_demo_ends_with_shares_of_right_picks_and_what_to_look_at(tmp_path: Path) -> None:
    """On a recorded run whose target is called as a source is: a pick of the source is right."""
    task = "grade-school-math"
    home = made_workspace(tmp_path, target=task)
    picks = run_sql(
        home,
        "SELECT s.method, o.raw FROM pick p JOIN selection s USING (selection_id)"
        " JOIN v_first_occurrence o ON o.run_id = s.run_id AND o.example_id = p.example_id",
    ).rows
    shares = []
    for method in ("jaccard", "bm25", "random"):
        right = [json.loads(str(raw))["source"] == task for each, raw in picks if each == method]
        shares.append(f"{sum(right) / len(right):.3f}")
    depth = run_sql(home, "SELECT max(depth) FROM held_out_check").rows[0][0]
    best = run_sql(home, "FROM v_selection WHERE selection = 'calm-otter' AND rank = 1").to_pylist()
    results = run_sql(home, "SELECT * FROM selection ORDER BY rowid").to_pylist()
    lines = demo_lines(home, results, "source")
    assert lines[0] == "saelect picked 120 of 320 samples for grade-school-math."
    assert next(line.split() for line in lines if task in line and "saelect" not in line) == [
        task, *shares, f"{depth:,}"
    ]  # fmt: skip
    assert f"  saelect why calm-otter {str(best[0]['example_id'])[:12]} -w {home.root}" in lines
    assert len(lines) <= 25


def test_ls_and_show_name_runs_picks_and_reasons(workspace: Workspace) -> None:
    listed = saelect("ls", "-w", str(workspace.root))
    assert "calm-otter-bm25" in listed.stdout
    shown = saelect("show", "latest", "-n", "3", "-w", str(workspace.root))
    assert shown.returncode == 0
    assert "calm-otter: 120 of" in shown.stdout
    assert "shares" in shown.stdout


def test_sql_answers_as_table_csv_and_json(workspace: Workspace) -> None:
    query = (
        "SELECT rank, score FROM v_selection WHERE selection = 'calm-otter' ORDER BY rank LIMIT 2"
    )
    table = saelect("sql", query, "-w", str(workspace.root)).stdout.splitlines()
    assert table[0].split() == ["rank", "score"]
    assert table[-1] == "2 rows"
    rows = saelect("sql", query, "-f", "csv", "-w", str(workspace.root)).stdout.splitlines()
    assert rows[0] == "rank,score"
    objects = saelect("sql", query, "-f", "json", "-w", str(workspace.root)).stdout.splitlines()
    assert [json.loads(line)["rank"] for line in objects] == [1, 2]


def test_sql_that_writes_is_refused(workspace: Workspace) -> None:
    done = saelect("sql", "DROP TABLE pick", "-w", str(workspace.root))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_control_characters_break_neither_csv_nor_a_terminal(workspace: Workspace) -> None:
    query = "SELECT 'a' || chr(13) || 'b' AS cut, chr(27) || '[31m' AS \"red\x1b[31m\""
    rows = [["cut", "kept"], ["a\rb", "\x1b[31m, as it is"], ["", "two\nlines"]]
    text = "".join(csv_lines(rows))
    assert list(csv.reader(io.StringIO(text, newline=""))) == rows
    assert "\r\n" not in text
    table = saelect("sql", query, "-w", str(workspace.root)).stdout
    assert "\x1b" not in table
    assert "\r" not in table


def test_an_error_that_quotes_the_data_has_no_control_characters(tmp_path: Path) -> None:
    turns = [{"role": "\x1b[31muser", "content": "Hi"}, {"role": "\u202ebot", "content": "Ho"}]
    (tmp_path / "pool.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    pool, out = str(tmp_path / "pool.jsonl"), str(tmp_path / "select.yaml")
    refused = saelect("init", "--pool", pool, "--exemplars", pool, "--out", out)
    assert refused.returncode == 2
    assert r"role `\x1b[31muser` is not known" in refused.stderr
    assert "\x1b" not in refused.stderr


def test_where_used_and_why_and_diff_answer(workspace: Workspace) -> None:
    query = "SELECT example_id FROM v_selection WHERE selection = 'calm-otter' AND rank = 3"
    done = saelect("sql", query, "-f", "csv", "-w", str(workspace.root))
    example = done.stdout.split()[1]
    assert "calm-otter" in saelect("where-used", example, "-w", str(workspace.root)).stdout
    assert "contribution" in saelect("why", "calm-otter", example, "-w", str(workspace.root)).stdout
    both = saelect("diff", "calm-otter", "calm-otter-random", "-w", str(workspace.root)).stdout
    assert "examples in both" in both


def test_the_schema_and_every_preset_can_be_printed() -> None:
    schema = json.loads(saelect("config", "--schema").stdout)
    assert "budget" in schema["required"]
    assert "exemplar_reduction: prototype" in saelect("config", "--preset", "paper").stdout
    assert "ranking.exemplar_reduction" in saelect("config").stdout


def test_sql_writes_parquet_to_a_file_only(workspace: Workspace, tmp_path: Path) -> None:
    query = "SELECT rank, score, text FROM v_selection WHERE selection = 'calm-otter' ORDER BY rank"
    place = ("-f", "parquet", "-w", str(workspace.root))
    assert "Parquet needs a file" in saelect("sql", query, *place).stderr
    out = tmp_path / "answer.parquet"
    saelect("sql", query, *place, "--out", str(out))
    assert pl.read_parquet(out)["rank"].to_list() == list(range(1, 121))


def test_a_report_is_shown_in_the_browser_that_there_is(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o755)
    arguments = ("report", "calm-otter", "--open", "-w", str(workspace.root))
    monkeypatch.setenv("BROWSER", str(browser))
    done = saelect(*arguments)
    assert opened.read_text() == f"{Path(done.stdout.strip()).resolve().as_uri()}\n"
    assert done.stderr == ""
    browser.write_text("#!/bin/sh\nexit 1\n")
    done = saelect(*arguments)
    assert done.returncode == 0
    assert Path(done.stdout.strip()).is_file()
