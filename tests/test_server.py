"""`saelect serve` beside Prefect: locks of live runs, reconciliation, the door, files, limits."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.types._datetime import now
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from flows.cli.serve import refuse_taken_port, require_password
from flows.orchestration.signals import TimeLimitExceeded, time_limit
from flows.server import liveness
from flows.server.app import FILE_POLICY, LOGIN_PATH, Door, WorkspaceFiles
from flows.server.deployments import JOB_TEMPLATE
from flows.server.liveness import CRASHED, reconcile
from flows.server.processes import start, stop
from flows.server.settings import (
    FILES_PATH,
    WORKER_NAME,
    ServerSettings,
    auth_header,
    environment,
)
from selection.core.errors import InputError
from storage.files.workspace import Workspace

HOLDER = """
import sys, time, pathlib
from flows.server.liveness import hold
hold(pathlib.Path(sys.argv[1]), sys.argv[2])
print("held", flush=True)
time.sleep(60)
"""


WORKER = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {HOLDER!r}, sys.argv[1], "a"])
time.sleep(60)
"""


def holder_of(folder: Path, run_id: str) -> subprocess.Popen[str]:
    """A process that is the live process of a run."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), run_id], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_killed_process_is_not_alive(tmp_path: Path) -> None:
    with holder_of(tmp_path, "a") as holder:
        assert liveness.is_alive(tmp_path, "a")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert not liveness.is_alive(tmp_path, "a")


def test_a_child_that_died_takes_all_that_it_started_with_it(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    variables = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.getcwd()}"}
    child = start(["worker", str(tmp_path / "live")], variables, tmp_path / "log")
    while not liveness.is_alive(tmp_path / "live", "a"):
        assert child.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.05)
    child.kill()
    child.wait()
    assert liveness.is_alive(tmp_path / "live", "a")
    stop(child)
    while liveness.is_alive(tmp_path / "live", "a"):
        time.sleep(0.05)


def test_a_second_process_of_a_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "WAIT_S", 0.0)
    with holder_of(tmp_path, "a") as holder:
        with pytest.raises(InputError, match="another process"):
            liveness.hold(tmp_path, "a")
        holder.kill()


class Api:
    """Answers like Prefect's client, and remembers which states were set."""

    def __init__(self, *runs: tuple[str, StateType, float]) -> None:
        """runs: name, type of the state, and its age in seconds."""
        self.runs = [self._run(*run) for run in runs]
        self.set: dict[str, StateType] = {}
        self.tasks: list[StateType] = []
        self.ended: set[str] = set()

    def _run(self, name: str, kind: StateType, age: float) -> FlowRun:
        state: State = State(type=kind, timestamp=now() - timedelta(seconds=age))
        return FlowRun(name=name, flow_id=uuid4(), state=state, state_type=kind)

    def id_of(self, name: str) -> str:
        return next(str(run.id) for run in self.runs if run.name == name)

    def name_of(self, run_id: UUID) -> str:
        return next(run.name for run in self.runs if run.id == run_id)

    def read_flow_runs(self, **filters: object) -> list[FlowRun]:
        return self.runs

    def read_flow_run(self, run_id: UUID) -> FlowRun:
        run = next(run for run in self.runs if run.id == run_id)
        has_ended = run.name in self.ended
        return run.model_copy(update={"state_type": StateType.COMPLETED}) if has_ended else run

    def read_task_runs(self, task_run_filter: object) -> list[SimpleNamespace]:
        return [SimpleNamespace(id=uuid4())]

    def set_task_run_state(self, task_id: UUID, state: State, force: bool) -> None:
        self.tasks.append(state.type)

    def set_flow_run_state(self, run_id: UUID, state: State, force: bool) -> None:
        self.set[self.name_of(run_id)] = state.type


def look_after(api: Api, folder: Path) -> list[str]:
    return reconcile(cast(SyncPrefectClient, api), folder)


def test_every_open_run_gets_the_state_that_its_process_has(tmp_path: Path) -> None:
    api = Api(
        ("dead", StateType.RUNNING, 60),
        ("live", StateType.RUNNING, 60),
        ("young", StateType.RUNNING, 0),
        ("waits", StateType.PENDING, 10),
        ("lost", StateType.PENDING, 300),
    )
    with holder_of(tmp_path, api.id_of("live")) as holder:
        lines = look_after(api, tmp_path)
        holder.kill()
    assert api.set == {
        "dead": StateType.CRASHED,
        "lost": StateType.SCHEDULED,
    }
    assert api.tasks == [StateType.CRASHED]
    assert lines[0] == f"dead: crashed: {CRASHED}"


def test_a_stopped_process_is_alive(tmp_path: Path) -> None:
    api = Api(("a", StateType.RUNNING, 900))
    with holder_of(tmp_path, api.id_of("a")) as holder:
        holder.send_signal(signal.SIGSTOP)
        assert look_after(api, tmp_path) == []
        holder.kill()


def test_a_run_that_ended_meanwhile_keeps_its_state(tmp_path: Path) -> None:
    api = Api(("a", StateType.RUNNING, 60), ("b", StateType.RUNNING, 60))
    api.ended = {"a"}  # between the list of open runs and the look at its process
    look_after(api, tmp_path)
    assert api.set == {"b": StateType.CRASHED}


def test_a_run_of_a_worker_elsewhere_is_left_alone(tmp_path: Path) -> None:
    api = Api(("a", StateType.RUNNING, 900), ("b", StateType.RUNNING, 900))
    api.runs[0].labels = {"prefect.worker.name": "on another host"}
    api.runs[1].labels = {"prefect.worker.name": WORKER_NAME}
    look_after(api, tmp_path)
    assert api.set == {"b": StateType.CRASHED}


def test_no_caller_can_set_command_environment_or_folder_of_a_run() -> None:
    assert JOB_TEMPLATE["variables"]["properties"] == {}
    assert JOB_TEMPLATE["variables"]["additionalProperties"] is False
    assert "{{" not in json.dumps(JOB_TEMPLATE["job_configuration"])


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_an_address_for_others_needs_a_password(host: str) -> None:
    with pytest.raises(InputError, match="password"):
        require_password(host, None)
    require_password(host, "word")
    require_password("127.0.0.1", None)


def test_a_taken_port_is_said_before_anything_starts() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(InputError, match=f"--port {port + 1}"):
            refuse_taken_port("127.0.0.1", port)


def test_children_know_the_server_and_nothing_of_another_set_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", "/somewhere/else")
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", "sqlite:////shared.db")
    variables = environment(
        ServerSettings(Workspace(tmp_path), "127.0.0.1", 4999, "wo:r d%", data=[tmp_path])
    )
    home = tmp_path.resolve() / ".server"
    assert variables["PREFECT_API_URL"] == "http://127.0.0.1:4999/api"
    assert variables["PREFECT_UI_API_URL"] == "/api"  # follows the browser
    assert variables["PREFECT_HOME"] == str(home)
    assert variables["PREFECT_SERVER_DATABASE_CONNECTION_URL"].endswith(f"{home}/prefect.db")
    assert "PREFECT_API_DATABASE_CONNECTION_URL" not in variables
    assert json.loads(variables["PREFECT_CLIENT_CUSTOM_HEADERS"]) == auth_header("wo:r d%")
    assert variables["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert variables["DO_NOT_TRACK"] == "1"
    assert variables["SAELECT_WORKSPACE"] == str(tmp_path.resolve())
    assert variables["SAELECT_DATA_FOLDERS"] == str(tmp_path.resolve())


def test_the_secret_stays_and_is_the_owners_alone(tmp_path: Path) -> None:
    settings = ServerSettings(Workspace(tmp_path), "127.0.0.1", 4999)
    assert settings.secret == settings.secret
    assert len(settings.secret) >= 24
    assert stat.S_IMODE((settings.folder / "secret").stat().st_mode) == 0o600
    assert stat.S_IMODE(settings.folder.stat().st_mode) == 0o700


KEY = "word: 5%"
FILE = "/saelect/exports/a/train.jsonl"
KNOWN = auth_header(KEY)


@pytest.fixture
def files(tmp_path: Path) -> TestClient:
    (tmp_path / "exports" / "a").mkdir(parents=True)
    (tmp_path / "exports" / "a" / "train.jsonl").write_text("{}\n")
    (tmp_path / "exports" / ".tmp-1-x").write_text("half")
    (tmp_path / "secret.txt").write_text("no")
    app = Starlette(routes=[Mount(FILES_PATH, WorkspaceFiles(directory=tmp_path))])
    app.add_middleware(Door, secret=KEY, port=4999)
    return TestClient(app, base_url="http://127.0.0.1:4999", headers=KNOWN)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:17"}, 200),  # through a tunnel
        ({"origin": "http://127.0.0.1:4999"}, 200),
        ({"host": "evil.test:4999"}, 403),  # a name that was rebound to this address
        ({"host": ""}, 403),
        ({"origin": "http://evil.test"}, 403),
        ({"origin": "http://127.0.0.1:5000"}, 403),
        ({"origin": "null"}, 403),
        ({"authorization": "Basic d3Jvbmc6eA=="}, 401),
        ({"authorization": ""}, 401),
    ],
)
def test_the_door_opens_for_own_pages_that_know_the_secret(
    files: TestClient, headers: dict[str, str], status: int
) -> None:
    assert files.get(FILE, headers=headers).status_code == status


def test_the_link_and_the_form_give_a_cookie(files: TestClient) -> None:
    del files.headers["authorization"]
    page = files.get("/", headers={"accept": "text/html"})
    assert page.status_code == 401
    assert "<form" in page.text
    assert files.get(LOGIN_PATH, params={"key": "wrong"}).status_code == 401
    assert files.get(FILE).status_code == 401
    answer = files.post(LOGIN_PATH, data={"key": KEY}, follow_redirects=False)
    assert answer.status_code == 303
    assert "httponly" in answer.headers["set-cookie"].lower()
    assert "samesite=strict" in answer.headers["set-cookie"].lower()
    assert files.get(FILE).status_code == 200
    files.cookies.clear()
    files.get(LOGIN_PATH, params={"key": KEY}, follow_redirects=False)
    assert files.get(FILE).status_code == 200


def test_reports_and_exports_are_served_and_nothing_else(files: TestClient) -> None:
    answer = files.get(FILE)
    assert answer.text == "{}\n"
    assert answer.headers["content-security-policy"] == FILE_POLICY
    assert files.get("/saelect/exports/.tmp-1-x").status_code == 404
    assert files.get("/saelect/exports/a/").status_code == 404
    beside = ("exports/%2e%2e/secret.txt", "exports/..%2fsecret.txt", "secret.txt", "")
    for path in (f"/saelect/{each}" for each in beside):
        assert files.get(path).status_code == 404


def test_a_run_ends_at_its_limit_and_not_before() -> None:
    with pytest.raises(TimeLimitExceeded, match="max_hours"), time_limit(0.05):
        time.sleep(5)
    with time_limit(5.0):
        time.sleep(0.01)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    with time_limit(None):
        assert os.getpid()
