"""`saelect serve`: start server, worker and deployments, watch them, end them in order."""

import signal
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from urllib.parse import quote

from flows.orchestration.terminal import say
from flows.server.liveness import live_runs, stop
from flows.server.processes import Child
from flows.server.settings import LOOPBACK, POOL_NAME, ServerSettings, environment
from selection.core.errors import InputError
from storage.files import locks
from storage.files.workspace import open_workspace, user_name

START_SECONDS = 180.0
CHECK_SECONDS = 0.2


def serve(
    workspace: Path,
    *,
    host: str,
    port: int,
    password: str | None,
    runs_at_once: int,
    data: Sequence[Path] = (),
) -> None:
    """Run everything until Ctrl-C or SIGTERM.

    Raises InputError for a taken port, a missing password, and a second server of a workspace.
    """
    settings = ServerSettings(
        open_workspace(workspace), host, port, password or None, runs_at_once, data
    )
    require_password(host, password)
    address = settings.folder / "address"
    try:
        with locks.held(settings.folder / "serve", 2.0):
            refuse_taken_port(host, port)
            address.write_text(settings.url, encoding="utf-8")
            _Serving(settings).run()
    except InputError as error:
        if error.file != settings.folder / "serve":
            raise
        raise InputError(
            f"this workspace is served already, at {address.read_text(encoding='utf-8')}",
            field="--workspace",
            value=str(workspace),
            remedy="Open that address, or end that server first.",
        ) from None


def require_password(host: str, password: str | None) -> None:
    """Refuse an address that other machines reach without a password of the user's own."""
    if host not in LOOPBACK and not password:
        raise InputError(
            "an address that other machines reach needs a password",
            field="--host",
            value=host,
            remedy="Set SAELECT_PASSWORD, or keep 127.0.0.1 and use `ssh -L` from elsewhere.",
        )


def refuse_taken_port(host: str, port: int) -> None:
    """Refuse a port that another program has, before anything is started."""
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, number, _, address = infos[0]
        with socket.socket(family, kind, number) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise InputError(
            f"cannot listen there ({error.strerror or error})",
            field="--port",
            value=f"{host}:{port}",
            remedy=f"Another program has it: end that, or name another, as in --port {port + 1}.",
        ) from None


class _Serving:
    """The running server: its children, and the flag that ends it."""

    def __init__(self, settings: ServerSettings) -> None:
        """Prepare the children; none is started."""
        self.settings, self.ended, self.started = settings, threading.Event(), time.monotonic()
        self.variables, folder = environment(settings), settings.folder
        address = [settings.host, str(settings.port), str(settings.ready)]
        worker = ["start", "--pool", POOL_NAME, "--type", "process", "--install-policy", "never"]
        worker += ["--limit", str(settings.runs_at_once)]
        self.server = Child(
            "server", ["flows.server.app", *address], self.variables, folder / "server.log"
        )
        self.worker = Child(
            "worker", ["prefect", "worker", *worker], self.variables, folder / "worker.log"
        )

    def run(self) -> None:
        """Start, print the address, watch, and end everything on the way out."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._end)
        say(f"saelect: starting the server for {self.settings.workspace.root} ...")
        try:
            if self._start():
                self._print_address()
                self._watch()
        finally:
            self._stop()

    def _end(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.ended.set()

    def _start(self) -> bool:
        """Server with deployments, then the worker; False when told to end meanwhile."""
        ready = self.settings.ready
        ready.unlink(missing_ok=True)
        self.server.start()
        deadline = time.monotonic() + START_SECONDS
        while not ready.exists():
            if self.server.exit_code is not None or time.monotonic() > deadline:
                raise InputError(
                    f"the server did not start (code {self.server.exit_code}):\n"
                    f"{self.server.log_tail()}",
                    file=self.server.log,
                    remedy="The log says more.",
                )
            if self.ended.wait(CHECK_SECONDS):
                return False
        for line in ready.read_text(encoding="utf-8").splitlines():
            say(f"  changed     {line}")
        self.worker.start()
        return True

    def _print_address(self) -> None:
        settings, port, here = self.settings, self.settings.port, socket.gethostname()
        path = "" if settings.password else f"/saelect/login?key={quote(settings.secret)}"
        say(f"  open        {settings.url}{path}")
        say(
            f"  from afar   ssh -L {port}:127.0.0.1:{port} {user_name()}@{here}"
            f"  then http://localhost:{port}{path}"
        )
        say("  start       Deployments, then select-data")
        say(f"  logs        {settings.folder}/*.log")
        say(
            f"  Ready in {time.monotonic() - self.started:.0f} s. Ctrl-C stops everything;"
            " a stopped run resumes when it is run again."
        )

    def _watch(self) -> None:
        """Restart what died, until told to end."""
        while not self.ended.wait(CHECK_SECONDS):
            for child in (self.server, self.worker):
                code = child.restart_if_dead()
                if code is not None:
                    say(f"  restarted   {child.name} (it had ended with code {code})")

    def _stop(self) -> None:
        """Worker and runs, which tell their states while the server answers, then the server."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        say("\nsaelect: stopping ...")
        self.worker.stop()
        for run_id in live_runs(self.settings.live):
            stop(self.settings.live, run_id, 5.0)
        self.server.stop()
        say("saelect: stopped.")
