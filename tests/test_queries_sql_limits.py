"""A query that asks for too much ends with a sentence, whatever it does."""

import signal
import subprocess
import sys
import time

import pytest

from selection.core.errors import InputError
from storage.files.workspace import Workspace
from storage.queries.sql import SqlLimits, run_sql
from tests.catalog_fixture import made_workspace

ENDLESS = "SELECT sum(a.range * b.range) FROM range(10000000) a, range(1000000) b"
COMMAND = [sys.executable, "-c", "from flows.cli.main import main; main()", "sql"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return made_workspace(tmp_path_factory.mktemp("sql") / "w")


@pytest.mark.parametrize(
    "query",
    [
        ENDLESS,
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t",
    ],
)
def test_an_endless_query_is_given_up(workspace: Workspace, query: str) -> None:
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"no answer within 0\.5 s.*--seconds"):
        run_sql(workspace, query, limits=SqlLimits(0.5, 200))
    assert time.monotonic() - begun < 10


def test_a_large_answer_is_refused(workspace: Workspace) -> None:
    limits = SqlLimits(60, 64)
    text = "SELECT range, repeat('x', 1000) FROM range({n})"
    with pytest.raises(InputError, match=r"more than 64 MB.*--memory"):
        run_sql(workspace, text.format(n=200_000), limits=limits)
    assert len(run_sql(workspace, text.format(n=20_000), limits=limits).rows) == 20_000
    with pytest.raises(InputError, match="Out of Memory"):
        run_sql(workspace, "SELECT list(range) FROM range(1000000000)", limits=limits)


@pytest.mark.skipif(sys.platform != "linux", reason="addresses are limited by the system")
@pytest.mark.parametrize("function", ["repeat('a', 2000000000)", "lpad('a', 2000000000, 'b')"])
def test_the_command_holds_what_duckdb_does_not_count(workspace: Workspace, function: str) -> None:
    done = subprocess.run(
        [*COMMAND, f"SELECT {function}", "-w", str(workspace.root), "--seconds", "60"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "memory" in done.stderr.lower()
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_a_query(workspace: Workspace) -> None:
    command = [*COMMAND, ENDLESS, "-w", str(workspace.root), "--seconds", "100"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    time.sleep(3)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=20)
    assert running.returncode == 130
    assert "Traceback" not in errors
