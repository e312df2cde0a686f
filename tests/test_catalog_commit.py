import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import namedtuple
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from selection.core.errors import InputError
from storage.catalog import commit as catalog
from storage.catalog import snapshot
from storage.catalog.arrow_rows import column_types, to_arrow
from storage.catalog.snapshot import open_snapshot
from storage.catalog.sql import run_sql
from storage.files import atomic, locks
from storage.files.workspace import Workspace, open_workspace
from tests.catalog_fixture import DESCRIPTIONS, SPACE, made_workspace, make_example, make_tables

ROOT = Path(__file__).resolve().parent.parent
VIEWS = {
    "v_selection": "selection_id selection target rank example_id own_id source file row licence"
    " score tokens text",
    "v_why": "selection_id example_id exemplar_id space latent description contribution share",
    "v_source_mix": "selection_id source n_pool n_selected share_pool share_selected",
    "v_drops": "selection_id stage reason n example_id",
    "v_lineage": "selection_id step artifact sha256 parent",
}


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    """What an auditor's plain client sees."""
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def run_names(path: Path) -> list[object]:
    return [row[0] for row in query(path, "SELECT name FROM run ORDER BY name")]


def test_every_row_comes_back_as_written(tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path)
    tables = make_tables()
    catalog.commit(workspace, tables)
    for name, rows in tables.items():
        found = query(workspace.snapshot, f'SELECT count(*) FROM "{name}"')[0][0]
        assert found == rows.num_rows, name
    columns = "rank, example_id, score, tokens, text"
    found = query(workspace.snapshot, f"SELECT {columns} FROM pick ORDER BY selection_id, rank")
    expected = tables["pick"].sort_by([("selection_id", "ascending"), ("rank", "ascending")])
    assert found == list(zip(*(expected[c].to_pylist() for c in columns.split(", ")), strict=True))


def test_a_snapshot_copied_elsewhere_works_on_its_own(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path / "w")
    copied = tmp_path / "audit" / "copied.duckdb"
    copied.parent.mkdir()
    shutil.copy(workspace.snapshot, copied)
    shutil.rmtree(workspace.root)
    with duckdb.connect(str(copied)) as connection:
        for view, columns in VIEWS.items():
            relation = connection.sql(f"FROM {view}")
            assert relation.columns == columns.split(), view
            assert relation.fetchall(), view


def test_a_pick_has_one_row_and_its_first_occurrence(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    rows = query(
        workspace.snapshot,
        "SELECT rank, example_id, own_id, source, file FROM v_selection"
        " WHERE selection = 'calm-otter' ORDER BY rank",
    )
    assert [row[0] for row in rows] == list(range(1, 121))
    places = query(
        workspace.snapshot, "SELECT example_id, file, row, source, own_id FROM occurrence"
    )
    for _, example, own_id, source, file in rows:
        first = min(place for place in places if place[0] == example)
        assert (first[1], first[3], first[4]) == (file, source, own_id)


def test_the_source_mix_adds_up_to_pool_and_selection(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    sums = query(
        workspace.snapshot,
        "SELECT sum(n_pool), sum(n_selected), sum(share_pool), sum(share_selected)"
        " FROM v_source_mix GROUP BY selection_id",
    )
    assert [tuple(round(float(str(x)), 9) for x in row) for row in sums] == [(320, 120, 1, 1)] * 3


def test_explanations_carry_the_description_of_their_own_latent_and_sae(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    other = {"sae": "another SAE", "latent": 28, "description": "of another SAE"}
    catalog.commit(workspace, {"latent_description": to_arrow("latent_description", [other])})
    rows = query(
        workspace.snapshot, "SELECT space, latent, description, contribution, share FROM v_why"
    )
    described = {(latent, text) for space, latent, text, _, _ in rows if space == SPACE}
    assert {latent for latent, _ in described} > {28, 31}
    for latent, text in described:
        assert text == DESCRIPTIONS.get(int(str(latent)))
    made = make_tables()["explanation"].to_pylist()
    assert sorted((r[1], r[3]) for r in rows) == sorted(
        (row["latent"], row["contribution"]) for row in made
    )


def test_drops_of_the_run_belong_to_each_of_its_selections(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    rows = query(
        workspace.snapshot,
        "SELECT selection, reason, sum(n), count(d.example_id) FROM v_drops d"
        " JOIN (SELECT selection_id, name AS selection FROM selection) USING (selection_id)"
        " GROUP BY ALL ORDER BY ALL",
    )
    assert [row[1:] for row in rows if row[0] == "calm-otter-random"] == [
        ("image_or_audio", 6, 0),
        ("is_exemplar", 1, 0),
        ("no_text", 14, 0),
        ("where", 23, 0),
    ]


def test_content_shared_by_two_runs_is_stored_once(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    before = query(workspace.snapshot, "SELECT count(*) FROM sample")
    catalog.commit(workspace, make_tables("second"))
    assert query(workspace.snapshot, "SELECT count(*) FROM sample") == before
    assert run_names(workspace.snapshot) == ["calm-otter", "second"]


def test_a_repeated_commit_changes_nothing(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    catalog.commit(workspace, make_tables())
    assert query(workspace.snapshot, "SELECT count(*), count(DISTINCT run_id) FROM run") == [(1, 1)]
    assert query(workspace.snapshot, "SELECT count(*) FROM explanation")[0][0] == len(
        make_tables()["explanation"]
    )
    tables = make_tables()
    tables["selection"] = tables["selection"].slice(0, 1)
    with pytest.raises(ValueError, match="in the catalog already, with other selections"):
        catalog.commit(workspace, tables)


def without(tables: dict[str, pa.Table], name: str, keep: int) -> dict[str, pa.Table]:
    return {**tables, name: tables[name].slice(0, keep)}


@pytest.mark.parametrize(
    ("name", "keep", "said"),
    [
        ("run", 0, "rows of `selection` without their `run`"),
        ("selection", 2, "rows of `pick` without their `selection`"),
        ("pick", 359, "picks are not ranks 1 to n_selected"),
        ("sample", 0, "without their `sample`"),
        ("occurrence", 200, "picks or near misses without an occurrence"),
        ("exemplar", 7, "explanations without their exemplar"),
    ],
)
def test_rows_that_contradict_each_other_are_refused_whole(
    tmp_path: Path, name: str, keep: int, said: str
) -> None:
    workspace = made_workspace(tmp_path)
    new = make_example(7_000, np.random.default_rng(7))
    with pytest.raises(ValueError, match=said):
        catalog.commit(workspace, without(make_tables("second", extra=(new,)), name, keep))
    catalog.commit(workspace, {"event": to_arrow("event", [])})
    assert run_names(workspace.catalog) == ["calm-otter"]
    assert query(workspace.catalog, "SELECT count(*) FROM pick") == [(360,)]


def test_ranks_with_a_gap_are_refused(tmp_path: Path) -> None:
    tables = make_tables(n_selected=3)
    ranks = pa.array([1, 2, 4] + [1, 2, 3] * 2, pa.int64())
    tables["pick"] = tables["pick"].set_column(1, "rank", ranks)
    with pytest.raises(ValueError, match="ranks 1 to n_selected"):
        catalog.commit(open_workspace(tmp_path), tables)


def test_an_unknown_table_or_column_is_named(tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path)
    with pytest.raises(ValueError, match=r"no table `runs`; it has .*run, run_drop"):
        catalog.commit(workspace, {"runs": pa.table({"a": [1]})})
    with pytest.raises(ValueError, match=r"`run_drop` has no columns \['count'\]"):
        catalog.commit(workspace, {"run_drop": pa.table({"count": [1]})})
    with pytest.raises(ValueError, match=r"`run_drop` has no columns \['count'\]"):
        to_arrow("run_drop", [{"count": 1}])


def test_a_missing_required_value_is_named(tmp_path: Path) -> None:
    rows = to_arrow("run_drop", [{"run_id": "r", "stage": "read", "reason": "no_text"}])
    with pytest.raises(ValueError, match=r"rows of `run_drop` are not valid.*run_drop\.n"):
        catalog.commit(open_workspace(tmp_path), {"run_drop": rows})


def test_python_values_become_what_the_columns_hold() -> None:
    zone = timezone(timedelta(hours=2))
    moment = datetime(2026, 11, 23, 12, 0, tzinfo=zone)
    table = to_arrow("run", [{"run_id": "r", "created_at": moment, "config": {"b": [1], "a": "ü"}}])
    assert list(table.column_names) == list(column_types("run"))
    row = table.to_pylist()[0]
    assert row["created_at"] == datetime(2026, 11, 23, 10, 0)
    assert row["config"] == '{"a":"ü","b":[1]}'
    assert row["note"] is None


def test_a_few_rows_as_mappings_are_stored_as_arrow_rows_are(tmp_path: Path) -> None:
    at = datetime(2026, 11, 23, 12, 0, tzinfo=timezone(timedelta(hours=2)))
    events = [
        {"at": at, "action": "exported", "detail": {"folder": "Ü", "files": ["b", "a"]}},
        {"action": "forgot", "at": at, "run_id": None},
    ]
    found = []
    for place, rows in (("few", events), ("arrow", to_arrow("event", events))):
        workspace = open_workspace(tmp_path / place)
        catalog.commit(workspace, {"event": rows, "forgotten": []})
        found.append(run_sql(workspace, "FROM event ORDER BY action").rows)
    assert found[0] == found[1]
    assert found[0][0][0] == datetime(2026, 11, 23, 10, 0)
    with pytest.raises(ValueError, match=r"`event` has no columns \['count'\]"):
        catalog.commit(open_workspace(tmp_path / "few"), {"event": [{"count": 1}]})
    with pytest.raises(ValueError, match="rows of `event` are not valid"):
        catalog.commit(open_workspace(tmp_path / "few"), {"event": [{"at": "never"}]})


COMMITTER = """
import sys
from pathlib import Path
from storage.catalog.commit import commit
from storage.files.workspace import open_workspace
from tests.catalog_fixture import make_tables
for number in range(4):
    tables = make_tables(f"{sys.argv[2]}-{number}", n_selected=5, seed=int(sys.argv[3]) + number)
    commit(open_workspace(Path(sys.argv[1])), tables)
"""

KILLED = """
import os, signal, sys
from pathlib import Path
from storage.catalog import commit as catalog
from storage.catalog import snapshot
from storage.files.workspace import open_workspace
from tests.catalog_fixture import make_tables

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

owner, _, name = sys.argv[2].rpartition(".")
setattr(snapshot if owner else catalog, name, die)
catalog.commit(open_workspace(Path(sys.argv[1])), make_tables("killed", seed=3))
"""


def start(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_processes_that_commit_at_once_lose_nothing(tmp_path: Path) -> None:
    open_workspace(tmp_path)
    processes = [start(COMMITTER, tmp_path, name, seed) for name, seed in [("a", 10), ("b", 20)]]
    assert [process.wait(60) for process in processes] == [0, 0]
    workspace = open_workspace(tmp_path)
    expected = [f"{name}-{number}" for name in "ab" for number in range(4)]
    assert run_names(workspace.snapshot) == run_names(workspace.catalog) == expected
    numbers = query(workspace.snapshot, "SELECT number FROM catalog_commit ORDER BY 1")
    assert numbers == [(number,) for number in range(1, 9)]
    assert query(workspace.snapshot, "SELECT count(*) FROM pick") == [(8 * 15,)]


@pytest.mark.parametrize(
    ("moment", "kept"),
    [("_check", False), ("publish", True), ("snapshot._copy", True)],
)
def test_a_commit_killed_at_any_moment_is_whole_or_absent(
    tmp_path: Path, moment: str, kept: bool
) -> None:
    workspace = made_workspace(tmp_path)
    assert start(KILLED, tmp_path, moment).wait(60) == -signal.SIGKILL
    assert run_names(workspace.snapshot) == ["calm-otter"]  # readers never saw a half
    catalog.publish_newest(workspace)
    after = ["calm-otter", "killed"] if kept else ["calm-otter"]
    assert run_names(workspace.snapshot) == run_names(workspace.catalog) == after
    catalog.commit(workspace, make_tables("killed", seed=3))  # the same command again
    assert run_names(workspace.snapshot) == ["calm-otter", "killed"]
    assert query(workspace.snapshot, "SELECT count(*) FROM pick") == [(720,)]


def test_readers_do_not_stop_writers(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    with duckdb.connect(str(workspace.snapshot), read_only=True) as reader:
        catalog.commit(workspace, make_tables("second", seed=5))
        assert reader.execute("SELECT count(*) FROM run").fetchall() == [(1,)]
    assert run_names(workspace.snapshot) == ["calm-otter", "second"]


def test_a_writer_that_waits_too_long_is_told_who_writes(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    with (
        locks.held(tmp_path / ".catalog-lock", 1),
        pytest.raises(InputError, match=rf"PID {os.getpid()} on .* since 20.*waited 0 s"),
    ):
        catalog.commit(workspace, make_tables("second"), wait_s=0.2)
    assert run_names(workspace.catalog) == ["calm-otter"]


def test_a_client_that_holds_the_catalog_open_is_named(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    code = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True);"
        " sys.stdin.read()"
    )
    client = subprocess.Popen(
        [sys.executable, "-c", code, str(workspace.catalog)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert client.stdout is not None
    assert client.stdout.readline() == b"open\n"
    with pytest.raises(InputError, match=rf"PID {client.pid}\b.*open snapshot\.duckdb"):
        catalog.commit(workspace, make_tables("second"), wait_s=0.3)
    client.communicate(b"")
    catalog.commit(workspace, make_tables("second"))
    assert run_names(workspace.snapshot) == ["calm-otter", "second"]


def test_threads_of_one_process_may_commit(tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path)
    made = [make_tables(f"t{number}", n_selected=5, seed=number) for number in range(3)]
    threads = [threading.Thread(target=catalog.commit, args=(workspace, t)) for t in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert run_names(workspace.snapshot) == ["t0", "t1", "t2"]


def test_a_waiting_writer_publishes_for_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = made_workspace(tmp_path)
    copies: list[Workspace] = []
    copy = snapshot.publish

    def counting_copy(of: Workspace) -> None:
        copies.append(of)
        copy(of)

    monkeypatch.setattr(catalog, "publish", counting_copy)
    waiting = iter([True, False])
    monkeypatch.setattr(locks, "is_shared", lambda _: next(waiting))
    catalog.commit(workspace, make_tables("second", seed=5))
    assert len(copies) == 1  # nobody came after all: published on the second hold of the lock
    catalog.commit(workspace, make_tables("third", seed=6))
    assert len(copies) == 2
    assert run_names(workspace.snapshot) == ["calm-otter", "second", "third"]


def test_a_disk_too_full_to_begin_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = made_workspace(tmp_path)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1000))
    with pytest.raises(InputError, match=r"recording this will need about .* only 1\.0 kB"):
        catalog.commit(workspace, make_tables("second"))
    assert run_names(workspace.catalog) == ["calm-otter"]


def test_a_disk_that_fills_up_while_publishing_keeps_the_old_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = made_workspace(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(InputError, match="disk is full"):
            catalog.commit(workspace, make_tables("second", seed=5))
    assert run_names(workspace.snapshot) == ["calm-otter"]
    assert not [e for e in tmp_path.iterdir() if e.name.startswith(atomic.TEMP_PREFIX)]
    catalog.commit(workspace, make_tables("second", seed=5))
    assert run_names(workspace.snapshot) == ["calm-otter", "second"]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Path:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    return folder


def test_a_disk_that_fills_up_while_writing_keeps_the_old_catalog(
    tiny_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        workspace = made_workspace(tiny_disk, n_selected=5)
        monkeypatch.setattr(catalog, "ensure_free", lambda *_: None)
        filler = os.urandom(1 << 20).hex() * 12
        big = to_arrow("event", [{"at": datetime.now(UTC), "action": "x", "detail": [filler]}])
        with pytest.raises(InputError, match="disk is full"):
            catalog.commit(workspace, {"event": big})
        assert run_names(workspace.snapshot) == ["calm-otter"]
        assert query(workspace.catalog, "SELECT count(*) FROM event") == [(1,)]
    finally:
        subprocess.run(["umount", str(tiny_disk)], check=True)


def test_a_catalog_of_another_version_is_refused(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    for file in (workspace.catalog, workspace.snapshot):
        with duckdb.connect(str(file)) as connection:
            connection.execute(
                "UPDATE catalog_commit"
                """ SET content = json_merge_patch(content, '{"schema": "x"}')"""
            )
    with pytest.raises(InputError, match="another version of saelect"):
        catalog.commit(workspace, make_tables("second"))
    with pytest.raises(InputError, match="another version"), open_snapshot(workspace):
        pass


def test_publishing_without_a_catalog_does_nothing(tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path)
    catalog.publish_newest(workspace)
    assert not workspace.snapshot.exists()


def test_json_columns_can_be_queried(tmp_path: Path) -> None:
    workspace = made_workspace(tmp_path)
    asked = query(workspace.snapshot, "SELECT config->>'$.where', counts->'$.rows' FROM run")
    assert asked == [("quality > 0.5", "396")]
    raw = query(workspace.snapshot, "SELECT raw FROM occurrence ORDER BY file, row LIMIT 1")[0][0]
    assert json.loads(str(raw))["quality"] == 1.0
    assert '"quality": 1.0, ' in str(raw)  # as the file spelled it
