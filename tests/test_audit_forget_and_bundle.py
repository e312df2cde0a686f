"""verify, forget and bundle on a real small run: what is changed is found, what is gone is gone."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest

from selection.core.errors import InputError
from storage.audit.bundle import write_bundle
from storage.audit.forget import forget, meant
from storage.audit.forget_pages import shown_on
from storage.audit.verify import ALTERED, MISSING, REDACTED, head, verify
from storage.catalog.integrity import Head
from storage.export.export import export_selection
from storage.files.workspace import Workspace, open_workspace
from storage.queries.lookup import find_selection, picks
from storage.queries.sql import run_sql
from storage.report.compare import VERSUS
from storage.report.page import write_report
from tests.faults_forget import files_with
from tests.run_stages import run_job, tiny_config


@pytest.fixture(scope="module")
def template(
    tiny_pool_path: Path,
    tiny_exemplars_path: Path,
    tiny_model_dir: Path,
    tiny_sae_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    config = tiny_config(tiny_pool_path, tiny_exemplars_path, tiny_model_dir, tiny_sae_dir)
    root = tmp_path_factory.mktemp("audit") / "workspace"
    run_job(config, root)
    return root


@pytest.fixture
def workspace(template: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(template, tmp_path / "workspace")
    return open_workspace(tmp_path / "workspace")


def states(workspace: Workspace) -> dict[str, set[str]]:
    """State -> kinds of things that are in it."""
    found: dict[str, set[str]] = {}
    for each in verify(workspace):
        found.setdefault(each.state, set()).add(each.kind)
    return found


def test_an_untouched_workspace_is_ok(workspace: Workspace) -> None:
    found = states(workspace)
    assert ALTERED not in found
    assert REDACTED not in found
    assert found["ok"] >= {
        "catalog",
        "ranking",
        "export",
        "pool",
        "rendering",
        "shards",
        "unit",
    }


def flip(path: Path) -> None:
    """Change one byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def change_text(workspace: Workspace) -> None:
    with duckdb.connect(str(workspace.snapshot)) as connection:
        connection.execute("""UPDATE sample SET messages = '[{"content":"x","role":"user"}]'""")


def change_pool(workspace: Workspace) -> None:
    (part,) = workspace.pools.glob("*/examples-*.parquet")
    table = pl.read_parquet(part)
    table.with_columns(messages=pl.col("messages").str.replace("Ann", "Bob")).write_parquet(part)


def change_scores(workspace: Workspace) -> None:
    (file,) = workspace.scores.glob("*.parquet")
    pl.read_parquet(file).with_columns(score=pl.col("score") * 0.5).write_parquet(file)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (change_text, "catalog"),
        (change_pool, "pool"),
        (change_scores, "ranking"),
        (lambda w: flip(next(w.shards.glob("*/*/values.npy"))), "shards"),
        (lambda w: flip(next(w.pools.glob("*/occurrences-*.parquet"))), "pool"),
        (lambda w: flip(next(w.pools.glob("*/renderings/*/part-*.parquet"))), "rendering"),
        (lambda w: flip(next(w.pools.glob("*/renderings/*/manifest.json"))), "rendering"),
        (lambda w: flip(next(w.units.glob("*.json"))), "unit"),
        (lambda w: flip(next(w.exports.glob("*/README.md"))), "export"),
        (lambda w: flip(next(w.reports.glob("*.html"))), "report"),
        (lambda w: (next(w.exports.glob("*")) / "more.jsonl").write_text("x"), "export"),
        (lambda w: flip(next(w.exports.glob("*/train.jsonl"))), "export"),
    ],
)
def test_whatever_is_changed_is_found(workspace: Workspace, change: Any, kind: str) -> None:
    change(workspace)
    assert states(workspace)[ALTERED] == {kind}


@pytest.mark.parametrize(
    ("folder", "kinds"),
    [
        ("pools", {"pool", "rendering"}),
        ("pools/*/renderings", {"rendering"}),
        ("units", {"unit"}),
        ("shards", {"shards"}),
        ("scores", {"ranking"}),
        ("exports", {"export"}),
        ("reports", {"report"}),
    ],
)
def test_what_is_deleted_is_missing(workspace: Workspace, folder: str, kinds: set[str]) -> None:
    shutil.rmtree(next(workspace.root.glob(folder)))
    assert states(workspace)[MISSING] == kinds


def test_a_cut_or_rewritten_history_is_seen_by_whoever_kept_its_head(workspace: Workspace) -> None:
    kept = head(workspace)
    assert Head.parse(str(kept)) == kept
    assert ALTERED not in {each.state for each in verify(workspace, kept)}
    for path in (workspace.snapshot, workspace.catalog):
        with duckdb.connect(str(path)) as connection:
            ((content,),) = connection.execute(
                f"DELETE FROM catalog_commit WHERE number = {kept.number} RETURNING content"
            ).fetchall()
            for table, (n, _) in json.loads(content)["tables"].items():
                connection.execute(
                    f'DELETE FROM "{table}" WHERE rowid >= (SELECT count(*) - {n} FROM "{table}")'
                )
    found = [each.detail for each in verify(workspace, kept) if each.kind == "catalog"]
    assert found == 2 * ["the expected head is not in this chain"]


def test_a_forgotten_sample_is_nowhere_left_and_all_else_is_as_it_was(
    workspace: Workspace, tmp_path: Path
) -> None:
    chosen = find_selection(workspace, "latest")
    before = picks(workspace, chosen.selection_id)
    gone = before[2]
    needle = str(gone.text).split("\n")[0].removeprefix("user: ")[-30:]
    outside = tmp_path / "outside"
    export_selection(workspace, chosen.name, ("messages", "original", "ids"))
    export_selection(workspace, chosen.name, out=outside)
    write_report(workspace, chosen.name)
    held = files_with(workspace.root, needle)
    assert held >= {"catalog.duckdb", "snapshot.duckdb", "train.jsonl", "original.jsonl"}
    assert any(name.startswith("examples-") for name in held)
    plain = max(re.split(r"[^\w ]", needle), key=len)  # pages write other characters their own way
    assert any(name.endswith(".html") for name in files_with(workspace.root, plain))
    vectors = {p: np.load(p) for p in workspace.shards.glob("*/*/keys.npy")}
    assert list(workspace.token_activations.glob("*/*.parquet"))

    wanted = meant(workspace, [str(gone.own_id)], None)
    assert wanted == [gone.example_id]
    done = forget(workspace, wanted, "asked by the author")

    assert files_with(workspace.root, needle) == set()
    assert any(str(outside) in path for path in done.outside)
    assert not any("outside" in path for path in done.rewritten)
    after = picks(workspace, chosen.selection_id)
    assert [(p.rank, p.example_id, p.score) for p in after] == [
        (p.rank, p.example_id, p.score) for p in before
    ]
    assert [p.text for p in after if p.example_id != gone.example_id] == [
        p.text for p in before if p.example_id != gone.example_id
    ]
    changed = sum(int((np.load(p) != keys).any(axis=1).sum()) for p, keys in vectors.items())
    assert changed == 1
    assert not workspace.token_activations.exists()
    (lines,) = workspace.exports.glob("*/train.jsonl")
    assert len(lines.read_text().splitlines()) == len(before) - 1
    marks = (
        f"SELECT example_id = '{gone.example_id}', count(*) > 0, count(turn) > 0"
        " FROM token_activations"
    )
    assert {row[0]: row[2] for row in run_sql(workspace, f"{marks} GROUP BY 1").rows} == {
        True: False,
        False: True,
    }
    tomb = run_sql(workspace, "SELECT example_id, reason, n_exports > 0 FROM forgotten")
    assert list(tomb.rows) == [(gone.example_id, "asked by the author", True)]
    found = states(workspace)
    assert ALTERED not in found
    assert found[REDACTED] == {"catalog", "pool", "rendering", "shards", "export"}


def test_pages_with_words_of_a_forgotten_exemplar_are_written_again(workspace: Workspace) -> None:
    chosen = find_selection(workspace, "latest")
    page = write_report(workspace, chosen.name)
    page.write_text("a word of an exemplar that the page does not list")
    (exemplar,) = run_sql(
        workspace, f"SELECT exemplar_id FROM exemplar WHERE run_id = '{chosen.run_id}' LIMIT 1"
    ).rows[0]
    forget(workspace, [str(exemplar)], "asked by the author")
    assert chosen.name in page.read_text()


def test_samples_to_forget_can_be_named_by_a_condition(workspace: Workspace) -> None:
    assert len(meant(workspace, [], "source = 'translation'")) == 15
    with pytest.raises(InputError, match="nothing in this workspace has this id"):
        meant(workspace, ["no-such-row"], None)


@pytest.mark.parametrize("with_text", [True, False])
def test_a_bundle_is_read_without_saelect_from_anywhere(
    workspace: Workspace, tmp_path: Path, with_text: bool
) -> None:
    chosen = find_selection(workspace, "latest")
    text = str(picks(workspace, chosen.selection_id)[0].text)
    folder = write_bundle(workspace, chosen.name, tmp_path / "bundle", with_text=with_text)
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    shutil.rmtree(workspace.root)
    with duckdb.connect(str(moved / "catalog.duckdb"), read_only=True) as connection:
        rows = connection.execute("SELECT rank, example_id FROM v_selection ORDER BY 1").fetchall()
        assert connection.execute("SELECT count(*) FROM v_why").fetchall()[0][0] > 0
        counts = "count(*), count(turn), count(first_char), count(activation)"
        places = f"SELECT {counts} FROM token_activations"
        n, *kept = connection.execute(places).fetchall()[0]
        assert n > 0
        tags = "SELECT any_value(tags) FROM duckdb_databases() WHERE path IS NOT NULL"
        assert connection.execute(tags).fetchall()[0][0] == {"storage_version": "v1.2.0+"}
        assert kept == [n if with_text else 0] * 3
    parquet = pl.read_parquet(moved / "parquet" / "v_selection.parquet").sort("rank")
    assert parquet.select("rank", "example_id").rows() == rows
    assert len(rows) == chosen.n_selected
    assert "### v_selection" in (moved / "DICTIONARY.md").read_text()
    assert "DuckDB 1.2" in (moved / "README.md").read_text()
    held = files_with(moved, text.split("\n")[0].removeprefix("user: ")[-30:])
    assert bool(held) == with_text
    with pytest.raises(InputError):
        write_bundle(Workspace(moved), chosen.name, moved)


def test_a_page_shows_one_selection_or_two_whatever_stands_in_their_names() -> None:
    known = {"a": "1", f"a{VERSUS}b": "2", "c": "3"}
    for stem, shown in {
        "c": ["3"],
        f"a{VERSUS}c": ["1", "3"],
        f"a{VERSUS}b": ["2"],
        f"a{VERSUS}b{VERSUS}c": ["2", "3"],
        f"c{VERSUS}a{VERSUS}b": ["3", "2"],
        "notes": [],
        f"a{VERSUS}gone": [],
    }.items():
        assert shown_on(stem, known) == shown
