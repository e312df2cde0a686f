"""Several writers, killed writers, full disks: the catalog is whole or as before."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from flows.benchmark.run import run_benchmark
from flows.config.data import BenchRequest, FinetuneRequest
from flows.config.jobs import SelectConfig
from flows.finetune.run import run_finetune
from flows.stages.validate import check_config
from selection.core.errors import InputError
from storage.catalog import commit as catalog
from storage.catalog import snapshot
from storage.catalog.arrow_rows import to_arrow
from storage.catalog.snapshot import open_snapshot
from storage.files import atomic, locks
from storage.files.workspace import Workspace, open_workspace
from tests.catalog_fixture import made_workspace, make_tables
from tests.faults_catalog import publish_newest

ROOT = Path(__file__).resolve().parent.parent


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    """What an auditor's plain client sees."""
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def run_names(path: Path) -> list[object]:
    return [row[0] for row in query(path, "SELECT name FROM run ORDER BY name")]


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
    publish_newest(workspace)
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
        before = query(workspace.catalog, "SELECT count(*) FROM event")
        monkeypatch.setattr(catalog, "ensure_free", lambda *_: None)
        filler = os.urandom(1 << 20).hex() * 12
        big = to_arrow("event", [{"at": datetime.now(UTC), "action": "x", "detail": [filler]}])
        with pytest.raises(InputError, match="disk is full"):
            catalog.commit(workspace, {"event": big})
        assert run_names(workspace.snapshot) == ["calm-otter"]
        assert query(workspace.catalog, "SELECT count(*) FROM event") == before
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


def test_a_catalog_of_another_version_is_refused_before_any_work(tmp_path: Path) -> None:
    """No input is there: whoever reads it first ends with another error."""
    workspace = made_workspace(tmp_path)
    with duckdb.connect(str(workspace.snapshot)) as connection:
        connection.execute(
            """UPDATE catalog_commit SET content = '{"schema": "x", "tables": {}}'"""
        )
    missing = str(tmp_path / "missing")
    job = {"pool": missing, "exemplars": missing, "budget": {"examples": 1}}
    asked = {"pool": missing, "targets": missing}
    works: list[Callable[[], object]] = [
        lambda: check_config(SelectConfig.model_validate(job), workspace),
        lambda: run_benchmark(BenchRequest.model_validate(asked), workspace),
        lambda: run_finetune(
            FinetuneRequest.model_validate({"pool": missing, "targets_file": missing}), workspace
        ),
    ]
    for work in works:
        with pytest.raises(InputError, match="another version of saelect"):
            work()
