"""`saelect serve` as a process of its own, with the calls that its pages make of the API."""

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from flows.server.app import LOGIN_PATH
from flows.server.liveness import is_alive
from flows.server.settings import ServerSettings, auth_header
from storage.files.workspace import Workspace

START_S = 240.0
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

Run = dict[str, Any]


@dataclass
class Served:
    """A running `saelect serve`."""

    workspace: Path
    port: int
    process: "subprocess.Popen[str]"
    seconds_to_start: float

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> ServerSettings:
        """Its address and secret."""
        return ServerSettings(Workspace(self.workspace), "127.0.0.1", self.port)

    @property
    def link(self) -> str:
        """The address that opens its pages without a password."""
        return f"{self.url}{LOGIN_PATH}?key={self.settings.secret}"

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """A client of the API, with a CSRF token as the pages have one."""
        headers = {**auth_header(self.settings.secret), "Prefect-Csrf-Client": str(uuid.uuid4())}
        with httpx.Client(base_url=f"{self.url}/api", headers=headers, timeout=20) as client:
            query = {"client": headers["Prefect-Csrf-Client"]}
            answer = client.get("/csrf-token", params=query).raise_for_status()
            client.headers["Prefect-Csrf-Token"] = answer.json()["token"]
            yield client

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The answer of the API, asked again while the server is away."""
        deadline = time.monotonic() + 60
        while True:
            try:
                with self.client() as client:
                    answer = client.request(method, path, json=body).raise_for_status()
                    return answer.json() if answer.content else None
            except httpx.HTTPStatusError as error:
                if time.monotonic() > deadline or error.response.status_code < 500:
                    raise
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.3)

    def start_run(self, deployment: str, parameters: Mapping[str, object]) -> str:
        """Start a run as the page does; returns its id. `deployment`: flow/name."""
        deployment_id = self.deployment(deployment)["id"]
        state = {"type": "SCHEDULED", "message": "Run from the Prefect UI"}
        body = {"parameters": parameters, "state": state}
        made = self.ask("POST", f"/deployments/{deployment_id}/create_flow_run", body)
        return str(made["id"])

    def deployment(self, name: str) -> dict[str, Any]:
        """A deployment by flow/name."""
        answer: dict[str, Any] = self.ask("GET", f"/deployments/name/{name}")
        return answer

    def runs(self) -> list[Run]:
        """All runs that are not waiting for their time."""
        answer: list[Run] = self.ask("POST", "/flow_runs/filter", {"limit": 200})
        return [run for run in answer if run["state_type"] != "SCHEDULED"]

    def logs(self, run_id: str) -> list[dict[str, Any]]:
        """The lines of a run's Logs."""
        query = {"logs": {"flow_run_id": {"any_": [run_id]}}, "limit": 200}
        answer: list[dict[str, Any]] = self.ask("POST", "/logs/filter", query)
        return answer

    def cancel(self, run_id: str) -> None:
        """The page's Cancel."""
        state = {"type": "CANCELLING", "name": "Cancelling"}
        self.ask("POST", f"/flow_runs/{run_id}/set_state", {"state": state, "force": True})

    def retry(self, run_id: str) -> None:
        """The page's Retry."""
        state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}
        self.ask("POST", f"/flow_runs/{run_id}/set_state", {"state": state, "force": False})

    def state(self, run_id: str) -> dict[str, Any]:
        """Type, name, message and timestamp of a run's state."""
        answer: dict[str, Any] = self.ask("GET", f"/flow_runs/{run_id}")["state"]
        return answer

    def wait_for_end(self, run_id: str, seconds: float) -> dict[str, Any]:
        """The state that ends a run; the last one seen when it has not ended in time."""
        deadline = time.monotonic() + seconds
        state = self.state(run_id)
        while state["type"] not in ENDED and time.monotonic() < deadline:
            time.sleep(0.25)
            state = self.state(run_id)
        return state

    def artifacts(self, run_id: str) -> list[dict[str, Any]]:
        """What a run left on its page."""
        query = {"artifacts": {"flow_run_id": {"any_": [run_id]}}, "limit": 50}
        answer: list[dict[str, Any]] = self.ask("POST", "/artifacts/filter", query)
        return answer

    def pid_of(self, module: str) -> int:
        """The child process that runs a module, such as `prefect`."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for child in map(int, children):
            if module in Path(f"/proc/{child}/cmdline").read_text().split("\0"):
                return child
        raise LookupError(f"no child of `serve` runs {module}")

    def pids_of_runs(self) -> list[int]:
        """Processes of the live runs."""
        folder = self.workspace / ".server" / "live"
        names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
        notes = ((folder / name).read_text() for name in names if is_alive(folder, name))
        return [int(note.split('"pid": ')[1].split(",")[0]) for note in notes]

    def kill_everything(self) -> None:
        """Kill -9 of `serve`, server, worker and runs, all at once."""
        modules = ("flows.server.app", "prefect")
        pids = [self.process.pid, *map(self.pid_of, modules), *self.pids_of_runs()]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.process.wait()


def start_serving(workspace: Path, port: int | None = None, data: Sequence[Path] = ()) -> Served:
    """Start it and wait until it says that it is ready. Raises RuntimeError with its output.

    data: folders beside the workspace that runs may read.
    """
    port, started, seen = port or free_port(), time.monotonic(), ""
    command = [sys.executable, "-m", "flows.cli.main", "serve", "-w", str(workspace)]
    for folder in data:
        command += ["--data", str(folder)]
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    for line in process.stdout or ():
        seen += line
        if "Ctrl-C" in line:
            return Served(workspace, port, process, time.monotonic() - started)
        if time.monotonic() - started > START_S:
            break
    process.kill()
    raise RuntimeError(f"serve did not start:\n{seen}")


@contextmanager
def serving(workspace: Path) -> Iterator[Served]:
    """`saelect serve` on a free port, ended by Ctrl-C."""
    server = start_serving(workspace)
    try:
        yield server
    finally:
        stop_serving(server)


def stop_serving(server: Served) -> None:
    """Ctrl-C."""
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGINT)
        server.process.communicate(timeout=60)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
