"""`saelect serve`: server, pages, worker and deployments under one roof, and one Ctrl-C."""

import getpass
import signal
import socket
import threading
import time
from pathlib import Path
from types import FrameType

import httpx

from flows.orchestration.terminal import say
from flows.server.liveness import live_runs, reconcile, stop
from flows.server.processes import Child
from flows.server.settings import LOOPBACK, POOL_NAME, Place, environment
from selection.core.errors import InputError
from storage.files import locks
from storage.files.workspace import open_workspace

START_SECONDS = 180.0
WATCH_SECONDS = 5.0
CHECK_SECONDS = 0.5


def serve(
    workspace: Path, *, host: str, port: int, password: str | None, runs_at_once: int
) -> None:
    """Run everything until Ctrl-C or SIGTERM.

    Raises InputError for a taken port, a missing password, and a second server of a workspace.
    """
    place = Place(open_workspace(workspace), host, port, password or None, runs_at_once)
    refuse_open_door(host, password)
    refuse_taken_port(host, port)
    place.live.mkdir(parents=True, exist_ok=True)
    with locks.held(place.folder / "serve", 2.0):
        _Serving(place).run()


def refuse_open_door(host: str, password: str | None) -> None:
    """Whoever reaches the server can run code on this machine; the door needs a lock."""
    if host not in LOOPBACK and not password:
        raise InputError(
            "an address that other machines reach needs a password",
            field="--host",
            value=host,
            remedy="Set SAELECT_PASSWORD, or keep 127.0.0.1 and use `ssh -L` from elsewhere.",
        )


def refuse_taken_port(host: str, port: int) -> None:
    """Say who has the port before anything is started."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[
            0
        ]
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

    def __init__(self, place: Place) -> None:
        """Prepare the children; none is started."""
        self.place, self.ended, self.started = place, threading.Event(), time.monotonic()
        variables, folder = environment(place), place.folder
        page = ["flows.server.app", place.host, str(place.port)]
        work = ["flows.server.worker", str(place.runs_at_once)]
        offer = ["flows.server.deployments", str(Path.cwd())]
        self.page = Child("server", page, variables, folder / "server.log")
        self.worker = Child("worker", work, variables, folder / "worker.log")
        self.offer = Child("deployments", offer, variables, folder / "deployments.log")

    def run(self) -> None:
        """Start, say where, watch, and end everything on the way out."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._end)
        say(f"saelect: starting the server for {self.place.workspace.root} ...")
        try:
            if self._start():
                self._say_where()
                self._watch()
        finally:
            self._stop()

    def _end(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.ended.set()

    def client(self) -> httpx.Client:
        """A plain client of the API."""
        auth = ("saelect", self.place.password) if self.place.password else None
        return httpx.Client(base_url=f"{self.place.url}/api", auth=auth, timeout=20)

    def _start(self) -> bool:
        """Server and deployments at once, then reconcile, then the worker."""
        self.page.start()
        self.offer.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._is_healthy():
            self._refuse_dead(self.page)
            if self.ended.wait(0.1):
                return False
            if time.monotonic() > deadline:
                raise self._failure(self.page, "did not answer in time")
        with self.client() as client:
            for line in reconcile(client, self.place.live, POOL_NAME, first=True):
                say(f"  reconciled  {line}")
        while self.offer.process and self.offer.process.poll() is None:
            if self.ended.wait(0.1):
                return False
        if self.offer.process and self.offer.process.returncode:
            raise self._failure(self.offer, "could not be registered")
        self.worker.start()
        return True

    def _is_healthy(self) -> bool:
        try:
            return httpx.get(f"{self.place.url}/api/health", timeout=2).is_success
        except httpx.HTTPError:
            return False

    def _refuse_dead(self, child: Child) -> None:
        if child.process and child.process.poll() is not None:
            raise self._failure(child, f"ended with code {child.process.returncode}")

    def _failure(self, child: Child, problem: str) -> InputError:
        return InputError(
            f"{child.name} {problem}:\n{child.last_words()}",
            file=child.log,
            remedy="The log says more.",
        )

    def _say_where(self) -> None:
        port, here = self.place.port, socket.gethostname()
        say(f"  page        {self.place.url}  (ready in {time.monotonic() - self.started:.0f} s)")
        say(f"  from afar   ssh -L {port}:127.0.0.1:{port} {getpass.getuser()}@{here}"
            f"  then http://localhost:{port}")  # fmt: skip
        say(f"  start       {self.place.url}/deployments, then select-data")
        say(f"  logs        {self.place.folder}/*.log")
        say("  Ctrl-C stops server, worker and runs; a stopped run resumes when it is run again.")

    def _watch(self) -> None:
        """Restart what died and keep states true, until told to end."""
        last = time.monotonic()
        while not self.ended.wait(CHECK_SECONDS):
            for child in (self.page, self.worker):
                code = child.restart_if_dead()
                if code is not None:
                    say(f"  restarted   {child.name} (it had ended with code {code})")
            if time.monotonic() - last > WATCH_SECONDS:
                last = time.monotonic()
                self._reconcile()

    def _reconcile(self, first: bool = False) -> None:
        try:
            with self.client() as client:
                for line in reconcile(client, self.place.live, POOL_NAME, first=first):
                    say(f"  reconciled  {line}")
        except httpx.HTTPError:
            return  # The server is being restarted; the next round will say.

    def _stop(self) -> None:
        """Worker, runs, the truth about them while the server listens, then the server."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        say("\nsaelect: stopping ...")
        self.offer.stop(1.0)
        self.worker.stop()
        for run_id in live_runs(self.place.live):
            stop(self.place.live, run_id, 5.0)
        if self.page.process and self.page.process.poll() is None and self._is_healthy():
            self._reconcile(first=True)
        self.page.stop()
        say("saelect: stopped.")
