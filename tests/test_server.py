"""`saelect serve` beside Prefect: locks of live runs, reconciliation, the door, files, limits."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from flows.cli.serve import refuse_taken_port, require_password
from flows.orchestration.signals import TimeLimitExceeded, time_limit
from flows.server import liveness
from flows.server.app import FILE_POLICY, LOGIN_PATH, Door, WorkspaceFiles
from flows.server.liveness import reconcile
from flows.server.settings import FILES_PATH, ServerSettings, auth_header, environment
from selection.core.errors import InputError
from storage.files.workspace import Workspace

HOLDER = """
import sys, time, pathlib
from flows.server.liveness import hold
hold(pathlib.Path(sys.argv[1]), sys.argv[2])
print("held", flush=True)
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
        assert liveness.live_runs(tmp_path) == ["a"]
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert not liveness.is_alive(tmp_path, "a")
    assert liveness.live_runs(tmp_path) == []


def test_a_stopped_process_is_alive(tmp_path: Path) -> None:
    with holder_of(tmp_path, "a") as holder:
        holder.send_signal(signal.SIGSTOP)
        server = Server(("a", "RUNNING", 900))
        assert reconcile(server.client(), tmp_path, "saelect") == []
        holder.kill()


def test_a_live_run_is_stopped_by_its_lock(tmp_path: Path) -> None:
    with holder_of(tmp_path, "a") as holder:
        assert liveness.stop(tmp_path, "a", 5.0)
        holder.wait(5)
    assert not liveness.is_alive(tmp_path, "a")


def test_a_second_process_of_a_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "WAIT_S", 0.0)
    with holder_of(tmp_path, "a") as holder:
        with pytest.raises(InputError, match="another process"):
            liveness.hold(tmp_path, "a")
        holder.kill()


class Server:
    """Answers like the API, and remembers which states were set."""

    def __init__(self, *runs: tuple[str, str, float]) -> None:
        self.runs = {run_id: (kind, age) for run_id, kind, age in runs}
        self.set: dict[str, str] = {}
        self.tasks: list[str] = []
        self.ended: set[str] = set()

    def client(self) -> httpx.Client:
        return httpx.Client(base_url="http://server", transport=httpx.MockTransport(self.answer))

    def answer(self, request: httpx.Request) -> httpx.Response:
        path, body = request.url.path, json.loads(request.content or b"{}")
        if path == "/flow_runs/filter":
            return httpx.Response(200, json=[self._run(run_id) for run_id in self.runs])
        if path == "/task_runs/filter":
            return httpx.Response(200, json=[{"id": "task"}])
        if request.method == "GET":
            run_id = path.split("/")[2]
            completed = {"state": {"type": "COMPLETED"}}
            return httpx.Response(
                200, json=completed if run_id in self.ended else self._run(run_id)
            )
        if path.startswith("/task_runs/"):
            self.tasks.append(body["state"]["type"])
        else:
            self.set[path.split("/")[2]] = body["state"]["type"]
        return httpx.Response(201, json={})

    def _run(self, run_id: str) -> dict[str, Any]:
        kind, age = self.runs[run_id]
        since = (datetime.now(UTC) - timedelta(seconds=age)).isoformat()
        return {"id": run_id, "name": run_id, "state": {"type": kind, "timestamp": since}}


def test_every_open_run_gets_the_state_that_its_process_has(tmp_path: Path) -> None:
    server = Server(
        ("dead", "RUNNING", 60),
        ("live", "RUNNING", 60),
        ("young", "RUNNING", 0),
        ("waits", "PENDING", 10),
        ("lost", "PENDING", 300),
        ("gone", "CANCELLING", 60),
    )
    with holder_of(tmp_path, "live") as holder:
        reconcile(server.client(), tmp_path, "saelect")
        holder.kill()
    assert server.set == {"dead": "CRASHED", "lost": "SCHEDULED", "gone": "CANCELLED"}
    assert server.tasks == ["CRASHED", "CANCELLED"]


def test_a_run_that_ended_meanwhile_keeps_its_state(tmp_path: Path) -> None:
    server = Server(("a", "RUNNING", 60), ("b", "RUNNING", 60))
    server.ended = {"a"}  # between the list of open runs and the look at its process
    reconcile(server.client(), tmp_path, "saelect")
    assert server.set == {"b": "CRASHED"}


def test_at_the_start_nothing_is_given_time(tmp_path: Path) -> None:
    server = Server(("a", "RUNNING", 0), ("b", "PENDING", 0), ("c", "CANCELLING", 0))
    reconcile(server.client(), tmp_path, "saelect", is_start=True)
    assert server.set == {"a": "CRASHED", "b": "SCHEDULED", "c": "CANCELLED"}


def test_a_run_of_another_host_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('{"pid": 1, "host": "elsewhere"}')
    server = Server(("a", "RUNNING", 900))
    assert reconcile(server.client(), tmp_path, "saelect", is_start=True) == []


def test_a_cancelled_run_whose_worker_died_is_ended(tmp_path: Path) -> None:
    with holder_of(tmp_path, "a") as holder:
        server = Server(("a", "CANCELLING", 60))
        reconcile(server.client(), tmp_path, "saelect")
        assert holder.wait(5) == -signal.SIGTERM
    assert server.set == {"a": "CANCELLED"}


@pytest.mark.parametrize(
    "answer", [httpx.Response(503, text="busy"), httpx.Response(200, text="?")]
)
def test_every_failure_of_the_api_is_one_kind_of_error(
    tmp_path: Path, answer: httpx.Response
) -> None:
    transport = httpx.MockTransport(lambda request: answer)
    with (
        httpx.Client(base_url="http://server", transport=transport) as client,
        pytest.raises(httpx.HTTPError),
    ):
        reconcile(client, tmp_path, "saelect")


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
KNOWN = auth_header(KEY)


@pytest.fixture
def files(tmp_path: Path) -> TestClient:
    (tmp_path / "exports" / "a").mkdir(parents=True)
    (tmp_path / "exports" / "a" / "train.jsonl").write_text("{}\n")
    (tmp_path / "exports" / ".tmp-1-x").write_text("half")
    (tmp_path / "secret.txt").write_text("no")
    routes = [Mount("/exports", WorkspaceFiles(directory=tmp_path / "exports"))]
    app = Starlette(routes=[Mount(FILES_PATH, routes=routes)])
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
    assert files.get("/saelect/exports/a/", headers=headers).status_code == status


def test_the_link_and_the_form_give_a_cookie(files: TestClient) -> None:
    del files.headers["authorization"]
    page = files.get("/", headers={"accept": "text/html"})
    assert page.status_code == 401
    assert "<form" in page.text
    assert files.get(LOGIN_PATH, params={"key": "wrong"}).status_code == 401
    assert files.get("/saelect/exports/a/").status_code == 401
    answer = files.post(LOGIN_PATH, data={"key": KEY}, follow_redirects=False)
    assert answer.status_code == 303
    assert "httponly" in answer.headers["set-cookie"].lower()
    assert "samesite=strict" in answer.headers["set-cookie"].lower()
    assert files.get("/saelect/exports/a/").status_code == 200
    files.cookies.clear()
    files.get(LOGIN_PATH, params={"key": KEY}, follow_redirects=False)
    assert files.get("/saelect/exports/a/").status_code == 200


def test_reports_and_exports_are_served_and_nothing_else(files: TestClient) -> None:
    listing = files.get("/saelect/exports/a/")
    assert "train.jsonl" in listing.text
    assert listing.headers["content-security-policy"] == FILE_POLICY
    assert files.get("/saelect/exports/a/train.jsonl").text == "{}\n"
    assert files.get("/saelect/exports/.tmp-1-x").status_code == 404
    assert ".tmp" not in files.get("/saelect/exports/").text
    for path in ("/saelect/exports/%2e%2e/secret.txt", "/saelect/exports/..%2fsecret.txt"):
        assert files.get(path).status_code == 404


def test_a_run_ends_at_its_limit_and_not_before() -> None:
    with pytest.raises(TimeLimitExceeded, match="max_hours"), time_limit(0.05):
        time.sleep(5)
    with time_limit(5.0):
        time.sleep(0.01)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    with time_limit(None):
        assert os.getpid()
