"""A recorded run decided again: the same bit by bit, or the place that was altered, in words."""

import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest
import typer

from flows.cli.audit import reproduce_run
from flows.stages.reproduce import reproduce
from selection.core.errors import InputError
from selection.records import SparseRows
from selection.representation.agreement import vector_agreement
from storage.audit.forget import forget
from storage.audit.reproduction import recorded_run
from storage.files.workspace import Workspace
from storage.queries.sql import run_sql
from tests.run_stages import run_job, tiny_config
from tests.tiny_model import tiny_row, write_jsonl


@pytest.fixture(scope="module")
def template(
    tiny_pool_path: Path,
    tiny_exemplars_path: Path,
    tiny_model_dir: Path,
    tiny_sae_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A run with rules, controls and a second space, then another run that adds shards."""
    folder = tmp_path_factory.mktemp("reproduce")
    paths = (tiny_pool_path, tiny_exemplars_path, tiny_model_dir, tiny_sae_dir)
    (folder / "never.txt").write_text("row-4\n")
    config = tiny_config(
        *paths,
        index=False,
        budget={"examples": 8},
        controls=["random", "bm25"],
        exclude=str(folder / "never.txt"),
        near_duplicates={"similarity": 0.5, "text_overlap": 0.3},
        quotas=[{"column": "source", "others": {"cap": 5}}],
        representation={"spaces": ["sae", "words"]},
    )
    run_job(config, folder / "workspace")
    more = write_jsonl(folder / "more.jsonl", [tiny_row(i) for i in range(60, 70)])
    later = {"name": "later", "index": False, "budget": {"examples": 3}}
    run_job(tiny_config(more, *paths[1:], **later), folder / "workspace")
    return folder


@pytest.fixture
def workspace(template: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(template / "workspace", tmp_path / "workspace")
    return Workspace(tmp_path / "workspace")


def content(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_run_is_reproduced_bit_by_bit_and_nothing_is_written(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(workspace.root)
    reproduce_run("tiny", workspace.root, scratch=False)
    assert content(workspace.root) == before
    said = capsys.readouterr().out
    assert "every decision and explanation is the same, bit by bit" in said
    counts = {line.split()[0]: line.split() for line in said.splitlines() if "  same" in line}
    for table in (
        "pick",
        "near_miss",
        "explanation",
        "explanation_exemplar",
        "selection",
        "selection_drop",
    ):
        assert int(counts[table][1].replace(",", "")) > 0, table
    assert len([line for line in said.splitlines() if line.startswith("scores ")]) == 3
    assert "not recorded" not in said


def in_catalog(sql: str) -> Callable[[Workspace], None]:
    def change(workspace: Workspace) -> None:
        with duckdb.connect(str(workspace.snapshot)) as connection:
            connection.execute(sql)

    return change


def swap_two_scores(workspace: Workspace) -> None:
    ((selection,),) = run_sql(
        workspace, "SELECT min(selection_id) FROM selection WHERE name LIKE 'tiny%'"
    ).rows
    file = workspace.scores / f"{selection}.parquet"
    table = pl.read_parquet(file)
    order = np.arange(len(table))
    order[[20, 21]] = order[[21, 20]]
    table.with_columns(example_id=table["example_id"][order]).write_parquet(file)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (in_catalog("UPDATE pick SET score = score + 1e-16 WHERE rank = 2"), "pick"),
        (in_catalog("UPDATE selection_drop SET detail = 'x'"), "selection_drop"),
        (in_catalog("DELETE FROM explanation WHERE position = 1"), "explanation"),
        (swap_two_scores, r"scores \S+"),
    ],
)
def test_a_decision_that_was_altered_is_named(
    workspace: Workspace,
    change: Callable[[Workspace], None],
    found: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(workspace)
    with pytest.raises(typer.Exit) as ended:
        reproduce_run("tiny", workspace.root, scratch=False)
    assert ended.value.exit_code == 1
    assert re.search(rf"^not reproduced: {found}$", capsys.readouterr().out, re.M)


def flip(path: Path) -> None:
    """Change one byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def largest(files: Iterable[Path]) -> Path:
    """Of a unit of the first run's pool: the later run's are smaller."""
    return max(files, key=lambda file: file.stat().st_size)


def sae_shards(workspace: Workspace) -> Path:
    ((name,),) = run_sql(workspace, "SELECT any_value(representation_id) FROM run").rows
    return workspace.shards / str(name)


def change_pool(workspace: Workspace) -> None:
    for part in workspace.pools.glob("*/examples-*.parquet"):
        table = pl.read_parquet(part)
        changed = table.with_columns(messages=pl.col("messages").str.replace("Ann", "Bob"))
        changed.write_parquet(part)


def forget_one(workspace: Workspace) -> None:
    ((name,),) = run_sql(workspace, "SELECT min(example_id) FROM pick").rows
    forget(workspace, [str(name)], "asked for")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: flip(largest(sae_shards(w).glob("*/values.npy"))), "not what was written"),
        (lambda w: shutil.rmtree(sae_shards(w)), "vectors are not there|not there"),
        (lambda w: shutil.rmtree(w.units), "unit of the representation is not there"),
        (lambda w: shutil.rmtree(w.pools), "no prepared pool here"),
        (change_pool, "prepared pool is not as it was prepared"),
        (in_catalog("UPDATE exemplar SET messages = '[]'"), "was forgotten"),
        (in_catalog("UPDATE exemplar SET messages = replace(messages, 'Ann', 'Bob')"),
         "not what its id says"),
        (in_catalog("DELETE FROM exemplar"), "no exemplars in the catalog"),
        (in_catalog("UPDATE run SET model_sha256 = 'x'"), "the model is another one"),
        (in_catalog("UPDATE run SET sae_sha256 = 'x'"), "the SAE is another one"),
        (in_catalog("UPDATE artifact SET sha256 = 'x' WHERE artifact LIKE '%never.txt'"),
         "was changed or deleted since the run read it"),
        (in_catalog("UPDATE run SET config = json_merge_patch(config, '{\"colour\": 1}')"),
         "no such key"),
        (in_catalog("UPDATE run SET config = NULL"), "keeps no config"),
        (forget_one, "samples of this pool were forgotten"),
    ],
)  # fmt: skip
def test_what_is_gone_or_altered_is_told(
    workspace: Workspace, change: Callable[[Workspace], Any], said: str
) -> None:
    change(workspace)
    with pytest.raises(InputError, match=said):
        reproduce(workspace, recorded_run(workspace, "tiny"))


def test_from_scratch_reports_agreement(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(workspace.root)
    reproduce_run("tiny", workspace.root, scratch=True)
    assert content(workspace.root) == before
    said = capsys.readouterr().out
    assert "pool read from its files" in said
    assert "100.00% of their latents within tolerance" in said
    overlaps = re.findall(r"^(tiny\S+) +(\d+) of (\d+) +(\d+) of (\d+)$", said, re.M)
    assert len(overlaps) == 3
    for _, both, top, picks_both, picks in overlaps:
        assert int(both) == int(top) > 30
        assert int(picks_both) == int(picks) > 0


def test_agreement_is_that_of_dense_vectors() -> None:
    first = rows_of([[0, 100, 7], [50, 0, 0]])
    second = rows_of([[3, 100, 0], [50, 0, 0]])
    found = vector_agreement(first, 0.5, second, 0.5)
    assert found.n == 2
    assert found.latents_within == 2 / 4  # of 0, 1, 2 and 0: only what is within two units
    assert found.similarity_least == 100 / 110
    assert found.similarity_mean == (100 / 110 + 1) / 2


def rows_of(dense: list[list[int]]) -> SparseRows:
    table = np.array(dense)
    counts = (table > 0).sum(axis=1)
    at = np.nonzero(table)
    return SparseRows(
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        at[1].astype(np.int32),
        table[at].astype(np.uint16),
        table.shape[1],
    )
