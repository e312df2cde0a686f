"""forget: stopped and carried on, beside others, by the journal alone, and what it refuses."""

import json
import multiprocessing
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flows.cli.options import carry_on_forgetting
from selection.core.errors import InputError
from selection.sae.interpret.latents_file import FILE, write_latents
from storage.audit.bundle import write_bundle
from storage.audit.forget import finish, forget
from storage.audit.forget_files import quoting_latents
from storage.audit.forget_pages import forget_runs
from storage.audit.verify import ALTERED, IN_PROGRESS, verify
from storage.catalog.commit import commit
from storage.export.export import export_selection
from storage.files.in_use import Busy, alone, in_use
from storage.files.workspace import Workspace, open_workspace
from storage.queries.lookup import find_selection, picks
from storage.queries.sql import run_sql
from storage.report.page import write_report
from tests.catalog_run import real_run
from tests.faults_forget import files_with, make_template, stopped_everywhere


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    shutil.copytree(real_run().parent / "workspace", tmp_path / "workspace")
    return open_workspace(tmp_path / "workspace")


def second_pick(workspace: Workspace) -> str:
    chosen = find_selection(workspace, "latest")
    return picks(workspace, chosen.selection_id)[1].example_id


def test_stopped_at_a_step_and_carried_on_it_leaves_nothing(tmp_path: Path) -> None:
    """At 2 of the steps; `make faults` stops at more, with N=0 at all of them."""
    person = make_template(tmp_path / "template")
    steps = list(stopped_everywhere(tmp_path, person, 2))
    assert len(steps) == 2
    assert [(step, left) for step, left in steps if left] == []


def hold(root: Path, is_held: Event, is_over: Event, *, exclusive: bool) -> None:
    with alone(Workspace(root), 1) if exclusive else in_use(Workspace(root)):
        is_held.set()
        is_over.wait(60)


@contextmanager
def at_work(workspace: Workspace, *, exclusive: bool) -> Iterator[None]:
    """Another process that works in the workspace, or forgets there."""
    context = multiprocessing.get_context("spawn")
    is_held, is_over = context.Event(), context.Event()
    arguments = (workspace.root, is_held, is_over)
    other = context.Process(target=hold, args=arguments, kwargs={"exclusive": exclusive})
    other.start()
    try:
        assert is_held.wait(60)
        yield
    finally:
        is_over.set()
        other.join(60)


def test_a_run_at_work_keeps_forget_out_and_the_other_way_round(workspace: Workspace) -> None:
    example_id = second_pick(workspace)
    with at_work(workspace, exclusive=False):
        with pytest.raises(InputError, match="a run, an export or a check is at work"):
            forget(workspace, [example_id], "", wait_s=0)
        assert not workspace.forget_journal.exists()
        with in_use(workspace, wait_s=0):  # others may go on
            pass
    with at_work(workspace, exclusive=True):
        with pytest.raises(Busy, match="`saelect forget` is at work"), in_use(workspace, wait_s=0):
            pass
        assert {each.state for each in verify(workspace)} == {IN_PROGRESS}
        assert finish(workspace) is None
    assert IN_PROGRESS not in {each.state for each in verify(workspace)}


def test_a_stopped_forget_is_named_by_verify_and_ended_by_any_command(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example_id = second_pick(workspace)
    with monkeypatch.context() as patch:
        patch.setattr("storage.audit.forget._forget_in_catalog", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            forget(workspace, [example_id], "asked by the author")
    assert {each.state for each in verify(workspace)} == {IN_PROGRESS}
    carry_on_forgetting(workspace.root)
    assert "a `forget` of 1 sample had been stopped" in capsys.readouterr().err
    assert ALTERED not in {each.state for each in verify(workspace)}
    ((reason,),) = run_sql(workspace, "SELECT reason FROM forgotten").rows
    assert reason == "asked by the author"


def test_a_journal_that_was_changed_by_hand_is_refused(workspace: Workspace) -> None:
    workspace.forget_journal.write_text('{"example_ids": 3}')
    with pytest.raises(InputError, match="not the journal of a `forget`"):
        finish(workspace)


def test_damaged_descriptions_are_refused_by_name(workspace: Workspace) -> None:
    file = workspace.described("abc") / FILE
    file.parent.mkdir(parents=True)
    write_latents(file, [{"latent": 7, "description": "x", "examples": []}], {"sae_sha256": "abc"})
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match=r"latents\.parquet: the descriptions are not readable"):
        forget(workspace, [second_pick(workspace)], "")


def test_a_manifest_that_only_says_redacted_is_not_recorded_again(workspace: Workspace) -> None:
    (manifest,) = workspace.pools.glob("*/manifest.json")
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "redacted": 1, "n_rows": 7}))
    forget(workspace, [second_pick(workspace)], "")  # writes that manifest too
    altered = [each for each in verify(workspace) if each.state == ALTERED]
    assert [each.name for each in altered] == [workspace.relative(manifest)]


def test_what_was_changed_by_hand_stays_altered(workspace: Workspace) -> None:
    example_id = second_pick(workspace)
    (part,) = workspace.pools.glob("*/examples-*.parquet")
    pq.write_table(pq.read_table(part), part)  # other bytes
    values = next(workspace.shards.glob("*/*/values.npy"))
    values.write_bytes(values.read_bytes()[:-1] + b"\x07")
    forget(workspace, [example_id], "")
    altered = {each.kind for each in verify(workspace) if each.state == ALTERED}
    assert "pool" in altered


def test_bundles_are_written_again_inside_and_named_outside(
    workspace: Workspace, tmp_path: Path
) -> None:
    chosen = find_selection(workspace, "latest")
    example_id = second_pick(workspace)
    inside = write_bundle(workspace, chosen.name)
    outside = write_bundle(workspace, chosen.name, tmp_path / "outside")
    text = picks(workspace, chosen.selection_id)[1].text
    needle = str(text).split("\n")[0][-30:]
    assert files_with(inside, needle)
    done = forget(workspace, [example_id], "")
    assert workspace.relative(inside) in done.rewritten
    assert done.outside == [str(outside)]
    assert not files_with(inside, needle)
    assert files_with(outside, needle)


def test_reports_written_elsewhere_are_written_again_and_copies_are_named(
    workspace: Workspace, tmp_path: Path
) -> None:
    chosen = find_selection(workspace, "latest")
    pick = picks(workspace, chosen.selection_id)[1]
    inside, outside = workspace.root / "pages" / "a.html", tmp_path / "b.html"
    for page in (inside, outside, None):
        write_report(workspace, chosen.name, page)
    shutil.copy(inside, workspace.reports / "copy.html")
    copy = workspace.exports / "copy.jsonl"
    workspace.exports.mkdir(exist_ok=True)
    copy.write_text(str(pick.text), encoding="utf-8")
    forgotten = forget(workspace, [pick.example_id], "")
    assert [Path(path) for path in forgotten.outside] == [outside]
    assert forgotten.unknown == ["exports/copy.jsonl"]
    assert not (workspace.reports / "copy.html").exists()  # it named the sample
    copy.unlink()
    needle = str(pick.text).split("\n")[0][-30:]
    assert needle in outside.read_text(encoding="utf-8")
    assert files_with(workspace.root, needle) == set()


def test_descriptions_that_quote_a_sample_are_removed(workspace: Workspace) -> None:
    example_id = second_pick(workspace)
    ((text,),) = run_sql(
        workspace, f"SELECT text FROM pick WHERE example_id = '{example_id}' LIMIT 1"
    ).rows
    quote = str(text).split("\n")[0].removeprefix("user: ")
    file = workspace.described("abc") / FILE
    file.parent.mkdir(parents=True)
    lines = [line_of(7, example_id, quote), line_of(8, "another", "another text")]
    write_latents(file, lines, {"sae_sha256": "abc"})
    # A file may have been replaced since; then the text decides.
    quotes = {5: f"{quote[:6]}[{quote[6:]}]", 6: "of another[ text]"}
    rows = [
        {"sae": "old", "latent": latent, "description": f"“x”, as in …{words}…"}
        for latent, words in quotes.items()
    ]
    commit(workspace, {"latent_description": rows})
    assert quoting_latents(workspace, [example_id]) == ["abc:7", "old:5"]
    forget(workspace, [example_id], "")
    first, second = pq.read_table(file).to_pylist()
    assert (first["examples"], first["description"]) == ([], None)
    assert second["description"] == lines[1]["description"]
    kept = run_sql(
        workspace,
        "SELECT latent, description FROM latent_description WHERE sae = 'old' ORDER BY 1",
    )
    assert list(kept.rows) == [(5, None), (6, rows[1]["description"])]
    assert ALTERED not in {each.state for each in verify(workspace)}


def line_of(latent: int, example_id: str, quote: str) -> dict[str, object]:
    example = {"example": example_id, "before": quote[:9], "token": "x", "after": "", "act": 1.0}
    return {"latent": latent, "description": f"“x”, as in …{quote}…", "examples": [example]}


def test_pages_of_a_run_leave_the_database_of_the_server_byte_by_byte(tmp_path: Path) -> None:
    file = tmp_path / "prefect.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for table in ("artifact", "artifact_collection"):
            connection.execute(f"CREATE TABLE {table} (flow_run_id TEXT, data TEXT)")
            rows = [("run-1", "the text of a person"), ("run-2", "of another run"), (None, "none")]
            connection.executemany(f"INSERT INTO {table} VALUES (?, ?)", rows)
        connection.commit()
    assert forget_runs(file, []) == 0
    assert forget_runs(file, ["run-1", "run-3"]) == 2
    left = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"text of a person" not in left
    assert left.count(b"of another run") == 2
    file.write_bytes(b"no database" * 100)
    with pytest.raises(InputError, match="pages of runs cannot be removed"):
        forget_runs(file, ["run-1"])


def test_a_damaged_part_of_a_pool_is_refused_by_name(workspace: Workspace) -> None:
    example_id = second_pick(workspace)
    (part,) = workspace.pools.glob("*/examples-*.parquet")
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(InputError, match="not readable as Parquet") as refusal:
        forget(workspace, [example_id], "")
    assert str(part) in str(refusal.value)


def test_what_stopped_processes_left_is_removed_at_the_next_start(workspace: Workspace) -> None:
    export_selection(workspace, find_selection(workspace, "latest").name)
    write_report(workspace, find_selection(workspace, "latest").name)
    context = multiprocessing.get_context("spawn")
    other = context.Process(target=leave_behind, args=(workspace.root,))
    other.start()
    other.join()
    assert len(list(workspace.root.rglob(".tmp-*"))) == 3
    again = workspace.root.with_name("again")
    shutil.move(workspace.root, again)  # a root that this process has not looked at yet
    open_workspace(again)
    assert list(again.rglob(".tmp-*")) == []


def leave_behind(root: Path) -> None:
    from storage.files.atomic import temp_path

    for folder in (root, root / "reports", next((root / "exports").iterdir())):
        temp_path(folder / "x").write_text("half")
