"""What `saelect serve` does beside Prefect: live marks, reconciliation, doors, files, limits."""

import base64
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Mount
from starlette.testclient import TestClient

from flows.cli.serve import refuse_open_door, refuse_taken_port
from flows.orchestration.signals import TimeLimitExceeded, time_limit
from flows.server import liveness
from flows.server.app import FILE_POLICY, WorkspaceFiles, guard
from flows.server.liveness import reconcile
from flows.server.settings import FILES_PATH, Place, environment
from selection.core.errors import InputError
from storage.files.workspace import Workspace

HOLDER = """
import sys, time, pathlib
from flows.server.liveness import alive
with alive(pathlib.Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(folder: Path, run_id: str) -> subprocess.Popen[str]:
    """A process that is the live process of a run."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), run_id], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_killed_process_is_not_alive(tmp_path: Path) -> None:
    with hold(tmp_path, "a") as holder:
        assert liveness.live_runs(tmp_path) == ["a"]
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert not liveness.is_alive(tmp_path, "a")
    assert liveness.live_runs(tmp_path) == []


def test_a_live_run_is_stopped_by_its_mark(tmp_path: Path) -> None:
    with hold(tmp_path, "a") as holder:
        assert liveness.stop(tmp_path, "a", 5.0)
        holder.wait(5)
    assert not liveness.is_alive(tmp_path, "a")


def test_a_second_process_of_a_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "WAIT_S", 0.0)
    with (
        liveness.alive(tmp_path, "a"),
        pytest.raises(InputError, match="another process"),
        liveness.alive(tmp_path, "a"),
    ):
        pass


COMPLETED = {"state": {"type": "COMPLETED"}}


class Server:
    """Answers like the API, and remembers which states were set."""

    def __init__(self, *runs: tuple[str, str, float]) -> None:
        self.runs, self.set, self.tasks = runs, {}, []  # type: ignore[var-annotated]
        self.ended: set[str] = set()

    def request(self, method: str, path: str, json: dict[str, Any] | None = None) -> Any:
        answer: Any = []
        if method == "GET":
            run = next(run for run in self.runs if path == f"/flow_runs/{run[0]}")
            answer = self._run(*run) if run[0] not in self.ended else COMPLETED
            return type("Response", (), {"json": lambda _: answer})()
        assert method == "POST"
        assert json is not None
        if path == "/flow_runs/filter":
            answer = [self._run(*run) for run in self.runs]
        elif path == "/task_runs/filter":
            answer = [{"id": "task"}]
        elif path.startswith("/task_runs/"):
            self.tasks.append(json["state"]["type"])
        else:
            self.set[path.split("/")[2]] = json["state"]["type"]
        return type("Response", (), {"json": lambda _: answer})()

    def _run(self, run_id: str, kind: str, age: float) -> dict[str, Any]:
        since = (datetime.now(UTC) - timedelta(seconds=age)).isoformat()
        return {"id": run_id, "name": run_id, "state": {"type": kind, "timestamp": since}}


def test_every_open_run_gets_the_state_that_its_process_has(tmp_path: Path) -> None:
    server = Server(
        ("dead", "RUNNING", 60), ("live", "RUNNING", 60), ("young", "RUNNING", 0),
        ("waits", "PENDING", 10), ("lost", "PENDING", 300), ("gone", "CANCELLING", 60),
    )  # fmt: skip
    with liveness.alive(tmp_path, "live"):
        reconcile(server, tmp_path, "saelect")
    assert server.set == {"dead": "CRASHED", "lost": "SCHEDULED", "gone": "CANCELLED"}
    assert server.tasks == ["CRASHED", "CANCELLED"]


def test_a_run_that_ended_while_we_asked_keeps_its_state(tmp_path: Path) -> None:
    server = Server(("a", "RUNNING", 60), ("b", "RUNNING", 60))
    server.ended = {"a"}  # between the list of open runs and the look at its process
    reconcile(server, tmp_path, "saelect")
    assert server.set == {"b": "CRASHED"}


def test_at_the_start_nobody_is_given_time(tmp_path: Path) -> None:
    server = Server(("a", "RUNNING", 0), ("b", "PENDING", 0), ("c", "CANCELLING", 0))
    reconcile(server, tmp_path, "saelect", first=True)
    assert server.set == {"a": "CRASHED", "b": "SCHEDULED", "c": "CANCELLED"}


def test_a_cancelled_run_whose_worker_is_gone_is_ended(tmp_path: Path) -> None:
    with hold(tmp_path, "a") as holder:
        server = Server(("a", "CANCELLING", 60))
        reconcile(server, tmp_path, "saelect")
        assert holder.wait(5) == -signal.SIGTERM
    assert server.set == {"a": "CANCELLED"}


def test_a_run_of_another_host_is_left_to_its_heartbeat(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('{"pid": 1, "host": "elsewhere"}')
    server = Server(("a", "RUNNING", 900))
    assert reconcile(server, tmp_path, "saelect", first=True) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_an_open_door_needs_a_password(host: str) -> None:
    with pytest.raises(InputError, match="password"):
        refuse_open_door(host, None)
    refuse_open_door(host, "word")
    refuse_open_door("127.0.0.1", None)


def test_a_taken_port_is_said_before_anything_starts() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(InputError, match=f"--port {port + 1}"):
            refuse_taken_port("127.0.0.1", port)


def test_children_know_the_server_and_send_nothing_out(tmp_path: Path) -> None:
    found = environment(Place(Workspace(tmp_path), "127.0.0.1", 4999, "word"))
    assert found["PREFECT_API_URL"] == "http://127.0.0.1:4999/api"
    assert found["PREFECT_UI_API_URL"] == "/api"  # follows the browser
    assert found["PREFECT_API_AUTH_STRING"] == found["PREFECT_SERVER_API_AUTH_STRING"]
    assert found["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert found["DO_NOT_TRACK"] == "1"
    assert found["SAELECT_WORKSPACE"] == str(tmp_path.resolve())


@pytest.fixture
def files(tmp_path: Path) -> TestClient:
    (tmp_path / "exports" / "a").mkdir(parents=True)
    (tmp_path / "exports" / "a" / "train.jsonl").write_text("{}\n")
    (tmp_path / "exports" / ".tmp-1-x").write_text("half")
    (tmp_path / "secret.txt").write_text("no")
    routes = [Mount("/exports", WorkspaceFiles(directory=tmp_path / "exports"))]
    app = Starlette(routes=[Mount(FILES_PATH, routes=routes)])
    app.add_middleware(BaseHTTPMiddleware, dispatch=guard)
    return TestClient(app)


def test_reports_and_exports_are_served_and_nothing_else(files: TestClient) -> None:
    listing = files.get("/saelect/exports/a/")
    assert "train.jsonl" in listing.text
    assert listing.headers["content-security-policy"] == FILE_POLICY
    assert files.get("/saelect/exports/a/train.jsonl").text == "{}\n"
    assert files.get("/saelect/exports/.tmp-1-x").status_code == 404
    assert ".tmp" not in files.get("/saelect/exports/").text
    for path in ("/saelect/exports/%2e%2e/secret.txt", "/saelect/exports/..%2fsecret.txt"):
        assert files.get(path).status_code == 404


def test_files_need_the_password_too(files: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "saelect:word")
    assert files.get("/saelect/exports/a/train.jsonl").status_code == 401
    right = base64.b64encode(b"saelect:word").decode()
    known = files.get("/saelect/exports/a/", headers={"authorization": f"Basic {right}"})
    assert known.status_code == 200


def test_a_run_ends_at_its_limit_and_not_before() -> None:
    with pytest.raises(TimeLimitExceeded, match="max_hours"), time_limit(0.05):
        time.sleep(5)
    with time_limit(5.0):
        time.sleep(0.01)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    with time_limit(None):
        assert os.getpid()
